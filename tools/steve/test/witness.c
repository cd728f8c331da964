/* An allocator that only ever takes, and tells what it was asked for: each call is a line in the file
 * $WITNESS_LOG. A reallocation to $WITNESS_STALL bytes never comes back. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEADER = 64 };
static const size_t pool_size = (size_t)1 << 36;
static _Atomic size_t used;
static char *_Atomic pool;

void *memalign(size_t alignment, size_t size);
void *pvalloc(size_t size);
void *valloc(size_t size);

static void tell(const char *operation, const void *block, const void *result, size_t size) {
    static _Atomic int file = -2;
    char line[128];
    const char *path = getenv("WITNESS_LOG");
    if (path == NULL)
        return;
    if (file == -2)
        file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int length = snprintf(line, sizeof line, "%s %p %p %zu\n", operation, block, result, size);
    if (file >= 0 && write(file, line, (size_t)length) < 0)
        abort();
}

static void *take(size_t alignment, size_t size) {
    if (pool == NULL) {
        void *memory = mmap(NULL, pool_size, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        pool = memory;
    }
    size_t start = used;
    size_t at = (start + HEADER + alignment - 1) & ~(alignment - 1);
    used = at + size;
    memcpy(pool + at - sizeof size, &size, sizeof size);
    return pool + at;
}

void *malloc(size_t size) {
    void *block = take(HEADER, size);
    tell("malloc", NULL, block, size);
    return block;
}

void *calloc(size_t count, size_t size) {
    void *block = take(HEADER, count * size);
    tell("calloc", NULL, block, count * size);
    return block;
}

void *memalign(size_t alignment, size_t size) {
    void *block = take(alignment < HEADER ? HEADER : alignment, size);
    tell("aligned", NULL, block, size);
    return block;
}

void *aligned_alloc(size_t alignment, size_t size) {
    return memalign(alignment, size);
}

int posix_memalign(void **ret_block, size_t alignment, size_t size) {
    *ret_block = memalign(alignment, size);
    return 0;
}

void *valloc(size_t size) {
    return memalign(4096, size);
}

void *pvalloc(size_t size) {
    return memalign(4096, size);
}

void *realloc(void *block, size_t size) {
    const char *stall = getenv("WITNESS_STALL");
    if (stall != NULL && size == strtoull(stall, NULL, 10))
        pause();
    void *moved = take(HEADER, size);
    size_t old_size = 0;
    if (block != NULL)
        memcpy(&old_size, (char *)block - sizeof old_size, sizeof old_size);
    if (block != NULL)
        memcpy(moved, block, old_size < size ? old_size : size);
    tell("realloc", block, moved, size);
    return moved;
}

void free(void *block) {
    if (block != NULL)
        tell("free", block, NULL, 0);
}
