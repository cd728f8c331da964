/* The window: what all growing heaps share. Creation, and regions that must change lists. */
#include "heap/region.h"

enum {
    WINDOW_SHIFT = 40,     /* 1 TiB */
    WINDOW_SHIFT_MIN = 24, /* 16 MiB, under ulimit -v */
    TABLE_SHARE_SHIFT = 3, /* an eighth of the window for the handle table */
    NOTES_SHARE_SHIFT = 9, /* notes of 64 bytes for pages of 16 KiB and as much for their heads */
    HEAPS_MAX = 512,
    NOTES_STEP = 64 << 10, /* bytes of notes made accessible at a time */
};
#define TABLE_MAX ((size_t)65 << 30) /* 32-bit indexes, and the notes */

_Static_assert(sizeof(struct jf_table_page) <= 2 * JF_TABLE_PAGE_SIZE >> NOTES_SHARE_SHIFT,
               "the notes' share of the window holds a note for every page");

static void lay_out(struct jf_window *window) {
    struct jf_arena *arena = window->arena;
    uintptr_t base = jf_arena_base(arena);
    size_t room = jf_arena_table_size(arena);
    size_t notes = jf_bits_round_up(room >> NOTES_SHARE_SHIFT, JF_UNIT_SIZE);
    size_t pages = (room - notes) / (2 * JF_TABLE_PAGE_SIZE);
    if (pages > (size_t)1 << (32 - JF_TABLE_PAGE_SHIFT))
        pages = (size_t)1 << (32 - JF_TABLE_PAGE_SHIFT);
    window->space.base = base;
    window->space.limit = base + jf_arena_size(arena);
    window->space.table = base + notes;
    window->space.table_end = window->space.table + pages * JF_TABLE_PAGE_SIZE;
    window->space.heads = window->space.table_end;
    window->table.space = &window->space;
    window->table.pages = (struct jf_table_page *)base;
    window->table.pages_max = pages;
}

struct jf_window *jf_window_create(void) {
    struct jf_arena *arena =
        jf_arena_create(WINDOW_SHIFT, WINDOW_SHIFT_MIN, TABLE_SHARE_SHIFT, TABLE_MAX);
    if (arena == NULL)
        return NULL;
    struct jf_window *window = jf_arena_meta_alloc(arena, sizeof *window);
    if (window == NULL)
        goto fail;
    window->arena = arena;
    lay_out(window);
    window->heap_max = HEAPS_MAX;
    window->heaps = jf_arena_meta_alloc(arena, HEAPS_MAX * sizeof *window->heaps);
    window->fallback = jf_arena_meta_alloc(arena, sizeof *window->fallback);
    if (window->heaps == NULL || window->fallback == NULL)
        goto fail;
    jf_os_mutex_init(&window->mutex);
    window->fence_all = jf_os_fence_prepare();
    jf_thread_init(window->fallback, window);
    window->threads = window->fallback;
    return window;
fail:
    jf_arena_destroy(arena);
    return NULL;
}

void jf_window_destroy(struct jf_window *window) {
    jf_os_mutex_finish(&window->mutex);
    jf_arena_destroy(window->arena);
}

bool jf_window_add_page(struct jf_window *window, struct jf_table_owner *owner) {
    struct jf_table *table = &window->table;
    struct jf_table_page *page = table->free_pages;
    if (page != NULL) {
        table->free_pages = page->next;
        jf_table_give_page(table, owner, page);
        return true;
    }
    if (table->pages_used == table->pages_max)
        return false;
    page = &table->pages[table->pages_used];
    if (table->pages_used == table->pages_ready) {
        if (!jf_arena_make_accessible(window->arena, (uintptr_t)page, NOTES_STEP))
            return false;
        table->pages_ready += NOTES_STEP / sizeof *page;
    }
    size_t offset = table->pages_used * JF_TABLE_PAGE_SIZE;
    const uintptr_t memory[] = {window->space.table + offset, window->space.heads + offset};
    for (unsigned i = 0; i < 2; i++)
        if (!jf_arena_make_accessible(window->arena, memory[i], JF_TABLE_PAGE_SIZE))
            return false;
    /* read without the mutex where an index may be any number */
    __atomic_store_n(&table->pages_used, table->pages_used + 1, __ATOMIC_RELEASE);
    jf_table_give_page(table, owner, page);
    return true;
}

static struct jf_region *take_crossed(struct jf_window *window) {
    return __atomic_exchange_n(&window->crossed, NULL, __ATOMIC_ACQUIRE);
}

void jf_window_relist_locked(struct jf_window *window) {
    struct jf_region *region = take_crossed(window);
    while (region != NULL) {
        struct jf_region *next = region->crossed_next;
        /* cleared before live is read: a later crossing puts it into the list again */
        __atomic_store_n(&region->crossed, 0, __ATOMIC_SEQ_CST);
        if (region->state == JF_REGION_LISTED) {
            if (jf_region_has_thinned(region))
                region->swept = 0;
            jf_region_set_state(region, JF_REGION_LISTED);
        } else if (region->state == JF_REGION_SETTLED || region->state == JF_REGION_STUCK) {
            size_t live = jf_region_live_bytes(region);
            bool changed = live + JF_REGION_SIZE / JF_REGION_BINS <= region->settled_live;
            if (changed || live == 0)
                jf_region_set_state(region, JF_REGION_LISTED);
        }
        region = next;
    }
}

void jf_window_relist(struct jf_window *window) {
    jf_os_mutex_lock(&window->mutex);
    jf_window_relist_locked(window);
    jf_os_mutex_unlock(&window->mutex);
}
