/* The fixed profile: a block of two cells slides down by one, over part of itself, twice. The mark
 * MOVING can still be aborted; after the readers' check it becomes RESIZING under the heap's mutex,
 * and from then on lockers and readers wait for that mutex. Shown: whoever has the address sees the
 * block whole and it stays; a wait is for the mutex only, nobody is left waiting, and trylock
 * never waits; the count is 0 when all is quiet.
 *
 * SLIDE_ABORTABLE   broken: slides under MOVING
 * NO_READER_CHECK   broken: slides without looking at the reader
 * CHECK_FIRST       broken: looks at the reader, then goes from LIVE to RESIZING
 * PUBLISH_STORE     broken: the new address is stored, not xored in
 * PUBLISH_EARLY     broken: the new address is published before the last cell is copied
 * KEEP_COUNT        broken: a locker that waits does not take its count back
 * READ_RESIZING     broken: a deref takes the address of a sliding block
 */
#include "entry.pml"

short word = WORD(0, 0, 2, LIVE);
byte memory[4];
bool mutex;
byte sequence; /* the reader's; store buffers are read_section.pml's subject */
byte done;

inline acquire() { atomic { !mutex -> mutex = true } }
inline release() { mutex = false }

inline look(address) {
    assert(memory[address] == 1);
    assert(memory[address + 1] == 2 && ADDRESS(word) == address)
}

proctype locker() {
    short old, seen;

    fetch_add(word, old);
    do
    :: STATE(old) == RESIZING ->
#ifndef KEEP_COUNT
        fetch_sub(word, seen);
#endif
        acquire();
        release();
        fetch_add(word, old)
    :: else -> break
    od;
    if
    :: STATE(old) == MOVING -> fetch_and(word, ~2, seen)
    :: else
    fi;
    look(ADDRESS(old));
    fetch_sub(word, seen);
    atomic { old = 0; seen = 0; done++ }
}

proctype trylocker() {
    short old, seen;

    fetch_add(word, old);
    if
    :: STATE(old) == RESIZING
    :: else ->
        if
        :: STATE(old) == MOVING -> fetch_and(word, ~2, seen)
        :: else
        fi;
        look(ADDRESS(old))
    fi;
    fetch_sub(word, seen);
    atomic { old = 0; seen = 0; done++ }
}

/* old = the word by which the block is at ADDRESS(old) */
inline deref() {
    old = word;
    ok = false;
    do
    :: !ok && STATE(old) == MOVING ->
        cas(word, old, old ^ LIVE ^ MOVING, seen, ok);
        old = seen
    :: else -> break
    od
}

proctype reader() {
    short old, seen;
    byte section;
    bool ok;

    do
    :: section < 2 ->
        d_step { section++; sequence++ };
        deref();
#ifndef READ_RESIZING
        do
        :: STATE(old) == RESIZING ->
            acquire();
            release();
            deref()
        :: else -> break
        od;
#endif
        look(ADDRESS(old));
        d_step { sequence++; old = 0; seen = 0; ok = false }
    :: else -> break
    od;
    done++
}

inline slide(from) {
    memory[from - 1] = memory[from];
#ifdef PUBLISH_EARLY
    fetch_xor(word, WORD(0, 0, from ^ (from - 1), RESIZING ^ LIVE));
#endif
    memory[from] = memory[from + 1];
    memory[from + 1] = 9
}

proctype compactor() {
    short old, seen;
    byte step, at, counter;
    bool ok;

    do
    :: step < 2 ->
        step++;
        old = word;
        ok = (STATE(old) == LIVE && COUNT(old) == 0);
        at = ADDRESS(old);
#ifdef CHECK_FIRST
        if
        :: ok && !(sequence & 1) ->
            acquire();
            cas(word, old, old ^ LIVE ^ RESIZING, seen, ok);
#else
        if
        :: ok -> cas(word, old, old ^ LIVE ^ MOVING, seen, ok)
        :: else
        fi;
        old = old ^ LIVE ^ MOVING;
        counter = sequence;
#ifdef NO_READER_CHECK
        counter = 0;
#endif
        if
        :: ok && !((counter & 1) && sequence == counter) ->
            acquire();
#ifndef SLIDE_ABORTABLE
            cas(word, old, old ^ MOVING ^ RESIZING, seen, ok);
#endif
#endif
            if
            :: ok ->
                slide(at);
#ifdef SLIDE_ABORTABLE
                cas(word, old, WORD(0, 0, at - 1, LIVE), seen, ok)
#else
#ifdef PUBLISH_STORE
                word = WORD(0, 0, at - 1, LIVE)
#else
#ifndef PUBLISH_EARLY
                fetch_xor(word, WORD(0, 0, at ^ (at - 1), RESIZING ^ LIVE))
#endif
#endif
#endif
            :: else
            fi;
            release()
        :: else
        fi;
        /* whatever was not slid: the mark goes, if it is still there */
        ok = false;
        old = word;
        do
        :: !ok && STATE(old) == MOVING ->
            cas(word, old, old ^ LIVE ^ MOVING, seen, ok);
            old = seen
        :: else -> break
        od;
        atomic { old = 0; seen = 0; ok = false; at = 0; counter = 0 }
    :: else -> break
    od;
    done++
}

init {
    atomic {
        memory[2] = 1;
        memory[3] = 2;
        run locker(); run trylocker(); run reader(); run compactor();
        done == 4
    };
    assert(COUNT(word) == 0 && STATE(word) == LIVE)
}
