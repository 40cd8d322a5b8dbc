/* ristretto255 in lanes: what is the same for all kernels that keep one element in each lane of their vectors.
 *
 * A point of the curve -x^2 + y^2 = 1 + d x^2 y^2 stands in extended coordinates (X : Y : Z : T), x = X/Z, y = Y/Z,
 * xy = T/Z; each coordinate holds LANES points, one in each lane. Formulas: Hisil, Wong, Carter and Dawson, "Twisted
 * Edwards curves revisited", 2008; they hold for all points, so nothing is treated apart. Encoding and maps: RFC 9496.
 *
 * Who includes this defines KERNEL and includes a field, field25519_*.h, which offers
 *   LANES, lanes    words, one in each lane: ADD, SUB, AND, OR, SHL, SHR, all, lanes_load, lanes_store, lanes_select,
 *                   lanes_equal, lanes_negative; lanes_transpose turns LANES words of each of LANES rows around
 *   lane_mask       where something holds: mask_none, mask_or, mask_not, mask_bits, mask_of_bits (bit i is lane i)
 *   fe              numbers modulo p, five vectors of limbs: field_*. Of the two factors of a product one may come from
 *                   field_loose_add or field_loose_subtract.
 *                   field_put stores one limb by limb, for a struct that is copied in
 *                   pieces smaller than a vector makes the next load wait
 *   wide            sums of products before they are carried: wide_*. wide_subtract takes a product away, and
 *                   wide_subtract_difference what is itself one or the difference of two
 *   LIMB_ONE        the first limb of the number one
 */
#include "ristretto.h"

#include <stdlib.h>
#include <string.h>

#define JOIN(kernel, name) fedtasks_ristretto_##kernel##_##name
#define EXPAND(kernel, name) JOIN(kernel, name)
#define NAME(name) EXPAND(KERNEL, name)

#define ROW 32
/* Four groups of rows make a block: their square roots, each one long chain, are computed side by side. */
#define GROUPS 4
#define BLOCK (GROUPS * LANES)

#define OUTLINE static __attribute__((noinline))

typedef struct {
    fe x, y, z, t;
} point;

/* What an addition takes of its second operand. */
typedef struct {
    fe plus;    /* Y + X */
    fe minus;   /* Y - X */
    fe twice_z; /* 2Z */
    fe t2d;     /* 2d T */
} cached;

static const uint64_t D[4] = {0x75eb4dca135978a3, 0x00700a4d4141d8ab, 0x8cc740797779e898, 0x52036cee2b6ffe73};
static const uint64_t D2[4] = {0xebd69b9426b2f159, 0x00e0149a8283b156, 0x198e80f2eef3d130, 0x2406d9dc56dffce7};
static const uint64_t SQRT_M1[4] = {0xc4ee1b274a0ea0b0, 0x2f431806ad2fe478, 0x2b4d00993dfbd7a7, 0x2b8324804fc1df0b};
static const uint64_t SQRT_AD_MINUS_ONE[4] = {0x7e97f6a0497b2e1b, 0xaf9d8e0c1b7854bd, 0x0f3cfcc931f5d1fd,
                                              0x376931bf2b8348ac};
static const uint64_t INVSQRT_A_MINUS_D[4] = {0x99c8fdaa805d40ea, 0x9d2f16175a4172be, 0x16c27b91fe01d840,
                                              0x786c8905cfaffca2};
static const uint64_t ONE_MINUS_D_SQUARED[4] = {0xe27c09c1945fc176, 0x2c81a138cd5e350f, 0x9994abddbe70dfe4,
                                                0x029072a8b2b3e0d7};
static const uint64_t D_MINUS_ONE_SQUARED[4] = {0x31ad5aaa44ed4d20, 0xd29e4a2cb01e1999, 0x4cdcd32f529b4eeb,
                                                0x5968b37af66c2241};

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Erase what was secret; the barrier keeps the compiler from leaving it out. */
static void scrub(void *memory, size_t bytes) {
    memset(memory, 0, bytes);
    __asm__ __volatile__("" : : "r"(memory) : "memory");
}

/* Aligned as vectors are. */
static void *allocate(size_t count, size_t bytes) { return aligned_alloc(64, (count * bytes / 64 + 1) * 64); }

/* --- rows and lanes --- */

/* words[w] = word w of every row; rows from `n` on are zero. */
static void load_rows(lanes words[4], const uint8_t *rows, size_t step, size_t n) {
    uint64_t square[4][LANES] = {{0}};
    for (size_t lane = 0; lane < n; lane++) {
        uint64_t row[4];
        memcpy(row, rows + lane * step, ROW);
        for (int w = 0; w < 4; w++) square[w][lane] = row[w];
    }
    for (int w = 0; w < 4; w++) words[w] = lanes_load(square[w]);
    scrub(square, sizeof square);
}

static void store_rows(uint8_t *rows, const lanes words[4], size_t n) {
    uint64_t square[4][LANES];
    for (int w = 0; w < 4; w++) lanes_store(square[w], words[w]);
    for (size_t lane = 0; lane < n; lane++) {
        uint64_t row[4];
        for (int w = 0; w < 4; w++) row[w] = square[w][lane];
        memcpy(rows + lane * ROW, row, ROW);
    }
}

static lane_mask words_are_zero(const lanes words[4]) {
    return lanes_equal(OR(OR(words[0], words[1]), OR(words[2], words[3])), all(0));
}

/* --- square roots --- */

OUTLINE void square_times(fe *a, int times, int groups) {
    for (int i = 0; i < times; i++)
        for (int g = 0; g < groups; g++) a[g] = field_square(a[g]);
}

OUTLINE void multiply_all(fe *to, const fe *a, const fe *b, int groups) {
    for (int g = 0; g < groups; g++) to[g] = field_multiply(a[g], b[g]);
}

/* to = a^(2^times) * b */
static void square_multiply(fe *to, const fe *a, int times, const fe *b, int groups) {
    fe t[GROUPS];
    memcpy(t, a, (size_t)groups * sizeof(fe));
    square_times(t, times, groups);
    multiply_all(to, t, b, groups);
}

/* to = a^((p - 5) / 8) = a^(2^252 - 3). The variable bN is a^(2^N - 1). */
static void power_p58(fe *to, const fe *a, int groups) {
    fe b2[GROUPS], b4[GROUPS], b5[GROUPS], b10[GROUPS], b50[GROUPS], t[GROUPS];
    square_multiply(b2, a, 1, a, groups);
    square_multiply(b4, b2, 2, b2, groups);
    square_multiply(b5, b4, 1, a, groups);
    square_multiply(b10, b5, 5, b5, groups);
    square_multiply(t, b10, 10, b10, groups); /* 20 */
    square_multiply(t, t, 20, t, groups);     /* 40 */
    square_multiply(b50, t, 10, b10, groups);
    square_multiply(t, b50, 50, b50, groups); /* 100 */
    square_multiply(t, t, 100, t, groups);    /* 200 */
    square_multiply(t, t, 50, b50, groups);   /* 250 */
    square_multiply(to, t, 2, a, groups);
}

/* SQRT_RATIO_M1 of RFC 9496 section 4.2: root = sqrt(u / v) where that is a square, else sqrt(sqrt(-1) * u / v).
 * Without `u`, u is 1. */
static void square_root_ratio(fe *root, lane_mask *is_square, const fe *u, const fe *v, int groups) {
    fe start[GROUPS], base[GROUPS] = {{{{0}}}}, power[GROUPS];
    for (int g = 0; g < groups; g++) {
        fe v2 = field_square(v[g]), v3 = field_multiply(v2, v[g]);
        start[g] = u ? field_multiply(u[g], v3) : v3;
        base[g] = field_multiply(start[g], field_square(v2)); /* u v^7 */
    }
    power_p58(power, base, groups);
    const fe sqrt_m1 = field_constant(SQRT_M1);
    for (int g = 0; g < groups; g++) {
        fe r = field_multiply(start[g], power[g]);
        fe check = field_multiply(v[g], field_square(r));
        fe above = u ? u[g] : field_small(1);
        lane_mask correct = field_is_zero(field_subtract(check, above));
        lane_mask flipped = field_is_zero(field_add(check, above));
        lane_mask flipped_i = field_is_zero(field_add(check, u ? field_multiply(above, sqrt_m1) : sqrt_m1));
        r = field_select(mask_or(flipped, flipped_i), field_multiply(r, sqrt_m1), r);
        root[g] = field_absolute(r);
        is_square[g] = mask_or(correct, flipped);
    }
}

/* --- the curve --- */

OUTLINE void point_double(point *to, const point *a, int with_t) {
    wide xx = wide_square(a->x), yy = wide_square(a->y), zz = wide_square(a->z), xy = wide_multiply(a->x, a->y);
    wide difference = wide_subtract(yy, xx);
    fe g = field_carry(difference);
    fe h = field_carry(wide_add(yy, xx));
    fe f = field_carry(wide_subtract_difference(wide_add(zz, zz), difference));
    fe e = field_carry(wide_add(xy, xy));
    /* f and h have the sign opposite to the paper's, which turns all four coordinates around: the same point. */
    field_put(&to->x, field_multiply(e, f));
    field_put(&to->y, field_multiply(g, h));
    field_put(&to->z, field_multiply(f, g));
    if (with_t) field_put(&to->t, field_multiply(e, h));
}

/* to = a + b, or a - b in the lanes of `negative`, where plus and minus have been exchanged already. Without twice_z,
 * Z of b is 1. */
INLINE void point_add(point *to, const point *a, const fe *plus, const fe *minus, const fe *twice_z, const fe *t2d,
                      lane_mask negative, int with_t) {
    wide first = wide_multiply(field_loose_subtract(a->y, a->x), *minus);
    wide second = wide_multiply(field_loose_add(a->y, a->x), *plus);
    wide third = wide_negative_where(negative, wide_multiply(a->t, *t2d));
    wide fourth = twice_z ? wide_multiply(a->z, *twice_z) : wide_add(wide_of(a->z), wide_of(a->z));
    fe e = field_carry(wide_subtract(second, first));
    fe f = field_carry(wide_subtract_difference(fourth, third));
    fe g = field_carry(wide_add(fourth, third));
    fe h = field_carry(wide_add(second, first));
    field_put(&to->x, field_multiply(e, f));
    field_put(&to->y, field_multiply(g, h));
    field_put(&to->z, field_multiply(f, g));
    if (with_t) field_put(&to->t, field_multiply(e, h));
}

OUTLINE void point_add_cached(point *to, const point *a, const cached *b, lane_mask negative) {
    point_add(to, a, &b->plus, &b->minus, &b->twice_z, &b->t2d, negative, 1);
}

/* As point_add_cached, but leaves T alone, which a doubling does not read. */
OUTLINE void point_add_before_double(point *to, const point *a, const cached *b, lane_mask negative) {
    point_add(to, a, &b->plus, &b->minus, &b->twice_z, &b->t2d, negative, 0);
}

static void cache(cached *to, const point *a) {
    field_put(&to->plus, field_add(a->y, a->x));
    field_put(&to->minus, field_subtract(a->y, a->x));
    field_put(&to->twice_z, field_add(a->z, a->z));
    field_put(&to->t2d, field_multiply(a->t, field_constant(D2)));
}

static void add_points(point *to, const point *a, const point *b) {
    cached other;
    cache(&other, b);
    point_add_cached(to, a, &other, mask_none());
}

static point identity(void) { return (point){field_small(0), field_small(1), field_small(1), field_small(0)}; }

OUTLINE void point_double_often(point *a, int times) {
    for (int i = 1; i < times; i++) point_double(a, a, 0);
    if (times) point_double(a, a, 1);
}

/* --- secret scalars --- */

#define WINDOWS 64
#define ENTRIES 8

/* Write scalars of 255 bits as 64 digits to the base 16: the lower 63 from -8 to 7, the highest from 0 to 8. Adding 8
 * to each of the lower ones makes them nibbles of a number below 2^256. Rows from `n` on are zero. */
static void load_scalars(lanes scalar[4], const uint8_t *rows, size_t step, size_t n) {
    uint64_t square[4][LANES];
    for (size_t lane = 0; lane < LANES; lane++) {
        uint64_t row[4] = {0};
        unsigned __int128 sum = 0;
        if (lane < n) memcpy(row, rows + lane * step, ROW);
        row[3] &= ~0ULL >> 1;
        for (int w = 0; w < 4; w++) {
            sum += (unsigned __int128)row[w] + (0x8888888888888888ULL & (w < 3 ? ~0ULL : ~0ULL >> 4));
            square[w][lane] = (uint64_t)sum;
            sum >>= 64;
        }
        scrub(row, sizeof row);
    }
    for (int w = 0; w < 4; w++) scalar[w] = lanes_load(square[w]);
    scrub(square, sizeof square);
}

/* size = |digit|; returns where the digit is negative. */
INLINE lane_mask digit_of_window(lanes *size, const lanes scalar[4], int window) {
    lanes digit = AND(SHR(scalar[window / 16], (unsigned)(4 * (window % 16))), all(15));
    if (window < WINDOWS - 1) digit = SUB(digit, all(8));
    lane_mask negative = lanes_negative(digit);
    *size = lanes_select(negative, SUB(all(0), digit), digit);
    return negative;
}

/* --- any point by a secret scalar --- */

typedef struct {
    cached table[ENTRIES]; /* 1 to 8 times the point */
    cached found;
    lanes scalar[4];
    point sum;
} ladder;

/* found = |digit| times the point, with plus and minus exchanged where the digit is negative; returns where. Reads the
 * whole table. */
OUTLINE lane_mask look_up(cached *found, const cached *table, const lanes scalar[4], int window) {
    lanes size;
    lane_mask negative = digit_of_window(&size, scalar, window);
    cached entry = {field_small(1), field_small(1), field_small(2), field_small(0)};
    for (int i = 0; i < ENTRIES; i++) {
        lane_mask here = lanes_equal(size, all((uint64_t)i + 1));
        entry.plus = field_select(here, table[i].plus, entry.plus);
        entry.minus = field_select(here, table[i].minus, entry.minus);
        entry.twice_z = field_select(here, table[i].twice_z, entry.twice_z);
        entry.t2d = field_select(here, table[i].t2d, entry.t2d);
    }
    found->plus = field_select(negative, entry.minus, entry.plus);
    found->minus = field_select(negative, entry.plus, entry.minus);
    found->twice_z = entry.twice_z;
    found->t2d = entry.t2d;
    return negative;
}

/* work->sum = work->scalar * a */
static void multiply_point(ladder *work, const point *a) {
    point multiple = *a;
    cache(&work->table[0], a);
    for (int i = 1; i < ENTRIES; i++) {
        point_add_cached(&multiple, &multiple, &work->table[0], mask_none());
        cache(&work->table[i], &multiple);
    }
    scrub(&multiple, sizeof multiple);
    work->sum = identity();
    for (int window = WINDOWS - 1; window >= 0; window--) {
        lane_mask negative = look_up(&work->found, work->table, work->scalar, window);
        if (window == 0) {
            point_add_cached(&work->sum, &work->sum, &work->found, negative);
            break;
        }
        point_add_before_double(&work->sum, &work->sum, &work->found, negative);
        point_double_often(&work->sum, 4);
    }
}

/* --- one point by many secret scalars --- */

/* A point with Z = 1, as an addition takes it: the limbs of Y + X, Y - X and 2d T, one word of no use. */
typedef struct {
    uint64_t word[16];
} packed;

/* rows[i * step] = the point of lane i, for the first n lanes; Z of a is 1. */
static void pack(packed *rows, size_t step, const point *a, size_t n) {
    cached form;
    cache(&form, a);
    uint64_t square[15][LANES];
    memcpy(square[0], &form.plus, sizeof(fe));
    memcpy(square[5], &form.minus, sizeof(fe));
    memcpy(square[10], &form.t2d, sizeof(fe));
    for (size_t lane = 0; lane < n; lane++)
        for (int i = 0; i < 15; i++) rows[lane * step].word[i] = square[i][lane];
}

/* 1 / a, and 0 for 0: a^(p - 2) = (a^((p - 5) / 8))^8 * a^3 */
static fe field_inverse(fe a) {
    fe power;
    power_p58(&power, &a, 1);
    square_times(&power, 3, 1);
    return field_multiply(power, field_multiply(field_square(a), a));
}

/* So many vectors hold all multiples of a table. */
#define MULTIPLES (WINDOWS * ENTRIES / LANES)

typedef struct {
    point multiples[MULTIPLES];
    fe products[MULTIPLES]; /* of Z, of all multiples before */
} workbench;

/* table[w * ENTRIES + i] = (i + 1) * 16^w * base, for a public base that is the same in all lanes. */
static void fill_table(packed *table, workbench *work, const point *base) {
    uint64_t limbs[WINDOWS][20], square[20][LANES];
    point power = *base;
    for (int window = 0; window < WINDOWS; window++) {
        memcpy(square, &power, sizeof square);
        for (int i = 0; i < 20; i++) limbs[window][i] = square[i][0];
        point_double_often(&power, 4);
    }
    fe product = field_small(1);
    for (int m = 0; m < MULTIPLES; m++) {
        point *here = &work->multiples[m];
        if (m % ENTRIES) {
            add_points(here, here - 1, here - m % ENTRIES);
        } else {
            for (int lane = 0; lane < LANES; lane++)
                for (int i = 0; i < 20; i++) square[i][lane] = limbs[m / ENTRIES * LANES + lane][i];
            memcpy(here, square, sizeof square);
        }
        work->products[m] = product;
        product = field_multiply(product, here->z);
    }
    fe inverse = field_inverse(product);
    for (int m = MULTIPLES - 1; m >= 0; m--) {
        point *here = &work->multiples[m];
        fe z = field_multiply(inverse, work->products[m]);
        inverse = field_multiply(inverse, here->z);
        field_put(&here->x, field_multiply(here->x, z));
        field_put(&here->y, field_multiply(here->y, z));
        field_put(&here->t, field_multiply(here->x, here->y));
        pack(table + (m / ENTRIES * LANES) * ENTRIES + m % ENTRIES, ENTRIES, here, LANES);
    }
}

/* sum += digit * 16^window * the point of a table. Reads all entries of the window. */
OUTLINE void add_window(point *sum, const packed *table, const lanes scalar[4], int window) {
    lanes size, found[15];
    lane_mask negative = digit_of_window(&size, scalar, window);
    for (int i = 0; i < 15; i++) found[i] = all(i % 5 == 0 && i < 10 ? LIMB_ONE : 0);
    for (int entry = 0; entry < ENTRIES; entry++) {
        lane_mask here = lanes_equal(size, all((uint64_t)entry + 1));
        const uint64_t *word = table[window * ENTRIES + entry].word;
        for (int i = 0; i < 15; i++) found[i] = lanes_select(here, all(word[i]), found[i]);
    }
    fe one = field_of_limbs(found), other = field_of_limbs(found + 5), t2d = field_of_limbs(found + 10);
    fe plus = field_select(negative, other, one), minus = field_select(negative, one, other);
    point_add(sum, sum, &plus, &minus, NULL, &t2d, negative, 1);
}

/* sum += scalar * the point of a table */
static void add_multiple(point *sum, const packed *table, const lanes scalar[4]) {
    for (int window = 0; window < WINDOWS; window++) add_window(sum, table, scalar, window);
}

/* --- RFC 9496 --- */

/* Section 4.3.1. Returns the lanes that are no encodings. */
static void decode(point *to, lane_mask *bad, lanes (*words)[4], int groups) {
    const fe one = field_small(1);
    fe s[GROUPS], u1[GROUPS], u2[GROUPS], v[GROUPS], product[GROUPS] = {{{{0}}}}, root[GROUPS];
    lane_mask is_square[GROUPS], malformed[GROUPS];
    for (int g = 0; g < groups; g++) {
        s[g] = field_from_words(words[g]);
        lanes back[4];
        field_to_words(back, s[g]);
        malformed[g] = lanes_equal(AND(words[g][0], all(1)), all(1));
        for (int w = 0; w < 4; w++) malformed[g] = mask_or(malformed[g], mask_not(lanes_equal(words[g][w], back[w])));
        fe ss = field_square(s[g]);
        u1[g] = field_subtract(one, ss);
        u2[g] = field_add(one, ss);
        fe u2_squared = field_square(u2[g]);
        v[g] = field_negative(field_add(field_multiply(field_constant(D), field_square(u1[g])), u2_squared));
        product[g] = field_multiply(v[g], u2_squared);
    }
    square_root_ratio(root, is_square, NULL, product, groups);
    for (int g = 0; g < groups; g++) {
        fe den_x = field_multiply(root[g], u2[g]);
        fe den_y = field_multiply(field_multiply(root[g], den_x), v[g]);
        field_put(&to[g].x, field_absolute(field_multiply(field_add(s[g], s[g]), den_x)));
        field_put(&to[g].y, field_multiply(u1[g], den_y));
        to[g].z = one;
        field_put(&to[g].t, field_multiply(to[g].x, to[g].y));
        lane_mask refused = mask_or(field_is_odd(to[g].t), field_is_zero(to[g].y));
        bad[g] = mask_or(mask_or(malformed[g], mask_not(is_square[g])), refused);
    }
}

/* Section 4.3.2. */
static void encode(lanes (*words)[4], const point *a, int groups) {
    fe u1[GROUPS], u2[GROUPS], product[GROUPS] = {{{{0}}}}, root[GROUPS];
    lane_mask is_square[GROUPS];
    for (int g = 0; g < groups; g++) {
        u1[g] = field_multiply(field_add(a[g].z, a[g].y), field_subtract(a[g].z, a[g].y));
        u2[g] = field_multiply(a[g].x, a[g].y);
        product[g] = field_multiply(u1[g], field_square(u2[g]));
    }
    square_root_ratio(root, is_square, NULL, product, groups);
    fe sqrt_m1 = field_constant(SQRT_M1);
    for (int g = 0; g < groups; g++) {
        fe den1 = field_multiply(root[g], u1[g]), den2 = field_multiply(root[g], u2[g]);
        fe z_inverse = field_multiply(field_multiply(den1, den2), a[g].t);
        lane_mask rotate = field_is_odd(field_multiply(a[g].t, z_inverse));
        fe x = field_select(rotate, field_multiply(a[g].y, sqrt_m1), a[g].x);
        fe y = field_select(rotate, field_multiply(a[g].x, sqrt_m1), a[g].y);
        fe den = field_select(rotate, field_multiply(den1, field_constant(INVSQRT_A_MINUS_D)), den2);
        y = field_select(field_is_odd(field_multiply(x, z_inverse)), field_negative(y), y);
        field_to_words(words[g], field_absolute(field_multiply(den, field_subtract(a[g].z, y))));
    }
}

#define MAPS 4

/* Section 4.3.4: the sum of the points that two halves are mapped to, for one or two groups. */
static void map_to_group(point *to, lanes (*halves)[4], int groups) {
    int maps = 2 * groups;
    const fe one = field_small(1), d = field_constant(D);
    fe t[MAPS], r[MAPS], u[MAPS], v[MAPS], root[MAPS];
    lane_mask is_square[MAPS];
    for (int i = 0; i < maps; i++) {
        t[i] = field_from_words(halves[i]);
        r[i] = field_multiply(field_constant(SQRT_M1), field_square(t[i]));
        u[i] = field_multiply(field_add(r[i], one), field_constant(ONE_MINUS_D_SQUARED));
        v[i] = field_multiply(field_negative(field_add(one, field_multiply(r[i], d))), field_add(r[i], d));
    }
    square_root_ratio(root, is_square, u, v, maps);
    point mapped[MAPS];
    for (int i = 0; i < maps; i++) {
        fe other = field_negative(field_absolute(field_multiply(root[i], t[i])));
        fe s = field_select(is_square[i], root[i], other);
        fe c = field_select(is_square[i], field_negative(one), r[i]);
        fe n = field_multiply(field_multiply(c, field_subtract(r[i], one)), field_constant(D_MINUS_ONE_SQUARED));
        n = field_subtract(n, v[i]);
        fe ss = field_square(s);
        fe w0 = field_multiply(field_add(s, s), v[i]), w1 = field_multiply(n, field_constant(SQRT_AD_MINUS_ONE));
        fe w2 = field_subtract(one, ss), w3 = field_add(one, ss);
        field_put(&mapped[i].x, field_multiply(w0, w3));
        field_put(&mapped[i].y, field_multiply(w2, w1));
        field_put(&mapped[i].z, field_multiply(w1, w3));
        field_put(&mapped[i].t, field_multiply(w0, w2));
    }
    for (int g = 0; g < groups; g++) add_points(&to[g], &mapped[2 * g], &mapped[2 * g + 1]);
    scrub(t, sizeof t);
    scrub(mapped, sizeof mapped);
}

/* --- batches --- */

/* What is done to each row: which point it stands for; then, with scalars, by how much that is multiplied or, with a
 * table, what multiple of the table's point is added. */
typedef struct {
    enum { NOTHING, ELEMENTS, UNIFORM } from;
    const uint8_t *rows, *scalars;
    size_t scalar_step;
    const packed *table;
} job;

/* Everything that may be secret, to be erased in one go. */
typedef struct {
    ladder ladder;
    point points[GROUPS];
    lanes words[GROUPS][4];
} workspace;

/* The points of up to a block of rows; returns the bad lanes of each group. */
static void load_points(workspace *work, lane_mask bad[GROUPS], const job *j, size_t row, size_t n) {
    int groups = (int)((n + LANES - 1) / LANES);
    for (int g = 0; g < groups; g++) {
        size_t first = (size_t)g * LANES, rows = least(n - first, LANES);
        const uint8_t *in = j->from == NOTHING ? NULL : j->rows + (row + first) * (j->from == UNIFORM ? 2 * ROW : ROW);
        bad[g] = mask_none();
        if (j->from == ELEMENTS) {
            load_rows(work->words[g], in, ROW, rows);
        } else if (j->from == UNIFORM) {
            lanes(*halves)[4] = &work->words[g % 2 * 2];
            load_rows(halves[0], in, 2 * ROW, rows);
            load_rows(halves[1], in + ROW, 2 * ROW, rows);
            if (g % 2)
                map_to_group(&work->points[g - 1], work->words, 2);
            else if (g + 1 == groups)
                map_to_group(&work->points[g], work->words, 1);
        } else {
            work->points[g] = identity();
        }
    }
    if (j->from == ELEMENTS) decode(work->points, bad, work->words, groups);
}

/* One block of rows. Returns as the functions of the header. */
static int64_t run_block(workspace *work, uint8_t *out, const job *j, size_t row, size_t n) {
    int groups = (int)((n + LANES - 1) / LANES);
    lane_mask bad[GROUPS];
    load_points(work, bad, j, row, n);
    for (int g = 0; j->scalars && g < groups; g++) {
        size_t first = (size_t)g * LANES;
        load_scalars(work->ladder.scalar, j->scalars + (row + first) * j->scalar_step, j->scalar_step,
                     least(n - first, LANES));
        if (j->table) {
            add_multiple(&work->points[g], j->table, work->ladder.scalar);
        } else {
            multiply_point(&work->ladder, &work->points[g]);
            work->points[g] = work->ladder.sum;
        }
    }
    encode(work->words, work->points, groups);
    for (int g = 0; g < groups; g++) {
        size_t first = (size_t)g * LANES, rows = least(n - first, LANES);
        if (j->scalars) bad[g] = mask_or(bad[g], words_are_zero(work->words[g]));
        unsigned here = mask_bits(bad[g]) & ((1U << rows) - 1);
        if (here) return (int64_t)(row + first) + __builtin_ctz(here);
        store_rows(out + (row + first) * ROW, work->words[g], rows);
    }
    return -1;
}

static int64_t run(uint8_t *out, const job *j, size_t n) {
    workspace work;
    int64_t bad = -1;
    for (size_t row = 0; row < n && bad < 0; row += BLOCK) bad = run_block(&work, out, j, row, least(n - row, BLOCK));
    scrub(&work, sizeof work);
    return bad;
}

int64_t NAME(multiply)(uint8_t *out, const uint8_t *elements, const uint8_t *scalars, size_t scalar_step, size_t n) {
    return run(out, &(job){ELEMENTS, elements, scalars, scalar_step, NULL}, n);
}

int64_t NAME(from_uniform)(uint8_t *out, const uint8_t *uniform, size_t n) {
    return run(out, &(job){UNIFORM, uniform, NULL, 0, NULL}, n);
}

int64_t NAME(map_multiply)(uint8_t *out, const uint8_t *uniform, const uint8_t *scalars, size_t scalar_step,
                           size_t n) {
    return run(out, &(job){UNIFORM, uniform, scalars, scalar_step, NULL}, n);
}

/* Add multiples of one element to what the rows of a job stand for. */
static int64_t run_with_base(uint8_t *out, job j, const uint8_t *base, size_t n) {
    lanes words[1][4];
    point point;
    lane_mask bad;
    load_rows(words[0], base, 0, LANES);
    decode(&point, &bad, words, 1);
    if (mask_bits(bad)) return -3;
    packed *table = allocate(WINDOWS * ENTRIES, sizeof(packed));
    workbench *work = allocate(1, sizeof(workbench));
    int64_t result = -2;
    if (table && work) {
        fill_table(table, work, &point);
        j.table = table;
        result = run(out, &j, n);
    }
    free(work);
    free(table);
    return result;
}

int64_t NAME(multiply_base)(uint8_t *out, const uint8_t *base, const uint8_t *scalars, size_t n) {
    return run_with_base(out, (job){NOTHING, NULL, scalars, ROW, NULL}, base, n);
}

int64_t NAME(add_multiples)(uint8_t *out, const uint8_t *elements, const uint8_t *base, const uint8_t *scalars,
                            size_t n) {
    return run_with_base(out, (job){ELEMENTS, elements, scalars, ROW, NULL}, base, n);
}

int64_t NAME(map_add_multiples)(uint8_t *out, const uint8_t *uniform, const uint8_t *base, const uint8_t *scalars,
                                size_t n) {
    return run_with_base(out, (job){UNIFORM, uniform, scalars, ROW, NULL}, base, n);
}

#include "ristretto_sums.h"
