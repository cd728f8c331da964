/* One block freed by two threads at once (one of them by mistake), a locker, and a compactor that
 * walks over the block's region twice, moves the block if it lives and uses its place again if it is
 * dead. The thread whose free succeeded drains its ring and uses the entry again at once. Shown: one
 * free succeeds; the bytes leave the account of the block's region once; nobody reads a header that
 * may have been overwritten or given back; only the ring's owner frees the entry, once.
 *
 * HEADER_FIRST       correct too: the header is read before the claim and believed only if that wins
 *                    (instead of state DRAINING; the memory must then stay readable when given back)
 * ACCOUNTED_IS_DEAD  broken: no DRAINING; the ring's owner claims ACCOUNTED and then reads the header
 * DRAIN_NO_WIN       broken: the ring's owner reads the header without having won
 * PENDING_IS_DEAD    broken: the compactor uses the place of a block nobody has accounted for
 * ACCOUNT_TWICE      broken: the compactor accounts for every dead block it meets
 * WALKER_OR          broken: the compactor claims by setting a bit, not by an exact exchange
 * CAS_ONCE           broken: an exchange that failed because of a count is taken for lost
 * COMPACTOR_FREES    broken: the compactor frees the entry too
 * FREE_BLIND         broken: free checks and stores in two steps
 * FREE_LOCKED        broken: free does not ask for count 0
 */
#include "entry.pml"

#define OTHER_LIFE 4 /* where the entry's next block lies */

short word = WORD(0, 0, 1, LIVE);
byte header[5];     /* 1 = whole */
short live[5];      /* bytes accounted to the region around that address */
byte frees, entry_frees, pins;
bool given_back;
byte done;

/* Reads the header at `address` for its size. */
inline read_header(address, ret_size) {
    d_step {
        ret_size = header[address];
#ifndef HEADER_FIRST
        assert(ret_size == 1 && (address != 1 || !given_back))
#endif
    }
}

inline subtract(address, size) {
    d_step {
        assert(size == 1 && live[address] > 0);
        live[address] = live[address] - size
    }
}

/* PENDING -> `state` by exact exchanges, again while only the count differs; old = the word found
 * first. ok = won. */
inline win(state) {
    ok = false;
    seen = old;
    do
    :: !ok && (seen & LOW) == (old & LOW) ->
        next = (seen & ~15) | (state);
        was = seen;
        cas(word, was, next, seen, ok);
#ifdef CAS_ONCE
        break
#endif
    :: else -> break
    od;
    atomic { next = 0; was = 0 }
}

inline drain() {
    old = word;
    address = ADDRESS(old);
    ok = false;
    if
    :: STATE(old) == PENDING ->
#if defined(HEADER_FIRST) || defined(DRAIN_NO_WIN)
        read_header(address, size);
#endif
#if defined(HEADER_FIRST) || defined(ACCOUNTED_IS_DEAD)
        win(ACCOUNTED);
#else
        win(DRAINING);
#endif
    :: else
    fi;
    if
    :: ok ->
#ifndef HEADER_FIRST
        read_header(address, size);
#endif
        subtract(address, size)
    :: else
    fi;
    old = word;
    assert(GEN(old) == 0);
    d_step {
        fetch_xor(word, (old & LOW) ^ WORD(0, 1, 5, FREE));
        entry_frees++
    };
    fetch_xor(word, WORD(0, 1, 5, FREE) ^ WORD(0, 1, OTHER_LIFE, LIVE))
}

proctype freer() {
    short old, seen, next, was;
    byte address, size;
    bool ok, tried;

    do
    :: !tried ->
        old = word;
        if
        :: GEN(old) == 0 && (STATE(old) == LIVE || STATE(old) == MOVING) ->
#ifndef FREE_LOCKED
            if
            :: COUNT(old) == 0 ->
#endif
                next = (old & ~15) | PENDING;
#ifdef FREE_BLIND
                d_step { word = next; ok = true };
#else
                d_step {
                    cas(word, old, next, seen, ok);
                    assert(!ok || pins == 0)
                };
#endif
                next = 0;
                if
                :: ok -> tried = true; frees++; drain()
                :: else
                fi
#ifndef FREE_LOCKED
            :: else /* reported as locked; the program frees again */
            fi
#endif
        :: else -> tried = true /* reported as stale */
        fi
    :: else -> break
    od;
    done++
}

proctype locker() {
    short old;

    fetch_add(word, old);
    if
    :: GEN(old) == 0 && (STATE(old) == LIVE || STATE(old) == MOVING) ->
        if
        :: STATE(old) == MOVING -> fetch_and(word, ~2, old)
        :: else
        fi;
        pins++;
        assert(header[ADDRESS(old)] == 1);
        pins--
    :: else
    fi;
    fetch_sub(word, old);
    done++
}

/* The bytes at address 1 belong to the compactor now. */
inline use_place() {
    d_step { header[1] = 9; gone = true };
    if
    :: live[1] == 0 -> given_back = true
    :: else
    fi
}

inline move() {
    next = old ^ LIVE ^ MOVING;
    cas(word, old, next, seen, ok);
    if
    :: ok ->
        old = next;
        header[2] = header[1];
        next = WORD(0, 0, 2, LIVE);
        live[2] = live[2] + 1;
        cas(word, old, next, seen, ok);
        if
        :: ok -> subtract(1, 1); use_place()
        :: else ->
            live[2] = live[2] - 1;
            do
            :: !ok && STATE(seen) == MOVING ->
                old = seen;
                cas(word, old, old ^ LIVE ^ MOVING, seen, ok)
            :: else -> break
            od
        fi
    :: else
    fi
}

proctype compactor() {
    short old, seen, next, was;
    byte pass;
    bool ok, gone;

    do
    :: pass < 2 && !gone ->
        pass++;
        old = word;
        if
        :: STATE(old) == FREE || ADDRESS(old) != 1 || STATE(old) == ACCOUNTED ->
#ifdef ACCOUNT_TWICE
            subtract(1, 1);
#endif
            use_place()
        :: ADDRESS(old) == 1 && STATE(old) == PENDING ->
#ifdef PENDING_IS_DEAD
            use_place();
#else
#ifdef WALKER_OR
            d_step { seen = word; word = word | 1; ok = (STATE(seen) == PENDING) };
#else
            win(ACCOUNTED);
#endif
            if
            :: ok ->
                subtract(1, 1);
                use_place()
#ifdef COMPACTOR_FREES
                ;
                d_step {
                    fetch_xor(word, WORD(0, 0, 1, ACCOUNTED) ^ WORD(0, 1, 5, FREE));
                    entry_frees++
                }
#endif
            :: else
            fi
#endif
        :: ADDRESS(old) == 1 && STATE(old) == LIVE && COUNT(old) == 0 -> move()
        :: else
        fi;
        atomic { old = 0; seen = 0; next = 0; ok = 0 }
    :: else -> break
    od;
    done++
}

init {
    atomic {
        header[1] = 1;
        live[1] = 1;
        run freer(); run freer(); run locker(); run compactor();
        done == 4
    };
    assert(frees == 1 && entry_frees == 1 && live[1] == 0 && live[2] == 0);
    assert(word == WORD(0, 1, OTHER_LIFE, LIVE))
}
