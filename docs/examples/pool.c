/* Users of a server, each an element of a pool: their addresses hold until they are freed. */
#include <jeff/pool.h>

#include <stdio.h>

struct user {
    struct user *next; /* a stable pool's elements may point to each other */
    int number;
    char name[20];
};

static int print_user(void *context, void *element, rmhandle_t handle) {
    const struct user *user = element;
    (void)handle;
    ++*(int *)context;
    return user->number % 100 == 7 ? printf("%s\n", user->name) < 0 : 0;
}

int main(void) {
    rmpool_t pool = rmpool_create(NULL, sizeof(struct user), 1024, NULL);
    struct user *first = NULL;
    for (int i = 0; i < 5000; i++) {
        struct user *user = rmpool_alloc(pool);
        if (user == NULL)
            return 1;
        user->next = first;
        user->number = i;
        snprintf(user->name, sizeof user->name, "user %d", i);
        first = user;
    }
    /* every second leaves */
    for (struct user **link = &first; *link != NULL && (*link)->next != NULL;
         link = &(*link)->next) {
        struct user *gone = *link;
        *link = gone->next;
        rmpool_free(pool, gone);
    }
    int count = 0;
    rmpool_visit(pool, print_user, &count);
    struct rm_pool_stats stats;
    rmpool_stats(pool, &stats);
    printf("%zu users in %zu blocks of %zu\n", stats.elements, stats.blocks, stats.block_elements);
    rmpool_destroy(pool); /* all that are left at once */
    return count == 2500 && stats.elements == 2500 ? 0 : 1;
}
