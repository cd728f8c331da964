/* A heap inside a buffer of the program's own: everything, bookkeeping included, lies in it. */
#include <jeff/jeff.h>

#include <stdio.h>

static _Alignas(16) unsigned char buffer[64 * 1024];

int main(void) {
    rmhandle_t blocks[100];
    struct rm_stats stats;
    if (rminit(buffer, sizeof buffer) != 0)
        return 1;
    for (int i = 0; i < 100; i++)
        if ((blocks[i] = rmmalloc(500)) == NULL)
            return 1;
    for (int i = 0; i < 100; i += 2)
        rmfree(blocks[i]);
    rmstats(&stats);
    printf("%llu holes, the largest block to be had is %llu bytes\n",
           (unsigned long long)stats.holes, (unsigned long long)stats.largest_free);
    if (rmcompact(0) != RM_COMPACT_DONE)
        return 1;
    rmstats(&stats);
    printf("%llu hole, the largest block to be had is %llu bytes\n",
           (unsigned long long)stats.holes, (unsigned long long)stats.largest_free);
    rmdestroy(); /* the buffer is the program's again */
    return stats.holes == 1 ? 0 : 1;
}
