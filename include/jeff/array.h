/* Jeff's arrays: dynamic arrays whose length and capacity are the allocator's own knowledge. The program
 * keeps one word, the array; no second bookkeeping.
 *
 * Conventions of this header, beside those of <jeff/jeff.h>
 *   - Lengths, capacities and indexes are elements; alignments and rooms are bytes.
 *   - An array is a block of the handle heap: it moves while it is not locked, counts in the heap's
 *     statistics, and the heap's callbacks apply. The array's value never changes, however it grows or moves.
 *   - Capacity is always all of the block: what rounding leaves over is capacity too.
 *   - Calls that give int return 0, or -1 with errno: EINVAL (an index beyond the length, elements of
 *     different sizes, a bad option), ENOMEM (no memory; also when count times size overflows), EBUSY
 *     (the array is locked and would have to get more capacity). The array is unchanged then.
 *   - A growing call, one for which the capacity does not suffice, fails with EBUSY while the array is locked,
 *     even if the block could grow where it lies: a pointer that is held must never hang upon luck. A call for
 *     which the capacity suffices goes on: reserve first, then push under the lock.
 *   - Threads: as for blocks. Any thread may use any array; two threads that use the same one, one of them
 *     changing it, must agree among themselves.
 *   - Misuse is detected as for blocks: a NULL, stale or foreign array.
 *   - rmpurgeable may be used on rmarray_handle. Once emptied the array is lost: all calls on it but
 *     rmarray_destroy fail with EINVAL, and its length is 0.
 */
#ifndef JEFF_ARRAY_H
#define JEFF_ARRAY_H

#include <jeff/jeff.h>

#include <stdarg.h>

/* The compiler compares arguments with the format. */
#if defined(__GNUC__) || defined(__clang__)
#define RM_PRINTF_(format_at, first_at) __attribute__((format(printf, format_at, first_at)))
#else
#define RM_PRINTF_(format_at, first_at)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------
 * Types
 * ------------------------------------------------------------------------------------------- */

/* An array. NULL is none. */
typedef struct rm_array *rmarray_t;

/* What rmarray_find and rmarray_search give when there is no such element. */
#define RM_ARRAY_NONE SIZE_MAX

/* How much a growing call adds beyond what it needs; less when memory is scarce. */
enum rm_array_growth {
    RM_GROWTH_DEFAULT =
        0,              /* by the hints: DOUBLE for temporary, EIGHTH for long-lived, else HALF */
    RM_GROWTH_HALF = 1, /* half of the block's size; all of it while that is less than 256 bytes */
    RM_GROWTH_DOUBLE = 2, /* all of the block's size */
    RM_GROWTH_EIGHTH = 3, /* an eighth of it */
    RM_GROWTH_EXACT = 4,  /* nothing but rounding */
};

/* Hints, to be added up. */
enum rm_array_hint {
    RM_ARRAY_TEMPORARY = 1,  /* lives shortly: spend memory to be quick */
    RM_ARRAY_LONG_LIVED = 2, /* lives long: spend time to be small */
    /* Grows to many times its size: from 128 KiB on it gets address space (not memory) of at least 16
     * times its size, or of `expected`, and so need not be copied. */
    RM_ARRAY_WILL_GROW = 4,
    RM_ARRAY_ZEROED =
        8, /* elements that rmarray_resize adds are zero; else their contents are undefined */
};

/* Options of an array. Fill with rmarray_options_init first. */
struct rm_array_options {
    size_t struct_size; /* set by rmarray_options_init */
    size_t alignment;   /* of the first element: a power of two, at most 512 KiB; 0 = 16 */
    size_t capacity;    /* elements there is room for from the beginning */
    size_t expected;    /* elements it may grow to; with RM_ARRAY_WILL_GROW. 0 = not known */
    enum rm_array_growth growth;
    unsigned hints; /* of enum rm_array_hint */
};

/* Figures of one array. */
struct rm_array_stats {
    size_t length;
    size_t capacity;
    size_t element_size; /* bytes */
    size_t alignment;    /* bytes */
    size_t
        bytes; /* of the block; in fixed heaps and large blocks 8 or 16 of them are the allocator's */
    size_t unused;  /* bytes of capacity behind the last element */
    size_t room;    /* bytes it can grow to where it lies by what was reserved for it alone */
    unsigned locks; /* held now */
    unsigned hints;
    enum rm_array_growth growth;
    int string; /* always terminated */
    int large;  /* has a chunk of its own */
};

/* Orders two elements, as for the C library's qsort and bsearch. May lock and read other blocks. */
typedef int rm_array_compare_fn(const void *first, const void *second);

/* ---------------------------------------------------------------------------------------------
 * Life
 * ------------------------------------------------------------------------------------------- */

RM_API void rmarray_options_init(struct rm_array_options *ret_options);

/* Creates an empty array of elements of `element_size` bytes (1 or more) in `heap` (NULL: the default
 * heap). `options` may be NULL. NULL with errno ENOMEM or EINVAL. As rmmalloc when memory runs out. */
RM_API rmarray_t rmarray_create(rmheap_t heap, size_t element_size,
                                const struct rm_array_options *options);

/* Creates an empty string: an array of char with a zero byte behind the last element at all times. The zero
 * byte is not counted in length or capacity. */
RM_API rmarray_t rmarray_create_string(rmheap_t heap, const struct rm_array_options *options);

/* As rmfree. NULL is a no-op. */
RM_API void rmarray_destroy(rmarray_t array);

/* A new array in the same heap with the same elements, options, and no more capacity than it needs. NULL
 * with errno ENOMEM. */
RM_API rmarray_t rmarray_copy(rmarray_t array);

/* The block that the array is, for rmlock, rmderef, rmpurgeable and their kin: its address is that of the
 * first element. The block must not be resized or freed but through the array. */
static inline rmhandle_t rmarray_handle(rmarray_t array) {
    return (rmhandle_t)(void *)array;
}

/* The array that a block is. */
static inline rmarray_t rmarray_of(rmhandle_t handle) {
    return (rmarray_t)(void *)handle;
}

/* ---------------------------------------------------------------------------------------------
 * Elements under lock
 * ------------------------------------------------------------------------------------------- */

/* The first element's address, which holds until the matching unlock; as rmlock and rmunlock. */
static inline void *rmarray_lock(rmarray_t array) {
    return rmlock(rmarray_handle(array));
}

static inline void rmarray_unlock(rmarray_t array) {
    rmunlock(rmarray_handle(array));
}

/* The same in a read section, as rmderef. */
static inline void *rmarray_deref(rmarray_t array) {
    return rmderef(rmarray_handle(array));
}

/* ---------------------------------------------------------------------------------------------
 * Size
 * ------------------------------------------------------------------------------------------- */

/* O(1). 0 for misuse. */
RM_API size_t rmarray_length(rmarray_t array);
RM_API size_t rmarray_capacity(rmarray_t array);
RM_API size_t rmarray_element_size(rmarray_t array);

/* Makes the capacity at least `capacity`. Never makes it smaller. O(length) when the block must move. */
RM_API int rmarray_reserve(rmarray_t array, size_t capacity);

/* Makes the length `length`. Added elements are zero in a string or with RM_ARRAY_ZEROED, else undefined;
 * the capacity never becomes smaller. A large zeroed array commits no memory for them until it is touched. */
RM_API int rmarray_resize(rmarray_t array, size_t length);

/* Gives back capacity beyond the length, save rounding; EBUSY while locked. O(length) at most. */
RM_API int rmarray_shrink(rmarray_t array);

/* Makes the length 0; the capacity stays. */
RM_API int rmarray_clear(rmarray_t array);

/* ---------------------------------------------------------------------------------------------
 * Elements one by one. They are copied in and out; `element` must not point into the array.
 * ------------------------------------------------------------------------------------------- */

/* Adds one behind the last. O(1), amortised. */
RM_API int rmarray_push(rmarray_t array, const void *element);

/* Takes the last one off and copies it to `ret_element` (may be NULL). EINVAL when there is none. O(1). */
RM_API int rmarray_pop(rmarray_t array, void *ret_element);

/* Copies one out or in. O(1). */
RM_API int rmarray_get(rmarray_t array, size_t index, void *ret_element);
RM_API int rmarray_set(rmarray_t array, size_t index, const void *element);

/* Puts `count` elements before the one at `index` (the length: behind the last). O(length). */
RM_API int rmarray_insert(rmarray_t array, size_t index, const void *elements, size_t count);

/* Takes `count` elements out from `index` on; those behind keep their order. O(length). */
RM_API int rmarray_remove(rmarray_t array, size_t index, size_t count);

/* Takes one out and puts the last in its place. O(1). */
RM_API int rmarray_remove_swap(rmarray_t array, size_t index);

/* Adds `count` elements behind the last. O(count), amortised. */
RM_API int rmarray_append(rmarray_t array, const void *elements, size_t count);

/* Adds all elements of `from`, which may be the same array. EINVAL when their sizes differ. */
RM_API int rmarray_concat(rmarray_t array, rmarray_t from);

/* ---------------------------------------------------------------------------------------------
 * Many elements under one lock: the append cursor
 * ------------------------------------------------------------------------------------------- */

/* Between begin and end the array is locked and must be used through the cursor only; its length says what
 * it was at the beginning, or when the cursor last had to grow it. */
struct rm_array_cursor {
    unsigned char *next;
    unsigned char *end; /* of what is made ready, whole elements; more is asked for there */
    rmarray_t array;
    size_t element_size;
};

/* EINVAL when `element_size` is not the array's (0: not compared). */
RM_API int rmarray_append_begin(struct rm_array_cursor *ret_cursor, rmarray_t array,
                                size_t element_size);

/* Room for one more: unlocks, grows, locks again. On failure the cursor goes on as it was. */
RM_API int rmarray_append_more(struct rm_array_cursor *cursor);

/* Ends the burst: what was added counts, the lock is taken back. */
RM_API void rmarray_append_end(struct rm_array_cursor *cursor);

/* Adds a copy of one element. */
static inline int rmarray_append_next(struct rm_array_cursor *cursor, const void *element) {
    if (!RM_LIKELY(cursor->next != cursor->end) && rmarray_append_more(cursor) != 0)
        return -1;
    const unsigned char *from = (const unsigned char *)element;
    for (size_t i = 0; i < cursor->element_size; i++)
        cursor->next[i] = from[i];
    cursor->next += cursor->element_size;
    return 0;
}

/* ---------------------------------------------------------------------------------------------
 * Order. Hosted builds only. The array is locked while `compare` runs.
 * ------------------------------------------------------------------------------------------- */

/* Index of the first element from `from` on that is equal to `key`, or RM_ARRAY_NONE. O(length). */
RM_API size_t rmarray_find(rmarray_t array, size_t from, const void *key,
                           rm_array_compare_fn *compare);

/* Sorts by the C library's qsort: equal elements come in any order. */
RM_API int rmarray_sort(rmarray_t array, rm_array_compare_fn *compare);

/* Index of an element equal to `key` in a sorted array, by the C library's bsearch, or RM_ARRAY_NONE. */
RM_API size_t rmarray_search(rmarray_t array, const void *key, rm_array_compare_fn *compare);

/* ---------------------------------------------------------------------------------------------
 * Strings: all of the above, and
 * ------------------------------------------------------------------------------------------- */

/* Adds the characters of `text`, which must not point into the array. EINVAL when it is no string. */
RM_API int rmarray_append_string(rmarray_t string, const char *text);

/* Adds what printf would print. Arguments must not point into the array. EINVAL also when the format is
 * one that vsnprintf refuses. Hosted builds only. */
RM_API int rmarray_printf(rmarray_t string, const char *format, ...) RM_PRINTF_(2, 3);
RM_API int rmarray_vprintf(rmarray_t string, const char *format, va_list arguments)
    RM_PRINTF_(2, 0);

/* ---------------------------------------------------------------------------------------------
 * Figures
 * ------------------------------------------------------------------------------------------- */

/* O(1). */
RM_API int rmarray_stats(rmarray_t array, struct rm_array_stats *ret_stats);

/* ---------------------------------------------------------------------------------------------
 * Arrays of one type
 * ------------------------------------------------------------------------------------------- */

#if defined(__cplusplus)
#define RM_ALIGNMENT_OF_(type) alignof(type)
#else
#define RM_ALIGNMENT_OF_(type) _Alignof(type)
#endif
#if defined(__GNUC__) || defined(__clang__)
#define RM_TYPED_ static inline __attribute__((unused))
#else
#define RM_TYPED_ static inline
#endif

/* NOLINTBEGIN(bugprone-macro-parentheses): types and names cannot stand in parentheses */

/* Declares `name`, an array of `type`, a struct of its own so that the compiler tells it from all others,
 * and the calls above as name_push(array, value) and so on, which take and give values and pointers of
 * `type` only. To be used at file scope, once for each name:
 *
 *     RM_ARRAY_TYPE(numbers, int)
 *     ...
 *     numbers list = numbers_create(NULL, NULL);
 *     numbers_push(list, 42);
 */
#define RM_ARRAY_TYPE(name, type)                                                                  \
    typedef struct name {                                                                          \
        rmarray_t array;                                                                           \
    } name;                                                                                        \
    typedef struct name##_cursor {                                                                 \
        struct rm_array_cursor cursor;                                                             \
    } name##_cursor;                                                                               \
    RM_TYPED_ name name##_create(rmheap_t heap, const struct rm_array_options *options) {          \
        struct rm_array_options own;                                                               \
        name made;                                                                                 \
        rmarray_options_init(&own);                                                                \
        if (options != NULL)                                                                       \
            own = *options;                                                                        \
        if (own.alignment < RM_ALIGNMENT_OF_(type))                                                \
            own.alignment = RM_ALIGNMENT_OF_(type);                                                \
        made.array = rmarray_create(heap, sizeof(type), &own);                                     \
        return made;                                                                               \
    }                                                                                              \
    RM_TYPED_ void name##_destroy(name list) {                                                     \
        rmarray_destroy(list.array);                                                               \
    }                                                                                              \
    RM_TYPED_ name name##_copy(name list) {                                                        \
        name made;                                                                                 \
        made.array = rmarray_copy(list.array);                                                     \
        return made;                                                                               \
    }                                                                                              \
    RM_TYPED_ type *name##_lock(name list) {                                                       \
        return (type *)rmarray_lock(list.array);                                                   \
    }                                                                                              \
    RM_TYPED_ void name##_unlock(name list) {                                                      \
        rmarray_unlock(list.array);                                                                \
    }                                                                                              \
    RM_TYPED_ const type *name##_deref(name list) {                                                \
        return (const type *)rmarray_deref(list.array);                                            \
    }                                                                                              \
    RM_TYPED_ size_t name##_length(name list) {                                                    \
        return rmarray_length(list.array);                                                         \
    }                                                                                              \
    RM_TYPED_ size_t name##_capacity(name list) {                                                  \
        return rmarray_capacity(list.array);                                                       \
    }                                                                                              \
    RM_TYPED_ int name##_reserve(name list, size_t capacity) {                                     \
        return rmarray_reserve(list.array, capacity);                                              \
    }                                                                                              \
    RM_TYPED_ int name##_resize(name list, size_t length) {                                        \
        return rmarray_resize(list.array, length);                                                 \
    }                                                                                              \
    RM_TYPED_ int name##_shrink(name list) {                                                       \
        return rmarray_shrink(list.array);                                                         \
    }                                                                                              \
    RM_TYPED_ int name##_clear(name list) {                                                        \
        return rmarray_clear(list.array);                                                          \
    }                                                                                              \
    RM_TYPED_ int name##_push(name list, type value) {                                             \
        return rmarray_push(list.array, &value);                                                   \
    }                                                                                              \
    RM_TYPED_ int name##_pop(name list, type *ret_value) {                                         \
        return rmarray_pop(list.array, ret_value);                                                 \
    }                                                                                              \
    RM_TYPED_ int name##_get(name list, size_t index, type *ret_value) {                           \
        return rmarray_get(list.array, index, ret_value);                                          \
    }                                                                                              \
    RM_TYPED_ int name##_set(name list, size_t index, type value) {                                \
        return rmarray_set(list.array, index, &value);                                             \
    }                                                                                              \
    RM_TYPED_ int name##_insert(name list, size_t index, const type *values, size_t count) {       \
        return rmarray_insert(list.array, index, values, count);                                   \
    }                                                                                              \
    RM_TYPED_ int name##_remove(name list, size_t index, size_t count) {                           \
        return rmarray_remove(list.array, index, count);                                           \
    }                                                                                              \
    RM_TYPED_ int name##_remove_swap(name list, size_t index) {                                    \
        return rmarray_remove_swap(list.array, index);                                             \
    }                                                                                              \
    RM_TYPED_ int name##_append(name list, const type *values, size_t count) {                     \
        return rmarray_append(list.array, values, count);                                          \
    }                                                                                              \
    RM_TYPED_ int name##_concat(name list, name from) {                                            \
        return rmarray_concat(list.array, from.array);                                             \
    }                                                                                              \
    RM_TYPED_ int name##_append_begin(name##_cursor *ret_cursor, name list) {                      \
        return rmarray_append_begin(&ret_cursor->cursor, list.array, sizeof(type));                \
    }                                                                                              \
    RM_TYPED_ int name##_append_next(name##_cursor *cursor, type value) {                          \
        if (!RM_LIKELY(cursor->cursor.next != cursor->cursor.end) &&                               \
            rmarray_append_more(&cursor->cursor) != 0)                                             \
            return -1;                                                                             \
        *(type *)(void *)cursor->cursor.next = value;                                              \
        cursor->cursor.next += sizeof(type);                                                       \
        return 0;                                                                                  \
    }                                                                                              \
    RM_TYPED_ void name##_append_end(name##_cursor *cursor) {                                      \
        rmarray_append_end(&cursor->cursor);                                                       \
    }                                                                                              \
    RM_TYPED_ size_t name##_find(name list, size_t from, const type *key,                          \
                                 rm_array_compare_fn *compare) {                                   \
        return rmarray_find(list.array, from, key, compare);                                       \
    }                                                                                              \
    RM_TYPED_ int name##_sort(name list, rm_array_compare_fn *compare) {                           \
        return rmarray_sort(list.array, compare);                                                  \
    }                                                                                              \
    RM_TYPED_ size_t name##_search(name list, const type *key, rm_array_compare_fn *compare) {     \
        return rmarray_search(list.array, key, compare);                                           \
    }                                                                                              \
    struct name##_declared_
/* NOLINTEND(bugprone-macro-parentheses) */

#ifdef __cplusplus
}
#endif

#endif
