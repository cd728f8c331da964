/* Cells on their way from threads that free them to the owners of their spans: parcels of slots, in a mailbox for
 * each owner, by class. Who gets a parcel has cells at hand without having looked at one of them or at their spans.
 * Without a lock; getting memory for a parcel, which is used again and again, takes the arena's.
 */
#ifndef JEFF_MALLOC_TRANSFER_H
#define JEFF_MALLOC_TRANSFER_H

#include "malloc/facade.h"

/* Any thread: puts a parcel of `count` free cells, at most JF_PARCEL_SLOTS, of a small class into the mailbox; false,
 * and nothing has changed, when that is full or there is no memory. */
bool jf_transfer_send(struct jf_mailbox *mailbox, unsigned number, const struct jf_slot *slots,
                      size_t count);

/* The owner: takes a parcel of the class out; `slots` has room for JF_PARCEL_SLOTS. Returns how many, 0 when there
 * is none. */
size_t jf_transfer_receive(struct jf_mailbox *mailbox, unsigned number, struct jf_slot *slots);

#endif
