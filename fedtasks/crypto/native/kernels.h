/* What the native kernels offer to Python.
 *
 * Modular arithmetic, once for each kernel X. A batch is `rows` numbers of `limbs` words each, one by one,
 * little-endian; a limb holds 64 bits (openssl) or 52 (the others). Numbers are in Montgomery form: a stands for
 * a * R mod n with R = 2^(limb bits * limbs). `n` is the odd modulus in limbs, `n_inverse` -1/n modulo 2^(limb bits),
 * `one` is R mod n. Results of `openssl` are below n, those of the others may be as large as 2n: n has at least four
 * bits less than R. A residue modulo a square n^2 is a pair for all but `openssl`: `parts` is 2 instead of 1, a row has
 * twice `limbs` words, (a, b) stands for a - b n, and n and R are as for n itself; see modular_lanes.h. `out` may be the
 * same memory as `a` or `b`. A step is the distance of two rows in words; step 0 lets one row serve all. Functions keep
 * no state, so any number of threads may call them at once. They return 0, or -1 when there is no memory or the
 * arithmetic failed.
 */
#ifndef FEDTASKS_KERNELS_H
#define FEDTASKS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 20")

#define DECLARE_MODULAR(X)                                                                                             \
    /* Whether this machine can run the kernel. */                                                                     \
    EXPORT int fedtasks_##X##_works(void);                                                                             \
    /* out[i] = a[i] * b[i]; one of the two may be any number below R if the other is below n. */                      \
    EXPORT int fedtasks_##X##_multiply(uint64_t *out, const uint64_t *a, size_t a_step, const uint64_t *b,             \
                                       size_t b_step, size_t rows, const uint64_t *n, uint64_t n_inverse,              \
                                       size_t limbs, size_t parts);                                                    \
    /* out[i] = a[i]^exponent; the exponent is little-endian and shared. If it is secret, time and memory accesses     \
     * depend on `exponent_bits` alone. */                                                                             \
    EXPORT int fedtasks_##X##_power(uint64_t *out, const uint64_t *a, size_t rows, const uint8_t *exponent,            \
                                    size_t exponent_bits, int secret, const uint64_t *one, const uint64_t *n,          \
                                    uint64_t n_inverse, size_t limbs, size_t parts);                                   \
    /* out[i] = product over w of table[w][digits[i][w]]: `windows` (at least one) tables of 2^window_bits numbers,    \
     * window_bits <= 8. Of pairs a table has (a, b / a), numbers in Montgomery form, and n has at least 12 bits less  \
     * than R. Time and memory accesses do not depend on the digits. */                                                \
    EXPORT int fedtasks_##X##_fixed_base(uint64_t *out, const uint64_t *table, size_t windows, size_t window_bits,     \
                                         const uint8_t *digits, size_t rows, const uint64_t *one, const uint64_t *n,   \
                                         uint64_t n_inverse, size_t limbs, size_t parts);                              \
    /* out[s] = product of values[order[j]] over starts[s] <= j < starts[s + 1]; `one` for an empty segment. */        \
    EXPORT int fedtasks_##X##_segmented_product(uint64_t *out, const uint64_t *values, const int64_t *order,           \
                                                const int64_t *starts, size_t segments, const uint64_t *one,           \
                                                const uint64_t *n, uint64_t n_inverse, size_t limbs, size_t parts);    \
    /* out[i] = a[i] + b[i] */                                                                                         \
    EXPORT int fedtasks_##X##_add(uint64_t *out, const uint64_t *a, const uint64_t *b, size_t rows,                    \
                                   const uint64_t *n, size_t limbs, size_t parts);                                     \
    /* Rows of `width` big-endian bytes as limbs, not in Montgomery form. */                                           \
    EXPORT int fedtasks_##X##_from_bytes(uint64_t *out, const uint8_t *rows, size_t width, size_t n_rows,              \
                                          size_t limbs);                                                               \
    /* And back: numbers at most 2n, of which n is taken where it can be, or pairs of numbers at most n + 1. */        \
    EXPORT int fedtasks_##X##_to_bytes(uint8_t *out, size_t width, const uint64_t *rows, size_t n_rows,                \
                                        const uint64_t *n, size_t limbs, size_t parts);

/* The same of pairs of which each value is (a, b / a), as in tables: four products of halves instead of five, and one more
 * for each segment. A segment has at most 256 rows. */
#define DECLARE_PAIRS(X)                                                                                               \
    EXPORT int fedtasks_##X##_factor_product(uint64_t *out, const uint64_t *values, const int64_t *order,              \
                                             const int64_t *starts, size_t segments, const uint64_t *one,              \
                                             const uint64_t *n, uint64_t n_inverse, size_t limbs, size_t parts);

DECLARE_MODULAR(ifma)
DECLARE_PAIRS(ifma)
DECLARE_MODULAR(avx512)
DECLARE_PAIRS(avx512)
DECLARE_MODULAR(avx2)
DECLARE_PAIRS(avx2)
DECLARE_MODULAR(openssl)

#endif
