/* The prefixed calls of the malloc facade, and how it is put on the process's arena. */
#include "api.h"
#include "malloc/fast.h"
#include "malloc/figures.h"
#include "malloc/profile.h"
#include "malloc/standard.h"

#include <jeff/malloc.h>

#include <string.h>

static const char *explain(uintptr_t address);
static bool start(void);

struct jf_malloc jf_malloc = {.start = start, .explain = explain};

/* What is known of an address that no call of the facade has given out. */
static const char *explain(uintptr_t address) {
    struct jf_home home;
    if (jf_api_find((rmhandle_t)address, &home))
        return "it is a handle, which rmfree frees";
    struct jf_window *window = jf_api_window();
    if (window == NULL)
        return NULL;
    switch (jf_arena_find(window->arena, address).kind) {
    case JF_CHUNK_REGION:
    case JF_CHUNK_LARGE:
        return "it points into a block behind a handle, which rmfree frees";
    case JF_CHUNK_POOL:
        return "it points into a pool, whose elements rmpool_free frees";
    default:
        return NULL;
    }
}

static unsigned mode_from_environment(void) {
    const char *value = jf_os_environment("JEFF_HARDENED");
    unsigned mode = value != NULL && value[0] == '1' && value[1] == '\0' ? JF_MODE_HARDENED : 0;
    return mode | (jf_profile_start(jf_os_environment("JEFF_PROFILE")) ? JF_MODE_PROFILE : 0);
}

static bool huge_pages_from_environment(void) {
    const char *value = jf_os_environment("JEFF_HUGE_PAGES");
    return value == NULL || value[0] != '0' || value[1] != '\0';
}

static bool start(void) {
    struct jf_window *window = jf_api_start_window();
    if (window == NULL)
        return false;
    jf_os_mutex_lock(&jf_api.mutex);
    bool ready = jf_malloc_units() != 0;
    if (!ready) {
        jf_malloc.huge_pages = huge_pages_from_environment();
        ready = jf_malloc_open(window->arena, mode_from_environment());
    }
    jf_os_mutex_unlock(&jf_api.mutex);
    return ready;
}

void *jeff_malloc(size_t size) {
    return jf_fast_malloc_bytes(size);
}

void jeff_free(void *pointer) {
    jf_fast_free(pointer, "free");
}

void *jeff_calloc(size_t count, size_t size) {
    return jf_malloc_zeroed(count, size);
}

void *jeff_realloc(void *pointer, size_t size) {
    return jf_malloc_resize(pointer, size);
}

void *jeff_aligned_alloc(size_t alignment, size_t size) {
    return jf_standard_aligned_alloc(alignment, size);
}

void *jeff_memalign(size_t alignment, size_t size) {
    return jf_standard_memalign(alignment, size);
}

int jeff_posix_memalign(void **ret_pointer, size_t alignment, size_t size) {
    return jf_standard_posix_memalign(ret_pointer, alignment, size);
}

void *jeff_valloc(size_t size) {
    return jf_malloc_aligned(jf_os_page_size(), size);
}

void *jeff_pvalloc(size_t size) {
    return jf_standard_pvalloc(size);
}

void jeff_free_sized(void *pointer, size_t size) {
    jf_fast_free_sized(pointer, size, "free_sized");
}

void jeff_free_aligned_sized(void *pointer, size_t alignment, size_t size) {
    jf_standard_free_aligned_sized(pointer, alignment, size);
}

size_t jeff_malloc_usable_size(const void *pointer) {
    return jf_malloc_usable(pointer);
}

int jeff_malloc_trim(size_t pad) {
    (void)pad;
    size_t given = 0;
    if (jf_api_heap_if_any(NULL) != NULL)
        rmcompact(0);
    if (jf_malloc_units() == 0)
        return 0;
    struct jf_cache *cache = jf_cache_get();
    if (cache != NULL)
        jf_cache_trim(cache);
    jf_orphan_trim();
    jf_os_mutex_lock(&jf_malloc.mutex);
    given = jf_central_trim();
    jf_os_mutex_unlock(&jf_malloc.mutex);
    given += jf_arena_purge(jf_malloc.arena, 0, 0);
    return given != 0;
}

void jeff_malloc_take_figures(struct jeff_malloc_figures *ret_figures) {
    struct jf_figures figures;
    jf_figures_take(&figures);
    struct jeff_malloc_figures all = {
        .struct_size = ret_figures->struct_size,
        .blocks = figures.blocks,
        .used = figures.used,
        .cached = figures.cached,
        .free = figures.free,
        .huge_blocks = figures.huge_blocks,
        .huge = figures.huge,
        .kept = figures.kept,
        .threads = figures.threads,
    };
    size_t size = ret_figures->struct_size;
    memcpy(ret_figures, &all, size < sizeof all ? size : sizeof all);
}

static void print_line(void *context, const char *line) {
    (void)context;
    jf_os_print_line(line);
}

void jeff_malloc_stats(void) {
    jf_figures_print(JF_FIGURES_TEXT, print_line, NULL);
}

/* When the program ends, or the library is unloaded. */
__attribute__((destructor)) static void write_profile(void) {
    jf_profile_write(true);
}
