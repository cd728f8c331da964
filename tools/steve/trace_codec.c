/* Little-endian words, variable-length integers, checksum, compression. The only file that knows
 * whether zstd was there when it was built. */
#include "trace_codec.h"

#if defined(STEVE_HAVE_ZSTD)
#include <zstd.h>
#endif

const uint8_t *trace_get_varint(const uint8_t *from, const uint8_t *end, uint64_t *ret_value) {
    uint64_t value = 0;
    for (unsigned shift = 0; from < end && shift < 64; shift += 7) {
        uint8_t byte = *from++;
        if (shift == 63 && byte > 1)
            return NULL;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            if (byte == 0 && shift != 0)
                return NULL;
            *ret_value = value;
            return from;
        }
    }
    return NULL;
}

void trace_put_u16(uint8_t *to, uint16_t value) {
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

void trace_put_u32(uint8_t *to, uint32_t value) {
    trace_put_u16(to, (uint16_t)value);
    trace_put_u16(to + 2, (uint16_t)(value >> 16));
}

void trace_put_u64(uint8_t *to, uint64_t value) {
    trace_put_u32(to, (uint32_t)value);
    trace_put_u32(to + 4, (uint32_t)(value >> 32));
}

uint16_t trace_get_u16(const uint8_t *from) {
    return (uint16_t)(from[0] | from[1] << 8);
}

uint32_t trace_get_u32(const uint8_t *from) {
    return trace_get_u16(from) | (uint32_t)trace_get_u16(from + 2) << 16;
}

uint64_t trace_get_u64(const uint8_t *from) {
    return trace_get_u32(from) | (uint64_t)trace_get_u32(from + 4) << 32;
}

/* Eight bytes at a time: table[n] is what a byte does that has n more behind it. */
static void fill_tables(uint32_t table[8][256]) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
        table[0][i] = value;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (unsigned n = 1; n < 8; n++)
            table[n][i] = table[n - 1][i] >> 8 ^ table[0][table[n - 1][i] & 0xff];
    }
}

uint32_t trace_crc32(uint32_t crc, const void *bytes, size_t size) {
    static uint32_t table[8][256];
    const uint8_t *at = bytes;
    if (table[0][1] == 0)
        fill_tables(table);
    crc = ~crc;
    for (; size >= 8; at += 8, size -= 8) {
        uint32_t low = crc ^ trace_get_u32(at);
        uint32_t high = trace_get_u32(at + 4);
        crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^ table[5][low >> 16 & 0xff] ^
              table[4][low >> 24] ^ table[3][high & 0xff] ^ table[2][high >> 8 & 0xff] ^
              table[1][high >> 16 & 0xff] ^ table[0][high >> 24];
    }
    for (; size > 0; size--)
        crc = crc >> 8 ^ table[0][(crc ^ *at++) & 0xff];
    return ~crc;
}

#if defined(STEVE_HAVE_ZSTD)

bool trace_can_compress(void) {
    return true;
}

size_t trace_compress(void *to, size_t capacity, const void *from, size_t size) {
    static ZSTD_CCtx *context;
    enum { LEVEL = 1 }; /* a recorded program waits for it */
    if (context == NULL && (context = ZSTD_createCCtx()) == NULL)
        return 0;
    size_t written = ZSTD_compressCCtx(context, to, capacity, from, size, LEVEL);
    return ZSTD_isError(written) || written >= size ? 0 : written;
}

bool trace_decompress(void *to, size_t raw_size, const void *from, size_t size) {
    static ZSTD_DCtx *context;
    if (context == NULL && (context = ZSTD_createDCtx()) == NULL)
        return false;
    size_t written = ZSTD_decompressDCtx(context, to, raw_size, from, size);
    return !ZSTD_isError(written) && written == raw_size;
}

#else

bool trace_can_compress(void) {
    return false;
}

size_t trace_compress(void *to, size_t capacity, const void *from, size_t size) {
    (void)to, (void)capacity, (void)from, (void)size;
    return 0;
}

bool trace_decompress(void *to, size_t raw_size, const void *from, size_t size) {
    (void)to, (void)raw_size, (void)from, (void)size;
    return false;
}

#endif
