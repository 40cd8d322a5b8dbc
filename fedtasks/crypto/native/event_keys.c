/* See event_keys.h: open addressing with linear probing; what the next events need is fetched ahead. */
#include "event_keys.h"

#define FAR 16 /* so many events ahead their slots are fetched, */
#define NEAR 8 /* and so many ahead the events that these name */

int fedtasks_events_form(void)
{
    return FEDTASKS_EVENTS_FORM;
}

static inline uint64_t hash_of(uint64_t hi, uint64_t lo, size_t seed)
{
    uint64_t mixed = (hi ^ seed) * UINT64_C(0x9E3779B97F4A7C15);
    return (mixed ^ (mixed >> 32) ^ lo) * (((uint64_t)seed << 1) | 1);
}

static inline size_t slot_of(uint64_t hash, size_t n_slots)
{
    return (size_t)(hash >> 16) & (n_slots - 1);
}

static inline int is_alike(uint64_t slot, uint64_t hash)
{
    return (uint32_t)(slot >> 32) == (uint32_t)(hash >> 32);
}

static inline const fedtasks_event *event_of(const fedtasks_event *events, uint64_t slot)
{
    return &events[(uint32_t)slot - 1];
}

static inline void fetch(const fedtasks_event *events, const uint64_t *slots, size_t n_slots, size_t seed,
                         const uint64_t *hi, const uint64_t *lo, size_t i, size_t n)
{
    if (i + FAR < n)
        __builtin_prefetch(&slots[slot_of(hash_of(hi[i + FAR], lo[i + FAR], seed), n_slots)], 1);
    if (i + NEAR < n) {
        uint64_t hash = hash_of(hi[i + NEAR], lo[i + NEAR], seed);
        uint64_t slot = slots[slot_of(hash, n_slots)];
        if (slot && is_alike(slot, hash))
            __builtin_prefetch(event_of(events, slot), 0);
    }
}

int fedtasks_events_enter(fedtasks_event *events, size_t n_events, uint64_t *slots, size_t n_slots, size_t seed,
                          const uint64_t *hi, const uint64_t *lo, const int64_t *times, const int64_t *references,
                          size_t n, size_t within, uint8_t *is_duplicate)
{
    int64_t reach = (int64_t)within;
    for (size_t i = 0; i < n; i++) {
        fetch(events, slots, n_slots, seed, hi, lo, i, n);
        uint64_t hash = hash_of(hi[i], lo[i], seed);
        size_t place = slot_of(hash, n_slots);
        fedtasks_event *known = NULL;
        for (; slots[place]; place = (place + 1) & (n_slots - 1)) {
            if (!is_alike(slots[place], hash))
                continue;
            fedtasks_event *event = (fedtasks_event *)event_of(events, slots[place]);
            if (event->hi == hi[i] && event->lo == lo[i] && times[i] >= event->first - reach
                && times[i] <= event->last + reach) {
                known = event;
                break;
            }
        }
        if (known) {
            is_duplicate[i] = 1;
            if (times[i] < known->first)
                known->first = times[i];
            if (times[i] > known->last)
                known->last = times[i];
        } else {
            int64_t reference = is_duplicate[i] ? -1 : references[i];
            events[n_events++] = (fedtasks_event){hi[i], lo[i], times[i], reference, times[i], times[i]};
            slots[place] = (hash >> 32 << 32) | n_events;
        }
    }
    return (int)n_events;
}

int fedtasks_events_find(const fedtasks_event *events, const uint64_t *slots, size_t n_slots, size_t seed,
                         const uint64_t *hi, const uint64_t *lo, const int64_t *times, size_t n, size_t within,
                         int64_t *references, int64_t *found)
{
    int64_t reach = (int64_t)within;
    int count = 0;
    for (size_t i = 0; i < n; i++) {
        fetch(events, slots, n_slots, seed, hi, lo, i, n);
        references[i] = 0;
        uint64_t hash = hash_of(hi[i], lo[i], seed);
        for (size_t place = slot_of(hash, n_slots); slots[place]; place = (place + 1) & (n_slots - 1)) {
            if (!is_alike(slots[place], hash))
                continue;
            const fedtasks_event *event = event_of(events, slots[place]);
            if (event->reference > 0 && event->hi == hi[i] && event->lo == lo[i]
                && event->time - times[i] <= reach && times[i] - event->time <= reach) {
                references[i] = event->reference;
                found[i] = event->time;
                count++;
                break;
            }
        }
    }
    return count;
}

int fedtasks_events_move(const fedtasks_event *events, size_t n_events, fedtasks_event *into, uint64_t *slots,
                         size_t n_slots, size_t seed, const int64_t *before)
{
    size_t count = 0;
    for (size_t i = 0; i < n_events; i++)
        if (events[i].last >= *before)
            into[count++] = events[i];
    for (size_t i = 0; i < count; i++) {
        if (i + FAR < count)
            __builtin_prefetch(&slots[slot_of(hash_of(into[i + FAR].hi, into[i + FAR].lo, seed), n_slots)], 1);
        uint64_t hash = hash_of(into[i].hi, into[i].lo, seed);
        size_t place = slot_of(hash, n_slots);
        while (slots[place])
            place = (place + 1) & (n_slots - 1);
        slots[place] = (hash >> 32 << 32) | (i + 1);
    }
    return (int)count;
}
