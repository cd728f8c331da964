/* A weak lock: take the address, read the block, then ask whether it is still there. Shown: what was
 * read was the block's, if the answer is yes and the block has not come back to an address it had
 * left. The compactor moves twice and a freed block's entry is used again for a block at the old
 * address; every place left behind is overwritten.
 *
 * RETURNS        limit: the block moves away and back in between; what was read is not the block's
 * RETURNS EPOCH  correct: a count of moves, taken before the address, is compared as well
 * ASK_FIRST      broken: the question is asked before the data is read
 * REUSE_EARLY    broken: the place is overwritten before the commit can be seen (no release fence)
 * NO_GENERATION  broken: the question does not compare generations
 */
#include "entry.pml"

short word = WORD(0, 0, 1, LIVE);
byte memory[4]; /* 1 = the block, 9 = something else, 2 = the entry's next block */
byte epoch;
byte done;

inline ask() {
    now = word;
    valid = ((STATE(now) == LIVE || STATE(now) == MOVING) && ADDRESS(now) == p);
#ifndef NO_GENERATION
    valid = valid && GEN(now) == 0;
#endif
#ifdef EPOCH
    valid = valid && epoch == began;
#endif
    skip
}

proctype reader() {
    short old, now;
    byte p, value, began;
    bool valid;

    began = epoch;
    old = word;
    p = ADDRESS(old);
    if
    :: GEN(old) == 0 && (STATE(old) == LIVE || STATE(old) == MOVING) ->
#ifdef ASK_FIRST
        ask();
        value = memory[p];
#else
        value = memory[p];
        ask();
#endif
        assert(!valid || value == 1)
    :: else
    fi;
    done++
}

inline move(from, to) {
    fetch_xor(word, LIVE ^ MOVING);
    memory[to] = memory[from];
#ifdef REUSE_EARLY
    memory[from] = 9;
#endif
    word = WORD(0, 0, to, LIVE);
    epoch++;
    memory[from] = 9
}

proctype compactor() {
    move(1, 2);
#ifdef RETURNS
    move(2, 1);
    word = WORD(0, 0, 1, PENDING);
#else
    move(2, 3);
    word = WORD(0, 0, 3, PENDING);
#endif
    word = WORD(0, 1, 5, FREE);
    memory[1] = 2;
    word = WORD(0, 1, 1, LIVE);
    done++
}

init {
    atomic {
        memory[1] = 1;
        run reader(); run reader(); run compactor();
        done == 3
    }
}
