/* The group ristretto255 of RFC 9496 over batches, as the native kernels offer it to Python.
 *
 * Elements and scalars are rows of 32 bytes, one after the other, at any address. A scalar is a little-endian number,
 * of which the highest bit is ignored; it need not be below the order of the group. `scalar_step` is the distance of
 * two scalars in bytes: 32, or 0 for one that serves all rows. Time and memory accesses do not depend on elements or
 * scalars where nothing else is said, but a bad row ends the work. `out` may be the same memory as the input that
 * follows it. Functions keep no state, so any number of threads may call them at once, each for a range of rows.
 *
 * They return -1 when all is well; or the number of the first bad row, and what `out` holds is then undefined; or -2
 * when there is no memory; or -3 when a base is no encoding of an element. A base is one element for all rows, and
 * public: a table of its multiples is made for each call.
 */
#ifndef FEDTASKS_RISTRETTO_H
#define FEDTASKS_RISTRETTO_H

#include <stddef.h>
#include <stdint.h>

#ifndef EXPORT
#define EXPORT __attribute__((visibility("default")))
#endif

#define DECLARE_RISTRETTO(X)                                                                                           \
    /* Whether this machine can run the kernel; without it the other functions do not exist or do not run. */          \
    EXPORT int fedtasks_ristretto_##X##_works(void);                                                                   \
    /* out[i] = scalars[i] * elements[i]. A row is bad if it is no encoding of an element, or if the product is the    \
     * identity. */                                                                                                    \
    EXPORT int64_t fedtasks_ristretto_##X##_multiply(uint8_t *out, const uint8_t *elements, const uint8_t *scalars,    \
                                                     size_t scalar_step, size_t n);                                    \
    /* out[i] = scalars[i] * base. A row is bad if the product is the identity. */                                     \
    EXPORT int64_t fedtasks_ristretto_##X##_multiply_base(uint8_t *out, const uint8_t *base, const uint8_t *scalars,   \
                                                          size_t n);                                                   \
    /* out[i] = elements[i] + scalars[i] * base. A row is bad if it is no encoding of an element, or if the sum is the \
     * identity. */                                                                                                    \
    EXPORT int64_t fedtasks_ristretto_##X##_add_multiples(uint8_t *out, const uint8_t *elements, const uint8_t *base,  \
                                                          const uint8_t *scalars, size_t n);                           \
    /* out[i] = the element that 64 uniform bytes are mapped to, RFC 9496 section 4.3.4. No row is bad. */             \
    EXPORT int64_t fedtasks_ristretto_##X##_from_uniform(uint8_t *out, const uint8_t *uniform, size_t n);              \
    /* out[i] = scalars[i] * the element of from_uniform. A row is bad if the product is the identity. */              \
    EXPORT int64_t fedtasks_ristretto_##X##_map_multiply(uint8_t *out, const uint8_t *uniform, const uint8_t *scalars, \
                                                         size_t scalar_step, size_t n);                                \
    /* out[i] = the element of from_uniform + scalars[i] * base. A row is bad if the sum is the identity. */           \
    EXPORT int64_t fedtasks_ristretto_##X##_map_add_multiples(uint8_t *out, const uint8_t *uniform,                    \
                                                              const uint8_t *base, const uint8_t *scalars, size_t n);  \
    /* out = the sum of all scalars[i] * elements[i], one row, which may be the identity. A row is bad if it is no     \
     * encoding of an element, or that of the identity. Time depends on elements and scalars: for what is public       \
     * only. */                                                                                                        \
    EXPORT int64_t fedtasks_ristretto_##X##_weighted_sum(uint8_t *out, const uint8_t *elements,                        \
                                                         const uint8_t *scalars, size_t n);

DECLARE_RISTRETTO(ifma)
DECLARE_RISTRETTO(avx2)

/* out[i] = the number of 64 bytes modulo the order of the group. No row is bad. */
EXPORT int64_t fedtasks_ristretto_reduce_scalars(uint8_t *out, const uint8_t *numbers, size_t n);

/* out[i] = 1 / scalars[i] modulo the order of the group. A row is bad if the scalar is zero modulo the order. All 256
 * bits of a scalar count here. `out` must be other memory than `scalars`. */
EXPORT int64_t fedtasks_ristretto_invert_scalars(uint8_t *out, const uint8_t *scalars, size_t n);

#endif
