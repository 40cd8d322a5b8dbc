/* Eight numbers modulo p = 2^255 - 19 at once, one in each 64-bit lane.
 *
 * A number is five limbs of 52 bits, of which the last needs but 47. Two states, told apart by their types:
 *   fe    carried: what multiplications take, whose instruction reads 52 bits of a limb. Whatever stands above these in
 *         the first four limbs does not count, which saves clearing it. The last limb is below 2^47 + 2^12.
 *   wide  all bits count, and every limb is below 2^63; `field_carry` makes an fe of it. Limbs of a product are below
 *         2^56, so that a few may be added first.
 * Nothing branches on a number, or reads memory at a place that depends on one.
 *
 * Include it where the instruction set is enabled; what a field must offer is listed in ristretto_lanes.h.
 */
#ifndef FEDTASKS_FIELD25519_IFMA_H
#define FEDTASKS_FIELD25519_IFMA_H

#include <immintrin.h>
#include <stdint.h>

#ifdef __SANITIZE_ADDRESS__ /* whose checks, in each of thousands of copies, take minutes to compile */
#define INLINE static __attribute__((unused))
#else
#define INLINE static inline __attribute__((always_inline))
#endif

#define LANES 8

typedef __m512i lanes;
typedef __mmask8 lane_mask;

typedef struct {
    lanes l[5];
} fe;

typedef struct {
    lanes l[5];
} wide;

#define MASK52 0xfffffffffffffULL
#define MASK47 0x7fffffffffffULL

#define ADD _mm512_add_epi64
#define SUB _mm512_sub_epi64
#define AND _mm512_and_si512
#define OR _mm512_or_si512
#define SHL(a, bits) _mm512_slli_epi64(a, bits)
#define SHR(a, bits) _mm512_srli_epi64(a, bits)

INLINE lanes all(uint64_t word) { return _mm512_set1_epi64((long long)word); }

/* --- lanes of words, and masks of them --- */

INLINE lanes lanes_load(const uint64_t *from) { return _mm512_loadu_si512(from); }
INLINE void lanes_store(uint64_t *to, lanes a) { _mm512_storeu_si512(to, a); }
INLINE lanes lanes_select(lane_mask where, lanes yes, lanes no) { return _mm512_mask_mov_epi64(no, where, yes); }
INLINE lane_mask lanes_equal(lanes a, lanes b) { return _mm512_cmpeq_epi64_mask(a, b); }
INLINE lane_mask lanes_negative(lanes a) { return _mm512_movepi64_mask(a); }
INLINE lane_mask mask_none(void) { return 0; }
INLINE lane_mask mask_or(lane_mask a, lane_mask b) { return (lane_mask)(a | b); }
INLINE lane_mask mask_not(lane_mask a) { return (lane_mask)~a; }
INLINE unsigned mask_bits(lane_mask a) { return a; }
INLINE lane_mask mask_of_bits(unsigned bits) { return (lane_mask)bits; }

/* to[i] = word i of each of eight rows */
INLINE void lanes_transpose(lanes to[LANES], const uint64_t *const from[LANES]) {
    lanes low[4], high[4];
    for (int i = 0; i < 4; i++) {
        lanes first = lanes_load(from[2 * i]), second = lanes_load(from[2 * i + 1]);
        low[i] = _mm512_unpacklo_epi64(first, second);
        high[i] = _mm512_unpackhi_epi64(first, second);
    }
    for (int odd = 0; odd < 2; odd++) {
        const lanes *pairs = odd ? high : low;
        lanes front02 = _mm512_shuffle_i64x2(pairs[0], pairs[1], 0x88);
        lanes front13 = _mm512_shuffle_i64x2(pairs[0], pairs[1], 0xdd);
        lanes back02 = _mm512_shuffle_i64x2(pairs[2], pairs[3], 0x88);
        lanes back13 = _mm512_shuffle_i64x2(pairs[2], pairs[3], 0xdd);
        to[odd] = _mm512_shuffle_i64x2(front02, back02, 0x88);
        to[2 + odd] = _mm512_shuffle_i64x2(front13, back13, 0x88);
        to[4 + odd] = _mm512_shuffle_i64x2(front02, back02, 0xdd);
        to[6 + odd] = _mm512_shuffle_i64x2(front13, back13, 0xdd);
    }
}

/* --- numbers --- */

#define LIMB_ONE 1

/* Limb by limb: what is copied in pieces smaller than a vector makes whoever loads it next wait. */
INLINE void field_put(fe *to, fe a) {
    to->l[0] = a.l[0], to->l[1] = a.l[1], to->l[2] = a.l[2], to->l[3] = a.l[3], to->l[4] = a.l[4];
}

INLINE fe field_of_limbs(const lanes limbs[5]) {
    return (fe){{limbs[0], limbs[1], limbs[2], limbs[3], limbs[4]}};
}

INLINE fe field_small(uint64_t number) {
    lanes zero = _mm512_setzero_si512();
    return (fe){{all(number), zero, zero, zero, zero}};
}

/* From limb to limb, so that limbs need no room for carries: a limb below 2^63 gives one below 2^12. The last limb has
 * room; what it exceeds 47 bits by comes back 19 times, below 2^21. */
INLINE fe field_carry(wide a) {
    lanes l0 = _mm512_madd52lo_epu64(a.l[0], SHR(a.l[4], 47), all(19));
    lanes l1 = ADD(a.l[1], SHR(l0, 52));
    lanes l2 = ADD(a.l[2], SHR(l1, 52));
    lanes l3 = ADD(a.l[3], SHR(l2, 52));
    return (fe){{l0, l1, l2, l3, ADD(AND(a.l[4], all(MASK47)), SHR(l3, 52))}};
}

INLINE wide wide_of(fe a) {
    lanes mask = all(MASK52);
    return (wide){{AND(a.l[0], mask), AND(a.l[1], mask), AND(a.l[2], mask), AND(a.l[3], mask), a.l[4]}};
}

INLINE wide wide_add(wide a, wide b) {
    return (wide){{ADD(a.l[0], b.l[0]), ADD(a.l[1], b.l[1]), ADD(a.l[2], b.l[2]), ADD(a.l[3], b.l[3]),
                   ADD(a.l[4], b.l[4])}};
}

/* multiple * p - b, limb by limb, for limbs of b below multiple * 2^47 - 19 * multiple. */
INLINE wide wide_negative(wide b, uint64_t multiple) {
    lanes first = all(multiple * (MASK52 - 18)), other = all(multiple * MASK52), last = all(multiple * MASK47);
    return (wide){{SUB(first, b.l[0]), SUB(other, b.l[1]), SUB(other, b.l[2]), SUB(other, b.l[3]), SUB(last, b.l[4])}};
}

/* The multiple of p that exceeds every product in every limb: its last limb is 2^56 - 2^9, others are below 2^61. */
#define ABOVE_PRODUCT 512

/* For b a product. */
INLINE wide wide_subtract(wide a, wide b) { return wide_add(a, wide_negative(b, ABOVE_PRODUCT)); }

/* For what comes from wide_subtract or wide_negative_where. */
INLINE wide wide_subtract_difference(wide a, wide difference) {
    return wide_add(a, wide_negative(difference, 2 * ABOVE_PRODUCT));
}

/* For b a product. */
INLINE wide wide_negative_where(lane_mask where, wide b) {
    wide negative = wide_negative(b, ABOVE_PRODUCT);
    return (wide){{lanes_select(where, negative.l[0], b.l[0]), lanes_select(where, negative.l[1], b.l[1]),
                   lanes_select(where, negative.l[2], b.l[2]), lanes_select(where, negative.l[3], b.l[3]),
                   lanes_select(where, negative.l[4], b.l[4])}};
}

INLINE fe field_add(fe a, fe b) { return field_carry(wide_add(wide_of(a), wide_of(b))); }

INLINE fe field_subtract(fe a, fe b) { return field_carry(wide_add(wide_of(a), wide_negative(wide_of(b), 4))); }

/* There is room for what is not carried, but nothing would be saved. */
#define field_loose_add field_add
#define field_loose_subtract field_subtract

INLINE fe field_negative(fe a) { return field_carry(wide_negative(wide_of(a), 4)); }

INLINE fe field_select(lane_mask where, fe yes, fe no) {
    return (fe){{_mm512_mask_mov_epi64(no.l[0], where, yes.l[0]), _mm512_mask_mov_epi64(no.l[1], where, yes.l[1]),
                 _mm512_mask_mov_epi64(no.l[2], where, yes.l[2]), _mm512_mask_mov_epi64(no.l[3], where, yes.l[3]),
                 _mm512_mask_mov_epi64(no.l[4], where, yes.l[4])}};
}

#define HIGH(r, x, y) r = _mm512_madd52hi_epu64(r, x, y)
#define LOW(r, x, y) r = _mm512_madd52lo_epu64(r, x, y)
#define TWICE(r) r = ADD(r, r)

/* Limbs 5 to 9 come back 608 = 19 * 2^5 times in limbs 0 to 4, as 2^260 = 2^5 * 2^255 does: what the instruction reads
 * of a limb, and what stands above it, which belongs to the next limb. Bounds: of the ten limbs each is a sum of at
 * most nine halves below 2^52. r9 is one high half, of two last limbs: below 2^42 + 2^9, so 608 times it does not
 * overflow. Results are at most eleven halves and 608 * 2^4, below 2^56. */
INLINE wide wide_fold(lanes r0, lanes r1, lanes r2, lanes r3, lanes r4, lanes r5, lanes r6, lanes r7, lanes r8,
                      lanes r9) {
    lanes by = all(608);
    LOW(r0, r5, by), LOW(r1, r6, by), LOW(r2, r7, by), LOW(r3, r8, by), LOW(r4, r9, by);
    HIGH(r1, r5, by), HIGH(r2, r6, by), HIGH(r3, r7, by), HIGH(r4, r8, by);
    LOW(r1, SHR(r5, 52), by), LOW(r2, SHR(r6, 52), by), LOW(r3, SHR(r7, 52), by), LOW(r4, SHR(r8, 52), by);
    return (wide){{r0, r1, r2, r3, r4}};
}

INLINE wide wide_multiply(fe a, fe b) {
    lanes a0 = a.l[0], a1 = a.l[1], a2 = a.l[2], a3 = a.l[3], a4 = a.l[4];
    lanes b0 = b.l[0], b1 = b.l[1], b2 = b.l[2], b3 = b.l[3], b4 = b.l[4];
    lanes zero = _mm512_setzero_si512();
    lanes r0 = zero, r1 = zero, r2 = zero, r3 = zero, r4 = zero;
    lanes r5 = zero, r6 = zero, r7 = zero, r8 = zero, r9 = zero;
    /* Limbs that are folded first come first. */
    HIGH(r5, a0, b4), HIGH(r6, a1, b4), HIGH(r7, a2, b4), HIGH(r8, a3, b4), HIGH(r9, a4, b4);
    LOW(r5, a1, b4), LOW(r6, a2, b4), LOW(r7, a3, b4), LOW(r8, a4, b4), LOW(r4, a0, b4);
    HIGH(r5, a1, b3), HIGH(r6, a2, b3), HIGH(r7, a3, b3), HIGH(r8, a4, b3), HIGH(r4, a0, b3);
    LOW(r5, a2, b3), LOW(r6, a3, b3), LOW(r7, a4, b3), LOW(r4, a1, b3), LOW(r3, a0, b3);
    HIGH(r5, a2, b2), HIGH(r6, a3, b2), HIGH(r7, a4, b2), HIGH(r4, a1, b2), HIGH(r3, a0, b2);
    LOW(r5, a3, b2), LOW(r6, a4, b2), LOW(r4, a2, b2), LOW(r3, a1, b2), LOW(r2, a0, b2);
    HIGH(r5, a3, b1), HIGH(r6, a4, b1), HIGH(r4, a2, b1), HIGH(r3, a1, b1), HIGH(r2, a0, b1);
    LOW(r5, a4, b1), LOW(r4, a3, b1), LOW(r3, a2, b1), LOW(r2, a1, b1), LOW(r1, a0, b1);
    HIGH(r5, a4, b0), HIGH(r4, a3, b0), HIGH(r3, a2, b0), HIGH(r2, a1, b0), HIGH(r1, a0, b0);
    LOW(r4, a4, b0), LOW(r3, a3, b0), LOW(r2, a2, b0), LOW(r1, a1, b0), LOW(r0, a0, b0);
    return wide_fold(r0, r1, r2, r3, r4, r5, r6, r7, r8, r9);
}

INLINE wide wide_square(fe a) {
    lanes a0 = a.l[0], a1 = a.l[1], a2 = a.l[2], a3 = a.l[3], a4 = a.l[4];
    lanes zero = _mm512_setzero_si512();
    lanes r0 = zero, r1 = zero, r2 = zero, r3 = zero, r4 = zero;
    lanes r5 = zero, r6 = zero, r7 = zero, r8 = zero, r9 = zero;
    HIGH(r5, a0, a4), HIGH(r6, a1, a4), HIGH(r7, a2, a4), HIGH(r8, a3, a4), HIGH(r4, a0, a3);
    LOW(r5, a1, a4), LOW(r6, a2, a4), LOW(r7, a3, a4), LOW(r4, a0, a4), LOW(r3, a0, a3);
    HIGH(r5, a1, a3), HIGH(r6, a2, a3), HIGH(r4, a1, a2), HIGH(r3, a0, a2), HIGH(r2, a0, a1);
    LOW(r5, a2, a3), LOW(r4, a1, a3), LOW(r3, a1, a2), LOW(r2, a0, a2), LOW(r1, a0, a1);
    TWICE(r5), TWICE(r6), TWICE(r7), TWICE(r8), TWICE(r4), TWICE(r3), TWICE(r2), TWICE(r1);
    HIGH(r5, a2, a2), LOW(r6, a3, a3), HIGH(r7, a3, a3), LOW(r8, a4, a4), HIGH(r9, a4, a4);
    LOW(r4, a2, a2), HIGH(r3, a1, a1), LOW(r2, a1, a1), HIGH(r1, a0, a0), LOW(r0, a0, a0);
    return wide_fold(r0, r1, r2, r3, r4, r5, r6, r7, r8, r9);
}

INLINE fe field_multiply(fe a, fe b) { return field_carry(wide_multiply(a, b)); }

INLINE fe field_square(fe a) { return field_carry(wide_square(a)); }

/* The one representation below p, with nothing above the bits that count. */
INLINE fe field_reduced(fe a) {
    lanes mask = all(MASK52), mask47 = all(MASK47), nineteen = all(19);
    wide clear = wide_of(a);
    /* An fe is below 2^255 + 2^220, so without what exceeds 255 bits it is below 2^255. */
    lanes r0 = _mm512_madd52lo_epu64(clear.l[0], SHR(clear.l[4], 47), nineteen);
    lanes r1 = ADD(clear.l[1], SHR(r0, 52)), r2 = ADD(clear.l[2], SHR(r1, 52)), r3 = ADD(clear.l[3], SHR(r2, 52));
    lanes r4 = ADD(AND(clear.l[4], mask47), SHR(r3, 52));
    r0 = AND(r0, mask), r1 = AND(r1, mask), r2 = AND(r2, mask), r3 = AND(r3, mask);
    /* The quotient by p is the carry out of a + 19. */
    lanes quotient = SHR(ADD(r0, nineteen), 52);
    quotient = SHR(ADD(r1, quotient), 52);
    quotient = SHR(ADD(r2, quotient), 52);
    quotient = SHR(ADD(r3, quotient), 52);
    quotient = SHR(ADD(r4, quotient), 47);
    r0 = _mm512_madd52lo_epu64(r0, quotient, nineteen);
    r1 = ADD(r1, SHR(r0, 52)), r2 = ADD(r2, SHR(r1, 52)), r3 = ADD(r3, SHR(r2, 52)), r4 = ADD(r4, SHR(r3, 52));
    return (fe){{AND(r0, mask), AND(r1, mask), AND(r2, mask), AND(r3, mask), AND(r4, mask47)}};
}

INLINE lane_mask field_is_odd(fe a) { return _mm512_test_epi64_mask(field_reduced(a).l[0], all(1)); }

INLINE lane_mask field_is_zero(fe a) {
    fe r = field_reduced(a);
    lanes any = OR(OR(OR(r.l[0], r.l[1]), OR(r.l[2], r.l[3])), r.l[4]);
    return _mm512_testn_epi64_mask(any, any);
}

INLINE fe field_absolute(fe a) { return field_select(field_is_odd(a), field_negative(a), a); }

/* From the lower 255 bits of four little-endian words. */
INLINE fe field_from_words(const lanes words[4]) {
    lanes mask = all(MASK52);
    return (fe){{AND(words[0], mask), AND(OR(SHR(words[0], 52), SHL(words[1], 12)), mask),
                 AND(OR(SHR(words[1], 40), SHL(words[2], 24)), mask),
                 AND(OR(SHR(words[2], 28), SHL(words[3], 36)), mask), AND(SHR(words[3], 16), all(MASK47))}};
}

INLINE fe field_constant(const uint64_t words[4]) {
    lanes same[4] = {all(words[0]), all(words[1]), all(words[2]), all(words[3])};
    return field_from_words(same);
}

INLINE void field_to_words(lanes words[4], fe a) {
    fe r = field_reduced(a);
    words[0] = OR(r.l[0], SHL(r.l[1], 52));
    words[1] = OR(SHR(r.l[1], 12), SHL(r.l[2], 40));
    words[2] = OR(SHR(r.l[2], 24), SHL(r.l[3], 28));
    words[3] = OR(SHR(r.l[3], 36), SHL(r.l[4], 16));
}

#endif
