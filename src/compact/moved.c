/* The list of blocks moved in a step, for the program's callback. */
#include "compact/compact.h"

void jf_moved_add(struct jf_moved *moved, rmhandle_t handle, uintptr_t address, size_t size) {
    moved->items[moved->count].handle = handle;
    moved->items[moved->count].address = (void *)address;
    moved->items[moved->count].size = size;
    moved->count++;
}

void jf_moved_report(struct jf_moved *moved, struct jf_heap *heap) {
    rm_moved_fn *callback = heap->options.moved;
    unsigned count = moved->count;
    moved->count = 0;
    for (unsigned i = 0; callback != NULL && i < count; i++)
        callback(heap->options.context, moved->items[i].handle, moved->items[i].address,
                 moved->items[i].size);
}
