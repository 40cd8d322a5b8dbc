/* Tables of events by key and time, as native kernels offer them to Python.
 *
 * A table is memory of the caller: `events`, of which the first ones are there, and `slots`, a power of two of them, at
 * first all zeros, which say where an event lies: its number from 1, and above it 32 bits of a hash of its key. Who calls
 * sees to it that a quarter of the slots stays free, that there is room for what is entered, and that one thread at a
 * time changes a table. Keys may come from others: where a key lies depends on `seed`, which they do not know.
 */
#ifndef FEDTASKS_EVENT_KEYS_H
#define FEDTASKS_EVENT_KEYS_H

#include <stddef.h>
#include <stdint.h>

#ifndef EXPORT
#define EXPORT __attribute__((visibility("default")))
#endif

/* Which form events and slots have: who calls must mean the same. */
enum { FEDTASKS_EVENTS_FORM = 2 };

EXPORT int fedtasks_events_form(void);

/* An event. `reference` is below 0 where it only makes others duplicates. `first` and `last` are the earliest and the
 * latest time of it and of all its duplicates. */
typedef struct {
    uint64_t hi, lo;
    int64_t time, reference, first, last;
} fedtasks_event;

/* Enters `n` events in order behind the `n_events` that are there. One that lies at most `within` before the first or
 * behind the last time of an event of its key is a duplicate: is_duplicate[i] becomes 1, and that event's times are
 * widened. So is one for which `is_duplicate` is 1 already; if there is no such event in the table, it is entered with
 * reference -1. References are above 0. Returns how many events are there now. */
EXPORT int fedtasks_events_enter(fedtasks_event *events, size_t n_events, uint64_t *slots, size_t n_slots, size_t seed,
                                 const uint64_t *hi, const uint64_t *lo, const int64_t *times,
                                 const int64_t *references, size_t n, size_t within, uint8_t *is_duplicate);

/* Looks `n` events up: references[i] becomes that of an event of the same key whose time differs by `within` at most, and
 * found[i] its time; or references[i] becomes 0. Returns how many were found. */
EXPORT int fedtasks_events_find(const fedtasks_event *events, const uint64_t *slots, size_t n_slots, size_t seed,
                                const uint64_t *hi, const uint64_t *lo, const int64_t *times, size_t n, size_t within,
                                int64_t *references, int64_t *found);

/* Copies those of `n_events` events whose last time is not before `before` into another table, whose slots are all zeros.
 * Returns how many. */
EXPORT int fedtasks_events_move(const fedtasks_event *events, size_t n_events, fedtasks_event *into, uint64_t *slots,
                                size_t n_slots, size_t seed, const int64_t *before);

#endif
