/* Products of limbs by fused multiply-add of doubles, for kernels in lanes of processors without AVX512-IFMA.
 *
 * A double holds a limb of 52 bits. Rounded toward zero, a * b + 2^104 has the upper 52 bits of the product as its
 * mantissa; what that leaves of the product, plus 2^52, has the lower ones. Their bits are added to the sums as they
 * are, and the exponents, which are the same each time, taken off as often as that was done.
 *
 * Who includes this defines factor, LANES doubles: d_set, d_sub, d_fma, and d_bits and d_of_bits from and to vec.
 *
 * Emmart, Zheng and Weems, "Faster modular exponentiation using double precision floating point arithmetic on the GPU",
 * 2018.
 */
#define TWO_52 0x1p52
#define TWO_104 0x1p104
/* The exponents of numbers from 2^52 and from 2^104 on, where they stand in a double. */
#define LOWER_BIAS (1075ULL << 52)
#define UPPER_BIAS (1127ULL << 52)
#define TOWARD_ZERO 0x6000u

typedef double scalar;
typedef unsigned state;

static INLINE factor limb_as_factor(vec limb) {
    return d_sub(d_of_bits(v_or(limb, v_set(LOWER_BIAS))), d_set(TWO_52));
}
#define FACTOR_SPACE MAX_LIMBS
static INLINE const factor *as_factors(factor *space, const vec *a, size_t limbs) {
    for (size_t i = 0; i < limbs; i++) space[i] = limb_as_factor(a[i]);
    return space;
}
static INLINE vec as_limb(factor a) { return v_and(d_bits(d_sub(a, d_set(-TWO_52))), v_set((1ULL << 52) - 1)); }
static INLINE scalar scalar_of(uint64_t limb) { return (double)limb; }
static INLINE factor broadcast(scalar limb) { return d_set(limb); }

static INLINE factor upper_half(factor a, factor b) { return d_fma(a, b, d_set(TWO_104)); }
static INLINE factor lower_half(factor a, factor b, factor upper) {
    return d_fma(a, b, d_sub(d_set(TWO_104 + TWO_52), upper));
}
/* Compilers like to add up a column's terms first, for which there are not enough registers: each sum stays in its own. */
#define STAYS(sum) __asm__ volatile("" : "+v"(sum))
static INLINE void mul_add(vec *lower, vec *upper, factor a, factor b) {
    factor up = upper_half(a, b);
    *upper = v_add(*upper, d_bits(up));
    *lower = v_add(*lower, d_bits(lower_half(a, b, up)));
    STAYS(*upper);
    STAYS(*lower);
}
static INLINE void add_high(vec *sum, factor a, factor b) {
    *sum = v_add(*sum, d_bits(upper_half(a, b)));
}
static INLINE factor low(vec sum, factor by) {
    factor limb = limb_as_factor(v_and(sum, v_set((1ULL << 52) - 1)));
    return d_sub(lower_half(limb, by, upper_half(limb, by)), d_set(TWO_52));
}
static INLINE uint64_t excess_of(uint64_t lower, uint64_t upper) { return lower * LOWER_BIAS + upper * UPPER_BIAS; }
static INLINE void settle(vec *sum, uint64_t excess) { *sum = v_add(*sum, v_set(0 - excess)); }

static INLINE state begin(void) {
    state before = _mm_getcsr();
    _mm_setcsr(before | TOWARD_ZERO);
    return before;
}
static INLINE void end(state before) { _mm_setcsr(before); }
