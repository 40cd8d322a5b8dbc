/* Modular arithmetic in four lanes of AVX2 and FMA, which nearly every x86 processor has. */
#include "kernels.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#include <immintrin.h>

#define KERNEL avx2
#define LANES 4
#define BLOCK 5 /* so that two blocks of sums leave six of sixteen registers */

typedef __m256i vec;
typedef __m256d factor;

static INLINE vec v_zero(void) { return _mm256_setzero_si256(); }
static INLINE vec v_set(uint64_t word) { return _mm256_set1_epi64x((long long)word); }
static INLINE vec v_add(vec a, vec b) { return _mm256_add_epi64(a, b); }
static INLINE vec v_sub(vec a, vec b) { return _mm256_sub_epi64(a, b); }
static INLINE vec v_and(vec a, vec b) { return _mm256_and_si256(a, b); }
static INLINE vec v_or(vec a, vec b) { return _mm256_or_si256(a, b); }
static INLINE vec v_equal(vec a, vec b) { return _mm256_cmpeq_epi64(a, b); }
static INLINE vec v_carry(vec a) { return _mm256_srli_epi64(a, 52); }

static INLINE vec first_words(size_t count) {
    return _mm256_cmpgt_epi64(v_set(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
static INLINE vec load_words(const uint64_t *from, size_t count) {
    return _mm256_maskload_epi64((const long long *)from, first_words(count));
}
static INLINE void store_words(uint64_t *to, vec words, size_t count) {
    _mm256_maskstore_epi64((long long *)to, first_words(count), words);
}

static INLINE void transpose(vec r[LANES]) {
    vec a = _mm256_unpacklo_epi64(r[0], r[1]), b = _mm256_unpackhi_epi64(r[0], r[1]);
    vec c = _mm256_unpacklo_epi64(r[2], r[3]), d = _mm256_unpackhi_epi64(r[2], r[3]);
    r[0] = _mm256_permute2x128_si256(a, c, 0x20);
    r[1] = _mm256_permute2x128_si256(b, d, 0x20);
    r[2] = _mm256_permute2x128_si256(a, c, 0x31);
    r[3] = _mm256_permute2x128_si256(b, d, 0x31);
}

static INLINE factor d_set(double number) { return _mm256_set1_pd(number); }
static INLINE factor d_sub(factor a, factor b) { return _mm256_sub_pd(a, b); }
static INLINE factor d_fma(factor a, factor b, factor sum) { return _mm256_fmadd_pd(a, b, sum); }
static INLINE vec d_bits(factor a) { return _mm256_castpd_si256(a); }
static INLINE factor d_of_bits(vec bits) { return _mm256_castsi256_pd(bits); }

#include "fma_products.h"

#include "modular_lanes.h"

int fedtasks_avx2_works(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

int fedtasks_avx2_works(void) { return 0; }

#endif
