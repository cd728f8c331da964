/* Cells on their way from threads that free them to threads that allocate: parcels of slots, on a shelf for
 * each class. Who gets a parcel has cells at hand without having looked at one of them or at their spans.
 * Any thread, without a lock; getting memory for a parcel, which is used again and again, takes the arena's.
 */
#ifndef JEFF_MALLOC_TRANSFER_H
#define JEFF_MALLOC_TRANSFER_H

#include "malloc/facade.h"

enum { JF_PARCEL_SLOTS = 125 };

/* Puts a parcel of `count` free cells, at most JF_PARCEL_SLOTS, of a small class on its shelf; false, and nothing
 * has changed, when that is full or there is no memory. */
bool jf_transfer_give(unsigned number, const struct jf_slot *slots, size_t count);

/* Takes a parcel of the class; `slots` has room for JF_PARCEL_SLOTS. Returns how many, 0 when there is none. */
size_t jf_transfer_take(unsigned number, struct jf_slot *slots);

/* Cells on the shelf, at this moment. */
size_t jf_transfer_count(unsigned number);

#endif
