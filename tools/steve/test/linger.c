/* Preloaded behind the recorder: a free that sometimes takes its time to come back after the block
 * is free, so that another thread is given the block before the first one goes on. */
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

void __libc_free(void *block);

__attribute__((visibility("default"))) void free(void *block) {
    static atomic_uint calls;
    __libc_free(block);
    if (atomic_fetch_add(&calls, 1) % 32 == 0)
        nanosleep(&(struct timespec){0, 20000}, NULL);
}
