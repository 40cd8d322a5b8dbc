/* Modular arithmetic in eight lanes of AVX-512 without IFMA, as Intel's servers had it before Ice Lake. */
#include "kernels.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq")
#endif

#define KERNEL avx512

#include "lanes_avx512.h"

typedef __m512d factor;

static INLINE factor d_set(double number) { return _mm512_set1_pd(number); }
static INLINE factor d_sub(factor a, factor b) { return _mm512_sub_pd(a, b); }
static INLINE factor d_fma(factor a, factor b, factor sum) { return _mm512_fmadd_pd(a, b, sum); }
static INLINE vec d_bits(factor a) { return _mm512_castpd_si512(a); }
static INLINE factor d_of_bits(vec bits) { return _mm512_castsi512_pd(bits); }

#include "fma_products.h"

#include "modular_lanes.h"

int fedtasks_avx512_works(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

int fedtasks_avx512_works(void) { return 0; }

#endif
