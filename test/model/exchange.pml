/* A block that grows changes places with one that waits in the growing thread's bin; a locker writes to it; a compactor
 * walks over both places and moves whatever lives. The bin's thread is inside, so nobody else has the waiting block.
 * Shown: what the locker wrote is where the entry leads at the end, whole; each place's header names the entry that leads
 * there; a lock holder finds its block's own header.
 *
 * NO_CLAIM          broken: the contents are copied without the entry being RESIZING
 * CLAIM_LOCKED      broken: the claim does not ask for count 0
 * HEADER_LATE       broken: the new place's header is written after the entry leads there
 * HEADER_NEVER      broken: the old place's header goes on naming the block that has left
 * PUBLISH_STORE     broken: the entry is stored whole, over others' counts
 * NO_ADDRESS_CHECK  broken: the compactor does not ask whether the entry leads to the place it walks over
 * PENDING_IS_DEAD   broken: the compactor uses the place of a block that waits
 */
#include "entry.pml"

#define GROWS 1
#define WAITS 2
#define NOBODY 0
#define GARBAGE 7

short word[3]; /* by entry */
byte header[4]; /* by place: the entry it names */
byte low[4], high[4]; /* contents */
byte done;
bool changed, written;

proctype grower() {
    short old, seen;
    bool ok;
    byte from, to;

    old = word[GROWS];
    if
#ifdef CLAIM_LOCKED
    :: STATE(old) == LIVE ->
#else
    :: STATE(old) == LIVE && COUNT(old) == 0 ->
#endif
#ifdef NO_CLAIM
        ok = true;
#else
        cas(word[GROWS], old, old ^ LIVE ^ RESIZING, seen, ok);
#endif
        if
        :: ok ->
            changed = true;
            from = ADDRESS(old);
            to = ADDRESS(word[WAITS]);
            assert(header[to] == WAITS && header[from] == GROWS);
#ifndef HEADER_LATE
            header[to] = GROWS;
#endif
            low[to] = low[from];
            high[to] = high[from];
#ifdef PUBLISH_STORE
            word[GROWS] = WORD(COUNT(old), GEN(old), to, LIVE);
#else
            fetch_xor(word[GROWS], WORD(0, 0, from ^ to, STATE(word[GROWS]) ^ LIVE));
#endif
#ifdef HEADER_LATE
            header[to] = GROWS;
#endif
#ifndef HEADER_NEVER
            header[from] = WAITS;
#endif
            fetch_xor(word[WAITS], WORD(0, 0, from ^ to, 0))
        :: else
        fi
    :: else
    fi;
    done++
}

proctype locker() {
    short old;

    do
    :: fetch_add(word[GROWS], old);
        if
        :: STATE(old) == RESIZING ->
            fetch_sub(word[GROWS], old);
            STATE(word[GROWS]) != RESIZING
        :: else -> break
        fi
    od;
    if
    :: STATE(old) == MOVING -> fetch_and(word[GROWS], ~2, old)
    :: else
    fi;
    assert(header[ADDRESS(old)] == GROWS);
    low[ADDRESS(old)] = 1;
    high[ADDRESS(old)] = 1;
    assert(low[ADDRESS(old)] == 1);
    written = true;
    fetch_sub(word[GROWS], old);
    done++
}

inline use_place() {
    d_step { header[at] = NOBODY; low[at] = GARBAGE; high[at] = GARBAGE }
}

inline move() {
    cas(word[index], old, old ^ LIVE ^ MOVING, seen, ok);
    if
    :: ok ->
        old = old ^ LIVE ^ MOVING;
        header[3] = index;
        low[3] = low[at];
        high[3] = high[at];
        cas(word[index], old, WORD(0, GEN(old), 3, LIVE), seen, ok);
        if
        :: ok -> moved = true; use_place()
        :: else ->
            header[3] = NOBODY;
            do
            :: !ok && STATE(seen) == MOVING ->
                old = seen;
                cas(word[index], old, old ^ LIVE ^ MOVING, seen, ok)
            :: else -> break
            od
        fi
    :: else
    fi
}

proctype compactor() {
    short old, seen;
    byte at, index;
    bool ok, moved;

    at = 1;
    do
    :: at < 3 && !moved ->
        index = header[at];
        old = word[index];
        if
#ifdef NO_ADDRESS_CHECK
        :: index != NOBODY && STATE(old) == LIVE && COUNT(old) == 0 -> move()
#else
        :: index != NOBODY && STATE(old) == LIVE && COUNT(old) == 0 && ADDRESS(old) == at -> move()
#endif
#ifdef PENDING_IS_DEAD
        :: index != NOBODY && STATE(old) == PENDING -> use_place()
#endif
        :: else
        fi;
        at++
    :: else -> break
    od;
    done++
}

init {
    atomic {
        word[GROWS] = WORD(0, 0, 1, LIVE);
        word[WAITS] = WORD(0, 1, 2, PENDING);
        header[1] = GROWS;
        header[2] = WAITS;
        run grower();
        run locker();
        run compactor()
    };
    done == 3;
    assert(COUNT(word[GROWS]) == 0 && STATE(word[GROWS]) == LIVE && STATE(word[WAITS]) == PENDING);
    assert(written && low[ADDRESS(word[GROWS])] == 1 && high[ADDRESS(word[GROWS])] == 1);
    assert(header[ADDRESS(word[GROWS])] == GROWS && header[ADDRESS(word[WAITS])] == WAITS)
}
