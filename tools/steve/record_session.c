/* From raw operations with addresses to events with block numbers. */
#include "record_session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Writing is over; the program runs on unrecorded. */
static void fail(struct record_session *session, const char *what) {
    if (session->writer == NULL)
        return;
    if (what != NULL)
        snprintf(session->error.text, sizeof session->error.text, "%s", what);
    trace_writer_abandon(session->writer);
    session->writer = NULL;
    atomic_store(&session->ring->closed, 1);
}

static void emit(struct record_session *session, struct trace_event *event) {
    event->time_us = session->time_us;
    if (session->writer == NULL)
        return;
    if (trace_live_apply(&session->live, event, &session->error) != 0 ||
        trace_writer_add(session->writer, event, &session->error) != 0)
        fail(session, NULL);
}

/* A number for a new block. */
static uint32_t take_number(struct record_session *session) {
    if (session->free_count > 0)
        return session->free_numbers[--session->free_count];
    if (session->live.totals.block_numbers >= TRACE_BLOCK_MAX)
        fail(session, "more live blocks than a trace can number");
    return (uint32_t)session->live.totals.block_numbers;
}

static void give_number_back(struct record_session *session, uint32_t block) {
    if (session->free_count == session->free_capacity) {
        size_t capacity = session->free_capacity != 0 ? 2 * session->free_capacity : 1024;
        uint32_t *numbers = realloc(session->free_numbers, capacity * sizeof *numbers);
        if (numbers == NULL) {
            fail(session, "out of memory");
            return;
        }
        session->free_numbers = numbers;
        session->free_capacity = capacity;
    }
    session->free_numbers[session->free_count++] = block;
}

static void emit_free(struct record_session *session, uint32_t block, uint32_t thread) {
    struct trace_event event = {.op = TRACE_FREE, .block = block, .thread = thread};
    emit(session, &event);
    give_number_back(session, block);
}

/* Enters a block's address. A block that is still there was freed in a way we did not see. */
static void enter_address(struct record_session *session, uint64_t address, uint32_t block,
                          uint32_t thread) {
    uint32_t stale;
    if (record_map_take(&session->map, address, &stale)) {
        session->implicit_frees++;
        emit_free(session, stale, thread);
    }
    if (!record_map_add(&session->map, address, block))
        fail(session, "out of memory");
}

/* The stack that came before this operation. */
static void emit_stack(struct record_session *session, const struct record_slot *slot) {
    struct trace_event event = {.op = TRACE_STACK,
                                .thread = slot->thread,
                                .frames = session->frames,
                                .frame_count = session->frame_count};
    if (session->frame_count != 0)
        emit(session, &event);
    session->frame_count = 0;
}

static void allocate(struct record_session *session, const struct record_slot *slot,
                     enum trace_op op) {
    emit_stack(session, slot);
    struct trace_event event = {
        .op = op,
        .block = take_number(session),
        .thread = slot->thread,
        .size = slot->size,
        .alignment_log2 = op == TRACE_ALIGNED ? slot->alignment_log2 : 0,
    };
    emit(session, &event);
    enter_address(session, slot->address, event.block, slot->thread);
}

static void begin_realloc(struct record_session *session, const struct record_slot *slot) {
    struct session_realloc *begun = &session->reallocs[slot->thread];
    uint32_t block;
    begun->address = slot->address;
    begun->block = 0;
    if (record_map_take(&session->map, slot->address, &block))
        begun->block = block + 1;
    else
        session->unknown_frees++;
}

static void end_realloc(struct record_session *session, const struct record_slot *slot) {
    struct session_realloc *begun = &session->reallocs[slot->thread];
    uint32_t number = begun->block;
    begun->block = 0;
    if (slot->address == 0) {
        if (number != 0 && slot->size == 0)
            emit_free(session, number - 1, slot->thread);
        else if (number != 0)
            enter_address(session, begun->address, number - 1, slot->thread);
        return;
    }
    if (number == 0) {
        /* Of a block we never saw: from now on we know it. */
        allocate(session, slot, TRACE_MALLOC);
        return;
    }
    emit_stack(session, slot);
    struct trace_event event = {
        .op = TRACE_REALLOC, .block = number - 1, .thread = slot->thread, .size = slot->size};
    emit(session, &event);
    enter_address(session, slot->address, number - 1, slot->thread);
}

static void release(struct record_session *session, const struct record_slot *slot) {
    uint32_t block;
    if (record_map_take(&session->map, slot->address, &block))
        emit_free(session, block, slot->thread);
    else
        session->unknown_frees++;
}

static void add_frame(struct record_session *session, uint64_t address) {
    if (session->frame_count < TRACE_STACK_MAX)
        session->frames[session->frame_count++] = address;
}

/* Operations that are parts of another one's. */
static void take_part(struct record_session *session, const struct record_slot *slot) {
    struct trace_event event = {.op = TRACE_MODULE,
                                .thread = slot->thread,
                                .frames = session->module,
                                .frame_count = 3,
                                .name = session->module_name};
    switch ((enum record_op)slot->op) {
    case RECORD_FRAMES:
    case RECORD_FRAMES_LAST:
        add_frame(session, slot->address);
        if (slot->op == RECORD_FRAMES)
            add_frame(session, slot->size);
        break;
    case RECORD_MODULE:
        session->module[0] = slot->address;
        session->module[1] = slot->size;
        memset(session->module_name, 0, sizeof session->module_name);
        session->module_name_size = 0;
        break;
    case RECORD_MODULE_BASE:
        session->module[2] = slot->address;
        break;
    case RECORD_MODULE_NAME:
        if (session->module_name_size + 2 * sizeof(uint64_t) < sizeof session->module_name) {
            memcpy(session->module_name + session->module_name_size, &slot->address,
                   sizeof slot->address);
            memcpy(session->module_name + session->module_name_size + sizeof slot->address,
                   &slot->size, sizeof slot->size);
            session->module_name_size += 2 * sizeof(uint64_t);
        }
        break;
    default:
        if (session->module[0] < session->module[1])
            emit(session, &event);
        session->module[1] = 0;
        break;
    }
}

static void take_slot(struct record_session *session, const struct record_slot *slot) {
    /* The clock is read after the slot's number is taken, so it may be a little older than the one
     * of the slot before; and it may wrap. */
    int32_t step = (int32_t)(slot->time - session->last_ticks);
    if (step > 0) {
        session->last_ticks = slot->time;
        session->time_us += (uint64_t)step * RECORD_TICK_US;
    }
    switch ((enum record_op)slot->op) {
    case RECORD_MALLOC:
        allocate(session, slot, TRACE_MALLOC);
        break;
    case RECORD_CALLOC:
        allocate(session, slot, TRACE_CALLOC);
        break;
    case RECORD_ALIGNED:
        allocate(session, slot, TRACE_ALIGNED);
        break;
    case RECORD_REALLOC_BEGIN:
        begin_realloc(session, slot);
        break;
    case RECORD_REALLOC_END:
        end_realloc(session, slot);
        break;
    case RECORD_FREE:
        release(session, slot);
        break;
    default:
        take_part(session, slot);
        return;
    }
    session->frame_count = 0;
}

uint64_t session_drain(struct record_session *session, uint64_t limit) {
    struct record_ring *ring = session->ring;
    uint64_t start = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint64_t tail = start;
    while (tail - start < limit) {
        struct record_slot *slot = &ring->slots[tail % RECORD_SLOTS];
        if (atomic_load_explicit(&slot->published, memory_order_acquire) != tail + 1)
            break;
        if (session->writer != NULL)
            take_slot(session, slot);
        tail++;
        if (tail % 1024 == 0)
            atomic_store_explicit(&ring->tail, tail, memory_order_release);
    }
    atomic_store_explicit(&ring->tail, tail, memory_order_release);
    return tail - start;
}

void session_skip_one(struct record_session *session) {
    struct record_ring *ring = session->ring;
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    session->lost_events++;
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
}

void session_drain_rest(struct record_session *session) {
    struct record_ring *ring = session->ring;
    for (;;) {
        session_drain(session, UINT64_MAX);
        uint64_t head = atomic_load(&ring->head);
        uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        if (tail >= head)
            return;
        session_skip_one(session);
    }
}

void session_exec(struct record_session *session, struct record_ring *ring) {
    session_drain_rest(session);
    munmap(session->ring, sizeof *session->ring);
    session->ring = ring;
    for (uint32_t block = 0; block < session->live.totals.block_numbers; block++) {
        int live;
        trace_live_size(&session->live, block, &live);
        if (live)
            emit_free(session, block, 0);
    }
    record_map_finish(&session->map);
    if (!record_map_init(&session->map))
        fail(session, "out of memory");
    memset(session->reallocs, 0, SESSION_THREADS_MAX * sizeof *session->reallocs);
    struct trace_event event = {.op = TRACE_EXEC};
    emit(session, &event);
}

static void destroy(struct record_session *session) {
    trace_writer_abandon(session->writer);
    trace_live_finish(&session->live);
    record_map_finish(&session->map);
    free(session->free_numbers);
    free(session->reallocs);
    if (session->ring != NULL)
        munmap(session->ring, sizeof *session->ring);
    free(session);
}

struct record_session *session_create(struct record_ring *ring, int descriptor, const char *name,
                                      const struct trace_header *header, bool compress,
                                      struct trace_error *error) {
    struct trace_writer *writer = trace_writer_create(descriptor, name, header, compress, error);
    if (writer == NULL)
        return NULL;
    struct record_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        snprintf(error->text, sizeof error->text, "out of memory");
        trace_writer_abandon(writer);
        return NULL;
    }
    session->writer = writer;
    session->pid = header->pid;
    session->reallocs = calloc(SESSION_THREADS_MAX, sizeof *session->reallocs);
    if (session->reallocs == NULL || trace_live_init(&session->live, 0) != 0 ||
        !record_map_init(&session->map)) {
        snprintf(error->text, sizeof error->text, "out of memory");
        destroy(session);
        return NULL;
    }
    session->ring = ring;
    return session;
}

int session_finish(struct record_session *session, int wait_status, struct trace_totals *ret_totals,
                   struct trace_error *error) {
    atomic_store(&session->ring->closed, 1);
    struct trace_totals totals = session->live.totals;
    totals.wait_status = (uint64_t)(unsigned)wait_status;
    totals.unknown_frees = session->unknown_frees;
    totals.implicit_frees = session->implicit_frees;
    totals.lost_events = session->lost_events;
    int result = -1;
    if (session->writer == NULL) {
        *error = session->error;
    } else {
        result = trace_writer_finish(session->writer, &totals, error);
        session->writer = NULL;
    }
    if (ret_totals != NULL)
        *ret_totals = totals;
    destroy(session);
    return result;
}
