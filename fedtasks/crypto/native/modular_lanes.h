/* Modular arithmetic in lanes: what is the same for all kernels that keep one number in each lane of their vectors.
 *
 * Vector i holds limb i, of 52 bits, of LANES numbers. A number is cut into blocks of BLOCK limbs, so that the column
 * sums of a product of two blocks stay in registers while every operand is read once; ten limbs fit the usual lengths
 * without waste (1024, 1536, 2048, 3072, 4096 bits are 20, 30, 40, 60, 80 limbs).
 *
 * Montgomery, "Modular multiplication without trial division", 1985; product scanning over blocks. Every column sum
 * takes at most 4 * limbs products below 2^52 and a carry, which fits 64 bits as long as limbs <= 160 < 2^10.
 *
 * Who includes this defines KERNEL, LANES and BLOCK (which divides 10), and
 *   vec       LANES words; v_zero, v_set, v_add, v_and, v_or, v_equal (all ones where equal), v_carry (>> 52),
 *             load_words and store_words (up to LANES of them), transpose (a square of LANES * LANES)
 *   scalar    a limb of the modulus; scalar_of makes it
 *   factor    LANES limbs as products take them; broadcast makes them of a scalar, as_factors of a row of vectors
 *   mul_add   adds the lower and the upper 52 bits of a product to one sum each, add_high the upper ones alone
 *   low       the lower 52 bits of a sum times a factor
 *   excess_of what so many lower and upper halves add to a sum beyond their value; settle takes it off. It is a
 *             multiple of 2^52, so that it can wait until the sum is carried
 *   begin     puts the processor into the state that these need, and `end` back
 */
#include <stdlib.h>
#include <string.h>

#define MAX_LIMBS 160
#define LIMB_BITS 52
#define LIMB_MASK ((1ULL << LIMB_BITS) - 1)
#define SECRET_WINDOW 5
#define SECRET_ENTRIES (1 << SECRET_WINDOW)

#define JOIN(kernel, name) fedtasks_##kernel##_##name
#define EXPAND(kernel, name) JOIN(kernel, name)
#define NAME(name) EXPAND(KERNEL, name)

/* The running sums of two blocks of columns. */
typedef struct {
    vec at[2 * BLOCK];
} columns;

typedef struct {
    scalar n[MAX_LIMBS];
    uint64_t excess[2 * MAX_LIMBS]; /* what products add to each column beyond their value, modulo 2^64 */
    factor n_inverse;
    size_t limbs;
    size_t blocks;
} modulus;

/* Add the product of two blocks, each with its own number in every lane. */
static INLINE void add_product(columns *c, const factor *a, const factor *b) {
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        factor by = a[i];
        UNROLLED for (int j = 0; j < BLOCK; j++) mul_add(&c->at[i + j], &c->at[i + j + 1], by, b[j]);
    }
}

/* Add the product of a block and a block of the modulus, which is the same in every lane. */
static INLINE void add_multiple(columns *c, const factor *m, const scalar *n) {
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        factor by = broadcast(n[i]);
        UNROLLED for (int j = 0; j < BLOCK; j++) mul_add(&c->at[i + j], &c->at[i + j + 1], by, m[j]);
    }
}

/* Add the products of different limbs of a block, each pair once. */
static INLINE void add_pairs(columns *c, const factor *a) {
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        factor by = a[i];
        UNROLLED for (int j = i + 1; j < BLOCK; j++) mul_add(&c->at[i + j], &c->at[i + j + 1], by, a[j]);
    }
}

/* Add the squares of the limbs of a block. */
static INLINE void add_squares(columns *c, const factor *a) {
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        mul_add(&c->at[2 * i], &c->at[2 * i + 1], a[i], a[i]);
    }
}

/* Choose the block of multiples m that makes the lower columns zero, add them, and carry into the upper ones. */
static INLINE void reduce(columns *c, factor *m, const uint64_t *excess, const modulus *mod) {
    UNROLLED for (int i = 0; i < BLOCK; i++) settle(&c->at[i], excess[i]);
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        factor by = low(c->at[i], mod->n_inverse);
        m[i] = by;
        /* Adding the lowest product rounds this column up to a multiple of 2^52. */
        vec carry = v_carry(v_add(c->at[i], v_set(LIMB_MASK)));
        add_high(&carry, by, broadcast(mod->n[0]));
        UNROLLED for (int j = 1; j < BLOCK; j++)
            mul_add(&c->at[i + j], &c->at[i + j + 1], by, broadcast(mod->n[j]));
        c->at[i + 1] = v_add(c->at[i + 1], carry);
    }
}

/* Write the lower columns as limbs, and carry into the upper ones. */
static INLINE void emit(columns *c, vec *out, const uint64_t *excess) {
    UNROLLED for (int i = 0; i < BLOCK; i++) settle(&c->at[i], excess[i]);
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        out[i] = v_and(c->at[i], v_set(LIMB_MASK));
        c->at[i + 1] = v_add(c->at[i + 1], v_carry(c->at[i]));
    }
}

/* Make the upper columns the lower ones. */
static INLINE void shift(columns *c) {
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        c->at[i] = c->at[i + BLOCK];
        c->at[i + BLOCK] = v_zero();
    }
}

/* Add the multiples of the modulus that fall into a column of blocks, and reduce or emit it. */
static INLINE void finish(columns *c, vec *out, factor *m, size_t column, const modulus *mod) {
    size_t blocks = mod->blocks, first = column < blocks ? 0 : column - blocks + 1;
    size_t end = column < blocks ? column : blocks;
    for (size_t i = first; i < end; i++) add_multiple(c, m + BLOCK * i, mod->n + BLOCK * (column - i));
    if (column < blocks)
        reduce(c, m + BLOCK * column, mod->excess + BLOCK * column, mod);
    else
        emit(c, out + BLOCK * (column - blocks), mod->excess + BLOCK * column);
    shift(c);
}

/* out = a * b / R mod n, below 2n if a * b < R * n; `out` may be a or b. */
static __attribute__((noinline)) void multiply(vec *out, const vec *a, const vec *b, const modulus *mod) {
    factor m[MAX_LIMBS], a_space[FACTOR_SPACE], b_space[FACTOR_SPACE];
    const factor *x = as_factors(a_space, a, mod->limbs), *y = as_factors(b_space, b, mod->limbs);
    columns c;
    size_t blocks = mod->blocks;
    UNROLLED for (int i = 0; i < 2 * BLOCK; i++) c.at[i] = v_zero();
    for (size_t column = 0; column < 2 * blocks; column++) {
        size_t first = column < blocks ? 0 : column - blocks + 1, end = column < blocks ? column + 1 : blocks;
        for (size_t i = first; i < end; i++) add_product(&c, x + BLOCK * i, y + BLOCK * (column - i));
        finish(&c, out, m, column, mod);
    }
}

/* out = a * a / R mod n; a quarter less work than `multiply`. */
static __attribute__((noinline)) void square(vec *out, const vec *a, const modulus *mod) {
    factor m[MAX_LIMBS], a_space[FACTOR_SPACE];
    const factor *x = as_factors(a_space, a, mod->limbs);
    vec carried[BLOCK];
    columns c;
    size_t blocks = mod->blocks;
    UNROLLED for (int i = 0; i < 2 * BLOCK; i++) c.at[i] = v_zero();
    for (size_t column = 0; column < 2 * blocks; column++) {
        UNROLLED for (int i = 0; i < BLOCK; i++) {
            carried[i] = c.at[i];
            c.at[i] = v_zero();
        }
        size_t first = column < blocks ? 0 : column - blocks + 1;
        for (size_t i = first; 2 * i < column; i++) add_product(&c, x + BLOCK * i, x + BLOCK * (column - i));
        int has_middle = column % 2 == 0;
        if (has_middle) add_pairs(&c, x + BLOCK * (column / 2));
        UNROLLED for (int i = 0; i < 2 * BLOCK; i++) c.at[i] = v_add(c.at[i], c.at[i]);
        UNROLLED for (int i = 0; i < BLOCK; i++) c.at[i] = v_add(c.at[i], carried[i]);
        if (has_middle) add_squares(&c, x + BLOCK * (column / 2));
        finish(&c, out, m, column, mod);
    }
}

/* ---------------------------------------------------------------------------------------------- rows and lanes */

/* Load one row into each lane. */
static void load_lanes(vec *out, const uint64_t *const row[LANES], size_t limbs) {
    for (size_t at = 0; at < limbs; at += LANES) {
        vec r[LANES];
        for (int lane = 0; lane < LANES; lane++) r[lane] = load_words(row[lane] + at, limbs - at);
        transpose(r);
        for (size_t i = 0; i < LANES && at + i < limbs; i++) out[at + i] = r[i];
    }
}

/* Store the first `lanes` lanes as rows. */
static void store_lanes(uint64_t *rows, const vec *in, size_t lanes, size_t limbs) {
    for (size_t at = 0; at < limbs; at += LANES) {
        vec r[LANES];
        for (size_t i = 0; i < LANES; i++) r[i] = at + i < limbs ? in[at + i] : v_zero();
        transpose(r);
        for (size_t lane = 0; lane < lanes; lane++) store_words(rows + lane * limbs + at, r[lane], limbs - at);
    }
}

/* Load up to LANES rows that lie `step` words apart; lanes beyond the last row repeat it. */
static void load_rows(vec *out, const uint64_t *rows, size_t step, size_t n_rows, size_t limbs) {
    const uint64_t *row[LANES];
    for (size_t lane = 0; lane < LANES; lane++) row[lane] = rows + step * (lane < n_rows ? lane : n_rows - 1);
    load_lanes(out, row, limbs);
}

static inline size_t group(size_t rows, size_t at) { return rows - at < LANES ? rows - at : LANES; }

/* How many pairs of limbs of two numbers meet in a column. */
static inline size_t meeting(size_t column, size_t limbs) {
    return column < limbs ? column + 1 : 2 * limbs - 1 - column;
}

static void open_modulus(modulus *mod, const uint64_t *n, uint64_t n_inverse, size_t limbs) {
    for (size_t i = 0; i < limbs; i++) mod->n[i] = scalar_of(n[i]);
    mod->n_inverse = broadcast(scalar_of(n_inverse));
    /* Two products of numbers, but the lowest limb of n adds no lower halves, see `reduce`. Squares count the same, for
     * what pairs add is doubled with its excess. */
    for (size_t i = 0; i < 2 * limbs; i++)
        mod->excess[i] = excess_of(2 * meeting(i, limbs) - (i < limbs), i ? 2 * meeting(i - 1, limbs) : 0);
    mod->limbs = limbs;
    mod->blocks = limbs / BLOCK;
}

/* ------------------------------------------------------------------------------------------------- what is offered */

int NAME(multiply)(uint64_t *out, const uint64_t *a, size_t a_step, const uint64_t *b, size_t b_step, size_t rows,
                   const uint64_t *n, uint64_t n_inverse, size_t limbs) {
    state before = begin();
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs);
    vec x[MAX_LIMBS], y[MAX_LIMBS], product[MAX_LIMBS];
    for (size_t at = 0; at < rows; at += LANES) {
        size_t lanes = group(rows, at);
        if (a_step || at == 0) load_rows(x, a + at * a_step, a_step, lanes, limbs);
        if (b_step || at == 0) load_rows(y, b + at * b_step, b_step, lanes, limbs);
        multiply(product, x, y, &mod);
        store_lanes(out + at * limbs, product, lanes, limbs);
    }
    end(before);
    return 0;
}

/* Return `count` bits of a little-endian number from bit `at` on; bits beyond its end are zero. */
static unsigned bits_at(const uint8_t *number, size_t n_bits, size_t at, size_t count) {
    unsigned found = 0;
    for (size_t i = 0; i < count && at + i < n_bits; i++) found |= (number[(at + i) / 8] >> (at + i) % 8 & 1u) << i;
    return found;
}

/* out = table[index] for an index that all lanes share, by reading every entry. */
static void look_up(vec *out, const vec *table, size_t entries, unsigned index, size_t limbs) {
    for (size_t block = 0; block < limbs; block += BLOCK) {
        vec found[BLOCK];
        UNROLLED for (int i = 0; i < BLOCK; i++) found[i] = v_zero();
        for (size_t entry = 0; entry < entries; entry++) {
            const vec *row = table + entry * limbs + block;
            uint64_t differs = (uint64_t)entry ^ index;
            /* Keeps the compiler from turning the mask into a branch. */
            __asm__("" : "+r"(differs));
            vec mask = v_set(0 - (((differs - 1) & ~differs) >> 63));
            UNROLLED for (int i = 0; i < BLOCK; i++)
                found[i] = v_or(found[i], v_and(row[i], mask));
        }
        UNROLLED for (int i = 0; i < BLOCK; i++) out[block + i] = found[i];
    }
}

/* x = x^exponent by fixed windows; every step is the same whatever the exponent's bits are. */
static void secret_power(vec *x, const vec *one, const uint8_t *exponent, size_t bits, vec *table, const modulus *mod) {
    size_t limbs = mod->limbs, size = limbs * sizeof(vec);
    memcpy(table, one, size);
    memcpy(table + limbs, x, size);
    for (size_t i = 2; i < SECRET_ENTRIES; i += 2) {
        square(table + i * limbs, table + i / 2 * limbs, mod);
        multiply(table + (i + 1) * limbs, table + i * limbs, x, mod);
    }
    vec by[MAX_LIMBS];
    size_t window = (bits + SECRET_WINDOW - 1) / SECRET_WINDOW;
    memcpy(x, one, size);
    while (window-- > 0) {
        for (int i = 0; i < SECRET_WINDOW; i++) square(x, x, mod);
        look_up(by, table, SECRET_ENTRIES, bits_at(exponent, bits, window * SECRET_WINDOW, SECRET_WINDOW), limbs);
        multiply(x, x, by, mod);
    }
}

/* x = x^exponent from the highest bit on, for an exponent that everybody knows and most bits of which are zero. */
static void public_power(vec *x, const vec *one, const uint8_t *exponent, size_t bits, const modulus *mod) {
    vec base[MAX_LIMBS];
    size_t size = mod->limbs * sizeof(vec), bit = bits;
    while (bit > 0 && !bits_at(exponent, bits, bit - 1, 1)) bit--;
    if (bit == 0) {
        memcpy(x, one, size);
        return;
    }
    memcpy(base, x, size);
    for (bit--; bit-- > 0;) {
        square(x, x, mod);
        if (bits_at(exponent, bits, bit, 1)) multiply(x, x, base, mod);
    }
}

int NAME(power)(uint64_t *out, const uint64_t *a, size_t rows, const uint8_t *exponent, size_t exponent_bits,
                int secret, const uint64_t *one, const uint64_t *n, uint64_t n_inverse, size_t limbs) {
    state before = begin();
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs);
    vec x[MAX_LIMBS], unit[MAX_LIMBS];
    vec *table = NULL;
    if (secret && !(table = aligned_alloc(sizeof(vec), SECRET_ENTRIES * limbs * sizeof(vec)))) {
        end(before);
        return -1;
    }
    load_rows(unit, one, 0, 1, limbs);
    for (size_t at = 0; at < rows; at += LANES) {
        size_t lanes = group(rows, at);
        load_rows(x, a + at * limbs, limbs, lanes, limbs);
        if (secret)
            secret_power(x, unit, exponent, exponent_bits, table, &mod);
        else
            public_power(x, unit, exponent, exponent_bits, &mod);
        store_lanes(out + at * limbs, x, lanes, limbs);
    }
    free(table);
    end(before);
    return 0;
}

int NAME(fixed_base)(uint64_t *out, const uint64_t *table, size_t windows, size_t window_bits, const uint8_t *digits,
                     size_t rows, const uint64_t *n, uint64_t n_inverse, size_t limbs) {
    state before = begin();
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs);
    size_t entries = (size_t)1 << window_bits;
    vec x[MAX_LIMBS], by[MAX_LIMBS];
    for (size_t at = 0; at < rows; at += LANES) {
        size_t lanes = group(rows, at);
        for (size_t window = 0; window < windows; window++) {
            uint64_t digit[LANES];
            for (size_t lane = 0; lane < LANES; lane++)
                digit[lane] = lane < lanes ? digits[(at + lane) * windows + window] : 0;
            vec sought = load_words(digit, LANES);
            vec *found = window ? by : x;
            for (size_t block = 0; block < limbs; block += BLOCK) {
                vec chosen[BLOCK];
                UNROLLED for (int i = 0; i < BLOCK; i++) chosen[i] = v_zero();
                for (size_t entry = 0; entry < entries; entry++) {
                    vec here = v_equal(sought, v_set(entry));
                    const uint64_t *row = table + (window * entries + entry) * limbs + block;
                    UNROLLED for (int i = 0; i < BLOCK; i++)
                        chosen[i] = v_or(chosen[i], v_and(here, v_set(row[i])));
                }
                UNROLLED for (int i = 0; i < BLOCK; i++) found[block + i] = chosen[i];
            }
            if (window) multiply(x, x, by, &mod);
        }
        store_lanes(out + at * limbs, x, lanes, limbs);
    }
    end(before);
    return 0;
}

/* One segment that a lane is working on. */
typedef struct {
    int64_t segment; /* -1: none is left */
    int64_t next, end;
} chain;

/* Give a lane the next segment that has rows; empty ones are answered at once. */
static void take_segment(chain *lane, const uint64_t **row, int64_t *taken, uint64_t *out, const uint64_t *values,
                         const int64_t *order, const int64_t *starts, int64_t segments, const uint64_t *one,
                         size_t limbs) {
    while (*taken < segments) {
        int64_t segment = (*taken)++, start = starts[segment], end = starts[segment + 1];
        if (start < end) {
            chain found = {segment, start + 1, end};
            *lane = found;
            *row = values + (size_t)order[start] * limbs;
            return;
        }
        memcpy(out + (size_t)segment * limbs, one, limbs * sizeof(uint64_t));
    }
    lane->segment = -1;
    *row = one;
}

int NAME(segmented_product)(uint64_t *out, const uint64_t *values, const int64_t *order, const int64_t *starts,
                            size_t segments, const uint64_t *one, const uint64_t *n, uint64_t n_inverse, size_t limbs) {
    state before = begin();
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs);
    vec x[MAX_LIMBS], by[MAX_LIMBS];
    chain lane[LANES];
    const uint64_t *row[LANES];
    int64_t taken = 0;
    size_t busy = 0;
    for (size_t i = 0; i < LANES; i++) {
        take_segment(&lane[i], &row[i], &taken, out, values, order, starts, (int64_t)segments, one, limbs);
        busy += lane[i].segment >= 0;
    }
    load_lanes(x, row, limbs);
    while (busy) {
        for (size_t i = 0; i < LANES; i++) {
            while (lane[i].segment >= 0 && lane[i].next == lane[i].end) {
                uint64_t *words = (uint64_t *)x + i, *result = out + (size_t)lane[i].segment * limbs;
                for (size_t limb = 0; limb < limbs; limb++) result[limb] = words[limb * LANES];
                take_segment(&lane[i], &row[i], &taken, out, values, order, starts, (int64_t)segments, one, limbs);
                busy -= lane[i].segment < 0;
                for (size_t limb = 0; limb < limbs; limb++) words[limb * LANES] = row[i][limb];
            }
            row[i] = lane[i].segment < 0 ? one : values + (size_t)order[lane[i].next++] * limbs;
        }
        if (!busy) break;
        load_lanes(by, row, limbs);
        multiply(x, x, by, &mod);
    }
    end(before);
    return 0;
}

/* -------------------------------------------------------------------------------------- bytes and limbs of 52 bits */

int NAME(from_bytes)(uint64_t *out, const uint8_t *rows, size_t width, size_t n_rows, size_t limbs) {
    for (size_t row = 0; row < n_rows; row++, rows += width, out += limbs) {
        unsigned __int128 held = 0;
        size_t n_bits = 0, limb = 0;
        for (size_t byte = width; byte-- > 0;) {
            held |= (unsigned __int128)rows[byte] << n_bits;
            n_bits += 8;
            if (n_bits >= LIMB_BITS) {
                out[limb++] = (uint64_t)held & LIMB_MASK;
                held >>= LIMB_BITS;
                n_bits -= LIMB_BITS;
            }
        }
        while (limb < limbs) {
            out[limb++] = (uint64_t)held;
            held = 0;
        }
    }
    return 0;
}

int NAME(to_bytes)(uint8_t *out, size_t width, const uint64_t *rows, size_t n_rows, const uint64_t *n, size_t limbs) {
    const uint64_t mask = LIMB_MASK;
    for (size_t row = 0; row < n_rows; row++, rows += limbs, out += width) {
        uint64_t less[MAX_LIMBS], borrow = 0;
        for (size_t i = 0; i < limbs; i++) {
            uint64_t difference = rows[i] - n[i] - borrow;
            borrow = difference >> 63;
            less[i] = difference & mask;
        }
        uint64_t keep = 0 - borrow;
        unsigned __int128 held = 0;
        size_t n_bits = 0, limb = 0;
        for (size_t byte = width; byte-- > 0;) {
            if (n_bits < 8 && limb < limbs) {
                held |= (unsigned __int128)((rows[limb] & keep) | (less[limb] & ~keep)) << n_bits;
                n_bits += LIMB_BITS;
                limb++;
            }
            out[byte] = (uint8_t)held;
            held >>= 8;
            n_bits = n_bits < 8 ? 0 : n_bits - 8;
        }
    }
    return 0;
}

int NAME(add)(uint64_t *out, const uint64_t *a, const uint64_t *b, size_t rows, const uint64_t *n, size_t limbs) {
    const uint64_t mask = LIMB_MASK;
    for (size_t row = 0; row < rows; row++, a += limbs, b += limbs, out += limbs) {
        uint64_t sum[MAX_LIMBS], less[MAX_LIMBS], carry = 0, borrow = 0;
        for (size_t i = 0; i < limbs; i++) {
            carry += a[i] + b[i];
            sum[i] = carry & mask;
            carry >>= LIMB_BITS;
            uint64_t difference = sum[i] - 2 * n[i] - borrow;
            less[i] = difference & mask;
            borrow = 0 - (uint64_t)((int64_t)difference >> LIMB_BITS);
        }
        uint64_t keep = 0 - borrow;
        for (size_t i = 0; i < limbs; i++) out[i] = (sum[i] & keep) | (less[i] & ~keep);
    }
    return 0;
}
