/* Read sections against a compactor that marks, fences all threads, looks at the section counters and
 * then moves or purges. A reader's stores to its counter wait in a store buffer that is emptied one
 * by one at any time, or whole by the fence; a reader's loads do not wait for them. Shown: no block
 * whose address was obtained in a section still open is moved or purged; no entry is left in a state
 * that nobody will end.
 *
 * FENCED                  correct too: rmread_begin has a fence of its own, the compactor no membarrier
 * CLAIM_RESIZING          correct too: the mark is RESIZING; readers and lockers that meet it wait
 * SIGNAL                  correct too: reader 0 alone, and a signal handler that opens a section within,
 *                         or between two steps of opening or closing, the reader's own
 * NO_BARRIER              broken: the counters are read without the fence
 * SNAPSHOT_FIRST          broken: the counters are read before the blocks are marked
 * NO_CHECK                broken: marks, fences, and moves without looking
 * REGISTRY_FIRST          broken: the list of readers is read before the blocks are marked
 * REMARK                  broken: an aborted move is tried again on the strength of the old check
 * DEREF_IGNORES_MOVING    broken: a deref takes the address and leaves the mark
 * DEREF_OLD_ADDRESS       broken: a deref whose abort came too late uses the address it read first
 * DEREF_FETCH_AND         broken: a deref takes the mark away without comparing the word
 * SIGNAL SEQUENCE_PLUS    broken: the outermost section steps the counter by one instead of making it
 *                         odd and even
 */
#include "entry.pml"

#ifdef CLAIM_RESIZING
#define MARK RESIZING
#else
#define MARK MOVING
#endif
#define READERS 2
#define ODD(n) ((n) & 1)

short word = WORD(0, 0, 1, LIVE);
byte memory[4];           /* 1 = the block is whole here */
byte held[READERS];       /* address the reader relies on, 0 = none */
bool registered[READERS];
byte sequence[READERS];   /* as other threads see it */
chan buffer[READERS] = [5] of { byte };
byte done;

inline write_sequence(next_value) {
    own = next_value;
    buffer[id]!own
}

#define EMPTY_BUFFER(r)                                  \
    do                                                   \
    :: len(buffer[r]) > 0 -> buffer[r]?sequence[r]       \
    :: else -> break                                     \
    od

inline open_section() {
    depth++;
    interrupt();
    if
    :: !registered[id] -> registered[id] = true
    :: else
    fi;
#ifdef SEQUENCE_PLUS
    value = own + 1;
#else
    value = own | 1;
#endif
    interrupt();
    write_sequence(value);
#ifdef FENCED
    atomic { EMPTY_BUFFER(id) };
#endif
}

inline close_section() {
    depth--;
    interrupt();
#ifdef SEQUENCE_PLUS
    value = own + 1;
#else
    value = (own | 1) + 1;
#endif
    interrupt();
    write_sequence(value)
}

inline read_word() {
    d_step {
        seen = word;
        p = 0;
        if
        :: STATE(seen) == LIVE -> p = ADDRESS(seen); held[id] = p
        :: else
        fi
    }
}

/* p = the block's address, 0 = purged; from then on the reader relies on it. */
inline deref() {
    read_word();
    do
    :: STATE(seen) == RESIZING ->
        STATE(word) != RESIZING;
        read_word()
    :: else -> break
    od;
    if
    :: STATE(seen) == MOVING ->
#ifdef DEREF_IGNORES_MOVING
        p = ADDRESS(seen);
        held[id] = p;
#else
#ifdef DEREF_FETCH_AND
        d_step {
            fetch_and(word, ~2, seen);
            if
            :: STATE(seen) == LIVE || STATE(seen) == MOVING -> p = ADDRESS(seen); held[id] = p
            :: else
            fi
        };
#else
        ok = false;
        do
        :: !ok && STATE(seen) == MOVING ->
            old = seen;
            d_step {
                cas(word, old, old ^ LIVE ^ MOVING, seen, ok);
                if
                :: ok || STATE(seen) == LIVE ->
#ifdef DEREF_OLD_ADDRESS
                    p = ADDRESS(old);
#else
                    p = ADDRESS(seen);
#endif
                    held[id] = p
                :: else
                fi
            }
        :: else -> break
        od;
#endif
#endif
    :: else -> assert(STATE(seen) == LIVE || STATE(seen) == PURGED)
    fi;
    atomic { seen = 0; old = 0; ok = false }
}

inline use() {
    assert(p == 0 || (memory[p] == 1 && held[id] == p));
    p = 0
}

inline interrupt() {
#ifdef SIGNAL
    if
    :: id == 0 && !fired ->
        fired = true;
        kept = held[id];
        depth++;
#ifdef SEQUENCE_PLUS
        if
        :: depth == 1 -> write_sequence(own + 1)
        :: else -> write_sequence(own | 1)
        fi;
#else
        write_sequence(own | 1);
#endif
        deref();
        use();
        held[id] = kept;
        kept = 0;
        depth--;
        if
        :: depth == 0 ->
#ifdef SEQUENCE_PLUS
            write_sequence(own + 1)
#else
            write_sequence((own | 1) + 1)
#endif
        :: else
        fi
    :: true
    fi
#else
    skip
#endif
}

/* Reader 0 is known from the start and opens two sections; reader 1 registers in its only one. */
proctype reader(byte id) {
    byte own, value, depth, sections, p, kept;
    short seen, old;
    bool ok, fired;

    do
    :: sections + id < 2 ->
        sections++;
        open_section();
        deref();
        use();
        interrupt();
        deref();
        use();
        held[id] = 0;
        close_section()
    :: else -> break
    od;
    assert(!ODD(own));
    done++
}

proctype store_buffer(byte id) {
end:
    do
    :: buffer[id]?sequence[id]
    od
}

inline snapshot() {
    r = 0;
    do
    :: r < READERS -> counters[r] = sequence[r]; r++
    :: else -> break
    od
}

inline list_readers() {
    d_step { listed[0] = registered[0]; listed[1] = registered[1] }
}

/* safe = every reader on the list was outside, or has left the section it was in. */
inline check() {
    r = 0;
    safe = true;
    do
    :: r < READERS ->
#ifndef NO_CHECK
        safe = safe && (!listed[r] || !ODD(counters[r]) || sequence[r] != counters[r]);
#endif
        r++
    :: else -> break
    od
}

inline claim() {
    old = word;
    ok = (COUNT(old) == 0 && STATE(old) == LIVE);
    if
    :: ok -> cas(word, old, old ^ LIVE ^ MARK, seen, ok)
    :: else
    fi;
    claimed = ok;
    old = old ^ LIVE ^ MARK
}

/* Commits the move, or empties the block for good; ok = done. */
inline commit() {
    from = ADDRESS(old);
    to = 3 - from;
    memory[to] = memory[from];
    if
    :: next = WORD(0, GEN(old), to, LIVE)
    :: next = WORD(0, GEN(old), from, PURGED)
    fi;
    d_step {
#ifdef CLAIM_RESIZING
        fetch_xor(word, old ^ next);
        ok = true;
#else
        cas(word, old, next, seen, ok);
#endif
        assert(!ok || (held[0] == 0 && held[1] == 0));
        if
        :: ok -> memory[from] = 2
        :: else
        fi
    };
    from = 0; to = 0; next = 0
}

proctype compactor() {
    byte batch, r, from, to;
    byte counters[READERS];
    bool listed[READERS];
    short old, seen, next;
    bool ok, safe, claimed;

    do
    :: batch < 2 ->
        batch++;
#ifdef REGISTRY_FIRST
        list_readers();
#endif
#ifdef SNAPSHOT_FIRST
        list_readers();
        snapshot();
#endif
        claim();
        if
        :: claimed ->
#if !defined(NO_BARRIER) && !defined(FENCED)
            atomic { EMPTY_BUFFER(0) };
            atomic { EMPTY_BUFFER(1) };
#endif
#ifndef SNAPSHOT_FIRST
#ifndef REGISTRY_FIRST
            list_readers();
#endif
            snapshot();
#endif
            check();
            ok = false;
            seen = old;
            if
            :: safe -> commit()
            :: else
            fi;
#ifdef REMARK
            if
            :: safe && !ok ->
                claim();
                if
                :: claimed -> commit()
                :: else
                fi
            :: else
            fi;
#endif
            do
            :: !ok && STATE(seen) == MARK ->
                old = seen;
                cas(word, old, old ^ LIVE ^ MARK, seen, ok)
            :: else -> break
            od;
        :: else
        fi;
        atomic { old = 0; seen = 0; ok = 0; safe = 0; claimed = 0; counters[0] = 0; counters[1] = 0;
                 listed[0] = 0; listed[1] = 0; r = 0 }
    :: else -> break
    od;
    done++
}

proctype locker() {
    short old;

    fetch_add(word, old);
    do
    :: STATE(old) == RESIZING ->
        fetch_sub(word, old);
        STATE(word) != RESIZING;
        fetch_add(word, old)
    :: else -> break
    od;
    if
    :: STATE(old) == MOVING -> fetch_and(word, ~2, old)
    :: else
    fi;
    fetch_sub(word, old);
    done++
}

init {
    atomic {
        memory[1] = 1;
        registered[0] = true;
        run reader(0);
        run store_buffer(0);
        run compactor();
#ifdef SIGNAL
        done = 2
#else
        run reader(1);
        run store_buffer(1);
        run locker()
#endif
    };
    done == READERS + 2;
    assert(COUNT(word) == 0 && (STATE(word) == LIVE || STATE(word) == PURGED))
}
