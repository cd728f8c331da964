/* Arrays: life and size. */
#include "collections/array_quick.h"

#include "base/debug.h"

enum {
    WORTH_ROOM = 128 << 10, /* blocks from here up have chunks of their own */
    ROOM_FACTOR = 4,        /* address space of a large array, in sizes of it */
    ROOM_FACTOR_WILL_GROW = 16,
};

/* ------------------------------------------------------------------------------------- opening */

/* As the inlined rmlock, but a report names the call. */
static inline void *lock(rmhandle_t handle, const char *call) {
#if !defined(RM_NO_INLINE)
    uintptr_t bits = (uintptr_t)handle;
    if (RM_LIKELY(RM_OFFSET_IS_ENTRY_(RM_WINDOW_OFFSET_(bits)))) {
        jf_word *entry = (jf_word *)(bits & RM_HANDLE_ENTRY);
        jf_word old = __atomic_fetch_add(entry, RM_ENTRY_COUNT_ONE, __ATOMIC_ACQUIRE);
        if (RM_LIKELY(RM_WORD_DIFFERS_(old, bits, RM_ENTRY_OVERFLOW) == RM_ENTRY_LIVE))
            return (void *)(rm_window_v1.base + (uintptr_t)(old & RM_ENTRY_ADDRESS));
        __atomic_fetch_sub(entry, RM_ENTRY_COUNT_ONE, __ATOMIC_RELAXED);
    }
#endif
    return jf_blocks_lock(handle, call);
}

/* Of a locked block. Where a header lies before the payload and names the handle's entry, it is the block's: a
 * large block, an element of a pool and whatever lies in a fixed heap are left to the layer above. */
static inline size_t size_of(rmhandle_t handle, const unsigned char *payload) {
#if !defined(RM_NO_INLINE)
    uintptr_t offset = RM_WINDOW_OFFSET_((uintptr_t)handle);
    if (RM_LIKELY(RM_OFFSET_IS_ENTRY_(offset) && (uintptr_t)payload % JF_UNIT_SIZE != 0)) {
        jf_word header = jf_header_load((uintptr_t)payload - JF_HEADER_SIZE);
        size_t stride = jf_header_stride(header);
        if (RM_LIKELY(jf_header_index(header) == offset / sizeof(jf_word) &&
                      jf_header_is_block(header) && stride != 0))
            return stride - JF_HEADER_SIZE - jf_header_slack(header);
    }
#endif
    return jf_blocks_size(handle, payload);
}

static inline bool decode_tail(struct jf_array *open) {
    if (open->size < sizeof(jf_word) || open->size % sizeof(jf_word) != 0)
        return false;
    const jf_word *tail = (const jf_word *)(const void *)(open->elements + open->size) - 1;
    bool marked = (*tail & JF_ARRAY_MARK) != 0;
    open->flags = (unsigned)*tail & (JF_ARRAY_MARK - 1);
    open->length = (size_t)(*tail >> 24);
    open->element_size = (size_t)(*tail >> 8) & JF_ARRAY_NARROW_MAX;
    if (open->element_size == 0 && open->size >= 2 * sizeof(jf_word))
        open->element_size = (size_t)tail[-1];
    size_t bytes;
    return marked && open->element_size != 0 && jf_array_tail_size(open, open->size) != 0 &&
           jf_array_bytes(open, open->length, &bytes) && bytes <= open->size;
}

bool jf_array_read_tail(struct jf_array *open) {
    return decode_tail(open);
}

/* The head or the tail of a locked block. */
static inline bool read_word(struct jf_array *open) {
    const jf_word *place = jf_array_head(open->array);
    jf_word head = place != NULL ? jf_word_load(place) : 0;
    open->headed = place != NULL;
    if (!RM_LIKELY(open->headed && jf_array_head_is_of(head, open->array))) {
        open->size = size_of(rmarray_handle(open->array), open->elements);
        return decode_tail(open);
    }
    open->size = jf_array_head_size(head);
    open->length = jf_array_head_length(head);
    open->element_size = jf_array_head_element(head);
    open->flags = (unsigned)head & JF_ARRAY_HEAD_FLAGS;
    /* It may say less: in a child that was forked before a growing call of another thread had written it, and when
     * rmrealloc made the block larger. The array has what it says until it grows. */
    JF_ASSERT(open->size <= size_of(rmarray_handle(open->array), open->elements));
    return true;
}

/* Where it has a tail no head must say anything else. */
static void forget_head(const struct jf_array *open) {
    if (open->headed && jf_array_tail_size(open, open->size) != 0)
        jf_word_store(jf_array_head(open->array), 0);
}

bool jf_array_open(struct jf_array *ret_open, rmarray_t array, const char *call) {
    ret_open->array = array;
    ret_open->call = call;
    ret_open->section = false;
    ret_open->elements = lock(rmarray_handle(array), call);
    if (RM_LIKELY(ret_open->elements != NULL)) {
        if (RM_LIKELY(read_word(ret_open)))
            return true;
        jf_array_close(ret_open);
        ret_open->elements = NULL;
    }
    jf_os_set_errno(JF_OS_EINVAL);
    return false;
}

/* Holds it by a read section of its own. False, and it is not held, when that cannot be. */
static inline bool hold_section(struct jf_array *open) {
#if !defined(RM_NO_INLINE)
    if (JF_MARK_ACTIVE)
        return false;
    /* as the inlined rmderef, but nothing for all that is out of the ordinary */
    uintptr_t bits = (uintptr_t)rmarray_handle(open->array);
    if (!RM_LIKELY(RM_OFFSET_IS_ENTRY_(RM_WINDOW_OFFSET_(bits))))
        return false;
    rmread_begin();
    jf_word word = __atomic_load_n((jf_word *)(bits & RM_HANDLE_ENTRY), __ATOMIC_ACQUIRE);
    if (RM_LIKELY(RM_WORD_DIFFERS_(word, bits, 0) == RM_ENTRY_LIVE)) {
        open->elements = (unsigned char *)(RM_WINDOW_(base) + (uintptr_t)(word & RM_ENTRY_ADDRESS));
        open->section = true;
        return true;
    }
    rmread_end();
#else
    (void)open;
#endif
    return false;
}

bool jf_array_enter(struct jf_array *ret_open, rmarray_t array, const char *call) {
    ret_open->array = array;
    ret_open->call = call;
    if (RM_LIKELY(hold_section(ret_open))) {
        if (RM_LIKELY(read_word(ret_open)))
            return true;
        rmread_end();
    }
    return jf_array_open(ret_open, array, call);
}

bool jf_array_settle(struct jf_array *open) {
    if (!open->section)
        return true;
    rmread_end();
    return jf_array_open(open, open->array, open->call);
}

int jf_array_fail(struct jf_array *open) {
    if (open->elements != NULL)
        jf_array_close(open);
    return -1;
}

/* ------------------------------------------------------------------------------------- resizing */

/* The size of a block that is all capacity: what rounding would leave over is asked for too. 0 when that
 * overflows. */
static size_t whole_block(const struct jf_heap *heap, size_t bytes) {
    size_t stride;
    if (!jf_block_stride(bytes, &stride))
        return 0;
    if (heap->fixed || stride < JF_LARGE_MIN)
        return stride - JF_HEADER_SIZE;
    return jf_bits_add(bytes, JF_PAGE_SIZE - 1, &stride) ? jf_bits_round_down(stride, JF_PAGE_SIZE)
                                                         : 0;
}

/* Address space for a block of this size. */
static size_t room_for(const struct jf_array *open, size_t bytes) {
    unsigned hints = open->flags >> JF_ARRAY_HINT_SHIFT;
    size_t factor = (hints & RM_ARRAY_WILL_GROW) != 0 ? ROOM_FACTOR_WILL_GROW : ROOM_FACTOR;
    if ((open->flags & JF_ARRAY_GROWTH_MASK) + 1 == RM_GROWTH_EXACT && factor == ROOM_FACTOR)
        return 0;
    return bytes >= WORTH_ROOM && bytes <= SIZE_MAX / factor ? factor * bytes : 0;
}

/* Locks again after the block has got another size, or not. */
static bool reopen(struct jf_array *open) {
    open->section = false;
    open->elements = lock(rmarray_handle(open->array), open->call);
    if (open->elements == NULL) {
        jf_os_set_errno(JF_OS_EINVAL);
        return false;
    }
    open->size = size_of(rmarray_handle(open->array), open->elements);
    forget_head(open);
    jf_array_set_length(open, open->length);
    return true;
}

static enum jf_blocks_resize resize_block(const struct jf_array *open, size_t size, bool in_need) {
    return jf_blocks_resize(rmarray_handle(open->array), size, room_for(open, size), in_need,
                            open->call);
}

/* In whole words, so that the tail is aligned. */
static void *resized_area(struct jf_array *open, size_t bytes) {
    size_t sum;
    return jf_bits_add(bytes, sizeof(jf_word) - 1, &sum)
               ? jf_blocks_resize_area(open->elements, jf_bits_round_down(sum, sizeof(jf_word)),
                                       &open->size, open->call)
               : NULL;
}

/* The same for an area, which malloc resizes. What rounding leaves over there is capacity too. */
static bool resize_area(struct jf_array *open, size_t bytes, size_t more) {
    void *resized = more > bytes ? resized_area(open, more) : NULL;
    if (resized == NULL)
        resized = resized_area(open, bytes);
    if (resized == NULL) {
        jf_os_set_errno(JF_OS_ENOMEM);
        return false;
    }
    open->elements = resized;
    jf_array_set_length(open, open->length);
    return true;
}

bool jf_array_resize_to(struct jf_array *open, size_t bytes, size_t more) {
    if (open->array == NULL)
        return resize_area(open, bytes, more);
    const struct jf_heap *heap = (struct jf_heap *)rmheap_of(rmarray_handle(open->array));
    size_t least = whole_block(heap, bytes);
    size_t most = more > bytes ? whole_block(heap, more) : least;
    jf_array_close(open);
    enum jf_blocks_resize outcome = JF_BLOCKS_NO_ROOM;
    if (most > least)
        outcome = resize_block(open, most, false);
    if (outcome == JF_BLOCKS_NO_ROOM && least != 0)
        outcome = resize_block(open, least, true);
    if (outcome == JF_BLOCKS_GONE) {
        open->elements = NULL;
        jf_os_set_errno(JF_OS_EINVAL);
        return false;
    }
    if (!reopen(open))
        return false;
    if (outcome != JF_BLOCKS_DONE)
        jf_os_set_errno(outcome == JF_BLOCKS_LOCKED ? JF_OS_EBUSY : JF_OS_ENOMEM);
    return outcome == JF_BLOCKS_DONE;
}

#if JF_HAS_GROWING
bool jf_array_quick_grow(struct jf_array_quick *quick, size_t kept, size_t bytes) {
    size_t size = jf_array_head_size(quick->head);
    size_t more = jf_array_grown((unsigned)quick->head & JF_ARRAY_HEAD_FLAGS, size);
    size_t stride;
    if (!jf_block_stride(more > bytes ? more : bytes, &stride) || stride >= JF_LARGE_MIN)
        return false;
    struct jf_swap swap = {.word = quick->word,
                           .index = (uint32_t)(quick->place - (jf_word *)JF_FAST(heads)),
                           .size = size,
                           .new_size = stride - JF_HEADER_SIZE,
                           .kept = kept};
    uintptr_t payload = jf_grow_swap(&swap);
    if (payload == 0)
        return false;
    quick->elements = (unsigned char *)payload;
    jf_word mask = (jf_word)JF_ARRAY_HEAD_GRAINS_MAX << JF_ARRAY_HEAD_GRAINS;
    quick->head = (quick->head & ~mask) | (jf_word)(stride / JF_GRAIN) << JF_ARRAY_HEAD_GRAINS;
    return true;
}
#endif

bool jf_array_make_room(struct jf_array *open, size_t more) {
    size_t length, bytes;
    if (!jf_bits_add(open->length, more, &length) || !jf_array_bytes(open, length, &bytes)) {
        jf_os_set_errno(JF_OS_ENOMEM);
        return false;
    }
    return RM_LIKELY(bytes <= open->size) ||
           jf_array_resize_to(open, bytes, jf_array_grown(open->flags, open->size));
}

/* ------------------------------------------------------------------------------------- life */

void rmarray_options_init(struct rm_array_options *ret_options) {
    memset(ret_options, 0, sizeof *ret_options);
    ret_options->struct_size = sizeof *ret_options;
}

static unsigned growth_of(const struct rm_array_options *options) {
    if (options->growth != RM_GROWTH_DEFAULT)
        return (unsigned)options->growth - 1;
    if ((options->hints & RM_ARRAY_TEMPORARY) != 0)
        return RM_GROWTH_DOUBLE - 1;
    return ((options->hints & RM_ARRAY_LONG_LIVED) != 0 ? RM_GROWTH_EIGHTH : RM_GROWTH_HALF) - 1;
}

/* Checks the options and puts together what the tail will say. */
static bool import(size_t element_size, const struct rm_array_options *options, bool string,
                   struct jf_array *ret_made, unsigned *ret_align_log2) {
    unsigned hints_all =
        RM_ARRAY_TEMPORARY | RM_ARRAY_LONG_LIVED | RM_ARRAY_WILL_GROW | RM_ARRAY_ZEROED;
    size_t alignment = options->alignment != 0 ? options->alignment : 1;
    if (options->struct_size != sizeof *options || element_size == 0 ||
        !jf_bits_is_power_of_two(alignment) || alignment > (size_t)1 << JF_ALIGN_LOG2_MAX ||
        (unsigned)options->growth > RM_GROWTH_EXACT || (options->hints & ~hints_all) != 0)
        return false;
    *ret_align_log2 = jf_bits_log2(alignment);
    if (*ret_align_log2 < JF_ALIGN_LOG2_MIN)
        *ret_align_log2 = JF_ALIGN_LOG2_MIN;
    *ret_made = (struct jf_array){.element_size = element_size};
    ret_made->flags =
        growth_of(options) | (string ? JF_ARRAY_STRING : 0) | options->hints << JF_ARRAY_HINT_SHIFT;
    return true;
}

/* A block for so many elements, empty; NULL with errno ENOMEM. */
static rmarray_t make(struct jf_heap *heap, struct jf_array *made, size_t capacity,
                      unsigned align_log2) {
    size_t bytes;
    made->headed = JF_HAS_GROWING && !heap->fixed;
    size_t size = jf_array_bytes(made, capacity, &bytes) ? whole_block(heap, bytes) : 0;
    if (size == 0) {
        jf_os_set_errno(JF_OS_ENOMEM);
        return NULL;
    }
    rmhandle_t handle = jf_blocks_allocate(heap, size, align_log2, false, made->call);
    if (handle == NULL)
        return NULL;
    made->array = rmarray_of(handle);
    made->length = 0;
    if (!hold_section(made) && !reopen(made)) {
        rmfree(handle);
        return NULL;
    }
    made->size = size;
    forget_head(made);
    jf_array_set_length(made, 0);
    jf_array_close(made);
    return made->array;
}

/* Address space for what the program expects; that it cannot be had is no failure. */
static void give_expected_room(const struct jf_array *made, size_t size, size_t expected) {
    size_t bytes;
    if (expected != 0 && jf_array_bytes(made, expected, &bytes) && bytes >= WORTH_ROOM &&
        bytes > size)
        jf_blocks_resize(rmarray_handle(made->array), size, bytes, false, made->call);
}

static rmarray_t create(rmheap_t opaque, size_t element_size,
                        const struct rm_array_options *options, bool string, const char *call) {
    struct rm_array_options defaults;
    struct jf_array made;
    unsigned align_log2;
    rmarray_options_init(&defaults);
    if (options == NULL)
        options = &defaults;
    if (!import(element_size, options, string, &made, &align_log2)) {
        jf_os_set_errno(JF_OS_EINVAL);
        return NULL;
    }
    struct jf_heap *heap = jf_blocks_heap(opaque);
    if (heap == NULL)
        return NULL;
    made.call = call;
    rmarray_t array = make(heap, &made, options->capacity, align_log2);
    if (array != NULL && !heap->fixed && (options->hints & RM_ARRAY_WILL_GROW) != 0)
        give_expected_room(&made, made.size, options->expected);
    return array;
}

rmarray_t rmarray_create(rmheap_t heap, size_t element_size,
                         const struct rm_array_options *options) {
    return create(heap, element_size, options, false, "rmarray_create");
}

rmarray_t rmarray_create_string(rmheap_t heap, const struct rm_array_options *options) {
    return create(heap, 1, options, true, "rmarray_create_string");
}

void rmarray_destroy(rmarray_t array) {
    rmfree(rmarray_handle(array));
}

rmarray_t rmarray_copy(rmarray_t array) {
    struct jf_array from, made;
    struct jf_blocks_info info;
    if (!jf_array_open(&from, array, "rmarray_copy"))
        return NULL;
    jf_blocks_info(rmarray_handle(array), from.elements, &info);
    made = from;
    size_t length = from.length;
    rmarray_t copy = make(info.heap, &made, length, info.align_log2);
    if (copy != NULL && jf_array_open(&made, copy, "rmarray_copy")) {
        memcpy(made.elements, from.elements, length * from.element_size);
        jf_array_set_length(&made, length);
        jf_array_close(&made);
    }
    jf_array_close(&from);
    return copy;
}

/* ------------------------------------------------------------------------------------- size */

size_t rmarray_length(rmarray_t array) {
    struct jf_array open;
    if (!jf_array_enter(&open, array, "rmarray_length"))
        return 0;
    jf_array_close(&open);
    return open.length;
}

size_t rmarray_capacity(rmarray_t array) {
    struct jf_array open;
    if (!jf_array_enter(&open, array, "rmarray_capacity"))
        return 0;
    jf_array_close(&open);
    return jf_array_capacity(&open);
}

size_t rmarray_element_size(rmarray_t array) {
    struct jf_array open;
    if (!jf_array_enter(&open, array, "rmarray_element_size"))
        return 0;
    jf_array_close(&open);
    return open.element_size;
}

int rmarray_reserve(rmarray_t array, size_t capacity) {
    struct jf_array open;
    if (!jf_array_enter(&open, array, "rmarray_reserve"))
        return -1;
    size_t bytes;
    if (!jf_array_bytes(&open, capacity, &bytes)) {
        jf_os_set_errno(JF_OS_ENOMEM);
        return jf_array_fail(&open);
    }
    if (bytes > open.size && !jf_array_resize_to(&open, bytes, 0))
        return jf_array_fail(&open);
    jf_array_close(&open);
    return 0;
}

int rmarray_resize(rmarray_t array, size_t length) {
    struct jf_array open;
    if (!jf_array_open(&open, array, "rmarray_resize"))
        return -1;
    if (length > open.length) {
        size_t old = open.length;
        if (!jf_array_make_room(&open, length - old))
            return jf_array_fail(&open);
        unsigned hints = open.flags >> JF_ARRAY_HINT_SHIFT;
        if ((hints & RM_ARRAY_ZEROED) != 0 || jf_array_is_string(&open))
            jf_blocks_zero(rmarray_handle(array), open.elements, old * open.element_size,
                           (length - old) * open.element_size);
    }
    jf_array_set_length(&open, length);
    jf_array_close(&open);
    return 0;
}

int rmarray_shrink(rmarray_t array) {
    struct jf_array open;
    size_t bytes;
    if (!jf_array_open(&open, array, "rmarray_shrink"))
        return -1;
    const struct jf_heap *heap = (struct jf_heap *)rmheap_of(rmarray_handle(array));
    if (!jf_array_bytes(&open, open.length, &bytes) || whole_block(heap, bytes) >= open.size) {
        jf_array_close(&open);
        return 0;
    }
    if (!jf_array_resize_to(&open, bytes, 0))
        return jf_array_fail(&open);
    jf_array_close(&open);
    return 0;
}

int rmarray_clear(rmarray_t array) {
    struct jf_array open;
    if (!jf_array_enter(&open, array, "rmarray_clear"))
        return -1;
    jf_array_set_length(&open, 0);
    jf_array_close(&open);
    return 0;
}

int rmarray_stats(rmarray_t array, struct rm_array_stats *ret_stats) {
    struct jf_array open;
    struct jf_blocks_info info;
    memset(ret_stats, 0, sizeof *ret_stats);
    if (!jf_array_open(&open, array, "rmarray_stats"))
        return -1;
    jf_blocks_info(rmarray_handle(array), open.elements, &info);
    jf_array_close(&open);
    size_t used = open.length * open.element_size;
    *ret_stats = (struct rm_array_stats){
        .length = open.length,
        .capacity = jf_array_capacity(&open),
        .element_size = open.element_size,
        .alignment = (size_t)1 << info.align_log2,
        .bytes = open.size,
        .unused =
            open.size - jf_array_tail_size(&open, open.size) - jf_array_is_string(&open) - used,
        .room = info.room,
        .locks = info.locks - 1,
        .hints = open.flags >> JF_ARRAY_HINT_SHIFT & 15,
        .growth = (enum rm_array_growth)((open.flags & JF_ARRAY_GROWTH_MASK) + 1),
        .string = jf_array_is_string(&open),
        .large = info.room != 0,
    };
    return 0;
}
