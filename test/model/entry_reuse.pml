/* One entry through several lives, while a thread with a stale handle locks and unlocks by mistake
 * and the compactor tries to move the block. Shown: the fields below the count change exactly as
 * their owner wants, the count is 0 when all is quiet, no stale handle is ever honoured, no block is
 * moved while its rightful holder has it locked, and generation wrap does not touch the count.
 *
 * The low part is published by two narrow stores that leave generation and count alone: its top bit
 * (the real word: the byte 39..32) first, then the rest with the state.
 *
 * PUBLISH_XOR PUBLISH_CAS     correct too: one xor, or a compare-and-swap loop, instead
 * POP_STORE LINK_STORE FREE_STORE   broken: that transition is a plain store
 * UNDO_STORE                  broken: a mistaken locker restores the word it saw
 * GENERATION_CARRY            broken: the bump at free carries into the count
 * LOCK_NO_GENERATION          broken: lock does not compare generations
 * UNLOCK_SUB_FIRST            broken: unlock subtracts before it has looked at the word
 * FREE_BLAMED                 limit: a rightful free can find somebody's mistaken count
 */
#include "entry.pml"

#define TOP_BIT 64
#define LOW_BITS 63
#define STALE_GEN 1
#define FIRST_GEN 2
#define LIVES 2 /* the second life ends with the wrap of the generation */

short word = WORD(0, FIRST_GEN, 5, FREE);
bool held;
bool stale_done, mover_done;

/* Changes address and state from `from` to `to`, words without count that have the same generation;
 * nobody else changes those bits now. */
inline publish(from, to) {
    assert(GEN(from) == GEN(to));
#ifdef PUBLISH_CAS
    ok = false;
    do
    :: !ok ->
        old = word;
        cas(word, old, (old & ~LOW) | (to), seen, ok)
    :: else -> break
    od
#else
#ifdef PUBLISH_XOR
    fetch_xor(word, (from) ^ (to))
#else
    d_step { word = (word & ~TOP_BIT) | ((to) & TOP_BIT) };
    d_step { word = (word & ~LOW_BITS) | ((to) & LOW_BITS) }
#endif
#endif
}

proctype owner() {
    short low = WORD(0, FIRST_GEN, 5, FREE), next, old, seen;
    byte life, gen = FIRST_GEN;
    bool ok, quiet;

    do
    :: life < LIVES ->
        /* a push on another thread's list that has to be tried again: the link changes */
        next = WORD(0, gen, 6, FREE);
#ifdef LINK_STORE
        word = next;
#else
        publish(low, next);
#endif
        low = next;
        /* pop, then make it a live block at address 1 */
        next = WORD(0, gen, 1, LIVE);
#ifdef POP_STORE
        word = next;
#else
        publish(low, next);
#endif
        /* the rightful holder */
        fetch_add(word, old);
        assert(GEN(old) == gen);
        if
        :: STATE(old) == MOVING -> fetch_and(word, ~2, old)
        :: else
        fi;
        held = true;
        assert(STATE(word) == LIVE);
        held = false;
        fetch_sub(word, old);
        assert(GEN(old) == gen && STATE(old) == LIVE);
        /* free */
        ok = false;
        do
        :: !ok ->
            d_step { old = word; quiet = stale_done };
            assert(GEN(old) == gen && (STATE(old) == LIVE || STATE(old) == MOVING));
            if
            :: COUNT(old) == 0 ->
#ifdef GENERATION_CARRY
                next = ((old & ~15) | PENDING) + (1 << 7);
#else
                next = WORD(0, (gen + 1) & 3, ADDRESS(old), PENDING);
#endif
                cas(word, old, next, seen, ok)
            :: else ->
#ifdef FREE_BLAMED
                assert(false);
#endif
                assert(!quiet) /* "locked" is reported; the program goes on and frees again */
            fi
        :: else -> break
        od;
        gen = (gen + 1) & 3;
        low = WORD(0, gen, ADDRESS(old), PENDING);
        /* drained: on to a free list */
        next = WORD(0, gen, 5, FREE);
#ifdef FREE_STORE
        word = next;
#else
        publish(low, next);
#endif
        low = next;
        life++
    :: else -> break
    od;
    (stale_done && mover_done);
    assert(word == low)
}

proctype stale() {
    short old, undone;

    fetch_add(word, old);
#ifdef LOCK_NO_GENERATION
    assert(STATE(old) != LIVE);
#else
    assert(GEN(old) != STALE_GEN);
#endif
#ifdef UNDO_STORE
    word = old;
#else
    fetch_sub(word, undone);
#endif
#ifdef UNLOCK_SUB_FIRST
    fetch_sub(word, old);
    assert(GEN(old) != STALE_GEN);
    fetch_add(word, undone);
#else
    old = word;
    assert(GEN(old) != STALE_GEN);
#endif
    stale_done = true
}

proctype mover() {
    short old, seen;
    byte tries;
    bool ok;

    do
    :: tries < 2 ->
        tries++;
        old = word;
        if
        :: STATE(old) == LIVE && COUNT(old) == 0 ->
            cas(word, old, old ^ LIVE ^ MOVING, seen, ok);
            if
            :: ok ->
                d_step {
                    seen = word;
                    if
                    :: seen == (old ^ LIVE ^ MOVING) ->
                        assert(!held);
                        word = WORD(0, GEN(old), 3 - ADDRESS(old), LIVE);
                        ok = true
                    :: else -> ok = false
                    fi
                };
                /* the commit failed: take the mark away, if it is still there */
                do
                :: !ok && STATE(seen) == MOVING ->
                    old = seen;
                    cas(word, old, old ^ LIVE ^ MOVING, seen, ok)
                :: else -> break
                od
            :: else
            fi
        :: else
        fi
    :: else -> break
    od;
    mover_done = true
}

init {
    atomic { run owner(); run stale(); run mover() }
}
