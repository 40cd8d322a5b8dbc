/* Modular arithmetic in eight lanes of AVX512-IFMA, whose instruction adds either half of a product of 52 bits. */
#include "kernels.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512ifma"))),                 \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512ifma")
#endif

#define KERNEL ifma

#include "lanes_avx512.h"

typedef vec factor;
typedef uint64_t scalar;
typedef int state;

/* Limbs are factors as they are, for the instruction takes 52 bits of a word. */
#define FACTOR_SPACE 1
static INLINE const factor *as_factors(factor *space, const vec *a, size_t limbs) {
    (void)space, (void)limbs;
    return a;
}
static INLINE factor limb_as_factor(vec limb) { return limb; }
static INLINE vec as_limb(factor a) { return v_and(a, v_set((1ULL << 52) - 1)); }
static INLINE scalar scalar_of(uint64_t limb) { return limb; }
static INLINE factor broadcast(scalar limb) { return v_set(limb); }
static INLINE void mul_add(vec *lower, vec *upper, factor a, factor b) {
    *lower = _mm512_madd52lo_epu64(*lower, a, b);
    *upper = _mm512_madd52hi_epu64(*upper, a, b);
}
static INLINE void add_high(vec *sum, factor a, factor b) { *sum = _mm512_madd52hi_epu64(*sum, a, b); }
static INLINE factor low(vec sum, factor by) { return _mm512_madd52lo_epu64(v_zero(), sum, by); }
static INLINE uint64_t excess_of(uint64_t lower, uint64_t upper) { return (void)lower, (void)upper, 0; }
static INLINE void settle(vec *sum, uint64_t excess) { (void)sum, (void)excess; }
static INLINE state begin(void) { return 0; }
static INLINE void end(state before) { (void)before; }

#include "modular_lanes.h"

int fedtasks_ifma_works(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512ifma");
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

int fedtasks_ifma_works(void) { return 0; }

#endif
