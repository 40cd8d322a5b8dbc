/* Four numbers modulo p = 2^255 - 19 at once, one in each lane of AVX2, by fused multiply-add of doubles.
 *
 * A number is five limbs of 51 bits, each a whole number with a sign. Three states, told apart by types and names:
 *   fe     carried: doubles, every limb at most 2^50 + 2^14 in size.
 *   loose  an fe too, but the sum or difference of two of them: limbs at most 2^51 + 2^15. Of the two factors of a
 *          product one may be loose.
 *   wide   sums of products before they are carried: integers, limbs below 2^61 in size. Limbs of a product are below
 *          2^58, so that a few may be added first.
 * Rounded to nearest, a * b + 3 * 2^102 has the product's multiple of 2^51 as its mantissa: |a * b| is at most 2^102, so
 * that the exponent is always the same. What that leaves of the product, plus 3 * 2^51, has the rest, with its sign.
 * Their bits are added to the sums as they are, and the exponents are taken off as often as that was done. (See also
 * fma_products.h, of unsigned limbs of 52 bits.)
 *
 * Nothing branches on a number, or reads memory at a place that depends on one. Include it where the instruction set is
 * enabled; what a field must offer is listed in ristretto_lanes.h.
 */
#ifndef FEDTASKS_FIELD25519_AVX2_H
#define FEDTASKS_FIELD25519_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__ /* whose checks, in each of thousands of copies, take minutes to compile */
#define INLINE static __attribute__((unused))
#else
#define INLINE static inline __attribute__((always_inline))
#endif

#define LANES 4

typedef __m256i lanes;
typedef __m256i lane_mask;

typedef struct {
    __m256d l[5];
} fe;

typedef struct {
    lanes l[5];
} wide;

#define LIMB_ONE 0x3ff0000000000000ULL /* as a double */
#define MASK51 0x7ffffffffffffULL

#define ADD _mm256_add_epi64
#define SUB _mm256_sub_epi64
#define AND _mm256_and_si256
#define OR _mm256_or_si256
#define XOR _mm256_xor_si256
#define SHL(a, bits) _mm256_slli_epi64(a, bits)
#define SHR(a, bits) _mm256_srl_epi64(a, _mm_cvtsi64_si128((long long)(bits)))
#define SHIFT(a, bits) _mm256_srli_epi64(a, bits)
#define BITS _mm256_castpd_si256
#define OF_BITS _mm256_castsi256_pd

INLINE lanes all(uint64_t word) { return _mm256_set1_epi64x((long long)word); }
INLINE __m256d number(double value) { return _mm256_set1_pd(value); }

/* --- lanes of words, and masks of them: all ones where something holds --- */

INLINE lanes lanes_load(const uint64_t *from) { return _mm256_loadu_si256((const __m256i *)from); }
INLINE void lanes_store(uint64_t *to, lanes a) { _mm256_storeu_si256((__m256i *)to, a); }
INLINE lanes lanes_select(lane_mask where, lanes yes, lanes no) { return _mm256_blendv_epi8(no, yes, where); }
INLINE lane_mask lanes_equal(lanes a, lanes b) { return _mm256_cmpeq_epi64(a, b); }
INLINE lane_mask lanes_negative(lanes a) { return _mm256_cmpgt_epi64(_mm256_setzero_si256(), a); }
INLINE lane_mask mask_none(void) { return _mm256_setzero_si256(); }
INLINE lane_mask mask_or(lane_mask a, lane_mask b) { return OR(a, b); }
INLINE lane_mask mask_not(lane_mask a) { return XOR(a, all(~0ULL)); }
INLINE unsigned mask_bits(lane_mask a) { return (unsigned)_mm256_movemask_pd(OF_BITS(a)); }
INLINE lane_mask mask_of_bits(unsigned bits) {
    lanes places = _mm256_setr_epi64x(1, 2, 4, 8);
    return lanes_equal(AND(all(bits), places), places);
}

/* to[i] = word i of each of four rows */
INLINE void lanes_transpose(lanes to[LANES], const uint64_t *const from[LANES]) {
    lanes r[LANES];
    for (int i = 0; i < LANES; i++) r[i] = lanes_load(from[i]);
    lanes a = _mm256_unpacklo_epi64(r[0], r[1]), b = _mm256_unpackhi_epi64(r[0], r[1]);
    lanes c = _mm256_unpacklo_epi64(r[2], r[3]), d = _mm256_unpackhi_epi64(r[2], r[3]);
    to[0] = _mm256_permute2x128_si256(a, c, 0x20);
    to[1] = _mm256_permute2x128_si256(b, d, 0x20);
    to[2] = _mm256_permute2x128_si256(a, c, 0x31);
    to[3] = _mm256_permute2x128_si256(b, d, 0x31);
}

/* --- numbers --- */

/* Limb by limb: what is copied in pieces smaller than a vector makes whoever loads it next wait. */
INLINE void field_put(fe *to, fe a) {
    to->l[0] = a.l[0], to->l[1] = a.l[1], to->l[2] = a.l[2], to->l[3] = a.l[3], to->l[4] = a.l[4];
}

INLINE fe field_of_limbs(const lanes limbs[5]) {
    return (fe){{OF_BITS(limbs[0]), OF_BITS(limbs[1]), OF_BITS(limbs[2]), OF_BITS(limbs[3]), OF_BITS(limbs[4])}};
}

/* A limb of at most 2^61 in size plus HALF is 2^51 times a carry, between 0 and 2^12, plus a rest of 51 bits; both are
 * too large, by 2^11 and by 2^50. */
#define HALF ((1ULL << 62) + (1ULL << 50))
#define CARRIED 0x1p11
#define MAGIC 0x4330000000000000ULL /* the bits of 2^52, whose mantissa is a whole number */

INLINE __m256d carried_limb(lanes rest, lanes carry, double excess) {
    return _mm256_sub_pd(OF_BITS(ADD(OR(AND(rest, all(MASK51)), all(MAGIC)), carry)), number(excess));
}

/* All limbs at once: a carry is too small to make another. The last one comes back 19 times. */
INLINE fe field_carry(wide a) {
    lanes half = all(HALF);
    lanes r0 = ADD(a.l[0], half), r1 = ADD(a.l[1], half), r2 = ADD(a.l[2], half), r3 = ADD(a.l[3], half),
          r4 = ADD(a.l[4], half);
    lanes last = _mm256_mul_epu32(SHIFT(r4, 51), all(19));
    const double excess = 0x1p52 + 0x1p50;
    return (fe){{carried_limb(r0, last, excess + 19 * CARRIED), carried_limb(r1, SHIFT(r0, 51), excess + CARRIED),
                 carried_limb(r2, SHIFT(r1, 51), excess + CARRIED), carried_limb(r3, SHIFT(r2, 51), excess + CARRIED),
                 carried_limb(r4, SHIFT(r3, 51), excess + CARRIED)}};
}

INLINE fe field_loose_add(fe a, fe b) {
    return (fe){{_mm256_add_pd(a.l[0], b.l[0]), _mm256_add_pd(a.l[1], b.l[1]), _mm256_add_pd(a.l[2], b.l[2]),
                 _mm256_add_pd(a.l[3], b.l[3]), _mm256_add_pd(a.l[4], b.l[4])}};
}

INLINE fe field_loose_subtract(fe a, fe b) {
    return (fe){{_mm256_sub_pd(a.l[0], b.l[0]), _mm256_sub_pd(a.l[1], b.l[1]), _mm256_sub_pd(a.l[2], b.l[2]),
                 _mm256_sub_pd(a.l[3], b.l[3]), _mm256_sub_pd(a.l[4], b.l[4])}};
}

/* What exceeds 51 bits of a limb. */
INLINE __m256d excess_of(__m256d limb) {
    __m256d above = number(0x1.8p103);
    return _mm256_sub_pd(_mm256_add_pd(limb, above), above);
}

/* limb - excess + before / 2^51 * by */
INLINE __m256d tightened_limb(__m256d limb, __m256d excess, __m256d before, double by) {
    return _mm256_fmadd_pd(before, number(by * 0x1p-51), _mm256_sub_pd(limb, excess));
}

/* Carry a number with limbs of at most 2^52 in size, among doubles. */
INLINE fe field_tightened(fe a) {
    __m256d c0 = excess_of(a.l[0]), c1 = excess_of(a.l[1]), c2 = excess_of(a.l[2]), c3 = excess_of(a.l[3]),
            c4 = excess_of(a.l[4]);
    return (fe){{tightened_limb(a.l[0], c0, c4, 19), tightened_limb(a.l[1], c1, c0, 1),
                 tightened_limb(a.l[2], c2, c1, 1), tightened_limb(a.l[3], c3, c2, 1),
                 tightened_limb(a.l[4], c4, c3, 1)}};
}

INLINE fe field_add(fe a, fe b) { return field_tightened(field_loose_add(a, b)); }

INLINE fe field_subtract(fe a, fe b) { return field_tightened(field_loose_subtract(a, b)); }

INLINE fe field_negative(fe a) {
    __m256d sign = number(-0.0);
    return (fe){{_mm256_xor_pd(a.l[0], sign), _mm256_xor_pd(a.l[1], sign), _mm256_xor_pd(a.l[2], sign),
                 _mm256_xor_pd(a.l[3], sign), _mm256_xor_pd(a.l[4], sign)}};
}

INLINE fe field_select(lane_mask where, fe yes, fe no) {
    __m256d mask = OF_BITS(where);
    return (fe){{_mm256_blendv_pd(no.l[0], yes.l[0], mask), _mm256_blendv_pd(no.l[1], yes.l[1], mask),
                 _mm256_blendv_pd(no.l[2], yes.l[2], mask), _mm256_blendv_pd(no.l[3], yes.l[3], mask),
                 _mm256_blendv_pd(no.l[4], yes.l[4], mask)}};
}

/* From the lower 255 bits of four little-endian words. */
INLINE fe field_from_words(const lanes words[4]) {
    lanes mask = all(MASK51);
    return field_carry((wide){{AND(words[0], mask), AND(OR(SHIFT(words[0], 51), SHL(words[1], 13)), mask),
                               AND(OR(SHIFT(words[1], 38), SHL(words[2], 26)), mask),
                               AND(OR(SHIFT(words[2], 25), SHL(words[3], 39)), mask),
                               AND(SHIFT(words[3], 12), mask)}});
}

INLINE fe field_constant(const uint64_t words[4]) {
    lanes same[4] = {all(words[0]), all(words[1]), all(words[2]), all(words[3])};
    return field_from_words(same);
}

INLINE fe field_small(double small) {
    __m256d zero = _mm256_setzero_pd();
    return (fe){{number(small), zero, zero, zero, zero}};
}

/* --- sums of products --- */

/* The bits that a product adds to a sum beyond its value. */
#define UPPER_BIAS 0x4668000000000000ULL /* 3 * 2^102 */
#define LOWER_BIAS 0x4338000000000000ULL /* 3 * 2^51 */

INLINE wide wide_add(wide a, wide b) {
    return (wide){{ADD(a.l[0], b.l[0]), ADD(a.l[1], b.l[1]), ADD(a.l[2], b.l[2]), ADD(a.l[3], b.l[3]),
                   ADD(a.l[4], b.l[4])}};
}

INLINE wide wide_subtract(wide a, wide b) {
    return (wide){{SUB(a.l[0], b.l[0]), SUB(a.l[1], b.l[1]), SUB(a.l[2], b.l[2]), SUB(a.l[3], b.l[3]),
                   SUB(a.l[4], b.l[4])}};
}

INLINE wide wide_subtract_difference(wide a, wide difference) { return wide_subtract(a, difference); }

INLINE wide wide_negative_where(lane_mask where, wide b) {
    return (wide){{SUB(XOR(b.l[0], where), where), SUB(XOR(b.l[1], where), where), SUB(XOR(b.l[2], where), where),
                   SUB(XOR(b.l[3], where), where), SUB(XOR(b.l[4], where), where)}};
}

/* A whole number below 2^51 in size, as it is. */
INLINE lanes integer_of(__m256d limb) { return SUB(BITS(_mm256_add_pd(limb, number(0x1.8p52))), all(LOWER_BIAS)); }

INLINE wide wide_of(fe a) {
    return (wide){{integer_of(a.l[0]), integer_of(a.l[1]), integer_of(a.l[2]), integer_of(a.l[3]),
                   integer_of(a.l[4])}};
}

INLINE void product(lanes *lower, lanes *upper, __m256d a, __m256d b) {
    __m256d high = _mm256_fmadd_pd(a, b, number(0x1.8p103));
    __m256d low = _mm256_fmadd_pd(a, b, _mm256_sub_pd(number(0x1.8p103 + 0x1.8p52), high));
    *upper = ADD(*upper, BITS(high));
    *lower = ADD(*lower, BITS(low));
}

/* to + 19 * high, less what halves have brought beyond their value. */
INLINE lanes folded(lanes to, lanes high, uint64_t excess) {
    lanes thrice = ADD(ADD(high, high), high);
    return SUB(ADD(to, ADD(thrice, SHL(high, 4))), all(excess));
}

/* What so many lower and upper halves bring to a sum, and so many to the one that is folded into it. */
#define EXCESS(lower, upper, lower5, upper5)                                                                           \
    ((lower)*LOWER_BIAS + (upper)*UPPER_BIAS + 19 * ((lower5)*LOWER_BIAS + (upper5)*UPPER_BIAS))

/* No loops: a compiler takes arrays apart into registers before it unrolls what walks over them. */
INLINE wide wide_multiply(fe a, fe b) {
    __m256d a0 = a.l[0], a1 = a.l[1], a2 = a.l[2], a3 = a.l[3], a4 = a.l[4];
    __m256d b0 = b.l[0], b1 = b.l[1], b2 = b.l[2], b3 = b.l[3], b4 = b.l[4];
    lanes zero = _mm256_setzero_si256();
    lanes r0 = zero, r1 = zero, r2 = zero, r3 = zero, r4 = zero;
    lanes r5 = zero, r6 = zero, r7 = zero, r8 = zero, r9 = zero;
    product(&r0, &r1, a0, b0);
    product(&r1, &r2, a0, b1), product(&r1, &r2, a1, b0);
    product(&r2, &r3, a0, b2), product(&r2, &r3, a1, b1), product(&r2, &r3, a2, b0);
    product(&r3, &r4, a0, b3), product(&r3, &r4, a1, b2), product(&r3, &r4, a2, b1), product(&r3, &r4, a3, b0);
    product(&r4, &r5, a0, b4), product(&r4, &r5, a1, b3), product(&r4, &r5, a2, b2), product(&r4, &r5, a3, b1),
    product(&r4, &r5, a4, b0);
    product(&r5, &r6, a1, b4), product(&r5, &r6, a2, b3), product(&r5, &r6, a3, b2), product(&r5, &r6, a4, b1);
    product(&r6, &r7, a2, b4), product(&r6, &r7, a3, b3), product(&r6, &r7, a4, b2);
    product(&r7, &r8, a3, b4), product(&r7, &r8, a4, b3);
    product(&r8, &r9, a4, b4);
    return (wide){{folded(r0, r5, EXCESS(1, 0, 4, 5)), folded(r1, r6, EXCESS(2, 1, 3, 4)),
                   folded(r2, r7, EXCESS(3, 2, 2, 3)), folded(r3, r8, EXCESS(4, 3, 1, 2)),
                   folded(r4, r9, EXCESS(5, 4, 0, 1))}};
}

/* Of a carried number. */
INLINE wide wide_square(fe a) {
    __m256d a0 = a.l[0], a1 = a.l[1], a2 = a.l[2], a3 = a.l[3], a4 = a.l[4];
    __m256d t0 = _mm256_add_pd(a0, a0), t1 = _mm256_add_pd(a1, a1), t2 = _mm256_add_pd(a2, a2),
            t3 = _mm256_add_pd(a3, a3);
    lanes zero = _mm256_setzero_si256();
    lanes r0 = zero, r1 = zero, r2 = zero, r3 = zero, r4 = zero;
    lanes r5 = zero, r6 = zero, r7 = zero, r8 = zero, r9 = zero;
    product(&r0, &r1, a0, a0);
    product(&r1, &r2, t0, a1);
    product(&r2, &r3, t0, a2), product(&r2, &r3, a1, a1);
    product(&r3, &r4, t0, a3), product(&r3, &r4, t1, a2);
    product(&r4, &r5, t0, a4), product(&r4, &r5, t1, a3), product(&r4, &r5, a2, a2);
    product(&r5, &r6, t1, a4), product(&r5, &r6, t2, a3);
    product(&r6, &r7, t2, a4), product(&r6, &r7, a3, a3);
    product(&r7, &r8, t3, a4);
    product(&r8, &r9, a4, a4);
    return (wide){{folded(r0, r5, EXCESS(1, 0, 2, 3)), folded(r1, r6, EXCESS(1, 1, 2, 2)),
                   folded(r2, r7, EXCESS(2, 1, 1, 2)), folded(r3, r8, EXCESS(2, 2, 1, 1)),
                   folded(r4, r9, EXCESS(3, 2, 0, 1))}};
}

INLINE fe field_multiply(fe a, fe b) { return field_carry(wide_multiply(a, b)); }

INLINE fe field_square(fe a) { return field_carry(wide_square(a)); }

/* --- the one representation below p --- */

/* Limbs of 51 bits. */
INLINE wide field_reduced(fe a) {
    const uint64_t four = 4; /* times p, so that nothing is negative */
    lanes mask = all(MASK51), nineteen = all(19);
    wide w = wide_of(a);
    lanes r0 = ADD(w.l[0], all(four * (MASK51 - 18))), r1 = ADD(w.l[1], all(four * MASK51));
    lanes r2 = ADD(w.l[2], all(four * MASK51)), r3 = ADD(w.l[3], all(four * MASK51));
    lanes r4 = ADD(w.l[4], all(four * MASK51));
    for (int pass = 0; pass < 2; pass++) { /* after the second, below 2^255 + 19 */
        r1 = ADD(r1, SHIFT(r0, 51)), r2 = ADD(r2, SHIFT(r1, 51)), r3 = ADD(r3, SHIFT(r2, 51));
        r4 = ADD(r4, SHIFT(r3, 51));
        r0 = ADD(AND(r0, mask), _mm256_mul_epu32(SHIFT(r4, 51), nineteen));
        r1 = AND(r1, mask), r2 = AND(r2, mask), r3 = AND(r3, mask), r4 = AND(r4, mask);
    }
    /* The quotient by p is the carry out of a + 19. */
    lanes quotient = SHIFT(ADD(r0, nineteen), 51);
    quotient = SHIFT(ADD(r1, quotient), 51);
    quotient = SHIFT(ADD(r2, quotient), 51);
    quotient = SHIFT(ADD(r3, quotient), 51);
    quotient = SHIFT(ADD(r4, quotient), 51);
    r0 = ADD(r0, _mm256_mul_epu32(quotient, nineteen));
    r1 = ADD(r1, SHIFT(r0, 51)), r2 = ADD(r2, SHIFT(r1, 51)), r3 = ADD(r3, SHIFT(r2, 51)), r4 = ADD(r4, SHIFT(r3, 51));
    return (wide){{AND(r0, mask), AND(r1, mask), AND(r2, mask), AND(r3, mask), AND(r4, mask)}};
}

INLINE lane_mask field_is_odd(fe a) { return lanes_equal(AND(field_reduced(a).l[0], all(1)), all(1)); }

INLINE lane_mask field_is_zero(fe a) {
    wide r = field_reduced(a);
    return lanes_equal(OR(OR(OR(r.l[0], r.l[1]), OR(r.l[2], r.l[3])), r.l[4]), all(0));
}

INLINE fe field_absolute(fe a) { return field_select(field_is_odd(a), field_negative(a), a); }

INLINE void field_to_words(lanes words[4], fe a) {
    wide r = field_reduced(a);
    words[0] = OR(r.l[0], SHL(r.l[1], 51));
    words[1] = OR(SHIFT(r.l[1], 13), SHL(r.l[2], 38));
    words[2] = OR(SHIFT(r.l[2], 26), SHL(r.l[3], 25));
    words[3] = OR(SHIFT(r.l[3], 39), SHL(r.l[4], 12));
}

#endif
