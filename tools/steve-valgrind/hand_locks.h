/* SPDX-License-Identifier: MIT
 * Marks for programs that were ported to handles: where they lock and unlock a block, by any address
 * in it. They cost a few instructions, and tell the recorder when the program runs under it. */
#ifndef STEVE_HAND_LOCKS_H
#define STEVE_HAND_LOCKS_H

#include <valgrind/valgrind.h>

enum {
    STEVE_REQUEST_LOCK = VG_USERREQ_TOOL_BASE('S', 'V'),
    STEVE_REQUEST_UNLOCK,
};

#define STEVE_HAND_LOCK(address)                                                                   \
    VALGRIND_DO_CLIENT_REQUEST_STMT(STEVE_REQUEST_LOCK, (address), 0, 0, 0, 0)
#define STEVE_HAND_UNLOCK(address)                                                                 \
    VALGRIND_DO_CLIENT_REQUEST_STMT(STEVE_REQUEST_UNLOCK, (address), 0, 0, 0, 0)

#endif
