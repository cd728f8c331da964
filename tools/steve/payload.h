/* What the replayer writes into blocks, so that they are really there, and how it is found again. A
 * block's bytes are one 8-byte word over and over, a different one for each block, so that a block
 * that lost its contents or got another's shows. */
#ifndef STEVE_PAYLOAD_H
#define STEVE_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAYLOAD_PAGE = 4096 };

/* The word of a block, from the serial number of its allocation. */
uint64_t payload_word(uint64_t serial);

/* Writes bytes [from, to) of the block at `address`. */
void payload_fill(void *address, uint64_t serial, size_t from, size_t to);

/* Whether bytes [0, size) are what payload_fill wrote. */
bool payload_is_whole(const void *address, uint64_t serial, size_t size);

/* The same, but only the first 8 bytes (fewer in smaller blocks) and a byte in every page after
 * them. `from` = the size the block had when it was written last, 0 for a new one. */
void payload_touch(void *address, uint64_t serial, size_t from, size_t size);
bool payload_is_touched(const void *address, uint64_t serial, size_t size);

/* Whether the bytes are all zero. */
bool payload_is_zero(const void *address, size_t size);

#endif
