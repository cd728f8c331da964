/* The entry word and the handle: one packed 64-bit word per block, the only reference to it.
 *
 *   entry   63..52 lock count | 51..40 generation | 39..4 address | 3..0 state
 *   handle  63..52 generation | 51..47 zero       | 46..0 address of the entry       (64-bit)
 *           31..28 heap | 27..8 index + 1 | 7..0 generation                          (32-bit)
 *
 * The count stands on top, so that an overflow falls off the word. Addresses are offsets from the base
 * of the space, multiples of 16. An all-zero word is a free entry. The generation is raised when the
 * block is freed, so a handle to a freed block differs from its entry at once.
 *
 * Who may change what (docs: design/protocol has the transitions written out):
 *   FREE      the owner of the free list: address bits hold the index of the next free entry
 *   LIVE      anybody may add to the count; count 0: the compactor, free and realloc by compare-swap
 *   MOVING    as LIVE; a locker clears the bit and thereby aborts the move
 *   RESIZING  only whoever set it; lockers take their count back and wait
 *   PURGED    as LIVE with no memory: lock gives NULL
 *   PENDING   freed, its bytes not yet accounted; only who holds the ring, bin or batch that it is in,
 *             or the thread at whose hand it waits
 */
#ifndef JEFF_HANDLE_ENTRY_H
#define JEFF_HANDLE_ENTRY_H

#include "base/atomic.h"
#include "base/bits.h"
#include <jeff/jeff.h>

enum jf_entry_state {
    JF_ENTRY_FREE = 0,
    JF_ENTRY_LIVE = 1,
    JF_ENTRY_MOVING = 3,
    JF_ENTRY_RESIZING = 5,
    JF_ENTRY_PURGED = 7,
    JF_ENTRY_PENDING = 8,
};

enum { JF_GENERATION_MAX = 4095 };

#define JF_ENTRY_COUNT_ONE ((jf_word)1 << 52)
#define JF_ENTRY_COUNT_MASK ((jf_word)0xfff << 52)
#define JF_ENTRY_OVERFLOW ((jf_word)1 << 63)
#define JF_ENTRY_GENERATION_ONE ((jf_word)1 << 40)
#define JF_ENTRY_GENERATION_MASK ((jf_word)0xfff << 40)
#define JF_ENTRY_ADDRESS_MASK ((jf_word)0xfffffffff << 4)
#define JF_ENTRY_STATE_MASK ((jf_word)0xf)
#define JF_ENTRY_MOVING_BIT ((jf_word)2)

static inline unsigned jf_entry_count(jf_word word) {
    return (unsigned)(word >> 52);
}

static inline unsigned jf_entry_generation(jf_word word) {
    return (unsigned)(word >> 40) & JF_GENERATION_MAX;
}

/* Offset of the payload from the space's base. */
static inline uint64_t jf_entry_offset(jf_word word) {
    return word & JF_ENTRY_ADDRESS_MASK;
}

/* Index of the next free entry; only of a FREE word. 0 ends the list. */
static inline uint32_t jf_entry_link(jf_word word) {
    return (uint32_t)((word & JF_ENTRY_ADDRESS_MASK) >> 4);
}

static inline enum jf_entry_state jf_entry_state(jf_word word) {
    return (enum jf_entry_state)(word & JF_ENTRY_STATE_MASK);
}

/* The low 40 bits of a word. */
static inline jf_word jf_entry_low(uint64_t offset, enum jf_entry_state state) {
    return (jf_word)offset | (jf_word)state;
}

static inline jf_word jf_entry_low_free(uint32_t next) {
    return (jf_word)next << 4 | JF_ENTRY_FREE;
}

/* The word with its generation raised by one (it wraps) and everything else kept. */
static inline jf_word jf_entry_next_generation(jf_word word) {
    return (word & ~JF_ENTRY_GENERATION_MASK) |
           ((word + JF_ENTRY_GENERATION_ONE) & JF_ENTRY_GENERATION_MASK);
}

/* A space: what entry addresses and indexes count from. One for all growing heaps, one in each fixed
 * heap. In a growing space entry i lies at table + 8 i; in a fixed one the table grows downwards from
 * the end of the buffer and entry i lies at table_end - 8 (i + 1). Index 0 is never given out. In a growing
 * space there is a head for every entry as well: a word for whoever uses the block (collections/array.h), which
 * has memory from the first time on that it is written. */
struct jf_space {
    uintptr_t base;      /* address that offset 0 stands for */
    uintptr_t limit;     /* first address behind the space */
    uintptr_t table;     /* lowest entry */
    uintptr_t table_end; /* behind the highest entry */
    uintptr_t heads;     /* head of entry 0; 0: the space has none */
    unsigned id;         /* of a fixed space: its place in the registry, part of 32-bit handles */
    bool descending;     /* fixed */
};

static inline jf_word *jf_space_entry(const struct jf_space *space, uint32_t index) {
    return space->descending ? (jf_word *)space->table_end - 1 - index
                             : (jf_word *)space->table + index;
}

/* Of a space that has heads. */
static inline jf_word *jf_space_head(const struct jf_space *space, uint32_t index) {
    return (jf_word *)space->heads + index;
}

/* What the head tells of the block is void. Pages that no head was written to get no memory. */
static inline void jf_space_forget_head(const struct jf_space *space, uint32_t index) {
    if (space->heads == 0)
        return;
    jf_word *head = jf_space_head(space, index);
    if (__atomic_load_n(head, __ATOMIC_RELAXED) != 0)
        __atomic_store_n(head, 0, __ATOMIC_RELAXED);
}

static inline uint32_t jf_space_index(const struct jf_space *space, const jf_word *entry) {
    return space->descending ? (uint32_t)((jf_word *)space->table_end - 1 - entry)
                             : (uint32_t)(entry - (jf_word *)space->table);
}

static inline size_t jf_space_entries(const struct jf_space *space) {
    return (space->table_end - space->table) / sizeof(jf_word);
}

static inline uintptr_t jf_space_address(const struct jf_space *space, jf_word word) {
    return space->base + (uintptr_t)jf_entry_offset(word);
}

static inline rmhandle_t jf_handle_make(const struct jf_space *space, uint32_t index,
                                        unsigned generation) {
#if UINTPTR_MAX == UINT64_MAX
    return (rmhandle_t)((uintptr_t)jf_space_entry(space, index) | (uintptr_t)generation << 52);
#else
    return (rmhandle_t)((uintptr_t)space->id << 28 | (uintptr_t)(index + 1) << 8 |
                        (generation & 0xff));
#endif
}

/* Index of the entry a handle names in this space, or 0 when it names none. Reads no memory but the
 * space. */
static inline uint32_t jf_handle_index(const struct jf_space *space, rmhandle_t handle) {
#if UINTPTR_MAX == UINT64_MAX
    uintptr_t entry = (uintptr_t)handle & (((uintptr_t)1 << 52) - 1);
    if (entry < space->table || entry >= space->table_end || (entry & 7) != 0)
        return 0;
    return jf_space_index(space, (const jf_word *)entry);
#else
    uint32_t index = ((uint32_t)(uintptr_t)handle >> 8 & 0xfffff) - 1;
    if ((uintptr_t)handle >> 28 != space->id || index >= jf_space_entries(space))
        return 0;
    return index;
#endif
}

/* Whether the word has the generation the handle was given out with. */
static inline bool jf_handle_matches(rmhandle_t handle, jf_word word) {
#if UINTPTR_MAX == UINT64_MAX
    return jf_entry_generation(word) == (unsigned)((uintptr_t)handle >> 52);
#else
    return (jf_entry_generation(word) & 0xff) == ((unsigned)(uintptr_t)handle & 0xff);
#endif
}

#endif
