/* Summing up a list whose links are handles, in one read section. */
#include <jeff/jeff.h>

#include <stdio.h>

struct node {
    rmhandle_t next; /* a handle, never a pointer: the next node may move */
    int value;
};

static rmhandle_t push(rmhandle_t list, int value) {
    rmhandle_t handle = rmmalloc(sizeof(struct node));
    if (handle == NULL)
        return NULL;
    struct node *node = rmlock(handle);
    node->next = list;
    node->value = value;
    rmunlock(handle);
    return handle;
}

/* Nothing that is dereferenced here moves until the section ends; nobody is made to wait. */
static long sum(rmhandle_t list) {
    long total = 0;
    rmread_begin();
    while (list != NULL) {
        const struct node *node = rmderef(list);
        total += node->value;
        list = node->next;
    }
    rmread_end();
    return total;
}

int main(void) {
    rmhandle_t list = NULL;
    for (int i = 1; i <= 1000; i++) {
        rmhandle_t longer = push(list, i);
        if (longer == NULL)
            return 1;
        list = longer;
    }
    rmcompact(0);
    printf("sum %ld\n", sum(list));
    return sum(list) == 500500 ? 0 : 1;
}
