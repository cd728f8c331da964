/* One block that is freed, given out again with its entry or not, and freed once more; a locker; and a
 * compactor that drains the rings (or bins: for the model that is one) of threads that are outside, walks over the block's region, moves the block if it lives and uses its place again if its
 * header says dead, twice. A thread says that it is inside by a store that waits in its store buffer. The
 * entry is used again as soon as it is free. Shown: one free succeeds; a ring is in one hand at a time;
 * the bytes leave the region's account once; nobody reads or writes a header that may have been
 * overwritten or given back.
 *
 * FENCED             correct too: threads fence themselves on entering, no fence on all threads
 * TWICE              the same with two threads that free the block at once, no locker (implies FENCED)
 * TWICE FREE_BLIND   broken: free checks and stores in two steps
 * FREE_LOCKED        broken: free does not ask for count 0
 * NO_CLOSE           broken: rings are drained without closing their threads
 * NO_BARRIER         broken: threads are closed without the fence on all threads
 * PENDING_IS_DEAD    broken: the compactor uses the place of a block that waits in a ring
 * WALKER_ACCOUNTS    broken: the compactor accounts for a block that waits in a ring
 * HEADER_AFTER_DEAD  broken: a header is read after it was marked dead
 * NO_ADDRESS_CHECK   broken: the compactor does not ask whether the entry still names this block
 * REUSE_OUTSIDE      broken: a block is given out again by a thread that does not say that it is inside
 * REUSE_STORE        broken: the entry of a block given out again is stored whole
 */
#include "entry.pml"

#ifdef TWICE
#define FENCED
#endif
#define OTHER_LIFE 4 /* where the entry's next block lies */
#define BLOCK 1
#define DEAD 2
#define REUSED 9

short word = WORD(0, 0, 1, LIVE);
byte header[5];
short live[5]; /* blocks accounted to the region around that address */
byte frees, drains, pins;
bool given_back, gone;
bool mutex;
bool ring[2], closed[2];
bool inside[2]; /* as others see it */
chan buffer[2] = [4] of { bool };
byte done;

#define EMPTY_BUFFER(t)                                \
    do                                                 \
    :: len(buffer[t]) > 0 -> buffer[t]?inside[t]       \
    :: else -> break                                   \
    od

inline leave() {
#ifdef FENCED
    inside[id] = false
#else
    buffer[id]!false
#endif
}

inline enter() {
#ifdef FENCED
    inside[id] = true;
#else
    buffer[id]!true;
#endif
    do
    :: closed[id] ->
        leave();
        atomic { !mutex -> mutex = true };
        mutex = false;
        atomic { EMPTY_BUFFER(id); inside[id] = true }
    :: else -> break
    od
}

inline check_header(at) {
    assert(header[at] == BLOCK && (at != 1 || !given_back))
}

/* Empties the ring of thread t, who is the caller or closed and outside. */
inline drain(t) {
    if
    :: ring[t] ->
        drains++;
        assert(drains == 1);
        at = ADDRESS(word);
#ifndef HEADER_AFTER_DEAD
        check_header(at);
#endif
        d_step { check_header(at); header[at] = DEAD };
#ifdef HEADER_AFTER_DEAD
        assert(header[at] == DEAD);
#endif
        fetch_xor(word, WORD(0, 0, at ^ 5, PENDING ^ FREE));
        fetch_xor(word, WORD(0, 0, 5 ^ OTHER_LIFE, FREE ^ LIVE));
        d_step {
            assert(live[at] == 1 && (at != 1 || !given_back));
            live[at] = live[at] - 1;
            ring[t] = false;
            at = 0
        }
    :: else
    fi
}

/* The thread has a block in its ring: it gives it out again, with its entry. */
inline reuse() {
#ifndef REUSE_OUTSIDE
    enter();
#endif
    if
    :: ring[id] ->
        old = word;
        at = ADDRESS(old);
        d_step { check_header(at); header[at] = BLOCK };
#ifdef REUSE_STORE
        word = old ^ PENDING ^ LIVE;
#else
        fetch_xor(word, PENDING ^ LIVE);
#endif
        atomic { ring[id] = false; at = 0; old = 0; life = 1; tried = false }
    :: else
    fi;
#ifndef REUSE_OUTSIDE
    leave()
#endif
}

proctype freer(byte id) {
    short old, seen, next;
    byte at, life;
    bool ok, tried;

free:
    enter();
    do
    :: !tried ->
        old = word;
        if
        :: GEN(old) == life && (STATE(old) == LIVE || STATE(old) == MOVING) ->
#ifndef FREE_LOCKED
            if
            :: COUNT(old) == 0 ->
#endif
                next = WORD(COUNT(old), life + 1, ADDRESS(old), PENDING);
#ifdef FREE_BLIND
                d_step { word = next; ok = true };
#else
                d_step {
                    cas(word, old, next, seen, ok);
                    assert(!ok || pins == 0)
                };
#endif
                if
                :: ok -> atomic { tried = true; frees++; assert(frees == life + 1); ring[id] = true }
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
    leave();
    atomic { old = 0; seen = 0; next = 0; ok = false };
    if
    :: ring[id] && life == 0 ->
        reuse();
        if
        :: life == 1 -> goto free
        :: else
        fi
    :: ring[id] ->
        enter();
        drain(id);
        leave()
    :: else
    fi;
    done++
}

proctype store_buffer(byte id) {
end:
    do
    :: buffer[id]?inside[id]
    od
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
        assert(header[ADDRESS(old)] == BLOCK);
        pins--
    :: else
    fi;
    fetch_sub(word, old);
    done++
}

/* The bytes at address 1 belong to the compactor now. */
inline use_place() { atomic { header[1] = REUSED; gone = true } }

inline move() {
    next = old ^ LIVE ^ MOVING;
    cas(word, old, next, seen, ok);
    if
    :: ok ->
        old = next;
        header[2] = header[1];
        live[2] = live[2] + 1;
        next = WORD(0, GEN(old), 2, LIVE);
        cas(word, old, next, seen, ok);
        if
        :: ok ->
            live[1] = live[1] - 1;
            use_place()
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

inline collect(t) {
#ifdef NO_CLOSE
    drain(t)
#else
    if
    :: !inside[t] -> drain(t)
    :: else
    fi
#endif
}

proctype compactor() {
    short old, seen, next;
    byte pass, at;
    bool ok, block;

    do
    :: pass < 2 && !gone ->
        pass++;
        atomic { !mutex -> mutex = true };
#ifndef NO_CLOSE
        closed[0] = true;
        closed[1] = true;
#if !defined(NO_BARRIER) && !defined(FENCED)
        atomic { EMPTY_BUFFER(0) };
        atomic { EMPTY_BUFFER(1) };
#endif
#endif
        collect(0);
        collect(1);
        closed[0] = false;
        closed[1] = false;
        mutex = false;

        block = (header[1] == BLOCK);
        if
        :: block ->
            old = word;
            if
#ifdef NO_ADDRESS_CHECK
            :: STATE(old) == LIVE && COUNT(old) == 0 -> move()
#else
            :: STATE(old) == LIVE && COUNT(old) == 0 && ADDRESS(old) == 1 -> move()
#endif
#ifdef PENDING_IS_DEAD
            :: STATE(old) == PENDING -> use_place()
#endif
#ifdef WALKER_ACCOUNTS
            :: STATE(old) == PENDING ->
                cas(word, old, old ^ PENDING ^ ACCOUNTED, seen, ok);
                if
                :: ok -> live[1] = live[1] - 1; use_place()
                :: else
                fi
#endif
            :: else
            fi
        :: else -> use_place()
        fi;
        atomic { old = 0; seen = 0; next = 0; ok = false; block = false }
    :: else -> break
    od;
    if
    :: gone && live[1] == 0 -> given_back = true
    :: else
    fi;
    done++
}

init {
    atomic {
        header[1] = BLOCK;
        live[1] = 1;
        run freer(0);
        run compactor();
#ifdef TWICE
        run freer(1)
#else
        run store_buffer(0);
        run locker()
#endif
    };
    done == 3;
    assert((frees == 1 || frees == 2) && drains == 1 && live[1] == 0 && live[2] == 0);
    assert(word == WORD(0, frees, OTHER_LIFE, LIVE))
}
