/* Parcels of free cells: see transfer.h. A place of a shelf is empty or holds a parcel that nobody else has; it
 * is filled by a compare-and-swap and emptied by an exchange, so there is no list that could be pulled away.
 */
#include "malloc/transfer.h"

#include <string.h>

enum {
    PLACES = 4, /* of a shelf: what waits there is at most twice what a thread may have in a bin */
    EMPTY_PLACES = 16,
};

struct parcel {
    size_t count;
    struct jf_slot slots[JF_PARCEL_SLOTS];
};

struct shelf {
    struct parcel *places[PLACES];
    size_t cells; /* in them, or a few more for a moment */
} __attribute__((aligned(64)));

static struct shelf shelves[JF_CLASS_SMALL_LAST + 1];
static struct parcel *empty_parcels[EMPTY_PLACES];

static struct parcel *take_from(struct parcel **places, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (__atomic_load_n(&places[i], __ATOMIC_RELAXED) == NULL)
            continue;
        struct parcel *parcel = __atomic_exchange_n(&places[i], NULL, __ATOMIC_ACQUIRE);
        if (parcel != NULL)
            return parcel;
    }
    return NULL;
}

static bool put_into(struct parcel **places, size_t count, struct parcel *parcel) {
    for (size_t i = 0; i < count; i++) {
        struct parcel *none = NULL;
        if (__atomic_load_n(&places[i], __ATOMIC_RELAXED) == NULL &&
            __atomic_compare_exchange_n(&places[i], &none, parcel, false, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
            return true;
    }
    return false;
}

static bool is_full(struct parcel **places, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (__atomic_load_n(&places[i], __ATOMIC_RELAXED) == NULL)
            return false;
    return true;
}

static void keep_empty(struct parcel *parcel) {
    if (!put_into(empty_parcels, EMPTY_PLACES, parcel))
        jf_arena_meta_free(jf_malloc.arena, parcel, sizeof *parcel);
}

bool jf_transfer_give(unsigned number, const struct jf_slot *slots, size_t count) {
    struct shelf *shelf = &shelves[number];
    if (is_full(shelf->places, PLACES))
        return false;
    struct parcel *parcel = take_from(empty_parcels, EMPTY_PLACES);
    if (parcel == NULL)
        parcel = jf_arena_meta_alloc(jf_malloc.arena, sizeof *parcel);
    if (parcel == NULL)
        return false;
    memcpy(parcel->slots, slots, count * sizeof *slots);
    parcel->count = count;
    __atomic_fetch_add(&shelf->cells, count, __ATOMIC_RELAXED);
    if (put_into(shelf->places, PLACES, parcel))
        return true;
    __atomic_fetch_sub(&shelf->cells, count, __ATOMIC_RELAXED);
    keep_empty(parcel); /* others have filled it */
    return false;
}

size_t jf_transfer_take(unsigned number, struct jf_slot *slots) {
    struct shelf *shelf = &shelves[number];
    struct parcel *parcel = take_from(shelf->places, PLACES);
    if (parcel == NULL)
        return 0;
    size_t count = parcel->count;
    __atomic_fetch_sub(&shelf->cells, count, __ATOMIC_RELAXED);
    memcpy(slots, parcel->slots, count * sizeof *slots);
    keep_empty(parcel);
    return count;
}

size_t jf_transfer_count(unsigned number) {
    return __atomic_load_n(&shelves[number].cells, __ATOMIC_RELAXED);
}
