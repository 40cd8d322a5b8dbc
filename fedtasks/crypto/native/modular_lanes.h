/* Modular arithmetic in lanes: what is the same for all kernels that keep one number in each lane of their vectors.
 *
 * Vector i holds limb i, of 52 bits, of LANES numbers. A number is cut into blocks of BLOCK limbs, so that the column
 * sums of a product of two blocks stay in registers while every operand is read once; ten limbs fit the usual lengths
 * without waste (1024, 1536, 2048, 3072, 4096 bits are 20, 30, 40, 60, 80 limbs).
 *
 * Montgomery, "Modular multiplication without trial division", 1985; product scanning over blocks. Every column sum
 * takes at most 4 * limbs products below 2^52 and a carry, which fits 64 bits as long as limbs <= 160 < 2^10.
 *
 * A residue modulo a square n^2 is a pair of numbers a, b below 2n, which stands for a - b n. Where T = a c and
 * m = -T / n mod R, the reduced number t = (T + m n) / R obeys T / R = t - (m / R) n, so
 *   (a - b n) (c - d n) / R = t - u n modulo n^2, where u = (a d + b c + m) / R modulo n:
 * five products of half the length, two of them to reduce, instead of eight. u is at most 2n where b and d are below 4n.
 * Takagi, "Fast RSA-type cryptosystem modulo p^k q", 1998, has the idea of computing modulo powers digit by digit.
 *
 * Who includes this defines KERNEL, LANES and BLOCK (which divides 10), and
 *   vec       LANES words; v_zero, v_set, v_add, v_and, v_or, v_equal (all ones where equal), v_carry (>> 52),
 *             load_words and store_words (up to LANES of them), transpose (a square of LANES * LANES)
 *   scalar    a limb of the modulus; scalar_of makes it
 *   factor    LANES limbs as products take them; broadcast makes them of a scalar, as_factors of a row of vectors
 *   mul_add   adds the lower and the upper 52 bits of a product to one sum each, add_high the upper ones alone
 *   low       the lower 52 bits of a sum times a factor
 *   as_limb   the limb that is a factor
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
#define VECTORS_AT_ONCE 4 /* so many serve themselves from a window's table before the next one's is needed */

#define JOIN(kernel, name) fedtasks_##kernel##_##name
#define EXPAND(kernel, name) JOIN(kernel, name)
#define NAME(name) EXPAND(KERNEL, name)

/* The running sums of two blocks of columns. */
typedef struct {
    vec at[2 * BLOCK];
} columns;

typedef struct {
    scalar n[MAX_LIMBS];
    uint64_t excess[2 * MAX_LIMBS];  /* what products add to each column beyond their value, modulo 2^64 */
    uint64_t excess2[2 * MAX_LIMBS]; /* the same for the second number of a pair */
    factor n_inverse;
    size_t limbs;
    size_t blocks;
    size_t parts; /* numbers of a residue: one, or the two of a pair */
    size_t width; /* limbs of a residue */
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
static INLINE void finish(columns *c, vec *out, factor *m, size_t column, const uint64_t *excess, const modulus *mod) {
    size_t blocks = mod->blocks, first = column < blocks ? 0 : column - blocks + 1;
    size_t end = column < blocks ? column : blocks;
    for (size_t i = first; i < end; i++) add_multiple(c, m + BLOCK * i, mod->n + BLOCK * (column - i));
    if (column < blocks)
        reduce(c, m + BLOCK * column, excess + BLOCK * column, mod);
    else
        emit(c, out + BLOCK * (column - blocks), excess + BLOCK * column);
    shift(c);
}

static INLINE void clear(columns *c) {
    UNROLLED for (int i = 0; i < 2 * BLOCK; i++) c->at[i] = v_zero();
}

/* Put the running sums of a column aside, so that what is added to it from here on can be doubled. */
static INLINE void put_aside(columns *c, vec *carried) {
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        carried[i] = c->at[i];
        c->at[i] = v_zero();
    }
}

static INLINE void add_doubled_to(columns *c, const vec *carried) {
    UNROLLED for (int i = 0; i < 2 * BLOCK; i++) c->at[i] = v_add(c->at[i], c->at[i]);
    UNROLLED for (int i = 0; i < BLOCK; i++) c->at[i] = v_add(c->at[i], carried[i]);
}

/* Add the limbs of the first number's multiples m to a column of the second one. */
static INLINE void add_multiples_of_first(columns *c, const factor *m, size_t column, size_t blocks) {
    if (column < blocks)
        UNROLLED for (int i = 0; i < BLOCK; i++) c->at[i] = v_add(c->at[i], as_limb(m[BLOCK * column + i]));
}

/* Add the products of two numbers that fall into a column of blocks. */
static INLINE void add_products(columns *c, const factor *x, const factor *y, size_t column, size_t blocks) {
    size_t first = column < blocks ? 0 : column - blocks + 1, end = column < blocks ? column + 1 : blocks;
    for (size_t i = first; i < end; i++) add_product(c, x + BLOCK * i, y + BLOCK * (column - i));
}

/* Add those of a number with itself, a quarter less work; `carried` keeps what is not doubled. */
static INLINE void add_own_products(columns *c, vec *carried, const factor *x, size_t column, size_t blocks) {
    put_aside(c, carried);
    size_t first = column < blocks ? 0 : column - blocks + 1;
    for (size_t i = first; 2 * i < column; i++) add_product(c, x + BLOCK * i, x + BLOCK * (column - i));
    int has_middle = column % 2 == 0;
    if (has_middle) add_pairs(c, x + BLOCK * (column / 2));
    add_doubled_to(c, carried);
    if (has_middle) add_squares(c, x + BLOCK * (column / 2));
}

/* out = a * b / R mod n, below 2n if a * b < R * n; `out` may be a or b. */
static __attribute__((noinline)) void multiply_numbers(vec *out, const vec *a, const vec *b, const modulus *mod) {
    factor m[MAX_LIMBS], a_space[FACTOR_SPACE], b_space[FACTOR_SPACE];
    const factor *x = as_factors(a_space, a, mod->limbs), *y = as_factors(b_space, b, mod->limbs);
    columns c;
    clear(&c);
    for (size_t column = 0; column < 2 * mod->blocks; column++) {
        add_products(&c, x, y, column, mod->blocks);
        finish(&c, out, m, column, mod->excess, mod);
    }
}

static __attribute__((noinline)) void square_number(vec *out, const vec *a, const modulus *mod) {
    factor m[MAX_LIMBS], a_space[FACTOR_SPACE];
    const factor *x = as_factors(a_space, a, mod->limbs);
    vec carried[BLOCK];
    columns c;
    clear(&c);
    for (size_t column = 0; column < 2 * mod->blocks; column++) {
        add_own_products(&c, carried, x, column, mod->blocks);
        finish(&c, out, m, column, mod->excess, mod);
    }
}

/* Both numbers of a pair column by column, so that the processor adds up one while it waits for the other's carries. */
static __attribute__((noinline)) void multiply_pairs(vec *out, const vec *a, const vec *b, const modulus *mod) {
    factor m[MAX_LIMBS], m2[MAX_LIMBS], a_space[FACTOR_SPACE], b_space[FACTOR_SPACE];
    const factor *x = as_factors(a_space, a, mod->width), *y = as_factors(b_space, b, mod->width);
    columns c, c2;
    size_t blocks = mod->blocks, limbs = mod->limbs;
    clear(&c);
    clear(&c2);
    for (size_t column = 0; column < 2 * blocks; column++) {
        add_products(&c, x, y, column, blocks);
        finish(&c, out, m, column, mod->excess, mod);
        add_products(&c2, x, y + limbs, column, blocks);
        add_products(&c2, x + limbs, y, column, blocks);
        add_multiples_of_first(&c2, m, column, blocks);
        finish(&c2, out + limbs, m2, column, mod->excess2, mod);
    }
}

static __attribute__((noinline)) void square_pair(vec *out, const vec *a, const modulus *mod) {
    factor m[MAX_LIMBS], m2[MAX_LIMBS], a_space[FACTOR_SPACE];
    const factor *x = as_factors(a_space, a, mod->width);
    vec carried[BLOCK];
    columns c, c2;
    size_t blocks = mod->blocks, limbs = mod->limbs;
    clear(&c);
    clear(&c2);
    for (size_t column = 0; column < 2 * blocks; column++) {
        add_own_products(&c, carried, x, column, blocks);
        finish(&c, out, m, column, mod->excess, mod);
        put_aside(&c2, carried);
        add_products(&c2, x, x + limbs, column, blocks);
        add_doubled_to(&c2, carried);
        add_multiples_of_first(&c2, m, column, blocks);
        finish(&c2, out + limbs, m2, column, mod->excess2, mod);
    }
}

/* Products of many pairs (y, y w), which are y (1 - w n), leave out what can wait: where x is (a, v + a W) with W the sum
 * of all w so far, a y / R = t by multiples m as ever, and v becomes (v y + m) / R. */
static __attribute__((noinline)) void multiply_by_first(vec *x, const vec *y, const modulus *mod) {
    factor m[MAX_LIMBS], m2[MAX_LIMBS], x_space[FACTOR_SPACE], y_space[FACTOR_SPACE];
    const factor *a = as_factors(x_space, x, mod->width), *by = as_factors(y_space, y, mod->limbs);
    columns c, c2;
    size_t blocks = mod->blocks, limbs = mod->limbs;
    clear(&c);
    clear(&c2);
    for (size_t column = 0; column < 2 * blocks; column++) {
        add_products(&c, a, by, column, blocks);
        finish(&c, x, m, column, mod->excess, mod);
        add_products(&c2, a + limbs, by, column, blocks);
        add_multiples_of_first(&c2, m, column, blocks);
        finish(&c2, x + limbs, m2, column, mod->excess, mod);
    }
}

/* Make (a, v) the pair (a, v + a W) in the end; the limbs of the sum W were never carried, W is below R / 2. */
static __attribute__((noinline)) void add_what_waited(vec *x, vec *sum, const vec *one, const modulus *mod) {
    factor m[MAX_LIMBS], x_space[FACTOR_SPACE], sum_space[FACTOR_SPACE], one_space[FACTOR_SPACE];
    size_t blocks = mod->blocks, limbs = mod->limbs;
    vec carry = v_zero();
    for (size_t i = 0; i < limbs; i++) {
        carry = v_add(sum[i], carry);
        sum[i] = v_and(carry, v_set(LIMB_MASK));
        carry = v_carry(carry);
    }
    const factor *a = as_factors(x_space, x, mod->width), *w = as_factors(sum_space, sum, limbs);
    const factor *unit = as_factors(one_space, one, limbs);
    columns c;
    clear(&c);
    for (size_t column = 0; column < 2 * blocks; column++) {
        add_products(&c, a, w, column, blocks);
        add_products(&c, a + limbs, unit, column, blocks);
        finish(&c, x + limbs, m, column, mod->excess2, mod);
    }
}

/* Residues: out = a * b / R; `out` may be a or b. */
static void multiply(vec *out, const vec *a, const vec *b, const modulus *mod) {
    if (mod->parts == 1)
        multiply_numbers(out, a, b, mod);
    else
        multiply_pairs(out, a, b, mod);
}

static void square(vec *out, const vec *a, const modulus *mod) {
    if (mod->parts == 1)
        square_number(out, a, mod);
    else
        square_pair(out, a, mod);
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

static void open_modulus(modulus *mod, const uint64_t *n, uint64_t n_inverse, size_t limbs, size_t parts) {
    for (size_t i = 0; i < limbs; i++) mod->n[i] = scalar_of(n[i]);
    mod->n_inverse = broadcast(scalar_of(n_inverse));
    /* Two products of numbers, three for the second number of a pair, but the lowest limb of n adds no lower halves, see
     * `reduce`. Squares count the same, for what pairs of limbs add is doubled with its excess. */
    for (size_t i = 0; i < 2 * limbs; i++) {
        size_t here = meeting(i, limbs), before = i ? meeting(i - 1, limbs) : 0;
        mod->excess[i] = excess_of(2 * here - (i < limbs), 2 * before);
        mod->excess2[i] = excess_of(3 * here - (i < limbs), 3 * before);
    }
    mod->limbs = limbs;
    mod->blocks = limbs / BLOCK;
    mod->parts = parts;
    mod->width = parts * limbs;
}

/* ------------------------------------------------------------------------------------------------- what is offered */

int NAME(multiply)(uint64_t *out, const uint64_t *a, size_t a_step, const uint64_t *b, size_t b_step, size_t rows,
                   const uint64_t *n, uint64_t n_inverse, size_t limbs, size_t parts) {
    state before = begin();
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs, parts);
    size_t width = mod.width;
    vec x[MAX_LIMBS], y[MAX_LIMBS], found[MAX_LIMBS];
    for (size_t at = 0; at < rows; at += LANES) {
        size_t lanes = group(rows, at);
        if (a_step || at == 0) load_rows(x, a + at * a_step, a_step, lanes, width);
        if (b_step || at == 0) load_rows(y, b + at * b_step, b_step, lanes, width);
        multiply(found, x, y, &mod);
        store_lanes(out + at * width, found, lanes, width);
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
static void look_up(vec *out, const vec *table, size_t entries, unsigned index, size_t width) {
    for (size_t block = 0; block < width; block += BLOCK) {
        vec found[BLOCK];
        UNROLLED for (int i = 0; i < BLOCK; i++) found[i] = v_zero();
        for (size_t entry = 0; entry < entries; entry++) {
            const vec *row = table + entry * width + block;
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
    size_t width = mod->width, size = width * sizeof(vec);
    memcpy(table, one, size);
    memcpy(table + width, x, size);
    for (size_t i = 2; i < SECRET_ENTRIES; i += 2) {
        square(table + i * width, table + i / 2 * width, mod);
        multiply(table + (i + 1) * width, table + i * width, x, mod);
    }
    vec by[MAX_LIMBS];
    size_t window = (bits + SECRET_WINDOW - 1) / SECRET_WINDOW;
    memcpy(x, one, size);
    while (window-- > 0) {
        for (int i = 0; i < SECRET_WINDOW; i++) square(x, x, mod);
        look_up(by, table, SECRET_ENTRIES, bits_at(exponent, bits, window * SECRET_WINDOW, SECRET_WINDOW), width);
        multiply(x, x, by, mod);
    }
}

/* x = x^exponent from the highest bit on, for an exponent that everybody knows and most bits of which are zero. */
static void public_power(vec *x, const vec *one, const uint8_t *exponent, size_t bits, const modulus *mod) {
    vec base[MAX_LIMBS];
    size_t size = mod->width * sizeof(vec), bit = bits;
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
                int secret, const uint64_t *one, const uint64_t *n, uint64_t n_inverse, size_t limbs, size_t parts) {
    state before = begin();
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs, parts);
    size_t width = mod.width;
    vec x[MAX_LIMBS], unit[MAX_LIMBS];
    vec *table = NULL;
    if (secret && !(table = aligned_alloc(sizeof(vec), SECRET_ENTRIES * width * sizeof(vec)))) {
        end(before);
        return -1;
    }
    load_rows(unit, one, 0, 1, width);
    for (size_t at = 0; at < rows; at += LANES) {
        size_t lanes = group(rows, at);
        load_rows(x, a + at * width, width, lanes, width);
        if (secret)
            secret_power(x, unit, exponent, exponent_bits, table, &mod);
        else
            public_power(x, unit, exponent, exponent_bits, &mod);
        store_lanes(out + at * width, x, lanes, width);
    }
    free(table);
    end(before);
    return 0;
}

/* Choose for each lane the entry that its digit names, by reading every one. */
static void choose(vec *out, const uint64_t *entries, size_t count, vec digits, size_t width) {
    for (size_t block = 0; block < width; block += BLOCK) {
        vec chosen[BLOCK];
        UNROLLED for (int i = 0; i < BLOCK; i++) chosen[i] = v_zero();
        for (size_t entry = 0; entry < count; entry++) {
            vec here = v_equal(digits, v_set(entry));
            const uint64_t *row = entries + entry * width + block;
            UNROLLED for (int i = 0; i < BLOCK; i++)
                chosen[i] = v_or(chosen[i], v_and(here, v_set(row[i])));
        }
        UNROLLED for (int i = 0; i < BLOCK; i++) out[block + i] = chosen[i];
    }
}

/* What the rows of a few vectors have been multiplied to. */
typedef struct {
    vec x[MAX_LIMBS];
    vec sum[MAX_LIMBS]; /* of pairs, see `multiply_by_first` */
} running;

static void begin_product(running *of, const vec *entry, const modulus *mod) {
    memcpy(of->x, entry, mod->width * sizeof(vec));
    if (mod->parts == 1) return;
    memcpy(of->sum, entry + mod->limbs, mod->limbs * sizeof(vec));
    memset(of->x + mod->limbs, 0, mod->limbs * sizeof(vec));
}

static void go_on_with_product(running *of, const vec *entry, const modulus *mod) {
    if (mod->parts == 1) {
        multiply(of->x, of->x, entry, mod);
        return;
    }
    multiply_by_first(of->x, entry, mod);
    for (size_t i = 0; i < mod->limbs; i++) of->sum[i] = v_add(of->sum[i], entry[mod->limbs + i]);
}

int NAME(fixed_base)(uint64_t *out, const uint64_t *table, size_t windows, size_t window_bits, const uint8_t *digits,
                     size_t rows, const uint64_t *one, const uint64_t *n, uint64_t n_inverse, size_t limbs,
                     size_t parts) {
    state before = begin();
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs, parts);
    size_t width = mod.width, entries = (size_t)1 << window_bits;
    running of[VECTORS_AT_ONCE];
    vec entry[MAX_LIMBS], unit[MAX_LIMBS];
    load_rows(unit, one, 0, 1, width);
    for (size_t at = 0; at < rows; at += VECTORS_AT_ONCE * LANES) {
        size_t here = rows - at < VECTORS_AT_ONCE * LANES ? rows - at : VECTORS_AT_ONCE * LANES;
        for (size_t window = 0; window < windows; window++)
            for (size_t first = 0; first < here; first += LANES) {
                uint64_t digit[LANES];
                for (size_t lane = 0; lane < LANES; lane++)
                    digit[lane] = first + lane < here ? digits[(at + first + lane) * windows + window] : 0;
                choose(entry, table + window * entries * width, entries, load_words(digit, LANES), width);
                if (window)
                    go_on_with_product(&of[first / LANES], entry, &mod);
                else
                    begin_product(&of[first / LANES], entry, &mod);
            }
        for (size_t first = 0; first < here; first += LANES) {
            running *done = &of[first / LANES];
            if (parts == 2) add_what_waited(done->x, done->sum, unit, &mod);
            store_lanes(out + (at + first) * width, done->x, group(here, first), width);
        }
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
                         size_t width) {
    while (*taken < segments) {
        int64_t segment = (*taken)++, start = starts[segment], end = starts[segment + 1];
        if (start < end) {
            chain found = {segment, start + 1, end};
            *lane = found;
            *row = values + (size_t)order[start] * width;
            return;
        }
        memcpy(out + (size_t)segment * width, one, width * sizeof(uint64_t));
    }
    lane->segment = -1;
    *row = one;
}

int NAME(segmented_product)(uint64_t *out, const uint64_t *values, const int64_t *order, const int64_t *starts,
                            size_t segments, const uint64_t *one, const uint64_t *n, uint64_t n_inverse, size_t limbs, size_t parts) {
    state before = begin();
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs, parts);
    size_t width = mod.width;
    vec x[MAX_LIMBS], by[MAX_LIMBS];
    chain lane[LANES];
    const uint64_t *row[LANES];
    int64_t taken = 0;
    size_t busy = 0;
    for (size_t i = 0; i < LANES; i++) {
        take_segment(&lane[i], &row[i], &taken, out, values, order, starts, (int64_t)segments, one, width);
        busy += lane[i].segment >= 0;
    }
    load_lanes(x, row, width);
    while (busy) {
        for (size_t i = 0; i < LANES; i++) {
            while (lane[i].segment >= 0 && lane[i].next == lane[i].end) {
                uint64_t *words = (uint64_t *)x + i, *result = out + (size_t)lane[i].segment * width;
                for (size_t limb = 0; limb < width; limb++) result[limb] = words[limb * LANES];
                take_segment(&lane[i], &row[i], &taken, out, values, order, starts, (int64_t)segments, one, width);
                busy -= lane[i].segment < 0;
                for (size_t limb = 0; limb < width; limb++) words[limb * LANES] = row[i][limb];
            }
            row[i] = lane[i].segment < 0 ? one : values + (size_t)order[lane[i].next++] * width;
        }
        if (!busy) break;
        load_lanes(by, row, width);
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

/* out = a - n where that is not negative, else a, both below R; returns whether n has been taken. */
static uint64_t take_once(uint64_t *out, const uint64_t *a, const uint64_t *n, size_t limbs) {
    uint64_t less[MAX_LIMBS], borrow = 0;
    for (size_t i = 0; i < limbs; i++) {
        uint64_t difference = a[i] - n[i] - borrow;
        less[i] = difference & LIMB_MASK;
        borrow = 0 - (uint64_t)((int64_t)difference >> LIMB_BITS);
    }
    uint64_t keep = 0 - borrow;
    for (size_t i = 0; i < limbs; i++) out[i] = (a[i] & keep) | (less[i] & ~keep);
    return borrow ^ 1;
}

/* out = a + b, and `more`, which may be negative where the sum is not. */
static void add_up(uint64_t *out, const uint64_t *a, const uint64_t *b, int64_t more, size_t limbs) {
    int64_t carry = more;
    for (size_t i = 0; i < limbs; i++) {
        carry += (int64_t)(a[i] + b[i]);
        out[i] = (uint64_t)carry & LIMB_MASK;
        carry >>= LIMB_BITS;
    }
}

/* Write the number below n^2 that a pair stands for as limbs; both of its numbers are at most n + 1. */
static void join_pair(uint64_t *out, const uint64_t *pair, const uint64_t *n, size_t limbs) {
    uint64_t first[MAX_LIMBS], second[MAX_LIMBS], twice[MAX_LIMBS], negated[MAX_LIMBS];
    /* a - b n = (a - n) + (2 n - b + 1) n modulo n^2, for a second number between 0 and 2 n + 1. */
    uint64_t taken = take_once(first, pair, n, limbs);
    add_up(twice, n, n, 0, limbs);
    for (size_t i = 0; i < limbs; i++) negated[i] = 0 - pair[limbs + i];
    add_up(second, twice, negated, (int64_t)taken, limbs);
    take_once(second, second, n, limbs);
    take_once(second, second, n, limbs);
    unsigned __int128 carry = 0;
    for (size_t column = 0; column < 2 * limbs; column++) {
        size_t begin = column < limbs ? 0 : column - limbs + 1, end = column < limbs ? column + 1 : limbs;
        for (size_t i = begin; i < end; i++) carry += (unsigned __int128)second[i] * n[column - i];
        if (column < limbs) carry += first[column];
        out[column] = (uint64_t)carry & LIMB_MASK;
        carry >>= LIMB_BITS;
    }
}

int NAME(to_bytes)(uint8_t *out, size_t width, const uint64_t *rows, size_t n_rows, const uint64_t *n, size_t limbs,
                   size_t parts) {
    size_t words = parts * limbs;
    for (size_t row = 0; row < n_rows; row++, rows += words, out += width) {
        uint64_t number[MAX_LIMBS];
        if (parts == 1)
            take_once(number, rows, n, limbs);
        else
            join_pair(number, rows, n, limbs);
        unsigned __int128 held = 0;
        size_t n_bits = 0, limb = 0;
        for (size_t byte = width; byte-- > 0;) {
            if (n_bits < 8 && limb < words) {
                held |= (unsigned __int128)number[limb] << n_bits;
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

int NAME(add)(uint64_t *out, const uint64_t *a, const uint64_t *b, size_t rows, const uint64_t *n, size_t limbs,
              size_t parts) {
    uint64_t twice[MAX_LIMBS];
    add_up(twice, n, n, 0, limbs);
    for (size_t row = 0; row < rows; row++, a += parts * limbs, b += parts * limbs, out += parts * limbs) {
        uint64_t first[MAX_LIMBS], second[MAX_LIMBS];
        add_up(first, a, b, 0, limbs);
        uint64_t taken = take_once(out, first, twice, limbs);
        if (parts == 1) continue;
        /* What 2 n is taken from is larger by two of n, which the second number has to lose. */
        add_up(second, a + limbs, b + limbs, 0, limbs);
        add_up(second, second, twice, -2 * (int64_t)taken, limbs);
        take_once(second, second, twice, limbs);
        take_once(out + limbs, second, twice, limbs);
    }
    return 0;
}
