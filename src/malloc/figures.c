/* Figures of the malloc facade: see figures.h. Uses no memory and no stdio. */
#include "malloc/figures.h"

#include "base/line.h"

static size_t load(const uint32_t *count) {
    return __atomic_load_n(count, __ATOMIC_RELAXED);
}

static void add_span(struct jf_figures *figures, const struct jf_span *span) {
    size_t free_cells = load(&span->free_count);
    size_t carved = jf_span_carved(span);
    free_cells = free_cells < carved ? free_cells : carved;
    figures->spans++;
    figures->span_bytes += (size_t)span->cells * span->size;
    figures->blocks += carved - free_cells;
    figures->used += (carved - free_cells) * span->size;
    figures->free_cells += free_cells;
    figures->free += free_cells * span->size;
}

static void add_segment(struct jf_figures *figures, const struct jf_segment *segment) {
    size_t first = (segment->address - jf_malloc.base) >> JF_UNIT_SHIFT;
    const struct jf_span *before = NULL;
    for (size_t unit = first; unit < first + JF_SEGMENT_UNITS; unit++) {
        const struct jf_span *span = jf_malloc.spans[unit];
        if (span != NULL && span != before)
            add_span(figures, span);
        before = span;
    }
}

static void add_cached(struct jf_figures *figures, size_t cells, size_t bytes) {
    if (cells > figures->blocks || bytes > figures->used)
        return;
    figures->cached_cells += cells;
    figures->cached += bytes;
    figures->blocks -= cells;
    figures->used -= bytes;
}

static void add_cells(struct jf_figures *figures, unsigned number, size_t cells) {
    add_cached(figures, cells, cells * jf_class_size(number));
}

/* Cells in bins and parcels are no blocks of the program. Those in inboxes are counted as such. */
static void add_cache(struct jf_figures *figures, const struct jf_cache *cache) {
    for (unsigned number = 1; number < JF_CLASSES; number++)
        add_cells(figures, number, jf_bin_count(cache, number));
    for (unsigned number = 1; number <= JF_CLASS_SMALL_LAST; number++)
        add_cells(figures, number, jf_bin_count_of_others(cache, number));
    add_cached(figures, __atomic_load_n(&cache->mailbox.cells, __ATOMIC_RELAXED),
               __atomic_load_n(&cache->mailbox.bytes, __ATOMIC_RELAXED));
    figures->threads += cache->in_use;
}

void jf_figures_take(struct jf_figures *ret_figures) {
    *ret_figures = (struct jf_figures){0};
    if (jf_malloc_units() == 0)
        return;
    jf_os_mutex_lock(&jf_malloc.mutex);
    for (const struct jf_segment *segment = jf_malloc.all_segments; segment != NULL;
         segment = segment->all_next)
        add_segment(ret_figures, segment);
    for (const struct jf_cache *cache = jf_malloc.caches; cache != NULL; cache = cache->next)
        add_cache(ret_figures, cache);
    add_cache(ret_figures, jf_malloc.orphanage);
    ret_figures->kept = jf_malloc.dirty_units << JF_UNIT_SHIFT;
    jf_os_mutex_unlock(&jf_malloc.mutex);
    ret_figures->kept += jf_arena_dirty(jf_malloc.arena);
    ret_figures->huge_blocks = __atomic_load_n(&jf_malloc.huge_count, __ATOMIC_RELAXED);
    ret_figures->huge = __atomic_load_n(&jf_malloc.huge_bytes, __ATOMIC_RELAXED);
    ret_figures->blocks += ret_figures->huge_blocks;
    ret_figures->used += ret_figures->huge;
}

static void print_one(enum jf_figures_form form, const char *name, size_t value, bool last,
                      void (*print)(void *context, const char *line), void *context) {
    static const char *const before[] = {"jeff: malloc: ", "  \"", "  <figure name=\""};
    static const char *const between[] = {" ", "\": ", "\" value=\""};
    static const char *const after[] = {"", ",", "\"/>"};
    struct jf_line line;
    jf_line_start(&line);
    jf_line_add(&line, before[form]);
    jf_line_add(&line, name);
    jf_line_add(&line, between[form]);
    jf_line_add_number(&line, value);
    jf_line_add(&line, form == JF_FIGURES_JSON && last ? "" : after[form]);
    print(context, line.text);
}

void jf_figures_print(enum jf_figures_form form, void (*print)(void *context, const char *line),
                      void *context) {
    struct jf_figures figures;
    jf_figures_take(&figures);
    const struct {
        const char *name;
        size_t value;
    } table[] = {
        {"blocks", figures.blocks},
        {"used_bytes", figures.used},
        {"cached_cells", figures.cached_cells},
        {"cached_bytes", figures.cached},
        {"free_cells", figures.free_cells},
        {"free_bytes", figures.free},
        {"spans", figures.spans},
        {"span_bytes", figures.span_bytes},
        {"huge_blocks", figures.huge_blocks},
        {"huge_bytes", figures.huge},
        {"kept_bytes", figures.kept},
        {"threads", figures.threads},
    };
    enum { COUNT = sizeof table / sizeof table[0] };
    if (form == JF_FIGURES_JSON)
        print(context, "{");
    if (form == JF_FIGURES_XML)
        print(context, "<malloc version=\"1\">");
    for (unsigned i = 0; i < COUNT; i++)
        print_one(form, table[i].name, table[i].value, i + 1 == COUNT, print, context);
    if (form == JF_FIGURES_JSON)
        print(context, "}");
    if (form == JF_FIGURES_XML)
        print(context, "</malloc>");
}
