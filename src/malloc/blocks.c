/* What the fast paths of malloc and free hand on, and the calls that are built on them: sizes of all
 * kinds, resizing, alignment, sizes said at free.
 */
#include "malloc/fast.h"
#include "malloc/hardened.h"
#include "malloc/profile.h"

#include <string.h>

enum { CELL_ALIGNMENT = 16 }; /* of every block */

/* What a pointer turned out to be. */
struct found {
    unsigned number; /* class of the cell; 0: huge */
    size_t size;     /* bytes of it */
    struct jf_huge *huge;
    uint8_t *state; /* the cell's; NULL: huge */
};

/* A block of any size; *ret_zero: it reads as zero. errno is not set. */
static void *allocate(size_t size, size_t room, bool *ret_zero) {
    struct jf_cache *cache = jf_cache_get();
    if (size > JF_MEDIUM_MAX)
        return jf_huge_alloc(size, room, 1, ret_zero);
    unsigned number = jf_class_of(size);
    return cache != NULL ? jf_cache_take(cache, number, ret_zero)
                         : jf_orphan_take(number, ret_zero);
}

static void *allocate_aligned(size_t alignment, size_t size) {
    bool zero;
    struct jf_cache *cache = jf_cache_get();
    unsigned number = jf_class_of_aligned(alignment, size);
    if (number == 0)
        return jf_huge_alloc(size, 0, alignment, &zero);
    return cache != NULL ? jf_cache_take(cache, number, &zero) : jf_orphan_take(number, &zero);
}

/* What lies at a pointer; ends the process when no block that is in use starts there. */
static struct found find(const void *pointer, const char *call) {
    struct found found = {0};
    uintptr_t address = (uintptr_t)pointer;
    const struct jf_span *span = jf_central_span_at(address);
    if (RM_LIKELY(span != NULL)) {
        uint32_t offset = (uint32_t)(address - span->start);
        uint32_t cell = offset / span->size; /* of 32 bits: quicker to divide */
        if (cell * span->size != offset || cell >= span->cells)
            jf_malloc_report_pointer(call, pointer);
        if (cell >= jf_span_carved(span))
            jf_malloc_report(call, pointer, "it was never given out");
        found.state = &span->states[cell];
        if ((*found.state & JF_CELL_LIVE) == 0)
            jf_malloc_report(call, pointer, "it was freed before");
        found.number = span->number;
        found.size = span->size;
        return found;
    }
    struct jf_huge *huge = jf_huge_at(address);
    if (huge == NULL || huge->address != address)
        jf_malloc_report_pointer(call, pointer);
    found.huge = huge;
    found.size = huge->size;
    return found;
}

static void release(const struct found *found, void *pointer) {
    if (found->huge != NULL) {
        jf_huge_free(found->huge);
        return;
    }
    struct jf_cache *cache = jf_cache_get();
    if (cache != NULL)
        jf_cache_put(cache, found->number, pointer);
    else
        jf_orphan_put(found->number, pointer);
}

static void *or_errno(void *pointer) {
    if (pointer == NULL)
        jf_os_set_errno(JF_OS_ENOMEM);
    return pointer;
}

/* ------------------------------------------------------------------------------------- with a mode */

/* The start of the library decides about the mode, so it comes first. */
static unsigned mode(void) {
    if (!RM_LIKELY(jf_malloc_units() != 0))
        jf_cache_get();
    return jf_malloc.mode;
}

/* A block with what the modes put around it. */
JF_NOINLINE static void *allocate_watched(size_t alignment, size_t size, bool *ret_zero) {
    size_t whole = size;
    bool guard = (jf_malloc.mode & JF_MODE_HARDENED) != 0;
    *ret_zero = false;
    if (guard && !jf_bits_add(size, JF_GUARD_MIN, &whole))
        return NULL;
    void *pointer = alignment > CELL_ALIGNMENT ? allocate_aligned(alignment, whole)
                                               : allocate(whole, 0, ret_zero);
    if (pointer != NULL && guard)
        jf_guard_write(pointer, size, find(pointer, "malloc").size);
    if (pointer != NULL && (jf_malloc.mode & JF_MODE_PROFILE) != 0)
        jf_profile_allocated(jf_cache_get(), pointer, size);
    return pointer;
}

static void release_watched(const struct found *found, void *pointer, const char *call) {
    struct found leaving = *found;
    if ((jf_malloc.mode & JF_MODE_PROFILE) != 0)
        jf_profile_freed(pointer);
    if ((jf_malloc.mode & JF_MODE_HARDENED) != 0) {
        jf_guard_check(pointer, found->size, call);
        struct jf_cache *cache = jf_cache_get();
        if (found->huge == NULL && cache != NULL) {
            pointer = jf_quarantine_put(cache, pointer, found->size);
            if (pointer == NULL)
                return;
            leaving.number = jf_central_span_at((uintptr_t)pointer)->number;
        }
    }
    release(&leaving, pointer);
}

/* Bytes of the block that are the program's. */
static size_t program_size(const struct found *found, const void *pointer, const char *call) {
    return (jf_malloc.mode & JF_MODE_HARDENED) != 0 ? jf_guard_check(pointer, found->size, call)
                                                    : found->size;
}

/* ------------------------------------------------------------------------------------- the calls */

void *jf_malloc_slow(size_t size) {
    bool zero;
    return or_errno(mode() != 0 ? allocate_watched(1, size, &zero) : allocate(size, 0, &zero));
}

void jf_free_slow(void *pointer, const char *call) {
    struct found found = find(pointer, call);
    if (jf_malloc.mode != 0)
        release_watched(&found, pointer, call);
    else
        release(&found, pointer);
}

void *jf_malloc_zeroed(size_t count, size_t size) {
    size_t bytes;
    bool zero = false;
    if (!jf_bits_multiply(count, size, &bytes))
        return or_errno(NULL);
    void *pointer = bytes <= JF_SMALL_MAX ? jf_fast_take(jf_cache_front, bytes) : NULL;
    if (RM_LIKELY(pointer != NULL))
        return memset(pointer, 0, bytes);
    pointer = mode() != 0 ? allocate_watched(1, bytes, &zero) : allocate(bytes, 0, &zero);
    if (pointer != NULL && !zero)
        memset(pointer, 0, bytes);
    return or_errno(pointer);
}

void *jf_malloc_aligned(size_t alignment, size_t size) {
    bool zero;
    if (mode() != 0)
        return or_errno(allocate_watched(alignment, size, &zero));
    if (alignment <= CELL_ALIGNMENT)
        return or_errno(allocate(size, 0, &zero));
    return or_errno(allocate_aligned(alignment, size));
}

static bool is_area(const struct found *found) {
    return found->huge != NULL ? found->huge->area : *found->state == JF_CELL_AREA;
}

static void set_area(const struct found *found, bool area) {
    if (found->huge != NULL)
        found->huge->area = area;
    else
        *found->state = area ? JF_CELL_AREA : JF_CELL_LIVE;
}

/* A cell that is not to change its class stays; so does a huge block that finds room. */
static bool resize_in_place(const struct found *found, size_t size) {
    if (size > JF_MEDIUM_MAX)
        return found->huge != NULL && jf_huge_resize(found->huge, size);
    return found->huge == NULL && jf_class_of(size) == found->number;
}

static void *resize_by_copy(const struct found *found, void *pointer, size_t size) {
    bool zero;
    size_t room;
    if (!jf_bits_add(size, size, &room))
        room = 0;
    void *copy = allocate(size, size > found->size ? room : 0, &zero);
    if (copy == NULL) {
        if (size > found->size)
            return NULL;
        jf_malloc.shrunk = true; /* making a block smaller does not fail */
        return pointer;
    }
    memcpy(copy, pointer, size < found->size ? size : found->size);
    release(found, pointer);
    return copy;
}

static void *resize_watched(const struct found *found, void *pointer, size_t size) {
    bool zero;
    size_t old_size = program_size(found, pointer, "realloc");
    void *copy = allocate_watched(1, size, &zero);
    if (copy == NULL)
        return NULL;
    memcpy(copy, pointer, size < old_size ? size : old_size);
    release_watched(found, pointer, "realloc");
    return copy;
}

/* The offset of its class's bin, of a small cell that is live and no area; 0 for all others. */
static size_t small_bin(const void *pointer) {
    size_t units = jf_malloc_units();
    size_t unit = ((uintptr_t)pointer - jf_malloc.base) >> JF_UNIT_SHIFT;
    if (unit >= units)
        return 0;
    const struct jf_map_entry *entry = &jf_malloc.map[unit];
    uint32_t reciprocal = jf_map_reciprocal(entry);
    uint64_t product = jf_map_divide(reciprocal, (uintptr_t)pointer);
    if (!jf_map_is_exact(reciprocal, product) || entry->states[product >> 32] != JF_CELL_LIVE)
        return 0;
    return jf_map_bin(entry);
}

static size_t size_of_bin(size_t offset) {
    return jf_class_size(
        (unsigned)((offset - offsetof(struct jf_cache, bins)) / sizeof(struct jf_bin)));
}

/* From one small cell to another with what is at hand; NULL when that does not do. */
static void *resize_small(void *pointer, size_t size) {
    struct jf_cache *cache = jf_cache_front;
    if (size - 1 >= JF_SMALL_MAX || cache == &jf_cache_none)
        return NULL;
    size_t from = small_bin(pointer);
    if (from == 0)
        return NULL;
    size_t to = jf_bin_of[(size + 15) / 16];
    if (from == to)
        return pointer;
    void *copy = jf_fast_take(cache, size);
    if (copy == NULL)
        return NULL;
    size_t old_size = size_of_bin(from);
    memcpy(copy, pointer, size < old_size ? size : old_size);
    jf_fast_free(pointer, "realloc");
    return copy;
}

static void *resize_found(const struct found *found, void *pointer, size_t size) {
    if (jf_malloc.mode != 0)
        return resize_watched(found, pointer, size);
    if (resize_in_place(found, size))
        return pointer;
    if (found->huge != NULL && size > JF_MEDIUM_MAX)
        return jf_huge_move(found->huge, size);
    return resize_by_copy(found, pointer, size);
}

void *jf_malloc_resize(void *pointer, size_t size) {
    if (pointer == NULL)
        return jf_fast_malloc_bytes(size);
    void *small = resize_small(pointer, size);
    if (RM_LIKELY(small != NULL))
        return small;
    if (size == 0) {
        jf_fast_free(pointer, "realloc");
        return NULL;
    }
    struct found found = find(pointer, "realloc");
    void *resized = resize_found(&found, pointer, size);
    if (resized == pointer)
        set_area(&found, false); /* one that has moved is plain already */
    return or_errno(resized);
}

size_t jf_malloc_usable(const void *pointer) {
    size_t bin = jf_malloc.mode == 0 ? small_bin(pointer) : 0;
    if (RM_LIKELY(bin != 0))
        return size_of_bin(bin);
    if (pointer == NULL)
        return 0;
    struct found found = find(pointer, "malloc_usable_size");
    size_t size = program_size(&found, pointer, "malloc_usable_size");
    return is_area(&found) ? size - sizeof(uint64_t) : size;
}

bool jf_malloc_is_area(const void *pointer, size_t *ret_size, const char *call) {
    struct found found = find(pointer, call);
    *ret_size = program_size(&found, pointer, call);
    return is_area(&found);
}

void jf_malloc_set_area(void *pointer, bool area, const char *call) {
    struct found found = find(pointer, call);
    set_area(&found, area);
}

/* Whether a block found may have been asked for with these. */
static bool is_of_size(const struct found *found, const void *pointer, size_t alignment,
                       size_t size, const char *call) {
    if ((jf_malloc.mode & JF_MODE_HARDENED) != 0)
        return program_size(found, pointer, call) == size;
    if (jf_malloc.shrunk)
        return size <= found->size;
    unsigned number = size > JF_MEDIUM_MAX ? 0 : jf_class_of_aligned(alignment, size);
    if (number != 0 || found->huge == NULL)
        return number == found->number;
    return size <= found->size && found->size - size <= jf_malloc.page_size;
}

void jf_malloc_free_sized(void *pointer, size_t alignment, size_t size, const char *call) {
    if (pointer == NULL)
        return;
    struct found found = find(pointer, call);
    if (!is_of_size(&found, pointer, alignment, size, call))
        jf_malloc_report(call, pointer, "the block has another size");
    if (jf_malloc.mode != 0)
        release_watched(&found, pointer, call);
    else
        release(&found, pointer);
}
