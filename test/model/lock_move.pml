/* Two lockers, a stale locker and one compactor on one block. The compactor copies in two
 * steps, may stop for ever at any point, and throws its copy away when the commit fails. Shown: a
 * locked block keeps its address; nothing written under a lock is lost or torn by a move; nobody but
 * a locker that meets a resizer ever waits, nobody is left waiting; the count is 0 when all is quiet.
 *
 * RESIZE            the same with a resizer in place of the second locker
 * COMMIT_BLIND      broken: the commit is a store
 * COMMIT_IGNORES_STATE  broken: the commit compares count and address, not the state
 * NO_ABORT          broken: a locker that meets MOVING leaves the mark
 * CLAIM_LOCKED      broken: the claim does not ask for count 0
 * UNMARK_STORE      broken: the mark is taken away by a store
 * UNMARK_NEVER      broken: the mark is taken away only if the word changed
 * RESIZE RESIZE_STORE      broken: the resizer publishes by a store
 * RESIZE RESIZE_NO_UNDO    broken: a locker that meets RESIZING waits without taking its count back
 * TWO_MOVERS        broken: a second compactor works on the same entry
 */
#include "entry.pml"


short word = WORD(0, 0, 1, LIVE);
/* memory[address * 2 + slot]: locker `slot` writes its own half of the block */
byte memory[16];
byte pins;
byte done;

#define MAY_STOP if :: goto stopped :: true fi

/* p = the block's address. Straight-line code unless it meets RESIZING. */
inline lock() {
    p = 0;
    do
    :: p == 0 ->
        fetch_add(word, old);
        assert(GEN(old) == 0);
        if
        :: STATE(old) == LIVE -> p = ADDRESS(old)
        :: STATE(old) == MOVING ->
#ifndef NO_ABORT
            fetch_and(word, ~2, seen);
#endif
            p = ADDRESS(old)
        :: STATE(old) == RESIZING ->
#ifndef RESIZE_NO_UNDO
            fetch_sub(word, seen);
#endif
            STATE(word) != RESIZING
        fi
    :: else -> break
    od;
    atomic { pins++; old = 0; seen = 0 }
}

inline unlock() {
    d_step {
        pins--;
        old = word;
        assert(COUNT(old) > 0 && ADDRESS(old) == p);
        p = 0
    };
    fetch_sub(word, old);
    old = 0
}

proctype locker(byte slot; byte rounds) {
    byte p, round;
    short old, seen;

    do
    :: round < rounds ->
        lock();
        d_step {
            assert(memory[p * 2 + slot] == round);
            memory[p * 2 + slot] = round + 1
        };
        assert(memory[p * 2 + slot] == round + 1);
        unlock();
        round++
    :: else -> break
    od;
    done++
}

proctype stale() {
    short old;

    fetch_add(word, old);
    fetch_sub(word, old);
    done++
}

inline copy(from, to) {
    memory[to * 2] = memory[from * 2];
    memory[to * 2 + 1] = memory[from * 2 + 1]
}

/* What is left behind holds something else from now on. */
inline scribble(address) {
    d_step { memory[address * 2] = 9; memory[address * 2 + 1] = 9 }
}

proctype resizer() {
    short old, seen;
    bool ok;

    old = word;
    do
    :: COUNT(old) > 0 ->
        /* locked by somebody: resized where it is, under the same state, or not at all */
        if
        :: STATE(old) == LIVE ->
            cas(word, old, old ^ LIVE ^ RESIZING, seen, ok);
            if
            :: ok ->
                fetch_xor(word, LIVE ^ RESIZING);
                break
            :: else -> old = seen
            fi
        :: else -> break
        fi
    :: else ->
        cas(word, old, WORD(0, 0, ADDRESS(old), RESIZING), seen, ok);
        if
        :: ok ->
            copy(ADDRESS(old), 3);
#ifdef RESIZE_STORE
            word = WORD(0, 0, 3, LIVE);
#else
            fetch_xor(word, WORD(0, 0, ADDRESS(old) ^ 3, RESIZING ^ LIVE));
#endif
            scribble(ADDRESS(old));
            break
        :: else -> old = seen
        fi
    od;
    done++
}

/* `place` is a destination nobody else uses. */
proctype compactor(byte place) {
    short old, seen, next;
    byte batch;
    bool ok;

    do
    :: batch < 2 ->
        batch++;
        old = word;
#ifdef CLAIM_LOCKED
        ok = STATE(old) == LIVE;
#else
        ok = STATE(old) == LIVE && COUNT(old) == 0;
#endif
        if
        :: ok ->
            next = old ^ LIVE ^ MOVING;
            cas(word, old, next, seen, ok)
        :: else
        fi;
        MAY_STOP;
        if
        :: ok ->
            old = next;
            copy(ADDRESS(old), place);
            MAY_STOP;
            next = WORD(0, 0, place, LIVE);
#ifdef COMMIT_BLIND
            d_step { ok = true; word = next };
#else
#ifdef COMMIT_IGNORES_STATE
            d_step {
                seen = word;
                ok = (seen == old || seen == (old ^ LIVE ^ MOVING));
                if
                :: ok -> word = next
                :: else
                fi
            };
#else
            d_step {
                cas(word, old, next, seen, ok);
                assert(!ok || pins == 0)
            };
#endif
#endif
            MAY_STOP;
            if
            :: ok ->
                scribble(ADDRESS(old));
                place = ADDRESS(old)
            :: else ->
                scribble(place);
                do
                :: !ok && STATE(seen) == MOVING ->
                    MAY_STOP;
#ifdef UNMARK_STORE
                    d_step { word = WORD(0, 0, ADDRESS(seen), LIVE); ok = true }
#else
#ifdef UNMARK_NEVER
                    break
#else
                    old = seen;
                    cas(word, old, old ^ LIVE ^ MOVING, seen, ok)
#endif
#endif
                :: else -> break
                od
            fi
        :: else
        fi;
        atomic { old = 0; seen = 0; next = 0; ok = 0 }
    :: else -> break
    od;
#ifndef TWO_MOVERS
    assert(STATE(word) != MOVING);
#endif
stopped:
    done++
}

init {
    atomic {
        run locker(0, 2);
        run compactor(2);
#ifdef TWO_MOVERS
        memory[3] = 1;
        run compactor(4);
        done = 1
#else
        run stale();
#ifdef RESIZE
        memory[3] = 1;
        run resizer()
#else
        run locker(1, 1)
#endif
#endif
    };
    done == 4;
    assert(COUNT(word) == 0 && (STATE(word) == LIVE || STATE(word) == MOVING));
    assert(memory[ADDRESS(word) * 2] == 2 && memory[ADDRESS(word) * 2 + 1] == 1)
}
