/* One pass over a trace on one allocator, in this process. Everything the replayer needs is got and
 * touched before the baseline of memory is taken: from then on, what the process has more is the
 * allocator's. Decoding and checking of events happens in batches outside the timed part. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "measure.h"
#include "payload.h"
#include "replay.h"
#include "steve.h"
#include "trace_live.h"
#include "trace_read.h"

enum { BATCH_EVENTS = 4096 };

struct replay {
    const char *path;
    const struct replay_backend *backend;
    const struct replay_options *options;
    enum replay_pass pass;
    struct replay_result *result;
    struct trace_reader *reader;
    struct trace_live live;
    struct trace_totals totals;
    void **references; /* by block number; NULL = not live */
    uint64_t *pause_wall;
    uint64_t *pause_cpu;
    size_t pause_capacity;
    uint64_t events;      /* done */
    uint64_t next_idle;   /* events */
    uint64_t next_sample; /* events */
    uint64_t sample_every;
    uint64_t elapsed_ns;
    uint64_t time_us; /* of the last event */
    int64_t baseline;
    double resident_sum, live_sum;
    uint64_t point_count;
    bool at_end;
    struct trace_event batch[BATCH_EVENTS];
    size_t batch_count;
    uint64_t batch_live, batch_blocks; /* after its last event */
};

/* --- One event. */

static int fail_event(const struct replay *replay, const struct trace_event *event,
                      const char *what) {
    steve_complain("%s, replayed on %s: event %" PRIu64 ", block %u of %" PRIu64 " bytes: %s",
                   replay->path, replay->backend->name, event->number, event->block,
                   event->op == TRACE_FREE ? event->old_size : event->size, what);
    return -1;
}

static void write_payload(const struct replay *replay, void *address,
                          const struct trace_event *event, size_t from) {
    size_t size = (size_t)event->size;
    if (replay->pass == REPLAY_SPEED)
        payload_touch(address, event->serial, from, size);
    else if (from < size)
        payload_fill(address, event->serial, from, size);
}

static bool check_payload(const struct replay *replay, const void *address, uint64_t serial,
                          size_t size) {
    if (replay->pass == REPLAY_SPEED)
        return payload_is_touched(address, serial, size);
    replay->result->verified_bytes += size;
    return payload_is_whole(address, serial, size);
}

static int fail_refused(const struct replay *replay, const struct trace_event *event) {
    return fail_event(replay, event, errno != 0 ? strerror(errno) : "the allocator gave nothing");
}

static int replay_allocation(struct replay *replay, const struct trace_event *event) {
    const struct replay_backend *backend = replay->backend;
    size_t size = (size_t)event->size;
    size_t alignment = (size_t)1 << event->alignment_log2;
    void *reference;
    errno = 0;
    if (event->op == TRACE_MALLOC) {
        reference = backend->allocate(size);
    } else if (event->op == TRACE_CALLOC) {
        reference = backend->allocate_zeroed(size);
    } else {
        if (backend->alignment_max != 0 && alignment > backend->alignment_max) {
            alignment = backend->alignment_max;
            replay->result->alignments_reduced++;
        }
        reference = backend->allocate_aligned(alignment, size);
    }
    if (reference == NULL)
        return fail_refused(replay, event);
    replay->references[event->block] = reference;
    void *address = backend->open(reference);
    if (address == NULL)
        return fail_event(replay, event, "the new block has no address");
    if (event->op == TRACE_ALIGNED && (uintptr_t)address % alignment != 0)
        return fail_event(replay, event, "the new block is not aligned");
    if (event->op == TRACE_CALLOC && replay->pass == REPLAY_MEMORY &&
        !payload_is_zero(address, size))
        return fail_event(replay, event, "the new block is not zero");
    write_payload(replay, address, event, 0);
    backend->close(reference);
    return 0;
}

static int replay_reallocation(struct replay *replay, const struct trace_event *event) {
    const struct replay_backend *backend = replay->backend;
    size_t size = (size_t)event->size;
    size_t kept = event->old_size < event->size ? (size_t)event->old_size : size;
    errno = 0;
    void *reference = backend->resize(replay->references[event->block], size);
    if (reference == NULL)
        return fail_refused(replay, event);
    replay->references[event->block] = reference;
    void *address = backend->open(reference);
    if (address == NULL || !check_payload(replay, address, event->serial, kept))
        return fail_event(replay, event, "its contents changed when it was reallocated");
    write_payload(replay, address, event, kept);
    backend->close(reference);
    return 0;
}

static int replay_free(struct replay *replay, const struct trace_event *event) {
    const struct replay_backend *backend = replay->backend;
    void *reference = replay->references[event->block];
    void *address = backend->open(reference);
    if (address == NULL || !check_payload(replay, address, event->serial, (size_t)event->old_size))
        return fail_event(replay, event, "its contents changed before it was freed");
    backend->close(reference);
    replay->references[event->block] = NULL;
    backend->release(reference);
    return 0;
}

static int replay_batch(struct replay *replay) {
    for (size_t i = 0; i < replay->batch_count; i++) {
        const struct trace_event *event = &replay->batch[i];
        int result = 0;
        if (event->op == TRACE_FREE)
            result = replay_free(replay, event);
        else if (event->op == TRACE_REALLOC)
            result = replay_reallocation(replay, event);
        else if (event->op != TRACE_EXEC)
            result = replay_allocation(replay, event);
        if (result != 0)
            return -1;
    }
    return 0;
}

/* --- Reading ahead. */

/* Fills the batch with at most `limit` events. 0, or -1 after a complaint. */
static int fill_batch(struct replay *replay, uint64_t limit) {
    struct trace_error error;
    replay->batch_count = 0;
    while (!replay->at_end && replay->batch_count < BATCH_EVENTS && replay->batch_count < limit) {
        struct trace_event *event = &replay->batch[replay->batch_count];
        int got = trace_reader_next(replay->reader, event, &error);
        if (got == 0 || (got < 0 && replay->options->partial)) {
            replay->at_end = true;
        } else if (got < 0) {
            steve_complain("%s", error.text);
            return -1;
        } else if (trace_live_apply(&replay->live, event, &error) != 0) {
            char where[256];
            trace_reader_where(replay->reader, where, sizeof where);
            steve_complain("%s: %s", where, error.text);
            return -1;
        } else if (event->block >= replay->totals.block_numbers) {
            steve_complain("%s: block number %u, and the end frame promised fewer", replay->path,
                           event->block);
            return -1;
        } else if (event->op == TRACE_ACCESS || event->op == TRACE_STACK) {
            replay->time_us = event->time_us;
        } else {
            replay->batch_count++;
            replay->time_us = event->time_us;
        }
    }
    return 0;
}

/* Totals of a trace without an end, by reading what there is. */
static int scan_totals(struct replay *replay) {
    struct trace_error error;
    struct trace_event event;
    struct trace_live live;
    struct trace_reader *reader = trace_reader_open(replay->path, &error);
    if (reader == NULL || trace_live_init(&live, 0) != 0) {
        steve_complain("%s", reader == NULL ? error.text : "out of memory");
        trace_reader_close(reader);
        return -1;
    }
    while (trace_reader_next(reader, &event, &error) == 1 &&
           trace_live_apply(&live, &event, &error) == 0)
        ;
    replay->totals = live.totals;
    trace_live_finish(&live);
    trace_reader_close(reader);
    return 0;
}

/* --- Measuring between batches. */

static int64_t add_sample(struct replay *replay, bool compacted) {
    struct replay_result *result = replay->result;
    int64_t resident = measure_resident() - replay->baseline;
    if (result->sample_count < REPLAY_SAMPLES_MAX) {
        result->samples[result->sample_count++] = (struct replay_sample){
            .event = replay->events,
            .time_us = replay->time_us,
            .live = replay->live.live_bytes,
            .blocks = replay->live.live_blocks,
            .resident = resident,
            .compacted = compacted,
        };
    }
    if (resident > result->resident_peak)
        result->resident_peak = resident;
    return resident;
}

static void compact_idle(struct replay *replay) {
    uint64_t wall = measure_wall_ns();
    uint64_t cpu = measure_cpu_ns();
    replay->backend->compact(replay->options->budget_us);
    cpu = measure_cpu_ns() - cpu;
    wall = measure_wall_ns() - wall;
    size_t index = (size_t)replay->result->pause_count;
    if (index < replay->pause_capacity) {
        replay->pause_wall[index] = wall;
        replay->pause_cpu[index] = cpu;
        replay->result->pause_count++;
    }
}

/* What is due after a batch: a sample, a compaction, a sample after it. */
static void do_between(struct replay *replay) {
    bool idle = replay->events >= replay->next_idle;
    bool compacts = idle && replay->backend->compact != NULL && replay->options->budget_us != 0;
    bool sample = replay->pass == REPLAY_MEMORY && replay->events >= replay->next_sample;
    double resident = 0;
    if (sample)
        resident = (double)add_sample(replay, false);
    if (compacts)
        compact_idle(replay);
    if (sample && compacts)
        resident = (resident + (double)add_sample(replay, true)) / 2;
    if (sample) {
        replay->resident_sum += resident;
        replay->live_sum += (double)replay->live.live_bytes;
        replay->point_count++;
        replay->next_sample = replay->events + replay->sample_every;
    }
    if (idle)
        replay->next_idle = replay->events + replay->options->idle_every;
}

/* Events until something is due. */
static uint64_t events_ahead(const struct replay *replay) {
    uint64_t next = replay->next_idle;
    if (replay->pass == REPLAY_MEMORY && replay->next_sample < next)
        next = replay->next_sample;
    return next - replay->events;
}

static int run_events(struct replay *replay) {
    while (replay->batch_count > 0) {
        uint64_t start = measure_wall_ns();
        if (replay_batch(replay) != 0)
            return -1;
        replay->elapsed_ns += measure_wall_ns() - start;
        replay->events += replay->batch_count;
        do_between(replay);
        if (fill_batch(replay, events_ahead(replay)) != 0)
            return -1;
    }
    return 0;
}

/* --- Beginning and end. */

static int64_t largest_hole(const struct replay_backend *backend) {
    return backend->largest_hole != NULL ? backend->largest_hole() : 0;
}

static int prepare(struct replay *replay) {
    struct trace_error error;
    replay->reader = trace_reader_open(replay->path, &error);
    if (replay->reader == NULL) {
        steve_complain("%s", error.text);
        return -1;
    }
    if (trace_reader_totals(replay->reader, &replay->totals, &error) != 0) {
        if (!replay->options->partial) {
            steve_complain("%s", error.text);
            return -1;
        }
        if (scan_totals(replay) != 0)
            return -1;
    }
    uint64_t events = replay->totals.events;
    uint64_t numbers = replay->totals.block_numbers;
    if (numbers > TRACE_BLOCK_MAX || events / replay->options->idle_every >= UINT32_MAX) {
        steve_complain("%s: the end frame's totals make no sense", replay->path);
        return -1;
    }
    replay->sample_every = events / replay->options->samples + 1;
    replay->next_sample = replay->sample_every;
    replay->next_idle = replay->options->idle_every;
    replay->pause_capacity = (size_t)(events / replay->options->idle_every + 2);
    replay->references = measure_map((size_t)numbers * sizeof *replay->references);
    replay->pause_wall = measure_map(replay->pause_capacity * sizeof *replay->pause_wall);
    replay->pause_cpu = measure_map(replay->pause_capacity * sizeof *replay->pause_cpu);
    if (replay->references == NULL || replay->pause_wall == NULL || replay->pause_cpu == NULL ||
        trace_live_init(&replay->live, numbers) != 0) {
        steve_complain("%s: no memory for tables of %" PRIu64 " blocks", replay->path, numbers);
        return -1;
    }
    if (measure_open() != 0) {
        steve_complain("cannot open /proc/self: %s", strerror(errno));
        return -1;
    }
    /* Touched now, not in the middle of a measurement; the first frame unpacked touches the rest.
     */
    trace_reader_touch(replay->reader);
    largest_hole(replay->backend);
    memset(replay->batch, 0xff, sizeof replay->batch);
    return fill_batch(replay, events_ahead(replay));
}

/* Memory at the end, before and after all was done to make it small. */
static void measure_end(struct replay *replay) {
    struct replay_result *result = replay->result;
    bool memory = replay->pass == REPLAY_MEMORY;
    int64_t hole = 0;
    if (memory) {
        result->resident_end = add_sample(replay, false);
        hole = largest_hole(replay->backend);
    }
    uint64_t wall = measure_wall_ns();
    uint64_t cpu = measure_cpu_ns();
    const char *what = replay->backend->tidy();
    result->tidy_cpu_us = (double)(measure_cpu_ns() - cpu) / 1e3;
    result->tidy_wall_us = (double)(measure_wall_ns() - wall) / 1e3;
    snprintf(result->tidy_what, sizeof result->tidy_what, "%s", what);
    if (!memory)
        return;
    result->resident_tidy = add_sample(replay, true);
    int64_t peak = measure_resident_peak() - replay->baseline;
    if (peak > result->resident_peak)
        result->resident_peak = peak;
    /* A block larger than every hole comes from the system, and may until the peak is reached
     * again. */
    int64_t room = result->resident_peak - result->resident_end;
    result->largest_end = hole > room ? hole : room;
    hole = largest_hole(replay->backend);
    room = result->resident_peak - result->resident_tidy;
    result->largest_tidy = hole > room ? hole : room;
}

/* Checks and frees the blocks that are still there. */
static int free_survivors(struct replay *replay) {
    const struct replay_backend *backend = replay->backend;
    for (uint32_t block = 0; block < replay->live.totals.block_numbers; block++) {
        void *reference = replay->references[block];
        if (reference == NULL)
            continue;
        const struct trace_live_block *known = &replay->live.blocks[block];
        const void *address = backend->open(reference);
        if (address == NULL ||
            !check_payload(replay, address, known->serial, (size_t)(known->size - 1))) {
            steve_complain(
                "%s, replayed on %s: block %u changed its contents in the last compaction",
                replay->path, backend->name, block);
            return -1;
        }
        backend->close(reference);
        backend->release(reference);
    }
    return 0;
}

static void fill_result(struct replay *replay) {
    struct replay_result *result = replay->result;
    size_t pauses = (size_t)result->pause_count;
    double points = replay->point_count != 0 ? (double)replay->point_count : 1;
    result->operations = replay->events;
    result->peak_live = replay->live.totals.peak_live_bytes;
    result->end_live = replay->live.live_bytes;
    result->end_blocks = replay->live.live_blocks;
    result->resident_average = replay->resident_sum / points;
    result->live_average = replay->live_sum / points;
    result->pause_wall = measure_percentiles(replay->pause_wall, pauses);
    result->pause_cpu = measure_percentiles(replay->pause_cpu, pauses);
    result->seconds = (double)replay->elapsed_ns / 1e9;
    result->done = 1;
}

int replay_run(const char *path, const struct replay_backend *backend, enum replay_pass pass,
               const struct replay_options *options, struct replay_result *ret_result) {
    static struct replay replay;
    replay.path = path;
    replay.backend = backend;
    replay.options = options;
    replay.pass = pass;
    replay.result = ret_result;
    memset(ret_result, 0, REPLAY_RESULT_BYTES);
    if (prepare(&replay) != 0)
        return -1;
    measure_reset_peak();
    replay.baseline = measure_resident();
    if (run_events(&replay) != 0)
        return -1;
    measure_end(&replay);
    if (free_survivors(&replay) != 0)
        return -1;
    fill_result(&replay);
    trace_live_finish(&replay.live);
    trace_reader_close(replay.reader);
    return 0;
}
