/* The public calls that lock and look: slow paths of the inlined ones, and those that have no fast one;
 * read sections; the reports of misuse.
 */
#include "api.h"

#include "base/mark.h"
#include "heap/fixed.h"

/* ------------------------------------------------------------------------------------- misuse */

/* Whose callback is asked about a misuse that cannot be told to belong to a heap. */
static const struct jf_options *default_options(void) {
    const struct jf_heap *heap = jf_api_heap_if_any(NULL);
    if (heap != NULL)
        return &heap->options;
    return jf_api.configured ? &jf_api.options : NULL;
}

void jf_api_misuse_handle(const char *call, rmhandle_t handle) {
    uint32_t index;
    /* its entry was given up when a fixed heap's table became shorter */
    struct jf_heap *heap = handle != NULL ? jf_api_find_fixed(handle, true, &index) : NULL;
    struct jf_misuse misuse = {
        .kind = handle == NULL ? RM_MISUSE_NULL_HANDLE
                : heap != NULL ? RM_MISUSE_STALE_HANDLE
                               : RM_MISUSE_FOREIGN_HANDLE,
        .call = call,
        .handle = handle,
        .heap = heap,
    };
    jf_misuse_report(&misuse, heap != NULL ? &heap->options : default_options());
}

void jf_api_misuse_call(const char *call, enum rm_misuse_kind kind, const char *detail) {
    struct jf_misuse misuse = {.kind = kind, .call = call, .detail = detail};
    jf_misuse_report(&misuse, default_options());
}

static enum rm_misuse_kind kind_of(enum jf_access access, rmhandle_t handle, jf_word word) {
    switch (access) {
    case JF_ACCESS_OVERFLOW:
        return RM_MISUSE_LOCK_OVERFLOW;
    case JF_ACCESS_NOT_LOCKED:
        return RM_MISUSE_UNLOCK_UNLOCKED;
    case JF_ACCESS_LOCKED:
        return RM_MISUSE_FREE_LOCKED;
    default:
        /* The generation of a free entry is the one that its next handle will have. */
        return jf_entry_state(word) == JF_ENTRY_FREE && jf_handle_matches(handle, word)
                   ? RM_MISUSE_FOREIGN_HANDLE
                   : RM_MISUSE_STALE_HANDLE;
    }
}

void jf_api_misuse_access(const char *call, rmhandle_t handle, const struct jf_home *home,
                          enum jf_access access) {
    jf_word word = jf_word_load(jf_space_entry(home->space, home->index));
    struct jf_misuse misuse = {
        .kind = kind_of(access, handle, word),
        .call = call,
        .handle = handle,
        .heap = jf_api_heap_of_word(home, word),
        .has_word = true,
        .word = word,
    };
    jf_misuse_report(&misuse, misuse.heap != NULL ? &misuse.heap->options : default_options());
}

void jf_api_check_after(struct jf_heap *heap, const char *call) {
    if (heap == NULL || heap->options.check < 2)
        return;
    struct rm_fault fault;
    if (jf_check(heap, &fault) == 0)
        return;
    struct jf_misuse misuse = {
        .kind = RM_MISUSE_HEAP_FAULT,
        .call = call,
        .handle = fault.handle,
        .heap = heap,
        .rule = fault.rule,
        .rule_name = fault.name,
        .detail = fault.text,
        .has_seed = heap->options.scramble_period != 0,
        .seed = heap->options.scramble_seed,
    };
    jf_misuse_report(&misuse, &heap->options);
}

/* ------------------------------------------------------------------------------------- marks */

/* What a memory debugger calls the block's pool. */
static const void *pool_of(const struct jf_home *home) {
    return home->fixed != NULL ? (const void *)home->fixed : (const void *)home->space;
}

static unsigned count_of(const struct jf_home *home) {
    return jf_entry_count(jf_word_load(jf_space_entry(home->space, home->index)));
}

/* The first lock opens the block. Waits only between two tries, with no mark in hand. */
static enum jf_access marked_lock(const struct jf_home *home, rmhandle_t handle, bool may_wait,
                                  void **ret_pointer) {
    for (;;) {
        bool entered = jf_mark_enter();
        enum jf_access access =
            jf_access_lock(home->space, home->fixed, home->index, handle, false, ret_pointer);
        if (access == JF_ACCESS_OK && count_of(home) == 1) {
            uintptr_t payload = (uintptr_t)*ret_pointer;
            jf_mark_locked(pool_of(home), payload, jf_api_size_at(home, payload));
        }
        jf_mark_leave(entered);
        if (access != JF_ACCESS_WOULD_WAIT || !may_wait)
            return access;
        jf_os_yield();
    }
}

/* The last unlock closes it: before it is one, for afterwards the block may be moved. */
static enum jf_access marked_unlock(const struct jf_home *home, rmhandle_t handle) {
    void *pointer;
    bool entered = jf_mark_enter();
    if (count_of(home) == 1 &&
        jf_access_peek(home->space, home->index, handle, &pointer) == JF_ACCESS_OK)
        jf_mark_unlocked(pool_of(home), (uintptr_t)pointer,
                         jf_api_size_at(home, (uintptr_t)pointer));
    enum jf_access access = jf_access_unlock(home->space, home->index, handle);
    jf_mark_leave(entered);
    return access;
}

static void mark_weak(const struct jf_home *home, const void *pointer) {
    if (JF_MARK_ACTIVE)
        jf_mark_weak((uintptr_t)pointer, jf_api_size_at(home, (uintptr_t)pointer));
}

void jf_api_remark(const struct jf_home *home, size_t old_size) {
    if (!JF_MARK_ACTIVE)
        return;
    bool entered = jf_mark_enter();
    jf_word word = jf_word_load(jf_space_entry(home->space, home->index));
    if (jf_entry_count(word) != 0) {
        uintptr_t payload = jf_space_address(home->space, word);
        jf_mark_unlocked(pool_of(home), payload, old_size);
        jf_mark_locked(pool_of(home), payload, jf_api_size_at(home, payload));
    }
    jf_mark_leave(entered);
}

/* ------------------------------------------------------------------------------------- locks */

enum jf_access jf_api_count(const struct jf_home *home, rmhandle_t handle, bool may_wait,
                            void **ret_pointer) {
    if (JF_MARK_ACTIVE)
        return marked_lock(home, handle, may_wait, ret_pointer);
    return jf_access_lock(home->space, home->fixed, home->index, handle, may_wait, ret_pointer);
}

enum jf_access jf_api_uncount(const struct jf_home *home, rmhandle_t handle) {
    if (JF_MARK_ACTIVE)
        return marked_unlock(home, handle);
    return jf_access_unlock(home->space, home->index, handle);
}

void *jf_api_lock(const char *call, rmhandle_t handle, bool may_wait) {
    struct jf_home home;
    if (!jf_api_find(handle, &home)) {
        jf_api_misuse_handle(call, handle);
        return NULL;
    }
    void *pointer = NULL;
    enum jf_access access = jf_api_count(&home, handle, may_wait, &pointer);
    if (access == JF_ACCESS_OK)
        return pointer;
    if (access != JF_ACCESS_PURGED && access != JF_ACCESS_WOULD_WAIT)
        jf_api_misuse_access(call, handle, &home, access);
    return NULL;
}

static void unlock(rmhandle_t handle) {
    struct jf_home home;
    if (!jf_api_find(handle, &home)) {
        jf_api_misuse_handle("rmunlock", handle);
        return;
    }
    enum jf_access access = jf_api_uncount(&home, handle);
    if (access != JF_ACCESS_OK)
        jf_api_misuse_access("rmunlock", handle, &home, access);
}

/* Whether no section is open, and the block's heap has a check level that asks for one. */
static bool checked_outside_section(const struct jf_home *home) {
    if (jf_api_reader()->depth != 0 || !jf_api.slow)
        return false;
    jf_word word = jf_word_load(jf_space_entry(home->space, home->index));
    const struct jf_heap *heap = jf_api_heap_of_word(home, word);
    return heap != NULL && heap->options.check >= 1;
}

static void *deref(rmhandle_t handle) {
    struct jf_home home;
    void *pointer = NULL;
    if (!jf_api_find(handle, &home)) {
        jf_api_misuse_handle("rmderef", handle);
        return NULL;
    }
    enum jf_access access = jf_access_deref(home.space, home.fixed, home.index, handle, &pointer);
    if (access == JF_ACCESS_OK && checked_outside_section(&home)) {
        jf_api_misuse_call("rmderef", RM_MISUSE_READ_SECTION, NULL);
        return NULL;
    }
    if (access == JF_ACCESS_OK)
        mark_weak(&home, pointer);
    else if (access != JF_ACCESS_PURGED)
        jf_api_misuse_access("rmderef", handle, &home, access);
    return pointer;
}

void *rmtrylock(rmhandle_t handle) {
    return jf_api_lock("rmtrylock", handle, false);
}

/* Moves the block, if it can be, before a lock that will be held long; whether it has moved. */
static bool settle(const struct jf_home *home) {
    bool moved = false;
    if (home->fixed != NULL) {
        jf_heap_lock(home->fixed);
        moved = jf_fixed_lower(home->fixed, home->index, &jf_api.readers, jf_api_reader());
        jf_api_follow_table(home->fixed);
        jf_heap_unlock(home->fixed);
    } else if (JF_HAS_GROWING) {
        struct jf_thread *thread = jf_thread_begin_change(jf_api.window);
        moved = jf_grow_settle_long(jf_api.window, home->index, &jf_api.readers, jf_api_reader());
        jf_thread_end_change(thread);
    }
    return moved;
}

static void tell_moved(rmhandle_t handle, void *pointer) {
    const struct jf_heap *heap = (struct jf_heap *)rmheap_of(handle);
    if (heap != NULL && heap->options.moved != NULL)
        heap->options.moved(heap->options.context, handle, pointer, rmsize(handle));
}

void *rmlock_long(rmhandle_t handle) {
    struct jf_home home;
    void *pointer;
    bool moved = jf_api_find(handle, &home) &&
                 jf_access_peek(home.space, home.index, handle, &pointer) == JF_ACCESS_OK &&
                 !jf_api_is_element(&home) && settle(&home);
    pointer = jf_api_lock("rmlock_long", handle, true);
    if (moved && pointer != NULL)
        tell_moved(handle, pointer);
    if (pointer != NULL && jf_api.checking)
        jf_api_check_after((struct jf_heap *)rmheap_of(handle), "rmlock_long");
    return pointer;
}

void *rmweaklock(rmhandle_t handle) {
    struct jf_home home;
    if (!jf_api_find(handle, &home)) {
        jf_api_misuse_handle("rmweaklock", handle);
        return NULL;
    }
    void *pointer = NULL;
    enum jf_access access = jf_access_peek(home.space, home.index, handle, &pointer);
    if (access == JF_ACCESS_OK) {
        mark_weak(&home, pointer);
        return pointer;
    }
    if (access != JF_ACCESS_PURGED)
        jf_api_misuse_access("rmweaklock", handle, &home, access);
    return NULL;
}

int rmweak_valid(rmhandle_t handle, const void *pointer) {
    struct jf_home home;
    if (handle == NULL || pointer == NULL || !jf_api_find(handle, &home))
        return 0;
    /* What the program read before must not be fetched after the word. */
    jf_fence_acquire();
    jf_word word = jf_word_load(jf_space_entry(home.space, home.index));
    enum jf_entry_state state = jf_entry_state(word);
    return jf_handle_matches(handle, word) &&
           (state == JF_ENTRY_LIVE || state == JF_ENTRY_MOVING) &&
           jf_space_address(home.space, word) == (uintptr_t)pointer;
}

/* ------------------------------------------------------------------------------------- sections */

#if !defined(RM_NO_INLINE)
__thread struct rm_reader rm_reader_v1 __attribute__((tls_model("initial-exec")));
#define own_reader rm_reader_v1
#else
static JF_THREAD_LOCAL struct rm_reader own_reader;
#endif
static JF_THREAD_LOCAL struct jf_reader_node own_node;

struct rm_reader *jf_api_reader(void) {
    return &own_reader;
}

static void unregister(void) {
    if (!own_reader.registered)
        return;
    own_reader.registered = 0;
    jf_readers_remove(&jf_api.readers, &own_node);
}

/* No handler may open a section half way through: it would find the thread neither known nor not. */
void jf_api_reader_register(void) {
    jf_signals before;
    jf_api_start();
    jf_os_signals_block(&before);
    if (!own_reader.registered) {
        jf_readers_add(&jf_api.readers, &own_node, &own_reader);
        own_reader.registered = 1;
        jf_os_at_thread_exit(unregister);
    }
    jf_os_signals_restore(&before);
}

void jf_api_reader_fork_child(void) {
    jf_readers_fork_child(&jf_api.readers, own_reader.registered ? &own_node : NULL);
}

/* Made odd rather than counted up: a signal handler may have opened a section within. */
static void open_section(void) {
    if (!own_reader.registered)
        jf_api_reader_register();
    jf_word_store(&own_reader.sequence, own_reader.sequence | 1);
    jf_fence();
}

static void close_section(void) {
    if (own_reader.depth == 0) {
        jf_api_misuse_call("rmread_end", RM_MISUSE_READ_SECTION, NULL);
        return;
    }
    if (--own_reader.depth == 0)
        jf_word_store(&own_reader.sequence, (own_reader.sequence | 1) + 1);
}

/* ------------------------------------------------------------------------------------- entrances */

#if !defined(RM_NO_INLINE)

extern inline void *rmlock(rmhandle_t handle);
extern inline void rmunlock(rmhandle_t handle);
extern inline void rmread_begin(void);
extern inline void *rmderef(rmhandle_t handle);
extern inline void rmread_end(void);

void *rm_lock_slow_v1(rmhandle_t handle, uint64_t old_word, int counted) {
    (void)old_word;
    /* The lock is begun anew: what was found is no longer sure to be so. */
    if (counted)
        __atomic_fetch_sub((jf_word *)((uintptr_t)handle & RM_HANDLE_ENTRY), RM_ENTRY_COUNT_ONE,
                           __ATOMIC_RELAXED);
    return jf_api_lock("rmlock", handle, true);
}

void rm_unlock_slow_v1(rmhandle_t handle) {
    unlock(handle);
}

void *rm_deref_slow_v1(rmhandle_t handle) {
    return deref(handle);
}

void rm_read_begin_slow_v1(void) {
    open_section();
}

void rm_read_end_slow_v1(void) {
    close_section();
}

#else

void *rmlock(rmhandle_t handle) {
    return jf_api_lock("rmlock", handle, true);
}

void rmunlock(rmhandle_t handle) {
    unlock(handle);
}

void *rmderef(rmhandle_t handle) {
    return deref(handle);
}

void rmread_begin(void) {
    own_reader.depth++;
    open_section();
}

void rmread_end(void) {
    close_section();
}

#endif
