/* The group in eight lanes of AVX512-IFMA, with the instructions computed lane by lane, so that its code can be tested
 * on processors that do not have them. */
#include <immintrin.h>
#include <stdint.h>

typedef uint64_t vector512 __attribute__((vector_size(64)));

#define EACH_LANE for (int lane = 0; lane < 8; lane++)
#define EMULATED static __attribute__((noinline))

EMULATED __m512i lanes_of(vector512 a) { return (__m512i)a; }

EMULATED __m512i emulated_set(long long word) {
    vector512 r;
    EACH_LANE r[lane] = (uint64_t)word;
    return lanes_of(r);
}

EMULATED __m512i emulated_load(const void *from) {
    vector512 r;
    __builtin_memcpy(&r, from, sizeof r);
    return lanes_of(r);
}

EMULATED void emulated_store(void *to, __m512i a) { __builtin_memcpy(to, &a, sizeof a); }

EMULATED __m512i emulated_madd(__m512i sum, __m512i a, __m512i b, int high) {
    vector512 r = (vector512)sum, x = (vector512)a, y = (vector512)b;
    EACH_LANE {
        const uint64_t mask = (1ULL << 52) - 1;
        unsigned __int128 product = (unsigned __int128)(x[lane] & mask) * (y[lane] & mask);
        r[lane] += high ? (uint64_t)(product >> 52) : (uint64_t)product & mask;
    }
    return lanes_of(r);
}

EMULATED __m512i emulated_select(__m512i no, unsigned mask, __m512i yes) {
    vector512 r = (vector512)no, y = (vector512)yes;
    EACH_LANE if (mask >> lane & 1) r[lane] = y[lane];
    return lanes_of(r);
}

/* Bit by bit: a equals b. */
EMULATED __mmask8 emulated_equal(__m512i a, __m512i b) {
    vector512 x = (vector512)a, y = (vector512)b;
    unsigned mask = 0;
    EACH_LANE mask |= (unsigned)(x[lane] == y[lane]) << lane;
    return (__mmask8)mask;
}

EMULATED __m512i emulated_unpack(__m512i a, __m512i b, int odd) {
    vector512 x = (vector512)a, y = (vector512)b, r;
    for (int pair = 0; pair < 8; pair += 2) r[pair] = x[pair + odd], r[pair + 1] = y[pair + odd];
    return lanes_of(r);
}

EMULATED __m512i emulated_shuffle(__m512i a, __m512i b, int control) {
    vector512 x = (vector512)a, y = (vector512)b, r;
    EACH_LANE {
        int from = (control >> (lane / 2 * 2) & 3) * 2 + lane % 2;
        r[lane] = lane < 4 ? x[from] : y[from];
    }
    return lanes_of(r);
}

#define _mm512_add_epi64(a, b) lanes_of((vector512)(a) + (vector512)(b))
#define _mm512_sub_epi64(a, b) lanes_of((vector512)(a) - (vector512)(b))
#define _mm512_and_si512(a, b) lanes_of((vector512)(a) & (vector512)(b))
#define _mm512_or_si512(a, b) lanes_of((vector512)(a) | (vector512)(b))
#undef _mm512_slli_epi64
#undef _mm512_srli_epi64
#undef _mm512_cmpeq_epi64_mask
#undef _mm512_shuffle_i64x2
#define _mm512_slli_epi64(a, bits) lanes_of((vector512)(a) << (bits))
#define _mm512_srli_epi64(a, bits) lanes_of((vector512)(a) >> (bits))
#define _mm512_set1_epi64 emulated_set
#define _mm512_setzero_si512() emulated_set(0)
#define _mm512_loadu_si512 emulated_load
#define _mm512_storeu_si512 emulated_store
#define _mm512_madd52lo_epu64(sum, a, b) emulated_madd(sum, a, b, 0)
#define _mm512_madd52hi_epu64(sum, a, b) emulated_madd(sum, a, b, 1)
#define _mm512_mask_mov_epi64 emulated_select
#define _mm512_cmpeq_epi64_mask emulated_equal
#define _mm512_movepi64_mask(a) emulated_equal(_mm512_srli_epi64(a, 63), emulated_set(1))
#define _mm512_testn_epi64_mask(a, b) emulated_equal(_mm512_and_si512(a, b), emulated_set(0))
#define _mm512_test_epi64_mask(a, b) ((__mmask8)~_mm512_testn_epi64_mask(a, b))
#define _mm512_unpacklo_epi64(a, b) emulated_unpack(a, b, 0)
#define _mm512_unpackhi_epi64(a, b) emulated_unpack(a, b, 1)
#define _mm512_shuffle_i64x2 emulated_shuffle

#define KERNEL ifma

#include "field25519_ifma.h"

#include "ristretto_lanes.h"

int fedtasks_ristretto_ifma_works(void) { return 1; }

#include "ristretto_scalars.c"
