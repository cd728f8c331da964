/* The slow paths on entries: what to do when a word is not plainly live. Locks and unlocks here and the
 * inlined ones of <jeff/inline.h> keep to the same protocol (docs: design/protocol).
 */
#include "heap/heap.h"

/* How often a lock count that is in the way is looked at again before it is believed: a mistaken locker
 * adds one for a moment, and so does a trylock that has to give up. */
enum { PATIENCE = 500 };

/* Whether the handle's block is there and has memory. */
static enum jf_access judge(jf_word word, rmhandle_t handle) {
    if (!jf_handle_matches(handle, word))
        return JF_ACCESS_STALE;
    switch (jf_entry_state(word)) {
    case JF_ENTRY_LIVE:
    case JF_ENTRY_MOVING:
        return JF_ACCESS_OK;
    case JF_ENTRY_RESIZING:
        return JF_ACCESS_WOULD_WAIT;
    case JF_ENTRY_PURGED:
        return JF_ACCESS_PURGED;
    default:
        return JF_ACCESS_STALE;
    }
}

/* Lets whoever has the entry RESIZING go on. In a fixed heap that is done under its mutex. */
static void wait_for_resizer(struct jf_heap *fixed_heap) {
    if (fixed_heap != NULL) {
        jf_heap_lock(fixed_heap);
        jf_heap_unlock(fixed_heap);
    } else {
        jf_os_yield();
    }
}

static void take_back(jf_word *entry) {
    jf_word_fetch_add(entry, (jf_word)0 - JF_ENTRY_COUNT_ONE);
}

static enum jf_access try_lock(struct jf_space *space, jf_word *entry, rmhandle_t handle,
                               void **ret_pointer) {
    /* Looked at first, so that a mistaken lock does not disturb the entry's new owner. */
    enum jf_access access = judge(jf_word_load(entry), handle);
    if (access != JF_ACCESS_OK)
        return access;
    jf_word word = jf_word_fetch_add(entry, JF_ENTRY_COUNT_ONE);
    access = judge(word, handle);
    if (access == JF_ACCESS_OK && (word & JF_ENTRY_OVERFLOW) != 0)
        access = JF_ACCESS_OVERFLOW;
    if (access != JF_ACCESS_OK) {
        take_back(entry);
        return access;
    }
    /* Our own count keeps the state at LIVE or MOVING from here on, so clearing the bit cannot hit
     * another state; it makes the mover's commit fail. */
    if (jf_entry_state(word) == JF_ENTRY_MOVING)
        jf_word_fetch_and(entry, ~JF_ENTRY_MOVING_BIT);
    *ret_pointer = (void *)jf_space_address(space, word);
    return JF_ACCESS_OK;
}

enum jf_access jf_access_lock(struct jf_space *space, struct jf_heap *fixed_heap, uint32_t index,
                              rmhandle_t handle, bool may_wait, void **ret_pointer) {
    jf_word *entry = jf_space_entry(space, index);
    for (;;) {
        enum jf_access access = try_lock(space, entry, handle, ret_pointer);
        if (access != JF_ACCESS_WOULD_WAIT || !may_wait)
            return access;
        wait_for_resizer(fixed_heap);
    }
}

enum jf_access jf_access_unlock(struct jf_space *space, uint32_t index, rmhandle_t handle) {
    jf_word *entry = jf_space_entry(space, index);
    jf_word word = jf_word_load(entry);
    for (;;) {
        /* RESIZING is right too: a locked block that is being resized where it lies. */
        if (judge(word, handle) == JF_ACCESS_STALE)
            return JF_ACCESS_STALE;
        if (jf_entry_count(word) == 0)
            return JF_ACCESS_NOT_LOCKED;
        if (jf_word_compare_swap(entry, &word, word - JF_ENTRY_COUNT_ONE))
            return JF_ACCESS_OK;
    }
}

enum jf_access jf_access_deref(struct jf_space *space, struct jf_heap *fixed_heap, uint32_t index,
                               rmhandle_t handle, void **ret_pointer) {
    jf_word *entry = jf_space_entry(space, index);
    jf_word word = jf_word_load(entry);
    for (;;) {
        enum jf_access access = judge(word, handle);
        if (access == JF_ACCESS_WOULD_WAIT) {
            wait_for_resizer(fixed_heap);
            word = jf_word_load(entry);
            continue;
        }
        if (access != JF_ACCESS_OK)
            return access;
        /* Not by clearing the bit as a locker does: without a count of ours the word may have become
         * another since it was read, and only this very move is to be aborted. */
        if (jf_entry_state(word) == JF_ENTRY_MOVING &&
            !jf_word_compare_swap(entry, &word, word & ~JF_ENTRY_MOVING_BIT))
            continue;
        *ret_pointer = (void *)jf_space_address(space, word);
        return JF_ACCESS_OK;
    }
}

enum jf_access jf_access_peek(struct jf_space *space, uint32_t index, rmhandle_t handle,
                              void **ret_pointer) {
    for (;;) {
        jf_word word = jf_word_load(jf_space_entry(space, index));
        enum jf_access access = judge(word, handle);
        if (access == JF_ACCESS_WOULD_WAIT) {
            jf_os_yield();
            continue;
        }
        if (access == JF_ACCESS_OK)
            *ret_pointer = (void *)jf_space_address(space, word);
        return access;
    }
}

enum jf_access jf_access_claim(struct jf_space *space, uint32_t index, rmhandle_t handle,
                               jf_word *ret_word) {
    jf_word *entry = jf_space_entry(space, index);
    jf_word word = jf_word_load(entry);
    for (unsigned patience = PATIENCE;;) {
        enum jf_access access = judge(word, handle);
        if (access == JF_ACCESS_STALE)
            return JF_ACCESS_STALE;
        bool locked = jf_entry_count(word) != 0;
        if (access == JF_ACCESS_WOULD_WAIT || (locked && patience > 0)) {
            if (access == JF_ACCESS_WOULD_WAIT)
                jf_os_yield();
            else
                patience--;
            word = jf_word_load(entry);
            continue;
        }
        jf_word claimed = (word & ~JF_ENTRY_STATE_MASK) | JF_ENTRY_RESIZING;
        if (jf_word_compare_swap(entry, &word, claimed)) {
            *ret_word = word;
            return locked ? JF_ACCESS_LOCKED : JF_ACCESS_OK;
        }
    }
}

void jf_access_unclaim(struct jf_space *space, uint32_t index, jf_word before) {
    enum jf_entry_state state =
        jf_entry_state(before) == JF_ENTRY_PURGED ? JF_ENTRY_PURGED : JF_ENTRY_LIVE;
    jf_word_fetch_xor(jf_space_entry(space, index), (jf_word)JF_ENTRY_RESIZING ^ (jf_word)state);
}

/* The word of a freed block: next generation, PENDING, at its address if it has memory. */
static jf_word freed_word(jf_word word) {
    jf_word mask = JF_ENTRY_STATE_MASK;
    if (jf_entry_state(word) == JF_ENTRY_PURGED)
        mask |= JF_ENTRY_ADDRESS_MASK;
    return (jf_entry_next_generation(word) & ~mask) | JF_ENTRY_PENDING;
}

enum jf_access jf_access_free(struct jf_space *space, uint32_t index, rmhandle_t handle,
                              jf_word *ret_word) {
    jf_word *entry = jf_space_entry(space, index);
    jf_word word = jf_word_load(entry);
    for (unsigned patience = PATIENCE;;) {
        enum jf_access access = judge(word, handle);
        if (access == JF_ACCESS_STALE)
            return JF_ACCESS_STALE;
        if (access == JF_ACCESS_WOULD_WAIT) {
            jf_os_yield();
            word = jf_word_load(entry);
        } else if (jf_entry_count(word) != 0) {
            if (patience-- == 0)
                return JF_ACCESS_LOCKED;
            word = jf_word_load(entry);
        } else if (jf_word_compare_swap(entry, &word, freed_word(word))) {
            *ret_word = word;
            return JF_ACCESS_OK;
        }
    }
}
