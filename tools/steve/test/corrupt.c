/* Preloaded as a broken allocator: a reallocation to 200003 bytes, which the test's subject asks
 * for, damages one byte of the block. */
#include <stdlib.h>

void *__libc_realloc(void *block, size_t size);

__attribute__((visibility("default"))) void *realloc(void *block, size_t size) {
    unsigned char *moved = __libc_realloc(block, size);
    if (moved != NULL && size == 200003)
        moved[5] ^= 0x40;
    return moved;
}
