/* The small encodings of the trace format: little-endian words, variable-length integers, the
 * checksum, and the compression of frames. */
#ifndef STEVE_TRACE_CODEC_H
#define STEVE_TRACE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TRACE_VARINT_MAX = 10 }; /* most bytes of a variable-length integer */

/* Writes `value` at `to` (room for TRACE_VARINT_MAX bytes), 7 bits per byte, lowest first. Returns
 * the byte after it. */
static inline uint8_t *trace_put_varint(uint8_t *to, uint64_t value) {
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

/* Reads one from [from, end). Returns the byte after it, or NULL when it is cut off, too long, or
 * written with more bytes than needed. */
const uint8_t *trace_get_varint(const uint8_t *from, const uint8_t *end, uint64_t *ret_value);

/* Differences of either sign as small numbers: 0, -1, 1, -2, 2, ... become 0, 1, 2, 3, 4, ... */
static inline uint64_t trace_zigzag(int64_t value) {
    return (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
}

static inline int64_t trace_unzigzag(uint64_t value) {
    return (int64_t)(value >> 1 ^ (~(value & 1) + 1));
}

void trace_put_u16(uint8_t *to, uint16_t value);
void trace_put_u32(uint8_t *to, uint32_t value);
void trace_put_u64(uint8_t *to, uint64_t value);
uint16_t trace_get_u16(const uint8_t *from);
uint32_t trace_get_u32(const uint8_t *from);
uint64_t trace_get_u64(const uint8_t *from);

/* CRC-32 (polynomial 0xedb88320) of `size` bytes, going on from `crc` (0 at the start). */
uint32_t trace_crc32(uint32_t crc, const void *bytes, size_t size);

/* Whether this build can compress. */
bool trace_can_compress(void);

/* Compresses into `to` of `capacity` bytes. Returns the bytes written; 0 when this build cannot
 * compress or the result would not be smaller than `size`. Not thread-safe: one context per
 * process. */
size_t trace_compress(void *to, size_t capacity, const void *from, size_t size);

/* Decompresses exactly `raw_size` bytes into `to`. False when the bytes are not that. Allocates on
 * its first call only. Not thread-safe: one context per process. */
bool trace_decompress(void *to, size_t raw_size, const void *from, size_t size);

#ifdef __cplusplus
}
#endif

#endif
