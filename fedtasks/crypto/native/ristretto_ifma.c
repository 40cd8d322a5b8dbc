/* ristretto255 in eight lanes of AVX512-IFMA.
 *
 * A point of the curve -x^2 + y^2 = 1 + d x^2 y^2 stands in extended coordinates (X : Y : Z : T), x = X/Z, y = Y/Z,
 * xy = T/Z; each coordinate holds eight points, one in each lane. Formulas: Hisil, Wong, Carter and Dawson, "Twisted
 * Edwards curves revisited", 2008; they hold for all points, so nothing is treated apart. Encoding and maps: RFC 9496.
 */
#include "ristretto.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512ifma,bmi2"))),            \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512ifma,bmi2")
#endif

#include "field25519_ifma.h"

#include <stdlib.h>
#include <string.h>

#define ROW 32
#define LANES 8
/* Four groups of eight rows make a block: their square roots, each one long chain, are computed side by side. */
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

static const uint64_t D[5] = {0xb4dca135978a3, 0x4d4141d8ab75e, 0x779e89800700a, 0xfe738cc740797, 0x52036cee2b6f};
static const uint64_t D2[5] = {0x69b9426b2f159, 0x9a8283b156ebd, 0xef3d13000e014, 0xfce7198e80f2e, 0x2406d9dc56df};
static const uint64_t SQRT_M1[5] = {0xe1b274a0ea0b0, 0x6ad2fe478c4e, 0xdfbd7a72f4318, 0xdf0b2b4d00993, 0x2b8324804fc1};
static const uint64_t SQRT_AD_MINUS_ONE[5] = {0x7f6a0497b2e1b, 0xc1b7854bd7e9, 0x1f5d1fdaf9d8e, 0x48ac0f3cfcc93,
                                              0x376931bf2b83};
static const uint64_t INVSQRT_A_MINUS_D[5] = {0x8fdaa805d40ea, 0x175a4172be99c, 0xe01d8409d2f16, 0xfca216c27b91f,
                                              0x786c8905cfaf};
static const uint64_t ONE_MINUS_D_SQUARED[5] = {0xc09c1945fc176, 0x38cd5e350fe27, 0xe70dfe42c81a1, 0xe0d79994abddb,
                                                0x29072a8b2b3};
static const uint64_t D_MINUS_ONE_SQUARED[5] = {0xd5aaa44ed4d20, 0x2cb01e199931a, 0x29b4eebd29e4a, 0x22414cdcd32f5,
                                                0x5968b37af66c};
static const uint64_t BASE_X[5] = {0x62d608f25d51a, 0x609525a7b2c95, 0xdd6dc5c692cc7, 0x53fec0a4e231f, 0x216936d3cd6e};
static const uint64_t BASE_Y[5] = {0x6666666666658, 0x6666666666666, 0x6666666666666, 0x6666666666666, 0x666666666666};
static const uint64_t BASE_T[5] = {0xe8ab3a5b7dda3, 0x80775152f56dd, 0x4abe37d20f09f, 0x766566ea4e8e6, 0x67875f0fd78b};

int fedtasks_ristretto_works(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("bmi2");
}

/* Erase what was secret; the barrier keeps the compiler from leaving it out. */
static void scrub(void *memory, size_t bytes) {
    memset(memory, 0, bytes);
    __asm__ __volatile__("" : : "r"(memory) : "memory");
}

/* --- rows and lanes --- */

/* words[w] = word w of every row; rows from `n` on are zero. */
static void load_rows(lanes words[4], const uint8_t *rows, size_t step, size_t n) {
    uint64_t square[4][LANES] = {{0}};
    for (size_t lane = 0; lane < n; lane++) {
        uint64_t row[4];
        memcpy(row, rows + lane * step, ROW);
        for (int w = 0; w < 4; w++) square[w][lane] = row[w];
    }
    for (int w = 0; w < 4; w++) words[w] = _mm512_loadu_si512(square[w]);
    scrub(square, sizeof square);
}

static void store_rows(uint8_t *rows, const lanes words[4], size_t n) {
    uint64_t square[4][LANES];
    for (int w = 0; w < 4; w++) _mm512_storeu_si512(square[w], words[w]);
    for (size_t lane = 0; lane < n; lane++) {
        uint64_t row[4];
        for (int w = 0; w < 4; w++) row[w] = square[w][lane];
        memcpy(rows + lane * ROW, row, ROW);
    }
}

static lane_mask words_are_zero(const lanes words[4]) {
    lanes any = OR(OR(words[0], words[1]), OR(words[2], words[3]));
    return _mm512_testn_epi64_mask(any, any);
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
    fe start[GROUPS], base[GROUPS], power[GROUPS];
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
        r = field_select(flipped | flipped_i, field_multiply(r, sqrt_m1), r);
        root[g] = field_absolute(r);
        is_square[g] = correct | flipped;
    }
}

/* --- the curve --- */

OUTLINE void point_double(point *to, const point *a, int with_t) {
    wide xx = wide_square(a->x), yy = wide_square(a->y), zz = wide_square(a->z), xy = wide_multiply(a->x, a->y);
    wide difference = wide_add(yy, wide_negative(xx, ABOVE_PRODUCT));
    fe g = field_carry(difference);
    fe h = field_carry(wide_add(yy, xx));
    fe f = field_carry(wide_add(wide_add(zz, zz), wide_negative(difference, 2 * ABOVE_PRODUCT)));
    fe e = field_carry(wide_add(xy, xy));
    /* f and h have the sign opposite to the paper's, which turns all four coordinates around: the same point. */
    to->x = field_multiply(e, f);
    to->y = field_multiply(g, h);
    to->z = field_multiply(f, g);
    if (with_t) to->t = field_multiply(e, h);
}

/* to = a + b, or a - b in the lanes of `negative`, where plus and minus have been exchanged already. Without twice_z,
 * Z of b is 1. */
INLINE void point_add(point *to, const point *a, const fe *plus, const fe *minus, const fe *twice_z, const fe *t2d,
                      lane_mask negative, int with_t) {
    wide first = wide_multiply(field_subtract(a->y, a->x), *minus);
    wide second = wide_multiply(field_add(a->y, a->x), *plus);
    wide third = wide_negative_where(negative, wide_multiply(a->t, *t2d), ABOVE_PRODUCT);
    wide fourth = twice_z ? wide_multiply(a->z, *twice_z) : wide_add(wide_of(a->z), wide_of(a->z));
    fe e = field_carry(wide_add(second, wide_negative(first, ABOVE_PRODUCT)));
    fe f = field_carry(wide_add(fourth, wide_negative(third, 2 * ABOVE_PRODUCT)));
    fe g = field_carry(wide_add(fourth, third));
    fe h = field_carry(wide_add(second, first));
    to->x = field_multiply(e, f);
    to->y = field_multiply(g, h);
    to->z = field_multiply(f, g);
    if (with_t) to->t = field_multiply(e, h);
}

OUTLINE void point_add_cached(point *to, const point *a, const cached *b, lane_mask negative) {
    point_add(to, a, &b->plus, &b->minus, &b->twice_z, &b->t2d, negative, 1);
}

/* As point_add_cached, but leaves T alone, which a doubling does not read. */
OUTLINE void point_add_before_double(point *to, const point *a, const cached *b, lane_mask negative) {
    point_add(to, a, &b->plus, &b->minus, &b->twice_z, &b->t2d, negative, 0);
}

static void cache(cached *to, const point *a) {
    to->plus = field_add(a->y, a->x);
    to->minus = field_subtract(a->y, a->x);
    to->twice_z = field_add(a->z, a->z);
    to->t2d = field_multiply(a->t, field_constant(D2));
}

static void add_points(point *to, const point *a, const point *b) {
    cached other;
    cache(&other, b);
    point_add_cached(to, a, &other, 0);
}

static point identity(void) { return (point){field_small(0), field_small(1), field_small(1), field_small(0)}; }

/* --- constant-time multiplication --- */

#define WINDOWS 64
#define ENTRIES 8

typedef struct {
    cached table[ENTRIES]; /* 1 to 8 times the point */
    cached found;
    lanes scalar[4];
    point sum;
} ladder;

/* Write a 255-bit scalar as 64 digits to the base 16: the lower 63 from -8 to 7, the highest from 0 to 8. Adding 8 to
 * each of the lower ones makes them nibbles of a number below 2^256. */
static void recode(lanes scalar[4]) {
    const uint64_t eights = 0x8888888888888888ULL;
    scalar[3] = AND(scalar[3], all(0x7fffffffffffffffULL));
    lanes one = all(1);
    lane_mask carry = 0;
    for (int w = 0; w < 4; w++) {
        lanes add = all(w == 3 ? eights & 0x0fffffffffffffffULL : eights);
        lanes sum = ADD(scalar[w], add);
        lane_mask over = _mm512_cmplt_epu64_mask(sum, add);
        lanes more = _mm512_mask_add_epi64(sum, carry, sum, one);
        over |= _mm512_cmplt_epu64_mask(more, sum);
        scalar[w] = more;
        carry = over;
    }
}

/* found = |digit| times the point, with plus and minus exchanged where the digit is negative; returns where. Reads the
 * whole table. */
OUTLINE lane_mask look_up(cached *found, const cached *table, const lanes scalar[4], int window) {
    lanes digit = AND(SHR(scalar[window / 16], (unsigned)(4 * (window % 16))), all(15));
    if (window < WINDOWS - 1) digit = SUB(digit, all(8));
    lane_mask negative = _mm512_movepi64_mask(digit);
    lanes size = _mm512_abs_epi64(digit);
    cached entry = {field_small(1), field_small(1), field_small(2), field_small(0)};
    for (int i = 0; i < ENTRIES; i++) {
        lane_mask here = _mm512_cmpeq_epi64_mask(size, all((uint64_t)i + 1));
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
        point_add_cached(&multiple, &multiple, &work->table[0], 0);
        cache(&work->table[i], &multiple);
    }
    scrub(&multiple, sizeof multiple);
    recode(work->scalar);
    work->sum = identity();
    for (int window = WINDOWS - 1; window >= 0; window--) {
        lane_mask negative = look_up(&work->found, work->table, work->scalar, window);
        if (window == 0) {
            point_add_cached(&work->sum, &work->sum, &work->found, negative);
            break;
        }
        point_add_before_double(&work->sum, &work->sum, &work->found, negative);
        for (int i = 0; i < 3; i++) point_double(&work->sum, &work->sum, 0);
        point_double(&work->sum, &work->sum, 1);
    }
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
        malformed[g] = _mm512_test_epi64_mask(words[g][0], all(1));
        for (int w = 0; w < 4; w++) malformed[g] |= _mm512_cmpneq_epu64_mask(words[g][w], back[w]);
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
        to[g].x = field_absolute(field_multiply(field_add(s[g], s[g]), den_x));
        to[g].y = field_multiply(u1[g], den_y);
        to[g].z = one;
        to[g].t = field_multiply(to[g].x, to[g].y);
        bad[g] = (lane_mask)(malformed[g] | ~is_square[g] | field_is_odd(to[g].t) | field_is_zero(to[g].y));
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
        mapped[i].x = field_multiply(w0, w3);
        mapped[i].y = field_multiply(w2, w1);
        mapped[i].z = field_multiply(w1, w3);
        mapped[i].t = field_multiply(w0, w2);
    }
    for (int g = 0; g < groups; g++) add_points(&to[g], &mapped[2 * g], &mapped[2 * g + 1]);
    scrub(t, sizeof t);
    scrub(mapped, sizeof mapped);
}

/* --- batches --- */

typedef enum { FROM_ELEMENTS, FROM_GENERATOR, FROM_UNIFORM } source;

/* Everything that may be secret, to be erased in one go. */
typedef struct {
    ladder ladder;
    point points[GROUPS];
    lanes words[GROUPS][4];
} workspace;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* One block of rows; without scalars the points themselves. Returns as the functions of the header. */
static int64_t run_block(workspace *work, uint8_t *out, source from, const uint8_t *in, const uint8_t *scalars,
                         size_t scalar_step, size_t n) {
    int groups = (int)((n + LANES - 1) / LANES);
    lane_mask bad[GROUPS] = {0};
    for (int g = 0; g < groups; g++) {
        size_t first = (size_t)g * LANES, rows = least(n - first, LANES);
        if (from == FROM_ELEMENTS) {
            load_rows(work->words[g], in + first * ROW, ROW, rows);
        } else if (from == FROM_UNIFORM) {
            lanes(*halves)[4] = &work->words[g % 2 * 2];
            load_rows(halves[0], in + first * 2 * ROW, 2 * ROW, rows);
            load_rows(halves[1], in + first * 2 * ROW + ROW, 2 * ROW, rows);
            if (g % 2)
                map_to_group(&work->points[g - 1], work->words, 2);
            else if (g + 1 == groups)
                map_to_group(&work->points[g], work->words, 1);
        } else {
            fe x = field_constant(BASE_X), y = field_constant(BASE_Y), t = field_constant(BASE_T);
            work->points[g] = (point){x, y, field_small(1), t};
        }
    }
    if (from == FROM_ELEMENTS) decode(work->points, bad, work->words, groups);
    for (int g = 0; scalars && g < groups; g++) {
        size_t first = (size_t)g * LANES;
        load_rows(work->ladder.scalar, scalars + first * scalar_step, scalar_step, least(n - first, LANES));
        multiply_point(&work->ladder, &work->points[g]);
        work->points[g] = work->ladder.sum;
    }
    encode(work->words, work->points, groups);
    for (int g = 0; g < groups; g++) {
        size_t first = (size_t)g * LANES, rows = least(n - first, LANES);
        if (scalars) bad[g] |= words_are_zero(work->words[g]);
        unsigned here = bad[g] & ((1U << rows) - 1);
        if (here) return (int64_t)first + __builtin_ctz(here);
        store_rows(out + first * ROW, work->words[g], rows);
    }
    return -1;
}

static int64_t run(uint8_t *out, source from, const uint8_t *in, const uint8_t *scalars, size_t scalar_step, size_t n) {
    workspace work;
    int64_t bad = -1;
    for (size_t row = 0; row < n && bad < 0; row += BLOCK) {
        const uint8_t *source_rows = in ? in + row * (from == FROM_UNIFORM ? 2 * ROW : ROW) : NULL;
        const uint8_t *by = scalars ? scalars + row * scalar_step : NULL;
        bad = run_block(&work, out + row * ROW, from, source_rows, by, scalar_step, least(n - row, BLOCK));
        if (bad >= 0) bad += (int64_t)row;
    }
    scrub(&work, sizeof work);
    return bad;
}

int64_t fedtasks_ristretto_multiply(uint8_t *out, const uint8_t *elements, const uint8_t *scalars, size_t scalar_step,
                                    size_t n) {
    return run(out, FROM_ELEMENTS, elements, scalars, scalar_step, n);
}

int64_t fedtasks_ristretto_multiply_base(uint8_t *out, const uint8_t *scalars, size_t n) {
    return run(out, FROM_GENERATOR, NULL, scalars, ROW, n);
}

int64_t fedtasks_ristretto_from_uniform(uint8_t *out, const uint8_t *uniform, size_t n) {
    return run(out, FROM_UNIFORM, uniform, NULL, 0, n);
}

int64_t fedtasks_ristretto_map_multiply(uint8_t *out, const uint8_t *uniform, const uint8_t *scalars,
                                        size_t scalar_step, size_t n) {
    return run(out, FROM_UNIFORM, uniform, scalars, scalar_step, n);
}

/* --- weighted sums of public rows --- */

/* Pippenger's buckets, with signed digits of `bits` bits. Window w = lane * rounds + round, so that one lane holds the
 * windows next to each other, and all lanes have `rounds` of them. `halves` is a word full of half digits. */
typedef struct {
    size_t bits, windows, rounds, buckets;
    uint64_t halves;
} plan;

#define MAX_BUCKETS 128
/* So many rows are added up at a time, as their points and the buckets fit the cache together. */
#define MAX_ROWS 8192

/* The plan with the fewest additions, of two that leave no lane empty: both have 256 bits in all windows together. */
static plan plan_for(size_t n) {
    if (n < 224) return (plan){4, 64, 8, 8, 0x8888888888888888ULL};
    return (plan){8, 32, 4, MAX_BUCKETS, 0x8080808080808080ULL};
}

/* One point with Z = 1, as an addition takes it: the limbs of Y + X, Y - X and 2d T, one word of no use. */
typedef struct {
    uint64_t word[16];
} packed;

static void pack(packed *rows, const point *a, size_t n) {
    cached form;
    cache(&form, a);
    uint64_t square[15][LANES];
    for (int i = 0; i < 5; i++) {
        _mm512_storeu_si512(square[i], form.plus.l[i]);
        _mm512_storeu_si512(square[5 + i], form.minus.l[i]);
        _mm512_storeu_si512(square[10 + i], form.t2d.l[i]);
    }
    for (size_t lane = 0; lane < n; lane++)
        for (int i = 0; i < 15; i++) rows[lane].word[i] = square[i][lane];
}

/* to[i] = word i of each of eight rows */
INLINE void transpose(lanes to[8], const packed *const from[LANES], int half) {
    lanes low[4], high[4];
    for (int i = 0; i < 4; i++) {
        lanes first = _mm512_load_si512(from[2 * i]->word + 8 * half);
        lanes second = _mm512_load_si512(from[2 * i + 1]->word + 8 * half);
        low[i] = _mm512_unpacklo_epi64(first, second);
        high[i] = _mm512_unpackhi_epi64(first, second);
    }
    for (int odd = 0; odd < 2; odd++) {
        const lanes *pairs = odd ? high : low;
        lanes front02 = _mm512_shuffle_i64x2(pairs[0], pairs[1], 0x88);
        lanes front13 = _mm512_shuffle_i64x2(pairs[0], pairs[1], 0xdd);
        lanes back02 = _mm512_shuffle_i64x2(pairs[2], pairs[3], 0x88);
        lanes back13 = _mm512_shuffle_i64x2(pairs[2], pairs[3], 0xdd);
        to[odd] = _mm512_shuffle_i64x2(front02, back02, 0x88);
        to[2 + odd] = _mm512_shuffle_i64x2(front13, back13, 0x88);
        to[4 + odd] = _mm512_shuffle_i64x2(front02, back02, 0xdd);
        to[6 + odd] = _mm512_shuffle_i64x2(front13, back13, 0xdd);
    }
}

/* sum += the row of each lane, or -= in the lanes of `negative` */
OUTLINE void add_rows(point *sum, const packed *const rows[LANES], lane_mask negative) {
    lanes w[16];
    transpose(w, rows, 0);
    transpose(w + 8, rows, 1);
    fe plus = {{w[0], w[1], w[2], w[3], w[4]}}, minus = {{w[5], w[6], w[7], w[8], w[9]}};
    fe t2d = {{w[10], w[11], w[12], w[13], w[14]}};
    fe swapped = field_select(negative, minus, plus);
    minus = field_select(negative, plus, minus);
    point_add(sum, sum, &swapped, &minus, NULL, &t2d, negative, 1);
}

/* A scalar of 255 bits plus half a digit in every window but the highest, so that digits are bits less that half; the
 * highest is from 0 to the half. Below 2^256. */
static void recode_row(uint64_t to[4], const uint8_t *scalar, const plan *p) {
    unsigned __int128 sum = 0;
    memcpy(to, scalar, ROW);
    to[3] &= ~0ULL >> 1;
    for (int i = 0; i < 4; i++) {
        sum += (unsigned __int128)to[i] + (i < 3 ? p->halves : p->halves & (~0ULL >> p->bits));
        to[i] = (uint64_t)sum;
        sum >>= 64;
    }
}

static int32_t digit_of(const uint64_t scalar[4], const plan *p, size_t window) {
    size_t bit = window * p->bits; /* which divide the bits of a word */
    int32_t digit = (int32_t)(scalar[bit / 64] >> (bit % 64) & ((1ULL << p->bits) - 1));
    return window + 1 < p->windows ? digit - (int32_t)(1U << (p->bits - 1)) : digit;
}

#define SIZES 256

/* Which rows fall into which bucket of a window: bucket b + 1 has rows[starts[b]] up to rows[starts[b + 1]], each twice
 * its number, plus one if it is to be subtracted. `by_size` names the buckets from the fullest on. */
typedef struct {
    uint32_t *rows;
    uint32_t starts[MAX_BUCKETS + 1];
    uint32_t by_size[MAX_BUCKETS];
} sorting;

static void sort_window(sorting *s, const uint64_t (*scalars)[4], size_t n, const plan *p, size_t window) {
    uint32_t next[MAX_BUCKETS + 1] = {0}, sizes[SIZES + 1] = {0};
    for (size_t row = 0; row < n; row++) next[abs(digit_of(scalars[row], p, window))]++;
    uint32_t start = 0;
    for (size_t b = 0; b < p->buckets; b++) {
        uint32_t count = next[b + 1];
        s->starts[b] = next[b + 1] = start;
        start += count;
        /* Beyond the largest size the order does not matter but for speed. */
        sizes[SIZES - least(count, SIZES - 1)]++;
    }
    s->starts[p->buckets] = start;
    for (size_t row = 0; row < n; row++) {
        int32_t digit = digit_of(scalars[row], p, window);
        if (digit) s->rows[next[abs(digit)]++] = (uint32_t)(2 * row + (digit < 0));
    }
    for (size_t i = 1; i <= SIZES; i++) sizes[i] += sizes[i - 1];
    for (size_t b = 0; b < p->buckets; b++) {
        size_t count = s->starts[b + 1] - s->starts[b];
        s->by_size[sizes[SIZES - least(count, SIZES - 1) - 1]++] = (uint32_t)b;
    }
}

/* Add up the buckets of a window, eight of like size at a time, and put them in the window's lane. */
static void fill_buckets(point *buckets, const sorting *s, const packed *rows, const plan *p, size_t lane) {
    static const packed nothing __attribute__((aligned(64))) = {{1, 0, 0, 0, 0, 1}};
    for (size_t first = 0; first < p->buckets; first += LANES) {
        const uint32_t *names = s->by_size + first;
        uint32_t most = s->starts[names[0] + 1] - s->starts[names[0]];
        for (int i = 1; i < LANES; i++) {
            uint32_t count = s->starts[names[i] + 1] - s->starts[names[i]];
            most = count > most ? count : most;
        }
        if (most == 0) break;
        point sum = identity();
        for (uint32_t step = 0; step < most; step++) {
            const packed *now[LANES];
            unsigned negative = 0;
            for (int i = 0; i < LANES; i++) {
                uint32_t at = s->starts[names[i]] + step;
                int there = at < s->starts[names[i] + 1];
                uint32_t row = there ? s->rows[at] : 0;
                now[i] = there ? &rows[row >> 1] : &nothing;
                negative |= (row & 1) << i;
            }
            add_rows(&sum, now, (lane_mask)negative);
        }
        uint64_t limbs[20][LANES];
        memcpy(limbs, &sum, sizeof limbs);
        for (int i = 0; i < LANES; i++) {
            uint8_t *bucket = (uint8_t *)&buckets[names[i]];
            for (int limb = 0; limb < 20; limb++)
                memcpy(bucket + ((size_t)limb * LANES + lane) * sizeof(uint64_t), &limbs[limb][i], sizeof(uint64_t));
        }
    }
}

static void double_often(point *a, size_t times) {
    for (size_t i = 1; i < times; i++) point_double(a, a, 0);
    if (times) point_double(a, a, 1);
}

/* Sum over windows and buckets of 2^(bits * window) * (b + 1) * bucket b, in the first lane. */
static void combine(point *total, const point *buckets, const plan *p) {
    *total = identity();
    for (size_t round = p->rounds; round-- > 0;) {
        double_often(total, p->bits);
        point running = identity(), sum = identity();
        for (size_t b = p->buckets; b-- > 0;) {
            add_points(&running, &running, &buckets[round * p->buckets + b]);
            add_points(&sum, &sum, &running);
        }
        add_points(total, total, &sum);
    }
    for (int span = LANES / 2; span > 0; span /= 2) {
        lanes from = _mm512_add_epi64(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), all((uint64_t)span));
        point upper;
        const lanes *source = (const lanes *)total;
        lanes *target = (lanes *)&upper;
        for (int limb = 0; limb < 20; limb++) target[limb] = _mm512_permutexvar_epi64(from, source[limb]);
        double_often(&upper, p->bits * p->rounds * (size_t)span);
        add_points(total, total, &upper);
    }
}

static int64_t decode_rows(packed *rows, const uint8_t *elements, size_t n) {
    for (size_t row = 0; row < n; row += BLOCK) {
        int groups = (int)((least(n - row, BLOCK) + LANES - 1) / LANES);
        lanes words[GROUPS][4];
        point points[GROUPS];
        lane_mask bad[GROUPS];
        for (int g = 0; g < groups; g++) {
            size_t first = row + (size_t)g * LANES;
            load_rows(words[g], elements + first * ROW, ROW, least(n - first, LANES));
        }
        decode(points, bad, words, groups);
        for (int g = 0; g < groups; g++) {
            size_t first = row + (size_t)g * LANES, count = least(n - first, LANES);
            unsigned here = (bad[g] | words_are_zero(words[g])) & ((1U << count) - 1);
            if (here) return (int64_t)first + __builtin_ctz(here);
            pack(rows + first, &points[g], count);
        }
    }
    return -1;
}

static void *allocate(size_t count, size_t bytes) { return aligned_alloc(64, (count * bytes / 64 + 1) * 64); }

/* What at most MAX_ROWS rows are added up in. */
typedef struct {
    packed *rows;
    uint64_t (*scalars)[4];
    point *buckets;
    sorting sorted;
} summation;

static int64_t sum_rows(point *total, summation *work, const plan *p, const uint8_t *elements, const uint8_t *scalars,
                        size_t n) {
    int64_t bad = decode_rows(work->rows, elements, n);
    if (bad >= 0) return bad;
    for (size_t i = 0; i < p->rounds * p->buckets; i++) work->buckets[i] = identity();
    for (size_t row = 0; row < n; row++) recode_row(work->scalars[row], scalars + row * ROW, p);
    for (size_t window = 0; window < p->windows; window++) {
        point *buckets = work->buckets + window % p->rounds * p->buckets;
        sort_window(&work->sorted, (const uint64_t(*)[4])work->scalars, n, p, window);
        fill_buckets(buckets, &work->sorted, work->rows, p, window / p->rounds);
    }
    combine(total, work->buckets, p);
    return -1;
}

int64_t fedtasks_ristretto_weighted_sum(uint8_t *out, const uint8_t *elements, const uint8_t *scalars, size_t n) {
    const size_t most = least(n, MAX_ROWS);
    const plan p = plan_for(most);
    summation work = {.rows = allocate(most, sizeof(packed)),
                      .scalars = allocate(most, sizeof *work.scalars),
                      .buckets = allocate(p.rounds * p.buckets, sizeof(point)),
                      .sorted.rows = allocate(most, sizeof(uint32_t))};
    int64_t result = -2;
    if (work.rows && work.scalars && work.buckets && work.sorted.rows) {
        point total = identity(), part;
        result = -1;
        for (size_t row = 0; row < n && result == -1; row += MAX_ROWS) {
            result = sum_rows(&part, &work, &p, elements + row * ROW, scalars + row * ROW, least(n - row, MAX_ROWS));
            if (result == -1)
                add_points(&total, &total, &part);
            else
                result += (int64_t)row;
        }
        if (result == -1) {
            lanes words[1][4];
            encode(words, &total, 1);
            store_rows(out, words[0], 1);
        }
    }
    free(work.rows);
    free(work.scalars);
    free(work.buckets);
    free(work.sorted.rows);
    return result;
}

/* --- scalars modulo the order l, in Montgomery form with R = 2^256 --- */

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
    scrub(&product, sizeof product);
    return bad;
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else

int fedtasks_ristretto_works(void) { return 0; }

#endif
