/* What one event of a trace does on an allocator. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "payload.h"
#include "replay_state.h"
#include "steve.h"

static int fail_event(const struct replay *replay, const struct trace_event *event,
                      const char *what) {
    steve_complain("%s, replayed on %s: event %" PRIu64 ", block %u of %" PRIu64 " bytes: %s",
                   replay->path, replay->backend->name, event->number, event->block,
                   event->op == TRACE_FREE ? event->old_size : event->size, what);
    return -1;
}

static int fail_refused(const struct replay *replay, const struct trace_event *event) {
    replay->result->out_of_memory = 1;
    if (replay->pass == REPLAY_FIT)
        return -1;
    return fail_event(replay, event, errno != 0 ? strerror(errno) : "the allocator gave nothing");
}

static uint64_t serial_of(const struct replay *replay, const struct trace_event *event) {
    return event->serial + replay->serial_base;
}

static void write_payload(const struct replay *replay, void *address,
                          const struct trace_event *event, size_t from) {
    size_t size = (size_t)event->size;
    if (replay->backend->ideal)
        return;
    if (replay->pass != REPLAY_MEMORY)
        payload_touch(address, serial_of(replay, event), from, size);
    else if (from < size)
        payload_fill(address, serial_of(replay, event), from, size);
}

bool replay_check(const struct replay *replay, const void *address, uint64_t serial, size_t size) {
    if (replay->backend->ideal)
        return true;
    if (replay->pass != REPLAY_MEMORY)
        return payload_is_touched(address, serial, size);
    replay->result->verified_bytes += size;
    return payload_is_whole(address, serial, size);
}

/* --- Timing of single calls. */

static inline uint64_t begin_call(const struct replay *replay) {
    return replay->histograms != NULL ? latency_clock() : 0;
}

static inline void end_call(const struct replay *replay, enum replay_kind kind, uint64_t start) {
    if (replay->histograms == NULL)
        return;
    uint64_t ticks = latency_clock() - start;
    ticks = ticks > replay->clock_cost ? ticks - replay->clock_cost : 0;
    latency_add(&replay->histograms[kind], ticks);
    latency_add(&replay->histograms[KIND_ALL], ticks);
}

/* The heap is full although it was compacted: its limit was too small. True when it is larger now. */
static bool raise_limit(struct replay *replay) {
    enum { RAISE_SHARE = 16 };
    if (replay->backend->policy != POLICY_OUT_OF_MEMORY || replay->pass == REPLAY_FIT ||
        errno != ENOMEM)
        return false;
    size_t larger = replay->limit + replay->limit / RAISE_SHARE;
    if (larger <= replay->limit || replay->backend->limit(larger, false) != 0)
        return false;
    replay->limit = larger;
    replay->result->limit_raises++;
    return true;
}

/* --- Operations. */

static void *call_allocator(const struct replay *replay, const struct trace_event *event,
                            size_t alignment) {
    const struct replay_backend *backend = replay->backend;
    size_t size = (size_t)event->size;
    uint64_t start = begin_call(replay);
    void *reference;
    errno = 0;
    if (event->op == TRACE_MALLOC)
        reference = backend->allocate(size);
    else if (event->op == TRACE_CALLOC)
        reference = backend->allocate_zeroed(size);
    else
        reference = backend->allocate_aligned(alignment, size);
    end_call(replay, KIND_ALLOCATE, start);
    return reference;
}

static int replay_allocation(struct replay *replay, const struct trace_event *event) {
    const struct replay_backend *backend = replay->backend;
    size_t alignment = (size_t)1 << event->alignment_log2;
    if (backend->alignment_max != 0 && alignment > backend->alignment_max) {
        alignment = backend->alignment_max;
        replay->result->alignments_reduced++;
    }
    void *reference;
    do
        reference = call_allocator(replay, event, alignment);
    while (reference == NULL && raise_limit(replay));
    if (reference == NULL)
        return fail_refused(replay, event);
    replay->references[event->block] = reference;
    void *address = replay_open(replay, reference);
    if (address == NULL)
        return fail_event(replay, event, "the new block has no address");
    if (event->op == TRACE_ALIGNED && !backend->ideal && (uintptr_t)address % alignment != 0)
        return fail_event(replay, event, "the new block is not aligned");
    if (event->op == TRACE_CALLOC && replay->pass == REPLAY_MEMORY && !backend->ideal &&
        !payload_is_zero(address, (size_t)event->size))
        return fail_event(replay, event, "the new block is not zero");
    write_payload(replay, address, event, 0);
    replay_close(replay, reference);
    return 0;
}

/* A locked block cannot be moved: the program that has its address gives it up for the call. */
static void set_locks(const struct replay *replay, void *reference, uint64_t locks, bool lock) {
    for (; replay->backend->handles && locks > 0; locks--) {
        if (lock)
            replay_open(replay, reference);
        else
            replay_close(replay, reference);
    }
}

static int replay_reallocation(struct replay *replay, const struct trace_event *event) {
    const struct replay_backend *backend = replay->backend;
    void *old = replay->references[event->block];
    size_t size = (size_t)event->size;
    size_t kept = event->old_size < event->size ? (size_t)event->old_size : size;
    void *reference;
    set_locks(replay, old, event->locks, false);
    do {
        errno = 0;
        uint64_t start = begin_call(replay);
        reference = backend->resize(old, size);
        end_call(replay, KIND_RESIZE, start);
    } while (reference == NULL && raise_limit(replay));
    if (reference == NULL)
        return fail_refused(replay, event);
    set_locks(replay, reference, event->locks, true);
    replay->references[event->block] = reference;
    void *address = replay_open(replay, reference);
    if (address == NULL || !replay_check(replay, address, serial_of(replay, event), kept))
        return fail_event(replay, event, "its contents changed when it was reallocated");
    write_payload(replay, address, event, kept);
    replay_close(replay, reference);
    return 0;
}

static int replay_free(struct replay *replay, const struct trace_event *event) {
    const struct replay_backend *backend = replay->backend;
    void *reference = replay->references[event->block];
    void *address = replay_open(replay, reference);
    if (address == NULL ||
        !replay_check(replay, address, serial_of(replay, event), (size_t)event->old_size))
        return fail_event(replay, event, "its contents changed before it was freed");
    replay_close(replay, reference);
    replay->references[event->block] = NULL;
    uint64_t start = begin_call(replay);
    backend->release(reference);
    end_call(replay, KIND_RELEASE, start);
    return 0;
}

int replay_event(struct replay *replay, const struct trace_event *event) {
    switch (event->op) {
    case TRACE_MALLOC:
    case TRACE_CALLOC:
    case TRACE_ALIGNED:
        return replay_allocation(replay, event);
    case TRACE_REALLOC:
        return replay_reallocation(replay, event);
    case TRACE_FREE:
        return replay_free(replay, event);
    case TRACE_LOCK:
    case TRACE_UNLOCK:
        set_locks(replay, replay->references[event->block], 1, event->op == TRACE_LOCK);
        return 0;
    default:
        return 0;
    }
}
