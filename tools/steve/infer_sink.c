/* What comes out of the inference: written, and compared with locks placed by hand. */
#include <stdio.h>

#include "infer.h"

/* Settles what was locked, and by whom, since the last change. */
static void settle(struct infer_sink *sink, struct infer_block *block) {
    struct infer_score *score = &sink->score;
    double time = (double)(sink->clock - block->since);
    double bytes = time * (double)block->size;
    block->since = sink->clock;
    if (block->locked) {
        score->inferred += time;
        score->inferred_bytes += bytes;
    }
    if (block->hand != 0) {
        score->hand += time;
        score->hand_bytes += bytes;
    }
    if (block->locked && block->hand != 0) {
        score->both += time;
        score->both_bytes += bytes;
    }
}

static int write_event(struct infer_sink *sink, const struct trace_event *event) {
    if (sink->writer == NULL)
        return 0;
    if (event->op == TRACE_ACCESS)
        return trace_live_access(&sink->live, event, &sink->error) == 0
                   ? trace_writer_add(sink->writer, event, &sink->error)
                   : -1;
    struct trace_event copy = *event;
    if (trace_live_apply(&sink->live, &copy, &sink->error) != 0)
        return -1;
    return trace_writer_add(sink->writer, &copy, &sink->error);
}

/* Fills only what a lock has: there are many, and clearing the whole event takes longer. */
static int write_lock(struct infer_sink *sink, uint32_t number, bool lock,
                      const struct trace_event *event) {
    struct trace_event change;
    change.op = lock ? TRACE_LOCK : TRACE_UNLOCK;
    change.block = number;
    change.thread = event->thread;
    change.time_us = event->time_us;
    if (trace_live_apply(&sink->live, &change, &sink->error) != 0)
        return -1;
    return trace_writer_add(sink->writer, &change, &sink->error);
}

static int change_lock(struct infer_sink *sink, uint32_t number, bool lock,
                       const struct trace_event *event) {
    struct infer_block *block = &sink->blocks[number];
    if (block->locked == lock)
        return 0;
    settle(sink, block);
    block->locked = lock;
    sink->score.locks += lock;
    return sink->writer != NULL ? write_lock(sink, number, lock, event) : 0;
}

int infer_lock(struct infer_sink *sink, uint32_t block, const struct trace_event *event) {
    return change_lock(sink, block, true, event);
}

int infer_unlock(struct infer_sink *sink, uint32_t block, const struct trace_event *event) {
    return change_lock(sink, block, false, event);
}

/* What the event does to the block it names, before it is written. */
static void apply(struct infer_sink *sink, const struct trace_event *event) {
    struct infer_block *block = &sink->blocks[event->block];
    switch (event->op) {
    case TRACE_MALLOC:
    case TRACE_CALLOC:
    case TRACE_ALIGNED:
        block->serial = event->serial;
        block->size = event->size;
        block->since = sink->clock;
        block->hand = 0;
        block->locked = false;
        sink->live_blocks++;
        sink->live_bytes += event->size;
        break;
    case TRACE_REALLOC:
        settle(sink, block);
        sink->live_bytes += event->size - block->size;
        block->size = event->size;
        break;
    case TRACE_FREE:
        settle(sink, block);
        sink->live_blocks--;
        sink->live_bytes -= block->size;
        block->serial = 0;
        break;
    case TRACE_LOCK:
    case TRACE_UNLOCK:
        settle(sink, block);
        block->hand += event->op == TRACE_LOCK ? 1u : UINT32_MAX;
        sink->score.hand_locks += event->op == TRACE_LOCK;
        break;
    case TRACE_ACCESS:
        sink->score.accesses += event->reads + event->writes;
        if (block->locked)
            sink->score.covered += event->reads + event->writes;
        break;
    default:
        break;
    }
}

static int end_block(struct infer_sink *sink, const struct trace_event *event) {
    struct trace_event end = {.op = TRACE_FREE,
                              .block = sink->ends[sink->end_next++].block,
                              .thread = event->thread,
                              .time_us = event->time_us};
    if (infer_unlock(sink, end.block, event) != 0)
        return -1;
    /* Its lock placed by hand would stay for ever: the program took it off later, or never. */
    settle(sink, &sink->blocks[end.block]);
    sink->blocks[end.block].hand = 0;
    apply(sink, &end);
    return write_event(sink, &end);
}

int infer_emit(struct infer_sink *sink, const struct trace_event *event) {
    uint64_t weight = infer_weight(event);
    bool is_lock = event->op == TRACE_LOCK || event->op == TRACE_UNLOCK;
    bool is_left_out = is_lock || (event->op == TRACE_ACCESS && !sink->with_accesses) ||
                       (event->op == TRACE_STACK && !sink->with_stacks);
    if (event->op == TRACE_FREE && infer_unlock(sink, event->block, event) != 0)
        return -1;
    /* A lock placed by hand on a block that has ended already is of no account. */
    if (!is_lock || sink->blocks[event->block].serial != 0)
        apply(sink, event);
    sink->clock += weight;
    sink->score.live += (double)weight * (double)sink->live_blocks;
    sink->score.live_bytes += (double)weight * (double)sink->live_bytes;
    if (!is_left_out && write_event(sink, event) != 0)
        return -1;
    while (sink->end_next < sink->end_count && sink->ends[sink->end_next].event == event->number) {
        if (end_block(sink, event) != 0)
            return -1;
    }
    return 0;
}

void infer_finish_score(struct infer_sink *sink) {
    for (uint64_t i = 0; i < sink->block_count; i++) {
        if (sink->blocks[i].serial != 0)
            settle(sink, &sink->blocks[i]);
    }
}
