/* SHA-256, SHA-384 and SHA-512 over many rows, one in plain C, four or eight at once in AVX2, or eight or sixteen in
 * AVX-512.
 *
 * The two hashes are one structure over words of 32 and 64 bits (FIPS 180-4 sections 6.2 and 6.4), so their compression
 * is written once and made six times, over the operations of a word or of a vector of words, a lane for each row. A
 * lane whose row ends takes the next row at once: rows of unequal length keep all lanes busy.
 */
#include "hash_rows.h"

#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_VECTORS
#include <immintrin.h>
#endif

/* Where GCC knows how long a copy can be, it makes string instructions of it, which cost more than all the rest. */
#if defined(__clang__)
#define NO_CLONES __attribute__((noinline))
#else
#define NO_CLONES __attribute__((noipa))
#endif

#define MAX_LANES 16
#define MAX_BLOCK 128
#define LANES_BYTES 1024 /* blocks of all lanes: sixteen of SHA-256, eight of SHA-512 */

static const uint32_t CONSTANTS_256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static const uint64_t CONSTANTS_512[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

/* Initial values; those of SHA-256 stand in the low halves. */
static const uint64_t START_256[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};
static const uint64_t START_384[8] = {
    0xcbbb9d5dc1059ed8, 0x629a292a367cd507, 0x9159015a3070dd17, 0x152fecd8f70e5939,
    0x67332667ffc00b31, 0x8eb44a8768581511, 0xdb0c2e0d64f98fa7, 0x47b5481dbefa4fa4,
};
static const uint64_t START_512[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

/* X##_compress takes a block of each lane into the state, of which word i of lane l stands at state[i * LANES + l]. */
#define ROUND(X, t, a, b, c, d, e, f, g, h)                                                                            \
    h = X##_add(X##_add(h, X##_add(X##_constant(at + (t)), w[t])), X##_add(X##_sum1(e), X##_choose(e, f, g)));         \
    d = X##_add(d, h);                                                                                                 \
    h = X##_add(h, X##_add(X##_sum0(a), X##_majority(a, b, c)));

#define EXTEND(X, t)                                                                                                   \
    w[t] = X##_add(X##_add(w[t], w[((t) + 9) % 16]), X##_add(X##_sigma0(w[((t) + 1) % 16]),                            \
                                                              X##_sigma1(w[((t) + 14) % 16])));

#define EIGHT_ROUNDS(X, t)                                                                                             \
    ROUND(X, (t) + 0, a, b, c, d, e, f, g, h)                                                                          \
    ROUND(X, (t) + 1, h, a, b, c, d, e, f, g)                                                                          \
    ROUND(X, (t) + 2, g, h, a, b, c, d, e, f)                                                                          \
    ROUND(X, (t) + 3, f, g, h, a, b, c, d, e)                                                                          \
    ROUND(X, (t) + 4, e, f, g, h, a, b, c, d)                                                                          \
    ROUND(X, (t) + 5, d, e, f, g, h, a, b, c)                                                                          \
    ROUND(X, (t) + 6, c, d, e, f, g, h, a, b)                                                                          \
    ROUND(X, (t) + 7, b, c, d, e, f, g, h, a)

#define DEFINE_COMPRESS(X, WORDS, ROUNDS)                                                                              \
    static void X##_compress(void *state, const uint8_t *blocks) {                                                     \
        WORDS *s = state, w[16];                                                                                       \
        WORDS a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];                          \
        X##_load(w, blocks);                                                                                           \
        for (int at = 0;;) {                                                                                           \
            EIGHT_ROUNDS(X, 0)                                                                                         \
            EIGHT_ROUNDS(X, 8)                                                                                         \
            if ((at += 16) == ROUNDS) break;                                                                           \
            EXTEND(X, 0) EXTEND(X, 1) EXTEND(X, 2) EXTEND(X, 3)                                                        \
            EXTEND(X, 4) EXTEND(X, 5) EXTEND(X, 6) EXTEND(X, 7)                                                        \
            EXTEND(X, 8) EXTEND(X, 9) EXTEND(X, 10) EXTEND(X, 11)                                                      \
            EXTEND(X, 12) EXTEND(X, 13) EXTEND(X, 14) EXTEND(X, 15)                                                    \
        }                                                                                                              \
        s[0] = X##_add(s[0], a), s[1] = X##_add(s[1], b), s[2] = X##_add(s[2], c), s[3] = X##_add(s[3], d);            \
        s[4] = X##_add(s[4], e), s[5] = X##_add(s[5], f), s[6] = X##_add(s[6], g), s[7] = X##_add(s[7], h);            \
    }

static inline uint64_t big_endian(uint64_t word) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_bswap64(word);
#else
    return word;
#endif
}

/* Words of up to eight bytes, big-endian. */
static inline uint64_t load_word(const uint8_t *from, size_t n_bytes) {
    uint64_t word = 0;
    memcpy(&word, from, n_bytes);
    return big_endian(word) >> (64 - 8 * n_bytes);
}

static inline void store_word(uint8_t *to, uint64_t word, size_t n_bytes) {
    word = big_endian(word << (64 - 8 * n_bytes));
    memcpy(to, &word, n_bytes);
}

#define DEFINE_SCALAR(X, WORD, BITS)                                                                                   \
    static inline WORD X##_add(WORD a, WORD b) { return a + b; }                                                       \
    static inline WORD X##_choose(WORD e, WORD f, WORD g) { return g ^ (e & (f ^ g)); }                                \
    static inline WORD X##_majority(WORD a, WORD b, WORD c) { return (a & b) | (c & (a | b)); }                        \
    static inline WORD X##_turn(WORD a, int n) { return a >> n | a << (BITS - n); }                                    \
    static inline WORD X##_constant(int t) { return CONSTANTS_##BITS[t]; }                                             \
    static inline void X##_load(WORD *w, const uint8_t *block) {                                                       \
        for (size_t i = 0; i < 16; i++) w[i] = (WORD)load_word(block + i * sizeof(WORD), sizeof(WORD));                \
    }

#define CONSTANTS_32 CONSTANTS_256
#define CONSTANTS_64 CONSTANTS_512

DEFINE_SCALAR(c32, uint32_t, 32)
static inline uint32_t c32_sum0(uint32_t a) { return c32_turn(a, 2) ^ c32_turn(a, 13) ^ c32_turn(a, 22); }
static inline uint32_t c32_sum1(uint32_t e) { return c32_turn(e, 6) ^ c32_turn(e, 11) ^ c32_turn(e, 25); }
static inline uint32_t c32_sigma0(uint32_t w) { return c32_turn(w, 7) ^ c32_turn(w, 18) ^ w >> 3; }
static inline uint32_t c32_sigma1(uint32_t w) { return c32_turn(w, 17) ^ c32_turn(w, 19) ^ w >> 10; }
DEFINE_COMPRESS(c32, uint32_t, 64)

DEFINE_SCALAR(c64, uint64_t, 64)
static inline uint64_t c64_sum0(uint64_t a) { return c64_turn(a, 28) ^ c64_turn(a, 34) ^ c64_turn(a, 39); }
static inline uint64_t c64_sum1(uint64_t e) { return c64_turn(e, 14) ^ c64_turn(e, 18) ^ c64_turn(e, 41); }
static inline uint64_t c64_sigma0(uint64_t w) { return c64_turn(w, 1) ^ c64_turn(w, 8) ^ w >> 7; }
static inline uint64_t c64_sigma1(uint64_t w) { return c64_turn(w, 19) ^ c64_turn(w, 61) ^ w >> 6; }
DEFINE_COMPRESS(c64, uint64_t, 80)

#ifdef HAS_VECTORS

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define SPREAD_32(n) _mm256_set1_epi32((int)(n))
#define SPREAD_64(n) _mm256_set1_epi64x((long long)(n))

/* Macros, as instructions hold the distance. */
#define SHORT_TURN(LANE, BITS, a, n) _mm256_or_si256(_mm256_srli_##LANE(a, n), _mm256_slli_##LANE(a, (BITS) - (n)))
#define SHORT_TURNED(LANE, BITS, a, i, j, k)                                                                           \
    _mm256_xor_si256(_mm256_xor_si256(SHORT_TURN(LANE, BITS, a, i), SHORT_TURN(LANE, BITS, a, j)),                     \
                     SHORT_TURN(LANE, BITS, a, k))
#define SHORT_SHIFTED(LANE, BITS, a, i, j, k)                                                                          \
    _mm256_xor_si256(_mm256_xor_si256(SHORT_TURN(LANE, BITS, a, i), SHORT_TURN(LANE, BITS, a, j)),                     \
                     _mm256_srli_##LANE(a, k))

#define DEFINE_SHORT_VECTOR(X, LANE, BITS, HASH)                                                                       \
    static inline __m256i X##_add(__m256i a, __m256i b) { return _mm256_add_##LANE(a, b); }                            \
    static inline __m256i X##_choose(__m256i e, __m256i f, __m256i g) {                                                \
        return _mm256_xor_si256(g, _mm256_and_si256(e, _mm256_xor_si256(f, g)));                                       \
    }                                                                                                                  \
    static inline __m256i X##_majority(__m256i a, __m256i b, __m256i c) {                                              \
        return _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)));                    \
    }                                                                                                                  \
    static inline __m256i X##_constant(int t) { return SPREAD_##BITS(CONSTANTS_##HASH[t]); }

DEFINE_SHORT_VECTOR(s32, epi32, 32, 256)
static inline __m256i s32_sum0(__m256i a) { return SHORT_TURNED(epi32, 32, a, 2, 13, 22); }
static inline __m256i s32_sum1(__m256i e) { return SHORT_TURNED(epi32, 32, e, 6, 11, 25); }
static inline __m256i s32_sigma0(__m256i w) { return SHORT_SHIFTED(epi32, 32, w, 7, 18, 3); }
static inline __m256i s32_sigma1(__m256i w) { return SHORT_SHIFTED(epi32, 32, w, 17, 19, 10); }

/* Loads a block of 64 bytes for each of eight lanes: vector i of `w` is word i of all blocks. */
static inline void s32_load(__m256i *w, const uint8_t *blocks) {
    const __m256i reversed = _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203));
    const __m256i lanes = _mm256_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112);
    for (int i = 0; i < 16; i++) {
        const __m256i words = _mm256_i32gather_epi32((const int *)(const void *)(blocks + 4 * i), lanes, 4);
        w[i] = _mm256_shuffle_epi8(words, reversed);
    }
}

DEFINE_COMPRESS(s32, __m256i, 64)

DEFINE_SHORT_VECTOR(s64, epi64, 64, 512)
static inline __m256i s64_sum0(__m256i a) { return SHORT_TURNED(epi64, 64, a, 28, 34, 39); }
static inline __m256i s64_sum1(__m256i e) { return SHORT_TURNED(epi64, 64, e, 14, 18, 41); }
static inline __m256i s64_sigma0(__m256i w) { return SHORT_SHIFTED(epi64, 64, w, 1, 8, 7); }
static inline __m256i s64_sigma1(__m256i w) { return SHORT_SHIFTED(epi64, 64, w, 19, 61, 6); }

/* Loads a block of 128 bytes for each of four lanes: vector i of `w` is word i of all blocks. */
static inline void s64_load(__m256i *w, const uint8_t *blocks) {
    const __m256i reversed = _mm256_broadcastsi128_si256(_mm_set_epi32(0x08090a0b, 0x0c0d0e0f, 0x00010203, 0x04050607));
    const __m256i lanes = _mm256_setr_epi64x(0, 16, 32, 48);
    for (int i = 0; i < 16; i++) {
        const __m256i words = _mm256_i64gather_epi64((const long long *)(const void *)(blocks + 8 * i), lanes, 8);
        w[i] = _mm256_shuffle_epi8(words, reversed);
    }
}

DEFINE_COMPRESS(s64, __m256i, 80)

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw")
#endif

typedef __m512i vector;

#define DEFINE_VECTOR(X, LANE, BITS)                                                                                   \
    static inline vector X##_add(vector a, vector b) { return _mm512_add_##LANE(a, b); }                               \
    static inline vector X##_choose(vector e, vector f, vector g) {                                                    \
        return _mm512_ternarylogic_##LANE(e, f, g, 0xca);                                                              \
    }                                                                                                                  \
    static inline vector X##_majority(vector a, vector b, vector c) {                                                  \
        return _mm512_ternarylogic_##LANE(a, b, c, 0xe8);                                                              \
    }                                                                                                                  \
    static inline vector X##_constant(int t) { return _mm512_set1_##LANE(CONSTANTS_##BITS[t]); }

/* Exclusive or of three turned words, or of two and a shifted one; macros, as instructions hold the distance. */
#define TURNED(LANE, a, i, j, k)                                                                                       \
    _mm512_ternarylogic_##LANE(_mm512_ror_##LANE(a, i), _mm512_ror_##LANE(a, j), _mm512_ror_##LANE(a, k), 0x96)
#define SHIFTED(LANE, a, i, j, k)                                                                                      \
    _mm512_ternarylogic_##LANE(_mm512_ror_##LANE(a, i), _mm512_ror_##LANE(a, j), _mm512_srli_##LANE(a, k), 0x96)

/* Makes columns of a square of 4 x 4 quarters of vectors: out[i] is the i-th quarters of a, b, c and d. */
static inline void transpose_quarters(vector *out, size_t step, vector a, vector b, vector c, vector d) {
    const vector ab_low = _mm512_shuffle_i64x2(a, b, 0x44), ab_high = _mm512_shuffle_i64x2(a, b, 0xee);
    const vector cd_low = _mm512_shuffle_i64x2(c, d, 0x44), cd_high = _mm512_shuffle_i64x2(c, d, 0xee);
    out[0 * step] = _mm512_shuffle_i64x2(ab_low, cd_low, 0x88);
    out[1 * step] = _mm512_shuffle_i64x2(ab_low, cd_low, 0xdd);
    out[2 * step] = _mm512_shuffle_i64x2(ab_high, cd_high, 0x88);
    out[3 * step] = _mm512_shuffle_i64x2(ab_high, cd_high, 0xdd);
}

DEFINE_VECTOR(v32, epi32, 32)
static inline vector v32_sum0(vector a) { return TURNED(epi32, a, 2, 13, 22); }
static inline vector v32_sum1(vector e) { return TURNED(epi32, e, 6, 11, 25); }
static inline vector v32_sigma0(vector w) { return SHIFTED(epi32, w, 7, 18, 3); }
static inline vector v32_sigma1(vector w) { return SHIFTED(epi32, w, 17, 19, 10); }

/* Loads a block of 64 bytes for each of sixteen lanes: vector i of `w` is word i of all blocks. */
static inline void v32_load(vector *w, const uint8_t *blocks) {
    const vector reversed = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203));
    vector quads[16]; /* of lanes 4q to 4q + 3: words 0, 4, 8, 12 in quads[q], words 1, 5, 9, 13 in quads[q + 4], ... */
    for (size_t q = 0; q < 4; q++) {
        vector row[4];
        for (size_t i = 0; i < 4; i++) {
            row[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(blocks + 64 * (4 * q + i)), reversed);
        }
        const vector low01 = _mm512_unpacklo_epi32(row[0], row[1]), high01 = _mm512_unpackhi_epi32(row[0], row[1]);
        const vector low23 = _mm512_unpacklo_epi32(row[2], row[3]), high23 = _mm512_unpackhi_epi32(row[2], row[3]);
        quads[q] = _mm512_unpacklo_epi64(low01, low23), quads[q + 4] = _mm512_unpackhi_epi64(low01, low23);
        quads[q + 8] = _mm512_unpacklo_epi64(high01, high23), quads[q + 12] = _mm512_unpackhi_epi64(high01, high23);
    }
    for (size_t i = 0; i < 4; i++) {
        const vector *from = quads + 4 * i;
        transpose_quarters(w + i, 4, from[0], from[1], from[2], from[3]);
    }
}

DEFINE_COMPRESS(v32, vector, 64)

DEFINE_VECTOR(v64, epi64, 64)
static inline vector v64_sum0(vector a) { return TURNED(epi64, a, 28, 34, 39); }
static inline vector v64_sum1(vector e) { return TURNED(epi64, e, 14, 18, 41); }
static inline vector v64_sigma0(vector w) { return SHIFTED(epi64, w, 1, 8, 7); }
static inline vector v64_sigma1(vector w) { return SHIFTED(epi64, w, 19, 61, 6); }

/* Loads a block of 128 bytes for each of eight lanes: vector i of `w` is word i of all blocks. */
static inline void v64_load(vector *w, const uint8_t *blocks) {
    const vector reversed = _mm512_broadcast_i32x4(_mm_set_epi32(0x08090a0b, 0x0c0d0e0f, 0x00010203, 0x04050607));
    for (size_t half = 0; half < 2; half++) {
        vector even[4], odd[4]; /* for lanes 2p and 2p + 1: words 0, 2, 4, 6 and 1, 3, 5, 7 of the half */
        for (size_t p = 0; p < 4; p++) {
            const uint8_t *from = blocks + 256 * p + 64 * half;
            const vector first = _mm512_shuffle_epi8(_mm512_loadu_si512(from), reversed);
            const vector second = _mm512_shuffle_epi8(_mm512_loadu_si512(from + 128), reversed);
            even[p] = _mm512_unpacklo_epi64(first, second), odd[p] = _mm512_unpackhi_epi64(first, second);
        }
        transpose_quarters(w + 8 * half, 2, even[0], even[1], even[2], even[3]);
        transpose_quarters(w + 8 * half + 1, 2, odd[0], odd[1], odd[2], odd[3]);
    }
}

DEFINE_COMPRESS(v64, vector, 80)

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

/* Eight words of each lane; aligned for vectors. */
typedef union {
    _Alignas(64) uint32_t narrow[8 * MAX_LANES];
    uint64_t wide[4 * MAX_LANES];
} states;

/* How words are compressed; `plain` takes a block into the state of a single lane. */
typedef struct {
    size_t word_bytes, lanes;
    void (*compress)(void *state, const uint8_t *blocks);
    void (*plain)(void *state, const uint8_t *block);
} compression;

/* Where a row is read: `taken` bytes so far, the next one at byte `at` of part `part`. */
typedef struct {
    size_t row, part, at;
    uint64_t taken;
    int marked; /* whether the bit behind the last byte is written */
} cursor;

static inline void set_state(states *to, const compression *of, size_t lane, const uint64_t *words) {
    for (size_t i = 0; i < 8; i++) {
        if (of->word_bytes == 4) to->narrow[i * of->lanes + lane] = (uint32_t)words[i];
        else to->wide[i * of->lanes + lane] = words[i];
    }
}

static inline uint64_t get_word(const states *from, const compression *of, size_t lane, size_t i) {
    return of->word_bytes == 4 ? from->narrow[i * of->lanes + lane] : from->wide[i * of->lanes + lane];
}

/* Writes the next block of a row, of 64 or 128 bytes; returns whether it is the last one. */
NO_CLONES static int next_block(cursor *from, const fedtasks_hash_part *parts, size_t n_parts, uint8_t *block,
                                size_t block_bytes) {
    size_t have = 0;
    while (from->part < n_parts && have < block_bytes) {
        const fedtasks_hash_part *part = parts + from->part;
        const uint8_t *data = part->data;
        uint8_t length[8];
        size_t width = part->width;
        if (!part->offsets) {
            data += from->row * part->step;
        } else {
            const int64_t start = part->offsets[from->row];
            width = (size_t)(part->offsets[from->row + 1] - start);
            if (part->length_bytes) {
                store_word(length, width, part->length_bytes);
                width = part->length_bytes;
                data = length;
            } else {
                data += start;
            }
        }
        const size_t room = block_bytes - have;
        const size_t left = width - from->at;
        const size_t n = left < room ? left : room;
        if (n) memcpy(block + have, data + from->at, n);
        have += n;
        from->at += n;
        if (from->at == width) from->part++, from->at = 0;
    }
    from->taken += have;
    if (have == block_bytes) return 0;
    if (!from->marked) block[have++] = 0x80;
    from->marked = 1;
    memset(block + have, 0, block_bytes - have);
    /* The length takes an eighth of a block, of which eight bytes suffice. */
    if (have > block_bytes - block_bytes / 8) return 0;
    store_word(block + block_bytes - 8, from->taken * 8, 8);
    return 1;
}

/* Hashes the whole blocks that all rows begin with; the state's words go to `words`. Returns where rows go on. */
static cursor skip_constant(uint64_t *words, const compression *of, const fedtasks_hash_part *parts, size_t n_parts) {
    const size_t block_bytes = 16 * of->word_bytes;
    const compression single = {of->word_bytes, 1, of->plain, of->plain};
    states state;
    uint8_t block[MAX_BLOCK];
    size_t constant = 0;
    for (size_t i = 0; i < n_parts && !parts[i].offsets && !parts[i].step; i++) constant += parts[i].width;
    cursor from = {0};
    set_state(&state, &single, 0, words);
    for (; constant >= block_bytes; constant -= block_bytes) {
        next_block(&from, parts, n_parts, block, block_bytes);
        of->plain(&state, block);
    }
    for (size_t i = 0; i < 8; i++) words[i] = get_word(&state, &single, 0, i);
    return from;
}

/* Inlined, so that the widths of words and digests are constants in it. */
__attribute__((always_inline)) static inline void hash_range(const compression *of, const uint64_t *initial,
                                                             size_t digest_bytes, uint8_t *out,
                                                             const fedtasks_hash_part *parts, size_t n_parts,
                                                             size_t next, size_t end) {
    const size_t lanes = of->lanes, word_bytes = of->word_bytes, block_bytes = 16 * word_bytes;
    states state;
    _Alignas(64) uint8_t blocks[LANES_BYTES] = {0};
    cursor cursors[MAX_LANES];
    int last[MAX_LANES];
    uint64_t words[8];
    memcpy(words, initial, sizeof words);
    const cursor start = skip_constant(words, of, parts, n_parts);
    size_t busy = 0; /* how many lanes have a row; the others go on with what stands in them, to no effect */
    for (size_t lane = 0; lane < lanes; lane++) {
        cursors[lane] = start;
        cursors[lane].row = next < end ? next++ : end;
        busy += cursors[lane].row < end;
        set_state(&state, of, lane, words);
    }
    while (busy) {
        for (size_t lane = 0; lane < lanes; lane++) {
            last[lane] = cursors[lane].row < end &&
                         next_block(cursors + lane, parts, n_parts, blocks + lane * block_bytes, block_bytes);
        }
        of->compress(&state, blocks);
        for (size_t lane = 0; lane < lanes; lane++) {
            if (!last[lane]) continue;
            uint8_t *to = out + cursors[lane].row * digest_bytes;
            for (size_t i = 0; i < digest_bytes / word_bytes; i++) {
                store_word(to + i * word_bytes, get_word(&state, of, lane, i), word_bytes);
            }
            cursors[lane] = start;
            cursors[lane].row = next < end ? next++ : end;
            busy -= cursors[lane].row == end;
            set_state(&state, of, lane, words);
        }
    }
}

int fedtasks_hash_works(size_t kernel) {
#ifdef HAS_VECTORS
    if (kernel == FEDTASKS_HASH_AVX2) return __builtin_cpu_supports("avx2");
    if (kernel == FEDTASKS_HASH_AVX512) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
#endif
    return kernel == FEDTASKS_HASH_PLAIN;
}

int fedtasks_hash_rows(size_t kernel, size_t digest_bytes, uint8_t *out, const fedtasks_hash_part *parts,
                       size_t n_parts, size_t first, size_t end) {
    if (!fedtasks_hash_works(kernel) || (digest_bytes != 32 && digest_bytes != 48 && digest_bytes != 64)) return -1;
    if (first >= end) return 0; /* an empty column has no memory, whatever its step is */
    compression of32 = {4, 1, c32_compress, c32_compress}, of64 = {8, 1, c64_compress, c64_compress};
#ifdef HAS_VECTORS
    if (kernel == FEDTASKS_HASH_AVX2) {
        of32.lanes = 8, of32.compress = s32_compress;
        of64.lanes = 4, of64.compress = s64_compress;
    }
    if (kernel == FEDTASKS_HASH_AVX512) {
        of32.lanes = 16, of32.compress = v32_compress;
        of64.lanes = 8, of64.compress = v64_compress;
    }
#endif
    if (digest_bytes == 32) hash_range(&of32, START_256, 32, out, parts, n_parts, first, end);
    else if (digest_bytes == 48) hash_range(&of64, START_384, 48, out, parts, n_parts, first, end);
    else hash_range(&of64, START_512, 64, out, parts, n_parts, first, end);
    return 0;
}
