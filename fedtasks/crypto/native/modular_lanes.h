/* Modular arithmetic in lanes: what is the same for all kernels that keep one number in each lane of their vectors.
 *
 * Vector i holds limb i, of 52 bits, of LANES numbers. A number is cut into blocks of BLOCK limbs, so that the column
 * sums of a product of two blocks stay in registers while every operand is read once; ten limbs fit the usual lengths
 * without waste (1024, 1536, 2048, 3072, 4096 bits are 20, 30, 40, 60, 80 limbs).
 *
 * Montgomery, "Modular multiplication without trial division", 1985; product scanning over blocks. Every column sum
 * takes at most 4 * limbs products below 2^52 and a carry, which fits 64 bits as long as limbs <= 160 < 2^10; of the
 * second number of a pair, see below, 6 * limbs where limbs <= 80.
 *
 * A residue modulo a square n^2 is a pair of numbers a, b below 2n, which stands for a - b n. Where T = a c and
 * m = -T / n mod R, the reduced number t = (T + m n) / R obeys T / R = t - (m / R) n, so
 *   (a - b n) (c - d n) / R = t - u n modulo n^2, where u = (a d + b c + m) / R modulo n:
 * five products of half the length, two of them to reduce, instead of eight. u is at most 2n where b and d are below 4n.
 * Takagi, "Fast RSA-type cryptosystem modulo p^k q", 1998, has the idea of computing modulo powers digit by digit.
 *
 * Who includes this defines KERNEL, LANES and BLOCK (which divides 10), and
 *   vec       LANES words; v_zero, v_set, v_add, v_sub, v_and, v_or, v_equal (all ones where equal), v_carry (>> 52),
 *             load_words and store_words (up to LANES of them), transpose (a square of LANES * LANES)
 *   scalar    a limb of the modulus; scalar_of makes it
 *   factor    LANES limbs as products take them; broadcast makes them of a scalar, as_factors of a row of vectors
 *   mul_add   adds the lower and the upper 52 bits of a product to one sum each, add_high the upper ones alone
 *   low       the lower 52 bits of a sum times a factor
 *   limb_as_factor, as_limb  make a factor of a limb, and back
 *   excess_of what so many lower and upper halves add to a sum beyond their value; settle takes it off. It is a
 *             multiple of 2^52, so that it can wait until the sum is carried
 *   begin     puts the processor into the state that these need, and `end` back
 */
#include <string.h>

#define MAX_LIMBS 160
#define LIMB_BITS 52
#define LIMB_MASK ((1ULL << LIMB_BITS) - 1)

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
    int lowest; /* 1 or -1: what n is modulo 2^52; 0 for anything else */
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

/* Choose one limb of the multiples that make the lower columns zero, add what it adds, and carry on. */
static INLINE void reduce_limb(columns *c, factor *m, int i, const modulus *mod) {
    vec sum = c->at[i], carry;
    factor by;
    /* Adding the lowest product rounds this column up to a multiple of 2^52. Each limb waits for the one before, and
     * sooner gets what it waits for where n is 1 or -1 modulo 2^52: its lowest limb has no upper half to add then, though
     * that is counted as one. */
    vec counted = v_set(excess_of(0, 1));
    if (mod->lowest == -1) {
        vec limb = v_and(sum, v_set(LIMB_MASK));
        by = limb_as_factor(limb);
        carry = v_add(v_add(v_carry(sum), limb), counted);
    } else if (mod->lowest == 1) {
        by = limb_as_factor(v_and(v_sub(v_zero(), sum), v_set(LIMB_MASK)));
        carry = v_add(v_carry(v_add(sum, v_set(LIMB_MASK))), counted);
    } else {
        by = low(sum, mod->n_inverse);
        carry = v_carry(v_add(sum, v_set(LIMB_MASK)));
        add_high(&carry, by, broadcast(mod->n[0]));
    }
    m[i] = by;
    UNROLLED for (int j = 1; j < BLOCK; j++) mul_add(&c->at[i + j], &c->at[i + j + 1], by, broadcast(mod->n[j]));
    c->at[i + 1] = v_add(c->at[i + 1], carry);
}

static INLINE void reduce(columns *c, factor *m, const uint64_t *excess, const modulus *mod) {
    UNROLLED for (int i = 0; i < BLOCK; i++) settle(&c->at[i], excess[i]);
    UNROLLED for (int i = 0; i < BLOCK; i++) reduce_limb(c, m, i, mod);
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

/* Add the multiples of the modulus that fall into a column of blocks. */
static INLINE void add_multiples(columns *c, const factor *m, size_t column, const modulus *mod) {
    size_t blocks = mod->blocks, first = column < blocks ? 0 : column - blocks + 1;
    size_t end = column < blocks ? column : blocks;
    for (size_t i = first; i < end; i++) add_multiple(c, m + BLOCK * i, mod->n + BLOCK * (column - i));
}

/* Reduce a column of blocks to which all has been added, or emit it. */
static INLINE void finish(columns *c, vec *out, factor *m, size_t column, const uint64_t *excess, const modulus *mod) {
    if (column < mod->blocks)
        reduce(c, m + BLOCK * column, excess + BLOCK * column, mod);
    else
        emit(c, out + BLOCK * (column - mod->blocks), excess + BLOCK * column);
    shift(c);
}

/* The same of a column of a pair's first number and the one before of its second: each limb waits for the one below,
 * and while one number's does, the processor works on the other's. */
static INLINE void finish_both(columns *c, columns *c2, vec *out, factor *m, factor *m2, size_t column,
                               const uint64_t *excess2, const modulus *mod) {
    size_t blocks = mod->blocks;
    if (0 < column && column < blocks) {
        const uint64_t *here = mod->excess + BLOCK * column, *before = excess2 + BLOCK * (column - 1);
        UNROLLED for (int i = 0; i < BLOCK; i++) {
            settle(&c->at[i], here[i]);
            settle(&c2->at[i], before[i]);
        }
        UNROLLED for (int i = 0; i < BLOCK; i++) {
            reduce_limb(c, m + BLOCK * column, i, mod);
            reduce_limb(c2, m2 + BLOCK * (column - 1), i, mod);
        }
        shift(c);
        shift(c2);
        return;
    }
    if (column < 2 * blocks) finish(c, out, m, column, mod->excess, mod);
    if (column > 0) finish(c2, out + mod->limbs, m2, column - 1, excess2, mod);
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
        add_multiples(&c, m, column, mod);
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
        add_multiples(&c, m, column, mod);
        finish(&c, out, m, column, mod->excess, mod);
    }
}

/* Both numbers of a pair column by column, the second one a column behind; see `finish_both`. */
static __attribute__((noinline)) void multiply_pairs(vec *out, const vec *a, const vec *b, const modulus *mod) {
    factor m[MAX_LIMBS], m2[MAX_LIMBS], a_space[FACTOR_SPACE], b_space[FACTOR_SPACE];
    const factor *x = as_factors(a_space, a, mod->width), *y = as_factors(b_space, b, mod->width);
    columns c, c2;
    size_t blocks = mod->blocks, limbs = mod->limbs;
    clear(&c);
    clear(&c2);
    for (size_t column = 0; column <= 2 * blocks; column++) {
        if (column < 2 * blocks) {
            add_products(&c, x, y, column, blocks);
            add_multiples(&c, m, column, mod);
        }
        if (column > 0) {
            add_products(&c2, x, y + limbs, column - 1, blocks);
            add_products(&c2, x + limbs, y, column - 1, blocks);
            add_multiples_of_first(&c2, m, column - 1, blocks);
            add_multiples(&c2, m2, column - 1, mod);
        }
        finish_both(&c, &c2, out, m, m2, column, mod->excess2, mod);
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
    for (size_t column = 0; column <= 2 * blocks; column++) {
        if (column < 2 * blocks) {
            add_own_products(&c, carried, x, column, blocks);
            add_multiples(&c, m, column, mod);
        }
        if (column > 0) {
            put_aside(&c2, carried);
            add_products(&c2, x, x + limbs, column - 1, blocks);
            add_doubled_to(&c2, carried);
            add_multiples_of_first(&c2, m, column - 1, blocks);
            add_multiples(&c2, m2, column - 1, mod);
        }
        finish_both(&c, &c2, out, m, m2, column, mod->excess2, mod);
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
    for (size_t column = 0; column <= 2 * blocks; column++) {
        if (column < 2 * blocks) {
            add_products(&c, a, by, column, blocks);
            add_multiples(&c, m, column, mod);
        }
        if (column > 0) {
            add_products(&c2, a + limbs, by, column - 1, blocks);
            add_multiples_of_first(&c2, m, column - 1, blocks);
            add_multiples(&c2, m2, column - 1, mod);
        }
        finish_both(&c, &c2, x, m, m2, column, mod->excess, mod);
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
        add_multiples(&c, m, column, mod);
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

#include "modular_rows.h"
