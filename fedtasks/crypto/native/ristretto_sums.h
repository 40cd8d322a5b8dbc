/* Weighted sums of public rows, a part of ristretto_lanes.h. */

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
    if (n < 224) return (plan){4, 64, 64 / LANES, 8, 0x8888888888888888ULL};
    return (plan){8, 32, 32 / LANES, MAX_BUCKETS, 0x8080808080808080ULL};
}

/* sum += the row of each lane, or -= in the lanes of `negative` */
OUTLINE void add_rows(point *sum, const packed *const rows[LANES], lane_mask negative) {
    lanes w[16];
    for (int first = 0; first < 16; first += LANES) {
        const uint64_t *from[LANES];
        for (int lane = 0; lane < LANES; lane++) from[lane] = rows[lane]->word + first;
        lanes_transpose(w + first, from);
    }
    fe plus = field_of_limbs(w), minus = field_of_limbs(w + 5), t2d = field_of_limbs(w + 10);
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

/* Add up the buckets of a window, LANES of like size at a time, and put them in the window's lane. */
static void fill_buckets(point *buckets, const sorting *s, const packed *rows, const plan *p, size_t lane) {
    static const packed nothing __attribute__((aligned(64))) = {{LIMB_ONE, 0, 0, 0, 0, LIMB_ONE}};
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
            add_rows(&sum, now, mask_of_bits(negative));
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

/* Sum over windows and buckets of 2^(bits * window) * (b + 1) * bucket b, in the first lane. */
static void combine(point *total, const point *buckets, const plan *p) {
    *total = identity();
    for (size_t round = p->rounds; round-- > 0;) {
        point_double_often(total, (int)p->bits);
        point running = identity(), sum = identity();
        for (size_t b = p->buckets; b-- > 0;) {
            add_points(&running, &running, &buckets[round * p->buckets + b]);
            add_points(&sum, &sum, &running);
        }
        add_points(total, total, &sum);
    }
    for (int span = LANES / 2; span > 0; span /= 2) {
        uint64_t limbs[20][LANES], turned[20][LANES];
        point upper;
        memcpy(limbs, total, sizeof limbs);
        for (int limb = 0; limb < 20; limb++)
            for (int lane = 0; lane < LANES; lane++) turned[limb][lane] = limbs[limb][(lane + span) % LANES];
        memcpy(&upper, turned, sizeof turned);
        point_double_often(&upper, (int)(p->bits * p->rounds) * span);
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
            unsigned here = mask_bits(mask_or(bad[g], words_are_zero(words[g]))) & ((1U << count) - 1);
            if (here) return (int64_t)first + __builtin_ctz(here);
            pack(rows + first, 1, &points[g], count);
        }
    }
    return -1;
}

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

int64_t NAME(weighted_sum)(uint8_t *out, const uint8_t *elements, const uint8_t *scalars, size_t n) {
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

