/* The methods: coarse, fine, and bursts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer.h"

/* An entry of the queue of blocks by the clock at which their life value may be 0 again. */
struct expiry {
    uint64_t clock, serial;
    uint32_t block;
};

/* An event held back until nothing that follows can change what is before and after it. */
struct delayed {
    struct trace_event event;
    uint64_t clock;
    bool lock_before, unlock_after;
};

struct infer_machine {
    struct infer_options options;
    struct infer_sink *sink;
    const uint64_t *locked_for_life;
    uint64_t clock;       /* of the events taken; the sink's is behind when events are held back */
    struct expiry *queue; /* a binary heap */
    size_t queue_count, queue_capacity;
    struct delayed *line;          /* a ring */
    uint64_t line_first, line_end; /* places; modulo the capacity */
    uint64_t line_capacity;        /* a power of two */
};

static int fail(struct infer_machine *machine, const char *what) {
    snprintf(machine->sink->error.text, sizeof machine->sink->error.text, "%s", what);
    return -1;
}

static bool begins_block(const struct trace_event *event) {
    return event->op == TRACE_MALLOC || event->op == TRACE_CALLOC || event->op == TRACE_ALIGNED;
}

/* --- Coarse: a block that has so large a share of all accesses in its life is locked for life; the
 * others never. */

static int next_coarse(struct infer_machine *machine, const struct trace_event *event) {
    if (infer_emit(machine->sink, event) != 0)
        return -1;
    uint64_t index = event->serial - 1;
    if (begins_block(event) && (machine->locked_for_life[index / 64] >> index % 64 & 1) != 0)
        return infer_lock(machine->sink, event->block, event);
    return 0;
}

/* --- Fine: a life value rises with every own access and falls with every operation on another block;
 * the block is locked while it is above 0. Instead of touching every live block at every operation,
 * a queue tells when a value will have fallen to 0 unless the block is accessed before; an entry that
 * comes up too early, because it was, is put back. */

static void sift_up(struct expiry *queue, size_t at) {
    struct expiry moved = queue[at];
    while (at > 0 && queue[(at - 1) / 2].clock > moved.clock) {
        queue[at] = queue[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    queue[at] = moved;
}

static void sift_down(struct expiry *queue, size_t count) {
    struct expiry moved = queue[0];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && queue[child + 1].clock < queue[child].clock)
            child++;
        if (queue[child].clock >= moved.clock)
            break;
        queue[at] = queue[child];
    }
    queue[at] = moved;
}

static int add_expiry(struct infer_machine *machine, struct expiry entry) {
    if (machine->queue_count == machine->queue_capacity) {
        size_t capacity = machine->queue_capacity != 0 ? 2 * machine->queue_capacity : 1024;
        struct expiry *queue = realloc(machine->queue, capacity * sizeof *queue);
        if (queue == NULL)
            return fail(machine, "out of memory");
        machine->queue = queue;
        machine->queue_capacity = capacity;
    }
    machine->queue[machine->queue_count] = entry;
    sift_up(machine->queue, machine->queue_count++);
    return 0;
}

/* The clock at which the block's value is 0. */
static uint64_t expiry_of(const struct infer_machine *machine, const struct infer_block *block) {
    double steps = block->life / machine->options.loss;
    uint64_t whole = steps < 0x1p60 ? (uint64_t)steps : (uint64_t)1 << 60;
    return block->touched + whole + ((double)whole < steps);
}

/* Unlocks what has fallen to 0 by now. */
static int expire(struct infer_machine *machine, const struct trace_event *event) {
    while (machine->queue_count > 0 && machine->queue[0].clock <= machine->clock) {
        struct expiry *first = &machine->queue[0];
        struct infer_block *block = &machine->sink->blocks[first->block];
        bool is_same = block->serial == first->serial && block->queued;
        uint64_t clock = is_same ? expiry_of(machine, block) : 0;
        if (is_same && clock > machine->clock) {
            first->clock = clock;
            sift_down(machine->queue, machine->queue_count);
            continue;
        }
        if (is_same) {
            block->queued = false;
            if (infer_unlock(machine->sink, first->block, event) != 0)
                return -1;
        }
        *first = machine->queue[--machine->queue_count];
        sift_down(machine->queue, machine->queue_count);
    }
    return 0;
}

static int next_fine(struct infer_machine *machine, const struct trace_event *event) {
    struct infer_block *block = &machine->sink->blocks[event->block];
    if (event->op != TRACE_ACCESS) {
        machine->clock += infer_weight(event);
        if (infer_emit(machine->sink, event) != 0)
            return -1;
        if (begins_block(event)) {
            block->life = 0;
            block->queued = false;
        }
        return expire(machine, event);
    }
    /* Others' operations since its last access, then its own. */
    double lost = machine->options.loss * (double)(machine->clock - block->touched);
    block->life = block->life > lost ? block->life - lost : 0;
    block->life += machine->options.gain * (double)(event->reads + event->writes);
    machine->clock += infer_weight(event);
    block->touched = machine->clock;
    if (infer_lock(machine->sink, event->block, event) != 0)
        return -1;
    if (!block->queued) {
        block->queued = true;
        struct expiry entry = {expiry_of(machine, block), block->serial, event->block};
        if (add_expiry(machine, entry) != 0)
            return -1;
    }
    return infer_emit(machine->sink, event) != 0 ? -1 : expire(machine, event);
}

/* --- Bursts: a program takes a block in hand, uses it and perhaps a few others, and lets go. A burst
 * ends at the last access before a gap of more than `gap` operations on others, so the lock ends with
 * its last use and not, as with a value that falls, some time after. For that, events are held back
 * for as long as the gap is. */

static int make_room(struct infer_machine *machine) {
    uint64_t count = machine->line_end - machine->line_first;
    if (count < machine->line_capacity)
        return 0;
    uint64_t capacity = machine->line_capacity != 0 ? 2 * machine->line_capacity : 1024;
    struct delayed *line = malloc(capacity * sizeof *line);
    if (line == NULL)
        return fail(machine, "out of memory");
    for (uint64_t i = machine->line_first; i < machine->line_end; i++)
        line[i & (capacity - 1)] = machine->line[i & (machine->line_capacity - 1)];
    free(machine->line);
    machine->line = line;
    machine->line_capacity = capacity;
    return 0;
}

static int release_first(struct infer_machine *machine) {
    struct delayed *first = &machine->line[machine->line_first++ & (machine->line_capacity - 1)];
    const struct trace_event *event = &first->event;
    if (first->lock_before && infer_lock(machine->sink, event->block, event) != 0)
        return -1;
    if (first->unlock_after) {
        /* The block may end with this event: unlocked first, and counted as locked before. */
        struct infer_block *block = &machine->sink->blocks[event->block];
        uint64_t serial = block->serial;
        if (infer_emit(machine->sink, event) != 0)
            return -1;
        return block->serial == serial ? infer_unlock(machine->sink, event->block, event) : 0;
    }
    return infer_emit(machine->sink, event);
}

static void join_burst(struct infer_machine *machine, struct delayed *last) {
    struct infer_block *block = &machine->sink->blocks[last->event.block];
    uint64_t place = block->last_access - 1;
    last->lock_before = last->unlock_after = true;
    if (block->last_access != 0 && place >= machine->line_first) {
        machine->line[place & (machine->line_capacity - 1)].unlock_after = false;
        last->lock_before = false;
    }
    block->last_access = machine->line_end + 1;
}

static int next_burst(struct infer_machine *machine, const struct trace_event *event) {
    while (machine->line_first < machine->line_end &&
           machine->clock -
                   machine->line[machine->line_first & (machine->line_capacity - 1)].clock >
               machine->options.gap) {
        if (release_first(machine) != 0)
            return -1;
    }
    if (make_room(machine) != 0)
        return -1;
    struct delayed *last = &machine->line[machine->line_end & (machine->line_capacity - 1)];
    last->event = *event;
    last->lock_before = last->unlock_after = false;
    if (event->op == TRACE_ACCESS)
        join_burst(machine, last);
    else if (event->op != TRACE_STACK && event->op != TRACE_EXEC && event->op < TRACE_OP_SKIPPABLE)
        machine->sink->blocks[event->block].last_access = 0;
    machine->clock += infer_weight(event);
    last->clock = machine->clock;
    machine->line_end++;
    return 0;
}

/* --- */

struct infer_machine *infer_machine_create(const struct infer_options *options,
                                           struct infer_sink *sink,
                                           const uint64_t *locked_for_life) {
    struct infer_machine *machine = calloc(1, sizeof *machine);
    if (machine == NULL)
        return NULL;
    machine->options = *options;
    machine->sink = sink;
    machine->locked_for_life = locked_for_life;
    return machine;
}

int infer_machine_next(struct infer_machine *machine, const struct trace_event *event) {
    switch (machine->options.method) {
    case INFER_COARSE:
        return next_coarse(machine, event);
    case INFER_FINE:
        return next_fine(machine, event);
    default:
        /* The frames of a stack are gone with the next event. */
        return event->op == TRACE_STACK || event->op == TRACE_MODULE ? 0
                                                                     : next_burst(machine, event);
    }
}

int infer_machine_finish(struct infer_machine *machine) {
    while (machine->line_first < machine->line_end) {
        if (release_first(machine) != 0)
            return -1;
    }
    return 0;
}

void infer_machine_destroy(struct infer_machine *machine) {
    if (machine == NULL)
        return;
    free(machine->queue);
    free(machine->line);
    free(machine);
}
