/* Parcels of free cells: see transfer.h. Anybody adds to the lists of a mailbox and its owner alone takes from them,
 * so that what comes first in one, seen twice by the owner, has been there all the time. Empty parcels lie in
 * places: one is filled by a compare-and-swap and emptied by an exchange.
 */
#include "malloc/transfer.h"

#include <string.h>

enum {
    MAILBOX_CELLS = 64 * JF_PARCEL_SLOTS, /* what waits for an owner that never comes, */
    MAILBOX_BYTES = 1 << 20,              /* which lies idle, is limited */
    EMPTY_PLACES = 16,
};

struct jf_parcel {
    struct jf_parcel *next;
    size_t count;
    struct jf_slot slots[JF_PARCEL_SLOTS];
};

static struct jf_parcel *empty_parcels[EMPTY_PLACES];

static struct jf_parcel *take_empty(void) {
    for (size_t i = 0; i < EMPTY_PLACES; i++) {
        if (__atomic_load_n(&empty_parcels[i], __ATOMIC_RELAXED) == NULL)
            continue;
        struct jf_parcel *parcel = __atomic_exchange_n(&empty_parcels[i], NULL, __ATOMIC_ACQUIRE);
        if (parcel != NULL)
            return parcel;
    }
    return jf_arena_meta_alloc(jf_malloc.arena, sizeof(struct jf_parcel));
}

static void keep_empty(struct jf_parcel *parcel) {
    for (size_t i = 0; i < EMPTY_PLACES; i++) {
        struct jf_parcel *none = NULL;
        if (__atomic_load_n(&empty_parcels[i], __ATOMIC_RELAXED) == NULL &&
            __atomic_compare_exchange_n(&empty_parcels[i], &none, parcel, false, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
            return;
    }
    jf_arena_meta_free(jf_malloc.arena, parcel, sizeof *parcel);
}

bool jf_transfer_send(struct jf_mailbox *mailbox, unsigned number, const struct jf_slot *slots,
                      size_t count) {
    size_t bytes = count * jf_class_size(number);
    if (__atomic_load_n(&mailbox->cells, __ATOMIC_RELAXED) + count > MAILBOX_CELLS ||
        __atomic_load_n(&mailbox->bytes, __ATOMIC_RELAXED) + bytes > MAILBOX_BYTES)
        return false;
    struct jf_parcel *parcel = take_empty();
    if (parcel == NULL)
        return false;
    memcpy(parcel->slots, slots, count * sizeof *slots);
    parcel->count = count;
    __atomic_fetch_add(&mailbox->cells, count, __ATOMIC_RELAXED);
    __atomic_fetch_add(&mailbox->bytes, bytes, __ATOMIC_RELAXED);
    struct jf_parcel **list = &mailbox->parcels[number];
    parcel->next = __atomic_load_n(list, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(list, &parcel->next, parcel, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
    }
    return true;
}

size_t jf_transfer_receive(struct jf_mailbox *mailbox, unsigned number, struct jf_slot *slots) {
    struct jf_parcel **list = &mailbox->parcels[number];
    struct jf_parcel *parcel = __atomic_load_n(list, __ATOMIC_ACQUIRE);
    do {
        if (parcel == NULL)
            return 0;
    } while (!__atomic_compare_exchange_n(list, &parcel, parcel->next, true, __ATOMIC_ACQUIRE,
                                          __ATOMIC_ACQUIRE));
    size_t count = parcel->count;
    __atomic_fetch_sub(&mailbox->cells, count, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&mailbox->bytes, count * jf_class_size(number), __ATOMIC_RELAXED);
    memcpy(slots, parcel->slots, count * sizeof *slots);
    keep_empty(parcel);
    return count;
}
