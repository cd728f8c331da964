/* Arrays: order and search, by the C library. Hosted builds only. */
#include "collections/array.h"

#include <stdlib.h>

size_t rmarray_find(rmarray_t array, size_t from, const void *key, rm_array_compare_fn *compare) {
    struct jf_array open;
    size_t found = RM_ARRAY_NONE;
    if (!jf_array_open(&open, array, "rmarray_find"))
        return RM_ARRAY_NONE;
    for (size_t i = from; i < open.length && found == RM_ARRAY_NONE; i++)
        if (compare(key, jf_array_at(&open, i)) == 0)
            found = i;
    jf_array_close(&open);
    return found;
}

int rmarray_sort(rmarray_t array, rm_array_compare_fn *compare) {
    struct jf_array open;
    if (!jf_array_open(&open, array, "rmarray_sort"))
        return -1;
    qsort(open.elements, open.length, open.element_size, compare);
    jf_array_close(&open);
    return 0;
}

size_t rmarray_search(rmarray_t array, const void *key, rm_array_compare_fn *compare) {
    struct jf_array open;
    if (!jf_array_open(&open, array, "rmarray_search"))
        return RM_ARRAY_NONE;
    const unsigned char *found =
        bsearch(key, open.elements, open.length, open.element_size, compare);
    size_t index =
        found != NULL ? (size_t)(found - open.elements) / open.element_size : RM_ARRAY_NONE;
    jf_array_close(&open);
    return index;
}
