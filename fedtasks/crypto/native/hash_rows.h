/* Hashing of many rows at once, as native kernels offer it to Python.
 *
 * A row is the concatenation of its parts, which are columns: the same bytes in every row, bytes of one width, texts of
 * any length as Arrow lays them out, or the lengths of such texts. The hashes are SHA-256, SHA-384 and SHA-512 of FIPS
 * 180-4. Functions keep no state and take no memory, so any number of threads may call them at once, each for a range
 * of rows.
 */
#ifndef FEDTASKS_HASH_ROWS_H
#define FEDTASKS_HASH_ROWS_H

#include <stddef.h>
#include <stdint.h>

#ifndef EXPORT
#define EXPORT __attribute__((visibility("default")))
#endif

/* One column. Row r holds `width` bytes from data + r * step; step 0 lets one row serve all. With `offsets` it holds
 * data[offsets[r]] up to data[offsets[r + 1]] instead; and with `length_bytes`, which are at most eight, how many bytes
 * that would be, big-endian in so many bytes. */
typedef struct {
    const uint8_t *data;
    const int64_t *offsets;
    size_t step;
    size_t width;
    size_t length_bytes;
} fedtasks_hash_part;

/* The kernels: plain C, eight or sixteen lanes of AVX-512, and four or eight of AVX2. */
enum { FEDTASKS_HASH_PLAIN = 0, FEDTASKS_HASH_AVX512 = 1, FEDTASKS_HASH_AVX2 = 2 };

/* Whether this machine can run a kernel. */
EXPORT int fedtasks_hash_works(size_t kernel);

/* Hashes rows `first` to `end` - 1. The digest of row r goes to out + r * `digest_bytes`, of which 32 mean SHA-256, 48
 * SHA-384 and 64 SHA-512. Returns 0, or -1 when there is no such hash or kernel. */
EXPORT int fedtasks_hash_rows(size_t kernel, size_t digest_bytes, uint8_t *out, const fedtasks_hash_part *parts,
                              size_t n_parts, size_t first, size_t end);

#endif
