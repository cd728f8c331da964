/* The contents of replayed blocks. */
#include "payload.h"

#include <string.h>

uint64_t payload_word(uint64_t serial) {
    uint64_t word = serial * 0x9e3779b97f4a7c15u;
    return word ^ word >> 29;
}

void payload_fill(void *address, uint64_t serial, size_t from, size_t to) {
    uint64_t word = payload_word(serial);
    uint8_t *bytes = address;
    for (; from < to && from % 8 != 0; from++)
        memcpy(bytes + from, (const uint8_t *)&word + from % 8, 1);
    for (; to - from >= 8 && from < to; from += 8)
        memcpy(bytes + from, &word, 8);
    if (from < to)
        memcpy(bytes + from, &word, to - from);
}

bool payload_is_whole(const void *address, uint64_t serial, size_t size) {
    uint64_t word = payload_word(serial);
    const uint8_t *bytes = address;
    uint64_t differences = 0;
    size_t at = 0;
    for (; size - at >= 8; at += 8) {
        uint64_t found;
        memcpy(&found, bytes + at, 8);
        differences |= found ^ word;
    }
    return differences == 0 && memcmp(bytes + at, &word, size - at) == 0;
}

void payload_touch(void *address, uint64_t serial, size_t from, size_t size) {
    uint64_t word = payload_word(serial);
    uint8_t *bytes = address;
    if (from < 8)
        memcpy(bytes, &word, size < 8 ? size : 8);
    for (size_t at = from < PAYLOAD_PAGE ? PAYLOAD_PAGE : from; at < size; at += PAYLOAD_PAGE)
        bytes[at] = (uint8_t)word;
    /* The last page may have been stepped over: blocks do not begin at a page. */
    if (size > 8)
        bytes[size - 1] = (uint8_t)word;
}

bool payload_is_touched(const void *address, uint64_t serial, size_t size) {
    uint64_t word = payload_word(serial);
    return memcmp(address, &word, size < 8 ? size : 8) == 0;
}

bool payload_is_zero(const void *address, size_t size) {
    const uint8_t *bytes = address;
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}
