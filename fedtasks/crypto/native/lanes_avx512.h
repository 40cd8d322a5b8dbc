/* Eight words in a vector of AVX-512. */
#include <immintrin.h>

#define LANES 8
#define BLOCK 10

typedef __m512i vec;

static INLINE vec v_zero(void) { return _mm512_setzero_si512(); }
static INLINE vec v_set(uint64_t word) { return _mm512_set1_epi64((long long)word); }
static INLINE vec v_add(vec a, vec b) { return _mm512_add_epi64(a, b); }
static INLINE vec v_sub(vec a, vec b) { return _mm512_sub_epi64(a, b); }
static INLINE vec v_and(vec a, vec b) { return _mm512_and_si512(a, b); }
static INLINE vec v_or(vec a, vec b) { return _mm512_or_si512(a, b); }
static INLINE vec v_equal(vec a, vec b) { return _mm512_movm_epi64(_mm512_cmpeq_epi64_mask(a, b)); }
static INLINE vec v_carry(vec a) { return _mm512_srli_epi64(a, 52); }

static INLINE __mmask8 first_words(size_t count) { return count < LANES ? (__mmask8)((1u << count) - 1) : 0xff; }
static INLINE vec load_words(const uint64_t *from, size_t count) {
    return _mm512_maskz_loadu_epi64(first_words(count), from);
}
static INLINE void store_words(uint64_t *to, vec words, size_t count) {
    _mm512_mask_storeu_epi64(to, first_words(count), words);
}

static INLINE void transpose(vec r[LANES]) {
    vec t[LANES], u[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 2; i++) {
            u[4 * half + i] = _mm512_shuffle_i64x2(t[4 * half + i], t[4 * half + i + 2], 0x88);
            u[4 * half + i + 2] = _mm512_shuffle_i64x2(t[4 * half + i], t[4 * half + i + 2], 0xdd);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i64x2(u[i], u[i + 4], 0x88);
        r[i + 4] = _mm512_shuffle_i64x2(u[i], u[i + 4], 0xdd);
    }
}
