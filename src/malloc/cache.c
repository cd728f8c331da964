/* Thread caches: bins of free cells, the spans behind them, cells that other threads have freed, and what
 * becomes of them when a thread ends or the process is copied.
 */
#include "malloc/fast.h"
#include "malloc/profile.h"
#include "malloc/transfer.h"

#include <string.h>

enum {
    BIN_BYTES = 64 << 10, /* a bin holds about as many, */
    BIN_CELLS_MAX = 250,  /* but not more cells */
    BIN_MEDIUM_BYTES = 256 << 10,
    BIN_MEDIUM_MAX = 8,
    SLOTS_CLASSES = 16, /* whose stacks are one piece of memory */
    CARVE_BYTES = 4096, /* carved at a time: cells on the same page */
    IDLE_MAX = 4,       /* caches of ended threads that are left as they are */
    STEADY_SPANS = 4,   /* of a class, in use: it grows, and the next one will fill up too */
    TAGS = 65535,       /* of caches but the orphanage, which has 0 */
};

#define YOUNG_BYTES ((size_t)64 << 20) /* of the arena's freed chunks */

_Static_assert((BIN_CELLS_MAX + 1) / 2 <= JF_PARCEL_SLOTS, "what is sent at once is a parcel");
_Static_assert(sizeof(struct jf_cell) <= 16, "the smallest cell holds it");

#define NONE                                                                                       \
    { &no_slot, &no_slot }
#define NONE_8 NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE
static struct jf_slot no_slot;
const struct jf_cache jf_cache_none = {
    .bins = {NONE_8, NONE_8, NONE_8, NONE_8, NONE_8, NONE_8, NONE_8, NONE_8, NONE_8, NONE_8, NONE_8,
             NONE_8, NONE},
};
_Static_assert(JF_CLASSES == 12 * 8 + 1, "every bin is there");
_Static_assert(offsetof(struct jf_cache, others) < 1 << JF_TAG_SHIFT, "an offset is below the tag");
JF_THREAD_LOCAL struct jf_cache *jf_cache_front = (struct jf_cache *)(uintptr_t)&jf_cache_none;
static JF_THREAD_LOCAL struct jf_cache *own;
static JF_THREAD_LOCAL bool ended; /* its destructors have run: it gets no cache any more */

static bool is_orphanage(const struct jf_cache *cache) {
    return cache == jf_malloc.orphanage;
}

/* The orphanage is used with the central mutex held. */
static void lock_central(const struct jf_cache *cache) {
    if (!is_orphanage(cache))
        jf_os_mutex_lock(&jf_malloc.mutex);
}

static void unlock_central(const struct jf_cache *cache) {
    if (!is_orphanage(cache))
        jf_os_mutex_unlock(&jf_malloc.mutex);
}

static void begin(struct jf_cache *cache) {
    __atomic_store_n(&cache->busy, 1, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void end(struct jf_cache *cache) {
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&cache->busy, 0, __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------------------------- rings of spans */

static struct jf_span **ring_of(struct jf_cache *cache, const struct jf_span *span) {
    return span->place == JF_SPAN_PARTIAL ? &cache->spans.partial[span->number]
                                          : &cache->spans.full[span->number];
}

static void mark_orphans(struct jf_cache *cache, unsigned number) {
    if (!is_orphanage(cache))
        return;
    uint64_t *word = &jf_malloc.orphans[number / 64];
    uint64_t bit = (uint64_t)1 << (number % 64);
    uint64_t value = cache->spans.partial[number] != NULL ? *word | bit : *word & ~bit;
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/* At the end of the ring: spans whose cells come home gather a few before they are looked at again. */
static void add_span(struct jf_cache *cache, struct jf_span *span, enum jf_span_place place) {
    span->place = (uint8_t)place;
    struct jf_span **ring = ring_of(cache, span);
    if (*ring == NULL) {
        span->next = span->previous = span;
        *ring = span;
    } else {
        span->next = *ring;
        span->previous = (*ring)->previous;
        span->previous->next = span->next->previous = span;
    }
    mark_orphans(cache, span->number);
}

static void remove_span(struct jf_cache *cache, struct jf_span *span) {
    struct jf_span **ring = ring_of(cache, span);
    if (span->next == span) {
        *ring = NULL;
    } else {
        span->next->previous = span->previous;
        span->previous->next = span->next;
        if (*ring == span)
            *ring = span->next;
    }
    span->place = JF_SPAN_NOWHERE;
    mark_orphans(cache, span->number);
}

static bool is_used_up(const struct jf_span *span) {
    return span->free_count == 0 && span->carved == span->cells;
}

/* ------------------------------------------------------------------------------------- cells go home */

/* Cells that are sent home together: those on the way to another cache, and the span of the last one, which
 * most likely is the next one's too. While a cell is not yet home its span cannot end. */
struct chain {
    struct jf_cache *owner;
    struct jf_cell *first, *last;
    struct jf_span *span;
    uintptr_t start, size; /* of what is carved of it */
};

static void send_chain(struct chain *chain) {
    if (chain->first == NULL)
        return;
    struct jf_cell *before = __atomic_load_n(&chain->owner->inbox, __ATOMIC_RELAXED);
    do {
        jf_cell_link(chain->last, before);
    } while (!__atomic_compare_exchange_n(&chain->owner->inbox, &before, chain->first, true,
                                          __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    chain->first = NULL;
}

static void add_to_chain(struct chain *chain, struct jf_cache *owner, struct jf_cell *cell) {
    if (chain->first != NULL && chain->owner != owner)
        send_chain(chain);
    if (chain->first == NULL) {
        chain->owner = owner;
        chain->last = cell;
    }
    jf_cell_link(cell, chain->first);
    chain->first = cell;
}

/* Ends a span all of whose cells are free; one of each class stays. */
static void drop_if_empty(struct jf_cache *cache, struct jf_span *span) {
    if (span->free_count != span->carved || (span->next == span && !is_orphanage(cache)))
        return;
    remove_span(cache, span);
    lock_central(cache);
    jf_central_give(span);
    unlock_central(cache);
}

static JF_NOINLINE void look_at_span(struct chain *chain, const struct jf_cell *cell) {
    struct jf_span *span = jf_central_span_at((uintptr_t)cell);
    size_t size = span != NULL ? jf_span_carved(span) * span->size : 0;
    if (!RM_LIKELY(span != NULL && (uintptr_t)cell - span->start < size))
        jf_malloc_report("free", cell, "it was never given out");
    chain->span = span;
    chain->start = span->start;
    chain->size = size;
}

/* Some of the cache's own cells, all of one span. */
static void take_home(struct jf_cache *cache, struct jf_span *span, struct jf_cell *const *cells,
                      size_t count) {
    struct jf_cell *next = span->free;
    for (size_t i = 0; i < count; i++) {
        jf_cell_link(cells[i], next);
        next = cells[i];
    }
    span->free = next;
    span->free_count += (uint32_t)count;
    if (!RM_LIKELY(span->place != JF_SPAN_FULL)) {
        remove_span(cache, span);
        add_span(cache, span, JF_SPAN_PARTIAL);
    }
}

/* Sends the first of the cells home, and those after it that are of the same span; returns how many. */
static size_t send_some(struct jf_cache *cache, struct jf_cell *const *cells, size_t count,
                        struct chain *chain) {
    if (!RM_LIKELY((uintptr_t)cells[0] - chain->start < chain->size))
        look_at_span(chain, cells[0]);
    struct jf_span *span = chain->span;
    if (span == NULL)
        __builtin_unreachable(); /* no size either */
    struct jf_cache *owner = __atomic_load_n(&span->owner, __ATOMIC_ACQUIRE);
    if (owner != cache) {
        add_to_chain(chain, owner, cells[0]);
        return 1;
    }
    size_t some = 1;
    while (some < count && (uintptr_t)cells[some] - chain->start < chain->size)
        some++;
    take_home(cache, span, cells, some);
    if (!RM_LIKELY(span->free_count != span->carved)) {
        drop_if_empty(cache, span);
        chain->size = 0;
    }
    return some;
}

static void send_home(struct jf_cache *cache, struct jf_cell *cell, struct chain *chain) {
    send_some(cache, &cell, 1, chain);
}

/* The next of a list of free cells; ends the process when somebody has written to this one. */
static struct jf_cell *follow(const struct jf_cell *cell) {
    if (!RM_LIKELY(jf_cell_is_free(cell)))
        jf_malloc_report("malloc", cell, "it was written to after it was freed");
    return jf_cell_next(cell);
}

static void send_list(struct jf_cache *cache, struct jf_cell *cell) {
    struct chain chain = {0};
    while (cell != NULL) {
        struct jf_cell *next = follow(cell);
        send_home(cache, cell, &chain);
        cell = next;
    }
    send_chain(&chain);
}

/* How many cells a bin holds at most. */
static size_t bin_limit(unsigned number) {
    bool medium = number > JF_CLASS_SMALL_LAST;
    size_t cells = (size_t)(medium ? BIN_MEDIUM_BYTES : BIN_BYTES) / jf_class_size(number);
    size_t most = medium ? BIN_MEDIUM_MAX : BIN_CELLS_MAX;
    return cells < most ? cells : most;
}

/* Cells of others' that gather before they are sent. */
static size_t others_limit(unsigned number) {
    return (bin_limit(number) + 1) / 2;
}

/* Stacks for the bins of classes up to `last` that have none; false without memory. */
static bool add_slots(struct jf_bin *bins, unsigned last, size_t (*limit_of)(unsigned number)) {
    for (unsigned first = 1; first <= last; first += SLOTS_CLASSES) {
        if (bins[first].top != NULL)
            continue;
        unsigned end_class = first + SLOTS_CLASSES <= last ? first + SLOTS_CLASSES : last + 1;
        size_t count = 0;
        for (unsigned number = first; number < end_class; number++)
            count += limit_of(number) + 1;
        struct jf_slot *slots = jf_arena_meta_alloc(jf_malloc.arena, count * sizeof *slots);
        if (slots == NULL)
            return false;
        for (unsigned number = first; number < end_class; number++) {
            size_t limit = limit_of(number);
            bins[number] = (struct jf_bin){slots, slots + limit};
            slots += limit + 1;
        }
    }
    return true;
}

/* Of the slot without a cell. */
static struct jf_slot *bin_bottom(const struct jf_cache *cache, unsigned number) {
    return cache->bins[number].end - bin_limit(number);
}

size_t jf_bin_count(const struct jf_cache *cache, unsigned number) {
    return (size_t)(cache->bins[number].top - bin_bottom(cache, number));
}

size_t jf_bin_count_of_others(const struct jf_cache *cache, unsigned number) {
    const struct jf_bin *others = &cache->others[number];
    return others->end != NULL ? (size_t)(others->top - (others->end - others_limit(number))) : 0;
}

/* Sends the older half of a bin's cells home. */
static void flush(struct jf_cache *cache, unsigned number) {
    struct jf_bin *bin = &cache->bins[number];
    struct jf_slot *first = bin_bottom(cache, number) + 1;
    size_t count = jf_bin_count(cache, number);
    size_t leave = (count + 1) / 2;
    struct jf_cell *cells[BIN_CELLS_MAX];
    struct chain chain = {0};
    for (size_t i = 0; i < leave; i++)
        cells[i] = first[i].cell;
    memmove(first, first + leave, (count - leave) * sizeof *first);
    bin->top -= leave;
    for (size_t i = 0; i < leave;)
        i += send_some(cache, &cells[i], leave - i, &chain);
    send_chain(&chain);
}

static void put(struct jf_bin *bin, void *cell, uint8_t *state) {
    bin->top++;
    bin->top->cell = cell;
    bin->top->state = state;
}

static void *pop(struct jf_bin *bin) {
    return (bin->top--)->cell;
}

static uint8_t *state_of(const void *cell) {
    const struct jf_span *span = jf_central_span_at((uintptr_t)cell);
    return &span->states[(uint32_t)((uintptr_t)cell - span->start) / span->size];
}

/* What others have freed goes into the bins as far as there is room, whatever span it is of. */
static void empty_inbox(struct jf_cache *cache) {
    struct jf_cell *cell = __atomic_exchange_n(&cache->inbox, NULL, __ATOMIC_ACQUIRE);
    struct chain chain = {0};
    while (cell != NULL) {
        struct jf_cell *next = follow(cell);
        unsigned number = jf_central_span_at((uintptr_t)cell)->number;
        if (jf_bin_count(cache, number) < bin_limit(number) / 2)
            put(&cache->bins[number], cell, state_of(cell));
        else
            send_home(cache, cell, &chain);
        cell = next;
    }
    send_chain(&chain);
}

static struct jf_cache *owner_of(const void *cell) {
    return __atomic_load_n(&jf_central_span_at((uintptr_t)cell)->owner, __ATOMIC_ACQUIRE);
}

static uint32_t tag_of(const void *cell) {
    size_t unit = ((uintptr_t)cell - jf_malloc.base) >> JF_UNIT_SHIFT;
    return jf_map_bin_and_tag(&jf_malloc.map[unit]) >> JF_TAG_SHIFT;
}

static void put_or_flush(struct jf_cache *cache, unsigned number, const struct jf_slot *slot) {
    struct jf_bin *bin = &cache->bins[number];
    if (bin->top == bin->end)
        flush(cache, number);
    put(bin, slot->cell, slot->state);
}

/* Sends cells of one owner that another thread has freed. When the owner has more than enough that it does not come
 * for, they are used here. */
static void deliver(struct jf_cache *cache, unsigned number, const struct jf_slot *slots,
                    size_t count) {
    if (count == 0)
        return;
    struct jf_cache *owner = owner_of(slots[0].cell);
    struct chain chain = {0};
    if (is_orphanage(owner)) {
        for (size_t i = 0; i < count; i++)
            send_home(cache, slots[i].cell, &chain);
    } else if (owner == cache || !jf_transfer_send(&owner->mailbox, number, slots, count)) {
        for (size_t i = 0; i < count; i++)
            put_or_flush(cache, number, &slots[i]);
    }
    send_chain(&chain);
}

/* By the tags, without a look at spans, whose lines their owners write to. A cell that is sent to another than its
 * owner, which has changed meanwhile, is in nobody's way there. */
static void send_others(struct jf_cache *cache, unsigned number) {
    struct jf_bin *others = &cache->others[number];
    struct jf_slot *first = others->end - others_limit(number) + 1;
    struct jf_slot slots[JF_PARCEL_SLOTS];
    size_t left = (size_t)(others->top - first) + 1;
    while (left != 0) {
        uint32_t tag = tag_of(first->cell);
        size_t count = 0;
        size_t kept = 0;
        for (size_t i = 0; i < left; i++) {
            if (tag_of(first[i].cell) == tag)
                slots[count++] = first[i];
            else
                first[kept++] = first[i];
        }
        left = kept;
        others->top = first + left - 1;
        deliver(cache, number, slots, count);
    }
}

/* Whether there is room for another cell of others, which is made if need be. */
static bool make_room_for_others(struct jf_cache *cache, unsigned number) {
    if (cache->others[number].top == NULL &&
        !add_slots(cache->others, JF_CLASS_SMALL_LAST, others_limit))
        return false;
    if (cache->others[number].top == cache->others[number].end)
        send_others(cache, number);
    return true;
}

/* A cell of another's span does not go into a bin: handed out again here, it would leave two threads at work on
 * one line of memory, that of its byte or its own, for good. */
void jf_cache_put(struct jf_cache *cache, unsigned number, void *cell) {
    struct jf_bin *bin = &cache->bins[number];
    bool others = number <= JF_CLASS_SMALL_LAST && !is_orphanage(cache) && owner_of(cell) != cache;
    begin(cache);
    if (others && make_room_for_others(cache, number))
        bin = &cache->others[number];
    /* of the orphanage others may take the room while memory is given back */
    while (bin->top == bin->end) {
        if (__atomic_load_n(&cache->inbox, __ATOMIC_RELAXED) != NULL)
            empty_inbox(cache);
        flush(cache, number);
    }
    uint8_t *state = state_of(cell);
    *state = 0;
    put(bin, cell, state);
    end(cache);
}

/* ------------------------------------------------------------------------------------- cells are taken */

/* Moves up to `most` free cells of a span into the bin. */
static void take_free(struct jf_bin *bin, struct jf_span *span, size_t most) {
    for (; most > 0 && span->free != NULL; most--) {
        struct jf_cell *cell = span->free;
        span->free = follow(cell);
        span->free_count--;
        put(bin, cell, &span->states[(uint32_t)((uintptr_t)cell - span->start) / span->size]);
    }
}

/* Carves new cells: the first is returned, those that share its page go into the bin. */
static void *carve(struct jf_bin *bin, struct jf_span *span) {
    char *first = (char *)span->start + (size_t)span->carved * span->size;
    uint8_t *states = &span->states[span->carved];
    uint32_t count = CARVE_BYTES / span->size;
    uint32_t left = span->cells - span->carved;
    uint32_t room = (uint32_t)(bin->end - bin->top);
    count = count < left ? count : left;
    count = count > room ? room : count;
    count = span->size >= CARVE_BYTES / 4 || count == 0 ? 1 : count;
    if (span->steady)
        jf_span_fetch(span, (size_t)(span->carved + count) * span->size);
    __atomic_store_n(&span->carved, span->carved + count, __ATOMIC_RELAXED);
    for (uint32_t i = count - 1; i > 0; i--)
        put(bin, first + (size_t)i * span->size, &states[i]);
    return first;
}

static bool has_orphans(unsigned number) {
    uint64_t word = __atomic_load_n(&jf_malloc.orphans[number / 64], __ATOMIC_RELAXED);
    return (word >> (number % 64) & 1) != 0;
}

static void retire(struct jf_cache *cache);

static void set_idle(struct jf_cache *cache, bool idle) {
    size_t change = idle ? 1 : (size_t)0 - 1;
    cache->in_use = !idle;
    cache->idle = idle;
    __atomic_store_n(&jf_malloc.idle_caches, jf_malloc.idle_caches + change, __ATOMIC_RELAXED);
}

/* One that an ended thread has left, in use from now on; NULL when there is none. The central mutex is held. */
static struct jf_cache *take_idle(void) {
    struct jf_cache *cache = jf_malloc.idle_caches != 0 ? jf_malloc.caches : NULL;
    while (cache != NULL && !cache->idle)
        cache = cache->next;
    if (cache != NULL)
        set_idle(cache, false);
    return cache;
}

/* Takes over a span of the class that an ended thread has left. */
static bool adopt(struct jf_cache *cache, unsigned number) {
    struct jf_cache *orphanage = jf_malloc.orphanage;
    bool mail = __atomic_load_n(&orphanage->inbox, __ATOMIC_RELAXED) != NULL;
    bool idle = __atomic_load_n(&jf_malloc.idle_caches, __ATOMIC_RELAXED) != 0;
    if (is_orphanage(cache) || (!mail && !idle && !has_orphans(number)))
        return false;
    jf_os_mutex_lock(&jf_malloc.mutex);
    struct jf_cache *left = has_orphans(number) ? NULL : take_idle();
    if (left != NULL)
        retire(left);
    if (mail)
        send_list(orphanage, __atomic_exchange_n(&orphanage->inbox, NULL, __ATOMIC_ACQUIRE));
    struct jf_span *span = orphanage->spans.partial[number];
    if (span != NULL) {
        remove_span(orphanage, span);
        jf_span_own(span, cache);
        add_span(cache, span, JF_SPAN_PARTIAL);
    }
    jf_os_mutex_unlock(&jf_malloc.mutex);
    return span != NULL;
}

/* Whether a few spans of the class are full: a page fault less for each page of the next one is worth more than
 * the pages that it may not need. */
static bool grows_steadily(const struct jf_cache *cache, unsigned number) {
    const struct jf_span *first = cache->spans.full[number];
    const struct jf_span *span = first;
    unsigned count = 0;
    while (span != NULL && count < STEADY_SPANS) {
        count++;
        span = span->next != first ? span->next : NULL;
    }
    return count == STEADY_SPANS;
}

static bool add_fresh_span(struct jf_cache *cache, unsigned number) {
    lock_central(cache);
    struct jf_span *span = jf_central_take(number);
    unlock_central(cache);
    if (span == NULL)
        return false;
    jf_span_own(span, cache);
    add_span(cache, span, JF_SPAN_PARTIAL);
    span->steady = span->zero && number <= JF_CLASS_SMALL_LAST && grows_steadily(cache, number);
    return true;
}

/* Fills the bin, which is empty, up to half; *ret_fresh is a cell never given out before, if it came to
 * that. False: no memory. */
static bool fill(struct jf_cache *cache, unsigned number, char **ret_fresh, bool *ret_zero) {
    struct jf_bin *bin = &cache->bins[number];
    size_t half = bin_limit(number) / 2;
    for (;;) {
        struct jf_span *span = cache->spans.partial[number];
        if (span == NULL)
            return bin->top->cell != NULL;
        if (span->free_count != 0) {
            take_free(bin, span, half - jf_bin_count(cache, number));
        } else if (bin->top->cell == NULL) {
            *ret_zero = span->zero;
            *ret_fresh = carve(bin, span);
        }
        bool enough = *ret_fresh != NULL || jf_bin_count(cache, number) >= half;
        if (is_used_up(span)) {
            remove_span(cache, span);
            add_span(cache, span, JF_SPAN_FULL);
        } else if (span->free_count == 0) {
            enough = enough || bin->top->cell != NULL;
        }
        if (enough)
            return true;
    }
}

void *jf_cache_take(struct jf_cache *cache, unsigned number, bool *ret_zero) {
    struct jf_bin *bin = &cache->bins[number];
    char *fresh = NULL;
    bool found = true;
    *ret_zero = false;
    begin(cache);
    if (bin->top->cell == NULL && number <= JF_CLASS_SMALL_LAST)
        bin->top += jf_transfer_receive(&cache->mailbox, number, bin->top + 1);
    if (bin->top->cell == NULL && __atomic_load_n(&cache->inbox, __ATOMIC_RELAXED) != NULL)
        empty_inbox(cache);
    if (bin->top->cell == NULL) {
        found = fill(cache, number, &fresh, ret_zero);
        if (!found && (adopt(cache, number) || add_fresh_span(cache, number)))
            found = fill(cache, number, &fresh, ret_zero);
    }
    void *cell = fresh;
    if (found && fresh == NULL)
        cell = pop(bin);
    if (cell != NULL)
        *state_of(cell) = JF_CELL_LIVE;
    end(cache);
    return cell;
}

/* ------------------------------------------------------------------------------------- caches */

/* What is got for one that cannot be completed is used for the next. */
static struct jf_cache *new_cache(void) {
    struct jf_cache *cache = jf_malloc.unfinished;
    if (cache == NULL)
        cache = jf_arena_meta_alloc(jf_malloc.arena, sizeof *cache);
    jf_malloc.unfinished = cache;
    if (cache == NULL || !add_slots(cache->bins, JF_CLASS_LAST, bin_limit))
        return NULL;
    jf_malloc.unfinished = NULL;
    size_t made = jf_malloc.caches_made++;
    cache->tag = (uint32_t)(made == 0 ? 0 : 1 + (made - 1) % TAGS) << JF_TAG_SHIFT;
    return cache;
}

/* Sends all cells of a bin home. */
static void empty_bin(struct jf_cache *cache, unsigned number, struct jf_cache *home) {
    struct jf_bin *bin = &cache->bins[number];
    struct chain chain = {0};
    while (bin->top->cell != NULL)
        send_home(home, pop(bin), &chain);
    send_chain(&chain);
}

/* Sends all cells home that others are to get or have sent. */
static void empty_mail(struct jf_cache *cache, struct jf_cache *home) {
    struct jf_slot slots[JF_PARCEL_SLOTS];
    struct chain chain = {0};
    for (unsigned number = 1; number <= JF_CLASS_SMALL_LAST; number++) {
        size_t count;
        for (count = jf_bin_count_of_others(cache, number); count != 0; count--)
            send_home(home, pop(&cache->others[number]), &chain);
        while ((count = jf_transfer_receive(&cache->mailbox, number, slots)) != 0)
            for (size_t i = 0; i < count; i++)
                send_home(home, slots[i].cell, &chain);
    }
    send_chain(&chain);
}

/* Empties a cache whose thread does not use it any more. The central mutex is held. */
static void retire(struct jf_cache *cache) {
    struct jf_cache *orphanage = jf_malloc.orphanage;
    for (unsigned number = 1; number < JF_CLASSES; number++) {
        struct jf_span **rings[2] = {&cache->spans.partial[number], &cache->spans.full[number]};
        for (unsigned i = 0; i < 2; i++) {
            while (*rings[i] != NULL) {
                struct jf_span *span = *rings[i];
                enum jf_span_place place = (enum jf_span_place)span->place;
                remove_span(cache, span);
                jf_span_own(span, orphanage);
                add_span(orphanage, span, place);
                drop_if_empty(orphanage, span);
            }
        }
    }
    for (unsigned number = 1; number < JF_CLASSES; number++)
        empty_bin(cache, number, orphanage);
    empty_mail(cache, orphanage);
    send_list(orphanage, __atomic_exchange_n(&cache->inbox, NULL, __ATOMIC_ACQUIRE));
    send_list(orphanage, __atomic_exchange_n(&orphanage->inbox, NULL, __ATOMIC_ACQUIRE));
    cache->in_use = false;
}

static void at_thread_exit(void) {
    struct jf_cache *cache = own;
    ended = true;
    own = NULL;
    jf_cache_front = (struct jf_cache *)(uintptr_t)&jf_cache_none;
    if (cache == NULL)
        return;
    jf_os_mutex_lock(&jf_malloc.mutex);
    if (jf_malloc.idle_caches < IDLE_MAX)
        set_idle(cache, true);
    else
        retire(cache);
    jf_os_mutex_unlock(&jf_malloc.mutex);
}

/* An empty one, in use from now on; NULL without memory. The central mutex is held. */
static struct jf_cache *unused_cache(void) {
    struct jf_cache *cache = jf_malloc.caches;
    while (cache != NULL && cache->in_use)
        cache = cache->next;
    if (cache == NULL) {
        cache = new_cache();
        if (cache != NULL) {
            cache->next = jf_malloc.caches;
            jf_malloc.caches = cache;
        }
    }
    if (cache != NULL)
        cache->in_use = true;
    return cache;
}

struct jf_cache *jf_cache_get(void) {
    if (RM_LIKELY(own != NULL))
        return own;
    if (ended || (jf_malloc_units() == 0 && !jf_malloc.start()))
        return NULL;
    jf_os_mutex_lock(&jf_malloc.mutex);
    struct jf_cache *cache = take_idle();
    if (cache == NULL)
        cache = unused_cache();
    jf_os_mutex_unlock(&jf_malloc.mutex);
    own = cache;
    if (cache != NULL) {
        if (jf_malloc.mode == 0)
            jf_cache_front = cache;
        jf_os_at_thread_exit(at_thread_exit); /* may allocate */
    }
    return cache;
}

void *jf_orphan_take(unsigned number, bool *ret_zero) {
    if (jf_malloc_units() == 0)
        return NULL;
    jf_os_mutex_lock(&jf_malloc.mutex);
    void *cell = jf_cache_take(jf_malloc.orphanage, number, ret_zero);
    jf_os_mutex_unlock(&jf_malloc.mutex);
    return cell;
}

void jf_orphan_put(unsigned number, void *cell) {
    jf_os_mutex_lock(&jf_malloc.mutex);
    jf_cache_put(jf_malloc.orphanage, number, cell);
    jf_os_mutex_unlock(&jf_malloc.mutex);
}

/* Gives back the empty spans that are kept, one of a class. */
static void drop_kept(struct jf_cache *cache, unsigned number) {
    struct jf_span *span = cache->spans.partial[number];
    if (span == NULL || span->free_count != span->carved)
        return;
    remove_span(cache, span);
    lock_central(cache);
    jf_central_give(span);
    unlock_central(cache);
}

void jf_cache_trim(struct jf_cache *cache) {
    begin(cache);
    for (unsigned number = 1; number < JF_CLASSES; number++)
        empty_bin(cache, number, cache);
    empty_mail(cache, cache);
    send_list(cache, __atomic_exchange_n(&cache->inbox, NULL, __ATOMIC_ACQUIRE));
    for (unsigned number = 1; number < JF_CLASSES; number++)
        drop_kept(cache, number);
    end(cache);
}

void jf_orphan_trim(void) {
    jf_os_mutex_lock(&jf_malloc.mutex);
    for (struct jf_cache *left = take_idle(); left != NULL; left = take_idle())
        retire(left);
    jf_cache_trim(jf_malloc.orphanage);
    jf_os_mutex_unlock(&jf_malloc.mutex);
}

/* ------------------------------------------------------------------------------------- start, fork */

static bool open_map(struct jf_arena *arena) {
    size_t units =
        jf_bits_round_up(jf_arena_size(arena) >> JF_UNIT_SHIFT, (size_t)1 << JF_MAP_STEP_SHIFT);
    size_t map_size = units * sizeof(struct jf_map_entry);
    size_t size = map_size + units * sizeof(struct jf_span *);
    uintptr_t map = jf_os_reserve(size, jf_os_page_size());
    if (map == 0)
        return false;
    if (!jf_os_make_readable(map, size)) {
        jf_os_release(map, size);
        return false;
    }
    jf_malloc.map = (struct jf_map_entry *)map;
    jf_malloc.spans = (struct jf_span **)(map + map_size);
    return true;
}

bool jf_malloc_open(struct jf_arena *arena, unsigned mode) {
    jf_malloc.arena = arena;
    if (jf_malloc.orphanage == NULL)
        jf_malloc.orphanage = new_cache();
    if (jf_malloc.orphanage == NULL || !open_map(arena))
        return false;
    jf_os_mutex_init(&jf_malloc.mutex);
    jf_malloc.base = jf_arena_base(arena);
    jf_malloc.page_size = jf_os_page_size();
    jf_malloc.key = (uintptr_t)jf_os_random();
    jf_malloc.seal = (uintptr_t)jf_os_random() | 1; /* not 0: a cleared cell is not a free one */
    jf_malloc.mode = mode;
    jf_arena_set_young_limit(arena, YOUNG_BYTES);
    jf_malloc.map_bias =
        (uintptr_t)jf_malloc.map - (jf_malloc.base >> JF_UNIT_SHIFT) * sizeof *jf_malloc.map;
    __atomic_store_n(&jf_malloc.window, jf_arena_size(arena), __ATOMIC_RELEASE);
    __atomic_store_n(&jf_malloc.units, jf_arena_size(arena) >> JF_UNIT_SHIFT, __ATOMIC_RELEASE);
    return true;
}

void jf_malloc_fork_prepare(void) {
    if (jf_malloc_units() == 0)
        return;
    jf_profile_fork_prepare();
    jf_os_mutex_lock(&jf_malloc.mutex);
}

void jf_malloc_fork_parent(void) {
    if (jf_malloc_units() == 0)
        return;
    jf_os_mutex_unlock(&jf_malloc.mutex);
    jf_profile_fork_done();
}

/* The other threads are gone: what they had goes to the orphanage, unless one of them was changing it. The
 * mutex is held since before the fork. */
void jf_malloc_fork_child(void) {
    if (jf_malloc_units() == 0)
        return;
    for (struct jf_cache *cache = jf_malloc.caches; cache != NULL; cache = cache->next)
        if (cache != own && cache->in_use && cache->busy == 0)
            retire(cache);
    jf_os_mutex_unlock(&jf_malloc.mutex);
    jf_profile_fork_done();
}
