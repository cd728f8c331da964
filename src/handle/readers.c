/* The list of all threads' read sections. Adding is lock-free, so that a signal handler may open the
 * first section of its thread whatever the thread was in; taking out and looking happen under the mutex.
 */
#include "handle/readers.h"

#include "base/atomic.h"

/* How often an open section is looked at again before it counts as staying open: a few microseconds. */
enum { PATIENCE = 2000 };

/* How often the mutex is tried. */
enum { TRIES = 100 };

void jf_readers_init(struct jf_readers *readers) {
    jf_os_mutex_init(&readers->mutex);
    readers->first = NULL;
    readers->any = 0;
    readers->fence_all = 0;
}

void jf_readers_add(struct jf_readers *readers, struct jf_reader_node *node,
                    struct rm_reader *reader) {
    node->reader = reader;
    __atomic_store_n(&readers->any, 1, __ATOMIC_RELAXED);
    struct jf_reader_node *first = __atomic_load_n(&readers->first, __ATOMIC_RELAXED);
    do
        __atomic_store_n(&node->next, first, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&readers->first, &first, node, false, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
    /* Whoever looked before this node was in the list has marked its blocks before: they are seen. */
    jf_fence();
}

/* Takes the node out of the list behind `from`; false when it is not there. */
static bool unlink_behind(struct jf_reader_node *from, struct jf_reader_node *node) {
    for (; from != NULL; from = from->next) {
        if (from->next == node) {
            from->next = node->next;
            return true;
        }
    }
    return false;
}

void jf_readers_remove(struct jf_readers *readers, struct jf_reader_node *node) {
    jf_os_mutex_lock(&readers->mutex);
    struct jf_reader_node *first = node;
    if (!__atomic_compare_exchange_n(&readers->first, &first, node->next, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        unlink_behind(first, node);
    jf_os_mutex_unlock(&readers->mutex);
}

/* Whether the thread is outside its section, or has been since it was first looked at. */
static bool was_outside(const struct rm_reader *reader) {
    uint64_t first = jf_word_load(&reader->sequence);
    uint64_t now = first;
    for (unsigned patience = PATIENCE; (now & 1) != 0 && now == first; patience--) {
        if (patience == 0)
            return false;
        now = jf_word_load(&reader->sequence);
    }
    return true;
}

bool jf_readers_quiet(struct jf_readers *readers, const struct rm_reader *own, bool system_fence) {
    if (own != NULL && own->depth != 0)
        return false;
    /* Orders the caller's marks before the look at `any`, and after it nothing more is needed when no
     * thread has ever opened a section: the first one is opened behind a fence of its own. */
    jf_fence();
    if (__atomic_load_n(&readers->any, __ATOMIC_RELAXED) == 0)
        return true;
    if (system_fence)
        jf_os_fence_all();
    bool quiet = true;
    /* whoever has it may have been suspended with it: nobody is to wait for that */
    for (unsigned tries = TRIES; !jf_os_mutex_trylock(&readers->mutex); tries--) {
        if (tries == 0)
            return false;
        jf_os_yield();
    }
    struct jf_reader_node *node = __atomic_load_n(&readers->first, __ATOMIC_ACQUIRE);
    for (; node != NULL && quiet; node = node->next)
        quiet = was_outside(node->reader);
    jf_os_mutex_unlock(&readers->mutex);
    return quiet;
}

void jf_readers_fork_child(struct jf_readers *readers, struct jf_reader_node *own) {
    jf_os_mutex_init(&readers->mutex);
    if (own != NULL)
        own->next = NULL;
    readers->first = own;
}
