/* Scalars of ristretto255, modulo the order l of the group, in Montgomery form with R = 2^256. */
#include "ristretto.h"

#if defined(__SIZEOF_INT128__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

#include <string.h>

#define ROW 32

typedef struct {
    uint64_t word[4];
} scalar;

static const scalar ORDER = {{0x5812631a5cf5d3ed, 0x14def9dea2f79cd6, 0, 0x1000000000000000}};
static const scalar ORDER_MINUS_2 = {{0x5812631a5cf5d3eb, 0x14def9dea2f79cd6, 0, 0x1000000000000000}};
static const scalar UNIT = {{1}};
static const scalar R1 = {{0xd6ec31748d98951d, 0xc6ef5bf4737dcf70, 0xfffffffffffffffe, 0xfffffffffffffff}};
static const scalar R2 = {{0xa40611e3449c0f01, 0xd00e1ba768859347, 0xceec73d217f5be65, 0x399411b7c309a3d}};
static const scalar R3 = {{0x2a9e49687b83a2db, 0x278324e6aef7f3ec, 0x8065dc6c04ec5b65, 0xe530b773599cec7}};
#define ORDER_INVERSE 0xd2b51da312547e1bULL /* -1 / l modulo 2^64 */

/* a less the order if it is not below it, for a below twice the order */
static scalar scalar_once_reduced(scalar a) {
    scalar less;
    uint64_t borrow = 0;
    for (int i = 0; i < 4; i++) {
        unsigned __int128 difference = (unsigned __int128)a.word[i] - ORDER.word[i] - borrow;
        less.word[i] = (uint64_t)difference;
        borrow = (uint64_t)(difference >> 64) & 1;
    }
    uint64_t keep = 0 - borrow;
    for (int i = 0; i < 4; i++) a.word[i] = (a.word[i] & keep) | (less.word[i] & ~keep);
    return a;
}

/* a * b / R, for any a and b below l. Before the last step it is below (R * l + R * l) / R. */
static scalar scalar_multiply(scalar a, scalar b) {
    uint64_t t[6] = {0};
    for (int i = 0; i < 4; i++) {
        unsigned __int128 sum = 0;
        for (int j = 0; j < 4; j++) {
            sum += (unsigned __int128)a.word[i] * b.word[j] + t[j];
            t[j] = (uint64_t)sum;
            sum >>= 64;
        }
        sum += t[4];
        t[4] = (uint64_t)sum;
        t[5] = (uint64_t)(sum >> 64);
        uint64_t q = t[0] * ORDER_INVERSE;
        sum = ((unsigned __int128)q * ORDER.word[0] + t[0]) >> 64;
        for (int j = 1; j < 4; j++) {
            sum += (unsigned __int128)q * ORDER.word[j] + t[j];
            t[j - 1] = (uint64_t)sum;
            sum >>= 64;
        }
        sum += t[4];
        t[3] = (uint64_t)sum;
        t[4] = t[5] + (uint64_t)(sum >> 64);
    }
    return scalar_once_reduced((scalar){{t[0], t[1], t[2], t[3]}});
}

static scalar load_scalar(const uint8_t *row) {
    scalar a;
    memcpy(a.word, row, ROW);
    return a;
}

int64_t fedtasks_ristretto_reduce_scalars(uint8_t *out, const uint8_t *numbers, size_t n) {
    for (size_t row = 0; row < n; row++) {
        scalar low = scalar_multiply(load_scalar(numbers + row * 2 * ROW), R2);
        scalar high = scalar_multiply(load_scalar(numbers + row * 2 * ROW + ROW), R3);
        unsigned __int128 sum = 0;
        for (int i = 0; i < 4; i++) { /* below 2l < 2^254 */
            sum += (unsigned __int128)low.word[i] + high.word[i];
            low.word[i] = (uint64_t)sum;
            sum >>= 64;
        }
        low = scalar_multiply(low, UNIT);
        memcpy(out + row * ROW, low.word, ROW);
    }
    return -1;
}

/* a^(l - 2): the inverse, in Montgomery form as a is. The exponent is public. */
static scalar scalar_inverse(scalar a) {
    scalar power = R1;
    for (int bit = 252; bit >= 0; bit--) {
        power = scalar_multiply(power, power);
        if (ORDER_MINUS_2.word[bit / 64] >> (bit % 64) & 1) power = scalar_multiply(power, a);
    }
    return power;
}

/* Montgomery's trick: `out` holds the product of all rows before its own until the way back. */
int64_t fedtasks_ristretto_invert_scalars(uint8_t *out, const uint8_t *scalars, size_t n) {
    scalar product = R1;
    int64_t bad = -1;
    for (size_t row = 0; row < n && bad < 0; row++) {
        memcpy(out + row * ROW, product.word, ROW);
        scalar a = scalar_multiply(load_scalar(scalars + row * ROW), R2);
        product = scalar_multiply(product, a);
        /* The order is prime: a product is zero as soon as a factor is. */
        if (!(product.word[0] | product.word[1] | product.word[2] | product.word[3])) bad = (int64_t)row;
    }
    if (bad < 0) {
        product = scalar_inverse(product);
        for (size_t row = n; row-- > 0;) {
            scalar a = scalar_multiply(load_scalar(scalars + row * ROW), R2);
            scalar inverse = scalar_multiply(scalar_multiply(product, load_scalar(out + row * ROW)), UNIT);
            memcpy(out + row * ROW, inverse.word, ROW);
            product = scalar_multiply(product, a);
        }
    }
    /* Erase what was secret; the barrier keeps the compiler from leaving it out. */
    memset(&product, 0, sizeof product);
    __asm__ __volatile__("" : : "r"(&product) : "memory");
    return bad;
}

#endif
