/* Modular arithmetic by the machine's own libcrypto, whose assembler knows every processor. It is found at run time:
 * the package is built without OpenSSL's headers, and one wheel serves OpenSSL 1.1 and 3. */
#define _POSIX_C_SOURCE 200809L

#include "kernels.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* OpenSSL hides this struct, and yet its releases 1.0 to 3 share it. Two things need it: OpenSSL's own conversions drop
 * leading zero words, so that the time of all that follows would tell how short a secret is; and they go byte by byte,
 * which costs as much as a multiplication of 2048 bits. `load` checks the layout: another disables the kernel. */
typedef struct {
    uint64_t *words;
    int used;
    int reserved;
    int negative;
    int flags;
} BIGNUM;

typedef struct bignum_ctx BN_CTX;
typedef struct bn_mont_ctx_st BN_MONT_CTX;

#define FLAG_MALLOCED 1
#define FLAG_CONSTTIME 4
#define OPENSSL_3_0_4 0x30000040UL

#define FOR_EACH_FUNCTION(F)                                                                                           \
    F(unsigned long, OpenSSL_version_num, (void))                                                                      \
    F(BIGNUM *, BN_new, (void))                                                                                        \
    F(void, BN_clear_free, (BIGNUM *))                                                                                 \
    F(int, BN_set_bit, (BIGNUM *, int))                                                                                \
    F(void, BN_set_flags, (BIGNUM *, int))                                                                             \
    F(BN_CTX *, BN_CTX_new, (void))                                                                                    \
    F(void, BN_CTX_free, (BN_CTX *))                                                                                   \
    F(BN_MONT_CTX *, BN_MONT_CTX_new, (void))                                                                          \
    F(int, BN_MONT_CTX_set, (BN_MONT_CTX *, const BIGNUM *, BN_CTX *))                                                 \
    F(void, BN_MONT_CTX_free, (BN_MONT_CTX *))                                                                         \
    F(int, BN_to_montgomery, (BIGNUM *, const BIGNUM *, BN_MONT_CTX *, BN_CTX *))                                      \
    F(int, BN_from_montgomery, (BIGNUM *, const BIGNUM *, BN_MONT_CTX *, BN_CTX *))                                    \
    F(int, BN_mod_mul_montgomery, (BIGNUM *, const BIGNUM *, const BIGNUM *, BN_MONT_CTX *, BN_CTX *))                 \
    F(int, BN_mod_exp_mont_consttime,                                                                                  \
      (BIGNUM *, const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *, BN_MONT_CTX *))

#define MEMBER(result, name, arguments) result(*name) arguments;

static struct {
    FOR_EACH_FUNCTION(MEMBER)
    /* NULL before OpenSSL 3. */
    int (*BN_mod_exp_mont_consttime_x2)(BIGNUM *, const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_MONT_CTX *,
                                        BIGNUM *, const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_MONT_CTX *,
                                        BN_CTX *);
} crypto;

static int works;
static pthread_once_t loaded = PTHREAD_ONCE_INIT;

static int find(void *library, const char *name, void *function) {
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* A number of any value with memory for so many words, or NULL. */
static BIGNUM *new_number(size_t words) {
    BIGNUM *x = crypto.BN_new();
    if (x == NULL || crypto.BN_set_bit(x, words == 0 ? 0 : (int)(64 * words - 1))) return x;
    crypto.BN_clear_free(x);
    return NULL;
}

static int layout_is_known(void) {
    BIGNUM *x = new_number(3);
    if (x == NULL) return 0;
    int known = x->used == 3 && x->reserved >= 3 && x->negative == 0 && x->flags == FLAG_MALLOCED &&
                x->words[0] == 0 && x->words[1] == 0 && x->words[2] == 1ULL << 63;
    crypto.BN_clear_free(x);
    return known;
}

static void load(void) {
    static const char *const names[] = {"libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.3.dylib"};
    void *library = NULL;
    for (size_t i = 0; i < 3 && library == NULL; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__) return;
    int found = 1;
#define FIND(result, name, arguments) found &= find(library, #name, &crypto.name);
    FOR_EACH_FUNCTION(FIND)
    if (!found || !layout_is_known()) return;
    find(library, "BN_mod_exp_mont_consttime_x2", &crypto.BN_mod_exp_mont_consttime_x2);
    /* CVE-2022-2274: where there is AVX512-IFMA, this release writes past the end of its buffers. */
    if (crypto.OpenSSL_version_num() == OPENSSL_3_0_4) crypto.BN_mod_exp_mont_consttime_x2 = NULL;
    works = 1;
}

int fedtasks_openssl_works(void) {
    pthread_once(&loaded, load);
    return works;
}

/* What one call works with. */
struct field {
    size_t limbs;
    BN_CTX *ctx;
    BN_MONT_CTX *mont;
    BIGNUM *n;
    BIGNUM *x;
    BIGNUM *y;
};

static void close_field(struct field *f) {
    BIGNUM *numbers[] = {f->n, f->x, f->y};
    for (size_t i = 0; i < 3; i++)
        if (numbers[i] != NULL) crypto.BN_clear_free(numbers[i]);
    if (f->mont != NULL) crypto.BN_MONT_CTX_free(f->mont);
    if (f->ctx != NULL) crypto.BN_CTX_free(f->ctx);
}

static void set(BIGNUM *x, const uint64_t *words, size_t limbs) {
    memcpy(x->words, words, limbs * sizeof *words);
    x->used = (int)limbs;
}

static void get(uint64_t *words, const BIGNUM *x, size_t limbs) { memcpy(words, x->words, limbs * sizeof *words); }

/* Count leading zero words again after OpenSSL dropped them: its fast and constant-time paths need equal lengths. */
static void widen(BIGNUM *x, size_t limbs) {
    for (size_t i = 0; i < limbs; i++) x->words[i] &= 0 - (uint64_t)(i < (size_t)x->used);
    x->used = (int)limbs;
}

/* After a failure too, `close_field` has to follow. */
static int open_field(struct field *f, const uint64_t *n, size_t limbs) {
    memset(f, 0, sizeof *f);
    if (!fedtasks_openssl_works()) return -1;
    f->limbs = limbs;
    f->ctx = crypto.BN_CTX_new();
    f->mont = crypto.BN_MONT_CTX_new();
    f->n = new_number(limbs);
    f->x = new_number(limbs);
    f->y = new_number(limbs);
    if (f->ctx == NULL || f->mont == NULL || f->n == NULL || f->x == NULL || f->y == NULL) return -1;
    set(f->n, n, limbs);
    /* It may be a secret prime. */
    crypto.BN_set_flags(f->n, FLAG_CONSTTIME);
    return crypto.BN_MONT_CTX_set(f->mont, f->n, f->ctx) ? 0 : -1;
}

static int multiply(struct field *f, BIGNUM *product, const BIGNUM *a, const BIGNUM *b) {
    if (!crypto.BN_mod_mul_montgomery(product, a, b, f->mont, f->ctx)) return -1;
    widen(product, f->limbs);
    return 0;
}

int fedtasks_openssl_multiply(uint64_t *out, const uint64_t *a, size_t a_step, const uint64_t *b, size_t b_step,
                              size_t rows, const uint64_t *n, uint64_t n_inverse, size_t limbs, size_t parts) {
    (void)parts;
    (void)n_inverse;
    struct field f;
    int status = open_field(&f, n, limbs);
    int squares = a == b && a_step == b_step;
    for (size_t i = 0; i < rows && status == 0; i++) {
        set(f.x, a + i * a_step, limbs);
        if (!squares) set(f.y, b + i * b_step, limbs);
        status = multiply(&f, f.x, f.x, squares ? f.x : f.y);
        get(out + i * limbs, f.x, limbs);
    }
    close_field(&f);
    return status;
}

static int bit(const BIGNUM *e, size_t i) { return e->words[i / 64] >> i % 64 & 1; }

/* Square and multiply from the highest bit on. */
static int power_by_bits(struct field *f, uint64_t *out, const uint64_t *a, size_t rows, const BIGNUM *exponent,
                         const uint64_t *one) {
    size_t limbs = f->limbs, bits = 64 * (size_t)exponent->used;
    while (bits > 0 && !bit(exponent, bits - 1)) bits--;
    for (size_t i = 0; i < rows; i++) {
        set(f->x, bits == 0 ? one : a + i * limbs, limbs);
        set(f->y, a + i * limbs, limbs);
        for (size_t j = bits; j-- > 1;)
            if (multiply(f, f->x, f->x, f->x) != 0 || (bit(exponent, j - 1) && multiply(f, f->x, f->x, f->y) != 0))
                return -1;
        get(out + i * limbs, f->x, limbs);
    }
    return 0;
}

/* OpenSSL raises plain numbers; two at once in far less time than two by two where it uses the processor's IFMA. */
static int power_in_constant_time(struct field *f, uint64_t *out, const uint64_t *a, size_t rows,
                                  const BIGNUM *exponent) {
    BIGNUM *x[] = {f->x, f->y};
    size_t limbs = f->limbs;
    int fine = 1;
    for (size_t i = 0; i < rows && fine; i += 2) {
        size_t count = rows - i < 2 ? 1 : 2;
        for (size_t j = 0; j < count; j++) {
            set(x[j], a + (i + j) * limbs, limbs);
            fine &= crypto.BN_from_montgomery(x[j], x[j], f->mont, f->ctx);
            widen(x[j], limbs);
        }
        if (count == 2 && crypto.BN_mod_exp_mont_consttime_x2 != NULL)
            fine &= crypto.BN_mod_exp_mont_consttime_x2(x[0], x[0], exponent, f->n, f->mont, x[1], x[1], exponent, f->n,
                                                        f->mont, f->ctx);
        else
            for (size_t j = 0; j < count; j++)
                fine &= crypto.BN_mod_exp_mont_consttime(x[j], x[j], exponent, f->n, f->ctx, f->mont);
        for (size_t j = 0; j < count; j++) {
            widen(x[j], limbs);
            fine &= crypto.BN_to_montgomery(x[j], x[j], f->mont, f->ctx);
            widen(x[j], limbs);
            get(out + (i + j) * limbs, x[j], limbs);
        }
    }
    return fine ? 0 : -1;
}

int fedtasks_openssl_power(uint64_t *out, const uint64_t *a, size_t rows, const uint8_t *exponent,
                           size_t exponent_bits, int secret, const uint64_t *one, const uint64_t *n,
                           uint64_t n_inverse, size_t limbs, size_t parts) {
    (void)parts;
    (void)n_inverse;
    struct field f;
    int status = open_field(&f, n, limbs);
    size_t words = (exponent_bits + 63) / 64, ones = 0;
    BIGNUM *e = status == 0 ? new_number(words) : NULL;
    if (e == NULL) {
        status = -1;
    } else {
        memset(e->words, 0, (size_t)e->used * sizeof *e->words);
        memcpy(e->words, exponent, (exponent_bits + 7) / 8);
        e->used = (int)words;
        for (size_t i = 0; i < words && !secret; i++) ones += (size_t)__builtin_popcountll(e->words[i]);
        /* The constant-time way takes 5/4 multiplications for each bit of whole words, and some 15 around them. */
        if (!secret && (exponent_bits <= 64 || 4 * ones <= exponent_bits))
            status = power_by_bits(&f, out, a, rows, e, one);
        else
            status = power_in_constant_time(&f, out, a, rows, e);
        crypto.BN_clear_free(e);
    }
    close_field(&f);
    return status;
}

/* x = table[digit], by reading all entries. */
static void choose(BIGNUM *x, const uint64_t *table, size_t entries, size_t digit, size_t limbs) {
    uint64_t *restrict words = x->words;
    memset(words, 0, limbs * sizeof *words);
    for (size_t i = 0; i < entries; i++, table += limbs) {
        uint64_t mask = 0 - (((uint64_t)(i ^ digit) - 1) >> 63);
        /* Keeps the compiler from making the mask a branch. */
        __asm__("" : "+r"(mask));
        for (size_t j = 0; j < limbs; j++) words[j] |= table[j] & mask;
    }
    x->used = (int)limbs;
}

int fedtasks_openssl_fixed_base(uint64_t *out, const uint64_t *table, size_t windows, size_t window_bits,
                                const uint8_t *digits, size_t rows, const uint64_t *one, const uint64_t *n,
                                uint64_t n_inverse, size_t limbs, size_t parts) {
    (void)parts;
    (void)one;
    (void)n_inverse;
    struct field f;
    int status = open_field(&f, n, limbs);
    size_t entries = (size_t)1 << window_bits;
    for (size_t i = 0; i < rows && status == 0; i++, digits += windows) {
        choose(f.x, table, entries, digits[0], limbs);
        for (size_t w = 1; w < windows && status == 0; w++) {
            choose(f.y, table + w * entries * limbs, entries, digits[w], limbs);
            status = multiply(&f, f.x, f.x, f.y);
        }
        get(out + i * limbs, f.x, limbs);
    }
    close_field(&f);
    return status;
}

int fedtasks_openssl_segmented_product(uint64_t *out, const uint64_t *values, const int64_t *order,
                                       const int64_t *starts, size_t segments, const uint64_t *one, const uint64_t *n,
                                       uint64_t n_inverse, size_t limbs, size_t parts) {
    (void)parts;
    (void)n_inverse;
    struct field f;
    int status = open_field(&f, n, limbs);
    for (size_t s = 0; s < segments && status == 0; s++) {
        int64_t first = starts[s], end = starts[s + 1];
        set(f.x, first < end ? values + (size_t)order[first] * limbs : one, limbs);
        for (int64_t j = first + 1; j < end && status == 0; j++) {
            set(f.y, values + (size_t)order[j] * limbs, limbs);
            status = multiply(&f, f.x, f.x, f.y);
        }
        get(out + s * limbs, f.x, limbs);
    }
    close_field(&f);
    return status;
}

int fedtasks_openssl_add(uint64_t *out, const uint64_t *a, const uint64_t *b, size_t rows, const uint64_t *n,
                         size_t limbs, size_t parts) {
    (void)parts;
    for (size_t row = 0; row < rows; row++, a += limbs, b += limbs, out += limbs) {
        unsigned __int128 carry = 0, borrow = 0;
        for (size_t i = 0; i < limbs; i++) {
            carry += (unsigned __int128)a[i] + b[i];
            out[i] = (uint64_t)carry;
            carry >>= 64;
            borrow = ((unsigned __int128)out[i] - n[i] - borrow) >> 127;
        }
        /* The sum is at least n if it has one word more, or if n can be taken from it. */
        uint64_t mask = 0 - ((uint64_t)carry | ((uint64_t)borrow ^ 1));
        borrow = 0;
        for (size_t i = 0; i < limbs; i++) {
            unsigned __int128 difference = (unsigned __int128)out[i] - (n[i] & mask) - borrow;
            out[i] = (uint64_t)difference;
            borrow = difference >> 127;
        }
    }
    return 0;
}

static void reverse(uint8_t *out, const uint8_t *in, size_t n) {
    for (; n >= 8; n -= 8, out += 8) {
        uint64_t word;
        memcpy(&word, in + n - 8, 8);
        word = __builtin_bswap64(word);
        memcpy(out, &word, 8);
    }
    while (n > 0) *out++ = in[--n];
}

int fedtasks_openssl_from_bytes(uint64_t *out, const uint8_t *rows, size_t width, size_t n_rows, size_t limbs) {
    size_t bytes = limbs * sizeof *out, shared = width < bytes ? width : bytes;
    for (size_t row = 0; row < n_rows; row++, rows += width, out += limbs) {
        memset((uint8_t *)out + shared, 0, bytes - shared);
        reverse((uint8_t *)out, rows + width - shared, shared);
    }
    return 0;
}

/* All results are below n. */
int fedtasks_openssl_to_bytes(uint8_t *out, size_t width, const uint64_t *rows, size_t n_rows, const uint64_t *n,
                              size_t limbs, size_t parts) {
    (void)parts;
    (void)n;
    size_t bytes = limbs * sizeof *rows, shared = width < bytes ? width : bytes;
    for (size_t row = 0; row < n_rows; row++, rows += limbs, out += width) {
        memset(out, 0, width - shared);
        reverse(out + width - shared, (const uint8_t *)rows, shared);
    }
    return 0;
}
