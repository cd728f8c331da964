/* The entry word as every model sees it: the layout of include/jeff/inline.h with narrow fields, and
 * the atomic operations on it, each one indivisible step. As in the real word the count is on top, so
 * that a carry or a borrow falls off. Included by the models, not run by itself.
 *
 *   12..9 lock count | 8..7 generation | 6..4 address or link | 3..0 state
 */
#define FREE 0
#define LIVE 1
#define MOVING 3
#define RESIZING 5
#define PURGED 7
#define PENDING 8
#define ACCOUNTED 9

#define ONE 512
#define MASK 8191
#define LOW 511
#define COUNT(w) ((w) >> 9)
#define GEN(w) (((w) >> 7) & 3)
#define ADDRESS(w) (((w) >> 4) & 7)
#define STATE(w) ((w) & 15)
#define WORD(count, gen, address, state) (((count) << 9) | ((gen) << 7) | ((address) << 4) | (state))

inline fetch_add(word, ret_old) {
    d_step { ret_old = word; word = (word + ONE) & MASK }
}

inline fetch_sub(word, ret_old) {
    d_step { ret_old = word; word = (word + MASK + 1 - ONE) & MASK }
}

inline fetch_xor(word, bits) {
    d_step { word = word ^ (bits) }
}

inline fetch_and(word, bits, ret_old) {
    d_step { ret_old = word; word = word & (bits) }
}

/* ret_old is the word found, so that a caller can decide what made the exchange fail. */
inline cas(word, expected, desired, ret_old, ret_ok) {
    d_step {
        ret_old = word;
        ret_ok = (word == (expected));
        if
        :: ret_ok -> word = (desired)
        :: else
        fi
    }
}
