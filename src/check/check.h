/* The checker and what shares its walk: statistics, visits, and the scrambler, which moves every block
 * that may be moved so that a pointer kept after unlock fails at once. docs: design/rules.
 *
 * All of these hold the heap still while they walk it: in a fixed heap its mutex, in a growing one
 * `compacting` and the window's mutex with the other threads kept outside. A thread that stays inside a
 * call keeps what it has in hand: its regions are left out, and so are the rules that count.
 */
#ifndef JEFF_CHECK_CHECK_H
#define JEFF_CHECK_CHECK_H

#include "handle/readers.h"
#include "heap/heap.h"

/* Number of the first broken rule, 0 when all hold. `ret_fault` may be NULL. Changes nothing that the
 * program could see; never follows an address that the rules before it did not vouch for. O(blocks +
 * entries). No lock held by the caller. */
int jf_check(struct jf_heap *heap, struct rm_fault *ret_fault);

/* Fills everything but struct_size. `brief`: only what needs no walk. No lock held by the caller. */
void jf_stats(struct jf_heap *heap, bool brief, struct rm_stats *ret_stats);

/* rmheap_visit. `visit` is called with the heap held still, so it may not call the library. */
int jf_visit(struct jf_heap *heap, rm_visit_fn *visit, void *context);

/* Moves every block that is not locked and not dereferenced in an open read section to another place,
 * in an order drawn from heap->scramble_state, and fills what it vacates with JF_SCRAMBLE_BYTE. A block
 * for which there is no room elsewhere stays; in a growing heap the rest does while another thread moves
 * blocks. Calls the heap's moved callback afterwards, without locks.
 * `own_reader` is the calling thread's read section, may be NULL. O(blocks and their bytes). No lock
 * held by the caller. */
void jf_scramble(struct jf_heap *heap, struct jf_readers *readers,
                 const struct rm_reader *own_reader);

enum { JF_SCRAMBLE_BYTE = 0xdb };

#endif
