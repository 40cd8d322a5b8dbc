/* What kernels in lanes offer to Python, see kernels.h: rows of numbers into lanes, batches, bytes.
 *
 * Included by modular_lanes.h, on whose products it stands. A window of a secret exponent has SECRET_WINDOW bits.
 */
#include <stdlib.h>

#define SECRET_WINDOW 5
#define SECRET_ENTRIES (1 << SECRET_WINDOW)
#define VECTORS_AT_ONCE 4 /* so many serve themselves from a window's table before the next one's is needed */

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
    mod->lowest = n_inverse == 1 ? -1 : n_inverse == LIMB_MASK ? 1 : 0;
    /* Two products of numbers, three for the second number of a pair, but the lowest limb of n adds no lower halves, see
     * `reduce_limb`. Squares count the same, for what pairs of limbs add is doubled with its excess. */
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

/* Choose for each lane of two vectors the entry that its digit names, by reading every one. */
static void choose(vec *out, vec *out2, const uint64_t *entries, size_t count, vec digits, vec digits2, size_t width) {
    for (size_t block = 0; block < width; block += BLOCK) {
        vec chosen[BLOCK], chosen2[BLOCK];
        UNROLLED for (int i = 0; i < BLOCK; i++) chosen[i] = chosen2[i] = v_zero();
        for (size_t entry = 0; entry < count; entry++) {
            vec here = v_equal(digits, v_set(entry)), here2 = v_equal(digits2, v_set(entry));
            const uint64_t *row = entries + entry * width + block;
            UNROLLED for (int i = 0; i < BLOCK; i++) {
                vec limb = v_set(row[i]);
                chosen[i] = v_or(chosen[i], v_and(here, limb));
                chosen2[i] = v_or(chosen2[i], v_and(here2, limb));
            }
        }
        UNROLLED for (int i = 0; i < BLOCK; i++) {
            out[block + i] = chosen[i];
            out2[block + i] = chosen2[i];
        }
    }
}

/* What the rows of a few vectors have been multiplied to. */
typedef struct {
    vec x[MAX_LIMBS];
    vec sum[MAX_LIMBS / 2]; /* of pairs, see `multiply_by_first` */
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
    vec entry[2][MAX_LIMBS], unit[MAX_LIMBS];
    load_rows(unit, one, 0, 1, width);
    for (size_t at = 0; at < rows; at += VECTORS_AT_ONCE * LANES) {
        size_t here = rows - at < VECTORS_AT_ONCE * LANES ? rows - at : VECTORS_AT_ONCE * LANES;
        for (size_t window = 0; window < windows; window++)
            for (size_t first = 0; first < here; first += 2 * LANES) {
                uint64_t digit[2 * LANES];
                for (size_t lane = 0; lane < 2 * LANES; lane++)
                    digit[lane] = first + lane < here ? digits[(at + first + lane) * windows + window] : 0;
                choose(entry[0], entry[1], table + window * entries * width, entries, load_words(digit, LANES),
                       load_words(digit + LANES, LANES), width);
                for (size_t half = 0; half < 2 && first + half * LANES < here; half++) {
                    running *product = &of[first / LANES + half];
                    if (window)
                        go_on_with_product(product, entry[half], &mod);
                    else
                        begin_product(product, entry[half], &mod);
                }
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

/* Products of segments that are done but for `add_what_waited`, until a vector is full of them. */
typedef struct {
    uint64_t x[LANES][MAX_LIMBS], sum[LANES][MAX_LIMBS / 2];
    size_t segment[LANES];
    size_t count;
} waiting;

static void finish_waiting(waiting *of, uint64_t *out, const vec *unit, const modulus *mod) {
    const uint64_t *x_rows[LANES], *sum_rows[LANES];
    for (size_t i = 0; i < LANES; i++) {
        x_rows[i] = of->x[i < of->count ? i : 0];
        sum_rows[i] = of->sum[i < of->count ? i : 0];
    }
    vec x[MAX_LIMBS], sum[MAX_LIMBS / 2];
    uint64_t rows[LANES * MAX_LIMBS];
    load_lanes(x, x_rows, mod->width);
    load_lanes(sum, sum_rows, mod->limbs);
    add_what_waited(x, sum, unit, mod);
    store_lanes(rows, x, of->count, mod->width);
    for (size_t i = 0; i < of->count; i++)
        memcpy(out + of->segment[i] * mod->width, rows + i * mod->width, mod->width * sizeof(uint64_t));
    of->count = 0;
}

/* Copy one lane of vectors out, or a row into one. */
static void lane_out(uint64_t *row, const vec *vectors, size_t lane, size_t limbs) {
    for (size_t limb = 0; limb < limbs; limb++) row[limb] = ((const uint64_t *)(vectors + limb))[lane];
}
static void lane_in(vec *vectors, const uint64_t *row, size_t lane, size_t limbs) {
    for (size_t limb = 0; limb < limbs; limb++) ((uint64_t *)(vectors + limb))[lane] = row[limb];
}

/* What `running` is for vectors of rows, for segments that begin and end in their lanes at different times. */
static void begin_lane(running *of, const uint64_t *row, size_t lane, int factors, const modulus *mod) {
    lane_in(of->x, row, lane, mod->width);
    if (!factors) return;
    lane_in(of->sum, row + mod->limbs, lane, mod->limbs);
    for (size_t limb = mod->limbs; limb < mod->width; limb++) ((uint64_t *)(of->x + limb))[lane] = 0;
}

static int multiply_segments(uint64_t *out, const uint64_t *values, const int64_t *order, const int64_t *starts,
                             size_t segments, const uint64_t *one, int factors, const modulus *mod) {
    state before = begin();
    size_t width = mod->width;
    running of;
    waiting done = {.count = 0};
    vec by[MAX_LIMBS], unit[MAX_LIMBS];
    chain lane[LANES];
    const uint64_t *row[LANES];
    int64_t taken = 0;
    size_t busy = 0;
    load_rows(unit, one, 0, 1, width);
    for (size_t i = 0; i < LANES; i++) {
        take_segment(&lane[i], &row[i], &taken, out, values, order, starts, (int64_t)segments, one, width);
        busy += lane[i].segment >= 0;
        begin_lane(&of, row[i], i, factors, mod);
    }
    while (busy) {
        for (size_t i = 0; i < LANES; i++) {
            while (lane[i].segment >= 0 && lane[i].next == lane[i].end) {
                if (factors) {
                    lane_out(done.x[done.count], of.x, i, width);
                    lane_out(done.sum[done.count], of.sum, i, mod->limbs);
                    done.segment[done.count++] = (size_t)lane[i].segment;
                    if (done.count == LANES) finish_waiting(&done, out, unit, mod);
                } else {
                    lane_out(out + (size_t)lane[i].segment * width, of.x, i, width);
                }
                take_segment(&lane[i], &row[i], &taken, out, values, order, starts, (int64_t)segments, one, width);
                busy -= lane[i].segment < 0;
                begin_lane(&of, row[i], i, factors, mod);
            }
            row[i] = lane[i].segment < 0 ? one : values + (size_t)order[lane[i].next++] * width;
        }
        if (!busy) break;
        load_lanes(by, row, width);
        if (factors)
            go_on_with_product(&of, by, mod);
        else
            multiply(of.x, of.x, by, mod);
    }
    if (done.count) finish_waiting(&done, out, unit, mod);
    end(before);
    return 0;
}

int NAME(segmented_product)(uint64_t *out, const uint64_t *values, const int64_t *order, const int64_t *starts,
                            size_t segments, const uint64_t *one, const uint64_t *n, uint64_t n_inverse, size_t limbs,
                            size_t parts) {
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs, parts);
    return multiply_segments(out, values, order, starts, segments, one, 0, &mod);
}

int NAME(factor_product)(uint64_t *out, const uint64_t *values, const int64_t *order, const int64_t *starts,
                         size_t segments, const uint64_t *one, const uint64_t *n, uint64_t n_inverse, size_t limbs,
                         size_t parts) {
    modulus mod;
    open_modulus(&mod, n, n_inverse, limbs, parts);
    return multiply_segments(out, values, order, starts, segments, one, 1, &mod);
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
