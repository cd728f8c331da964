/* The same kind of elements behind handles: after most are gone the rest moves together. */
#include <jeff/pool.h>

#include <stdio.h>
#include <stdlib.h>

enum { COUNT = 100000 };

int main(void) {
    struct rm_pool_options options;
    rmpool_options_init(&options);
    options.flags = RM_POOL_HANDLES;
    rmpool_t pool = rmpool_create(NULL, 64, 0, &options);
    rmhandle_t *elements = calloc(COUNT, sizeof *elements);
    for (int i = 0; elements != NULL && i < COUNT; i++) {
        elements[i] = rmpool_alloc_handle(pool);
        if (elements[i] == NULL)
            return 1;
        *(int *)rmlock(elements[i]) = i;
        rmunlock(elements[i]);
    }
    if (elements == NULL)
        return 1;
    for (int i = 0; i < COUNT; i++)
        if (i % 10 != 0)
            rmpool_free_handle(pool, elements[i]); /* rmfree would do too */

    struct rm_compact_result result;
    while (rmpool_compact(pool, 1000, &result) == RM_COMPACT_BUDGET)
        puts("a millisecond is over"); /* the program would do something else now */
    struct rm_pool_stats stats;
    rmpool_stats(pool, &stats);
    printf("%zu elements in %zu blocks, %zu of them with room\n", stats.elements, stats.blocks,
           stats.partial_blocks);

    int right = stats.partial_blocks <= 1;
    for (int i = 0; i < COUNT; i += 10) {
        right = right && *(int *)rmlock(elements[i]) == i;
        rmunlock(elements[i]);
    }
    rmpool_destroy(pool);
    free(elements);
    return right ? 0 : 1;
}
