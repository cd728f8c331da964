/* One pass over a trace on one allocator, in this process. Everything the replayer needs is got and
 * touched before the baseline of memory is taken: from then on, what the process has more is the
 * allocator's. Decoding and checking of events happens in batches outside the timed part. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "measure.h"
#include "replay_state.h"
#include "steve.h"

uint64_t replay_live_bytes(const struct replay *replay) {
    return replay->live.live_bytes + replay->kept_bytes;
}

/* --- Reading ahead. */

static int complain_here(const struct replay *replay, const char *what) {
    char where[256];
    trace_reader_where(replay->reader, where, sizeof where);
    steve_complain("%s: %s", where, what);
    return -1;
}

/* Takes the next event into the batch, unless the replay has no use for it. */
static int take_event(struct replay *replay) {
    struct trace_error error;
    struct trace_event *event = &replay->batch[replay->batch_count];
    int got = trace_reader_next(replay->reader, event, &error);
    if (got == 0 || (got < 0 && replay->options->partial) ||
        (got == 1 && event->number >= replay->options->plan.stop_event)) {
        replay->at_end = true;
        return 0;
    }
    if (got < 0) {
        steve_complain("%s", error.text);
        return -1;
    }
    if (trace_live_apply(&replay->live, event, &error) != 0)
        return complain_here(replay, error.text);
    if (event->block >= replay->totals.block_numbers && event->op < TRACE_OP_SKIPPABLE &&
        event->op != TRACE_EXEC)
        return complain_here(replay, "a block number, and the end frame promised fewer");
    replay->time_us = replay->time_base + event->time_us;
    if (event->op == TRACE_ACCESS || event->op == TRACE_STACK || event->op == TRACE_MODULE)
        return 0;
    replay->batch_operations += event->op < TRACE_OP_SKIPPABLE && event->op != TRACE_EXEC;
    replay->batch_count++;
    return 0;
}

/* Fills the batch with at most `limit` operations. 0, or -1 after a complaint. */
static int fill_batch(struct replay *replay, uint64_t limit) {
    replay->batch_count = 0;
    replay->batch_operations = 0;
    while (!replay->at_end && replay->batch_count < BATCH_EVENTS &&
           replay->batch_operations < limit) {
        if (take_event(replay) != 0)
            return -1;
    }
    return 0;
}

/* --- Measuring between batches. */

static int64_t add_sample(struct replay *replay, bool compacted) {
    struct replay_result *result = replay->result;
    int64_t resident, share;
    uint64_t live = replay_live_bytes(replay);
    measure_memory(&resident, &share);
    resident -= replay->baseline;
    share -= replay->share_baseline;
    if (replay->backend->ideal)
        resident = share = (int64_t)((live + 4095) / 4096 * 4096);
    if (result->sample_count < REPLAY_SAMPLES_MAX) {
        result->samples[result->sample_count++] = (struct replay_sample){
            .event = replay->operations,
            .time_us = replay->time_us,
            .live = live,
            .blocks = replay->live.live_blocks + replay->kept_count,
            .resident = resident,
            .share = share,
            .compacted = compacted,
            .round = replay->round,
        };
    }
    if (resident > result->resident_peak)
        result->resident_peak = resident;
    if (live > result->peak_live)
        result->peak_live = live;
    return resident;
}

static void compact_idle(struct replay *replay) {
    struct replay_result *result = replay->result;
    uint64_t wall = measure_wall_ns();
    uint64_t cpu = measure_cpu_ns();
    replay->backend->compact(replay->options->budget_us);
    cpu = measure_cpu_ns() - cpu;
    wall = measure_wall_ns() - wall;
    size_t index = (size_t)result->pause_count;
    if (index >= replay->pause_capacity)
        return;
    replay->pause_wall[index] = wall;
    replay->pause_cpu[index] = cpu;
    result->pause_count++;
    if (index % result->pause_every != 0 || result->pause_kept == REPLAY_PAUSES_MAX)
        return;
    result->pauses[result->pause_kept++] = (struct replay_pause){
        .event = replay->operations,
        .time_us = replay->time_us,
        .wall_ns = wall,
        .cpu_ns = cpu,
        .blocks = replay->live.live_blocks + replay->kept_count,
        .locked_blocks = replay->live.locked_blocks,
        .bytes = replay_live_bytes(replay),
        .locked_bytes = replay->live.locked_bytes,
    };
}

static bool compacts_idle(const struct replay *replay) {
    return replay->backend->policy == POLICY_IDLE && replay->options->budget_us != 0;
}

/* What is due after a batch: a sample, a compaction, a sample after it, a picture of the heap. */
static void do_between(struct replay *replay) {
    bool idle = replay->operations >= replay->next_idle;
    bool compacts = idle && compacts_idle(replay);
    bool sample = replay->pass == REPLAY_MEMORY && replay->operations >= replay->next_sample;
    double resident = 0;
    if (sample)
        resident = (double)add_sample(replay, false);
    if (compacts)
        compact_idle(replay);
    if (sample && compacts)
        resident = (resident + (double)add_sample(replay, true)) / 2;
    if (sample) {
        const struct replay_result *result = replay->result;
        replay->resident_sum += resident;
        replay->share_sum += (double)result->samples[result->sample_count - 1].share;
        replay->live_sum += (double)replay_live_bytes(replay);
        replay->point_count++;
        replay->next_sample = replay->operations + replay->sample_every;
    }
    if (replay->operations >= replay->next_map) {
        replay_take_map(replay);
        replay->next_map = replay->operations + replay->map_every;
    }
    if (idle)
        replay->next_idle = replay->operations + replay->options->idle_every;
    atomic_store_explicit(&replay->result->progress, replay->operations, memory_order_relaxed);
}

/* Operations until something is due. */
static uint64_t operations_ahead(const struct replay *replay) {
    uint64_t next = replay->next_idle;
    if (replay->pass == REPLAY_MEMORY && replay->next_sample < next)
        next = replay->next_sample;
    return next - replay->operations;
}

static int run_round(struct replay *replay) {
    if (fill_batch(replay, operations_ahead(replay)) != 0)
        return -1;
    while (replay->batch_count > 0) {
        uint64_t cpu = measure_cpu_ns();
        uint64_t start = measure_wall_ns();
        for (size_t i = 0; i < replay->batch_count; i++) {
            if (replay_event(replay, &replay->batch[i]) != 0)
                return -1;
        }
        replay->elapsed_ns += measure_wall_ns() - start;
        replay->cpu_ns += measure_cpu_ns() - cpu;
        replay->operations += replay->batch_operations;
        do_between(replay);
        if (fill_batch(replay, operations_ahead(replay)) != 0)
            return -1;
    }
    return 0;
}

/* --- Rounds: at the end of each, a random share of what is left is freed, and the trace runs again
 * in what memory has become. */

static int fail_kept(const struct replay *replay, const struct replay_kept *block) {
    steve_complain("%s, replayed on %s: a block of %" PRIu64
                   " bytes that was left after a round changed its contents",
                   replay->path, replay->backend->name, block->size);
    return -1;
}

static int free_kept(struct replay *replay, const struct replay_kept *block) {
    const struct replay_backend *backend = replay->backend;
    const void *address = replay_open(replay, block->reference);
    if (address == NULL || !replay_check(replay, address, block->serial, (size_t)block->size))
        return fail_kept(replay, block);
    replay_close(replay, block->reference);
    backend->release(block->reference);
    replay->kept_bytes -= block->size;
    return 0;
}

/* Frees each of the blocks kept with a chance of `share`. */
static int free_share(struct replay *replay, double share) {
    size_t left = 0;
    for (size_t i = 0; i < replay->kept_count; i++) {
        struct replay_kept block = replay->kept[i];
        if (!replay_chance(&replay->random, share))
            replay->kept[left++] = block;
        else if (free_kept(replay, &block) != 0)
            return -1;
    }
    replay->kept_count = left;
    return 0;
}

/* What the round left becomes the blocks kept, unlocked. */
static int keep_survivors(struct replay *replay) {
    for (uint64_t i = 0; i < replay->live.totals.block_numbers; i++) {
        void *reference = replay->references[i];
        if (reference == NULL)
            continue;
        if (replay->kept_count == replay->kept_capacity) {
            steve_complain("%s: more blocks are left than the end frame promised", replay->path);
            return -1;
        }
        const struct trace_live_block *block = &replay->live.blocks[i];
        for (uint64_t n = block->locks; replay->backend->handles && n > 0; n--)
            replay_close(replay, reference);
        replay->kept[replay->kept_count++] =
            (struct replay_kept){reference, block->serial + replay->serial_base, block->size - 1};
        replay->kept_bytes += block->size - 1;
        replay->references[i] = NULL;
    }
    replay->live.live_bytes = replay->live.live_blocks = 0;
    replay->live.locked_bytes = replay->live.locked_blocks = 0;
    return 0;
}

/* Begins the trace anew. */
static int begin_round(struct replay *replay) {
    struct trace_error error;
    uint64_t numbers = replay->live.totals.block_numbers;
    uint64_t serials = replay->live.serials;
    struct trace_live_block *blocks = replay->live.blocks;
    uint64_t capacity = replay->live.capacity;
    memset(blocks, 0, numbers * sizeof *blocks);
    replay->live = (struct trace_live){.blocks = blocks, .capacity = capacity};
    replay->serial_base += serials;
    replay->time_base = replay->time_us;
    replay->at_end = false;
    replay->round++;
    if (trace_reader_rewind(replay->reader, &error) != 0) {
        steve_complain("%s", error.text);
        return -1;
    }
    return 0;
}

static int run_rounds(struct replay *replay) {
    for (;;) {
        if (run_round(replay) != 0)
            return -1;
        if (replay->round + 1 >= replay->options->rounds)
            return 0;
        if (keep_survivors(replay) != 0 || free_share(replay, replay->options->free_share) != 0 ||
            begin_round(replay) != 0)
            return -1;
    }
}

/* --- The background thread. */

static void *compact_in_background(void *argument) {
    struct replay *replay = argument;
    enum { REST_SHARE = 9 };
    while (!atomic_load(&replay->compactor_ends)) {
        uint64_t start = measure_wall_ns();
        replay->backend->compact(replay->options->budget_us);
        uint64_t rest = REST_SHARE * (measure_wall_ns() - start) + 10000u;
        struct timespec pause = {(time_t)(rest / 1000000000u), (long)(rest % 1000000000u)};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static bool has_compactor(const struct replay *replay) {
    return replay->backend->policy == POLICY_BACKGROUND && replay->options->budget_us != 0;
}

/* --- Beginning and end. */

static int64_t largest_hole(const struct replay_backend *backend) {
    return backend->largest_hole != NULL ? backend->largest_hole() : 0;
}

static int read_totals(struct replay *replay) {
    struct trace_error error;
    const struct replay_plan *plan = &replay->options->plan;
    const struct trace_totals *totals = &replay->totals;
    if (plan->scanned) {
        replay->totals = plan->totals;
    } else if (trace_reader_totals(replay->reader, &replay->totals, &error) != 0) {
        steve_complain("%s", error.text);
        return -1;
    }
    if (totals->block_numbers > TRACE_BLOCK_MAX || totals->events > UINT64_MAX / 1024 ||
        totals->events / replay->options->idle_every >= UINT32_MAX) {
        steve_complain("%s: the end frame's totals make no sense", replay->path);
        return -1;
    }
    replay->operations_all =
        (totals->allocations + totals->reallocations + totals->frees) * replay->options->rounds;
    return 0;
}

static int make_tables(struct replay *replay) {
    const struct replay_options *options = replay->options;
    size_t numbers = (size_t)replay->totals.block_numbers;
    replay->pause_capacity =
        (size_t)((replay->operations_all / options->idle_every + 2) * (compacts_idle(replay)));
    replay->kept_capacity = (size_t)(options->plan.survivors * (options->rounds - 1));
    replay->references = measure_map(numbers * sizeof *replay->references);
    replay->pause_wall = measure_map(replay->pause_capacity * sizeof *replay->pause_wall);
    replay->pause_cpu = measure_map(replay->pause_capacity * sizeof *replay->pause_cpu);
    replay->kept = measure_map(replay->kept_capacity * sizeof *replay->kept);
    if (replay->pass == REPLAY_LATENCY) {
        replay->histograms = measure_map(KINDS * sizeof *replay->histograms);
        replay->clock_cost = latency_clock_cost();
    }
    if (replay->references == NULL || replay->pause_wall == NULL || replay->pause_cpu == NULL ||
        replay->kept == NULL || (replay->pass == REPLAY_LATENCY && replay->histograms == NULL) ||
        trace_live_init(&replay->live, numbers) != 0) {
        steve_complain("%s: no memory for tables of %zu blocks", replay->path, numbers);
        return -1;
    }
    return 0;
}

static int open_map(struct replay *replay) {
    const struct replay_options *options = replay->options;
    replay->map_file = -1;
    replay->next_map = UINT64_MAX;
    if (options->maps == 0 || replay->pass != REPLAY_MEMORY || replay->backend->ideal)
        return 0;
    replay->map_file = open(options->map_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (replay->map_file < 0 || write(replay->map_file, "STEVEMAP", 8) != 8) {
        steve_complain("cannot write %s: %s", options->map_path, strerror(errno));
        return -1;
    }
    replay->map_every = replay->operations_all / options->maps + 1;
    replay->next_map = replay->map_every;
    return 0;
}

static int prepare(struct replay *replay) {
    struct trace_error error;
    replay->reader = trace_reader_open(replay->path, &error);
    if (replay->reader == NULL) {
        steve_complain("%s", error.text);
        return -1;
    }
    if (read_totals(replay) != 0 || make_tables(replay) != 0 || open_map(replay) != 0)
        return -1;
    if (measure_open() != 0) {
        steve_complain("cannot open /proc/self: %s", strerror(errno));
        return -1;
    }
    replay->sample_every = replay->operations_all / replay->options->samples + 1;
    replay->next_sample = replay->sample_every;
    replay->next_idle = replay->options->idle_every;
    replay->random = replay->options->seed;
    replay->result->progress_total = replay->operations_all;
    replay->result->pause_every = (uint32_t)(replay->pause_capacity / REPLAY_PAUSES_MAX) + 1;
    /* Touched now, not in the middle of a measurement; the first frame unpacked touches the rest. */
    measure_touch_files();
    trace_reader_touch(replay->reader);
    largest_hole(replay->backend);
    memset(replay->batch, 0xff, sizeof replay->batch);
    return 0;
}

/* The heap's limit, where the pass or the policy has one. After the baseline was taken. */
static int set_limit(struct replay *replay) {
    const struct replay_backend *backend = replay->backend;
    bool fit = replay->pass == REPLAY_FIT;
    if (!fit && backend->policy != POLICY_OUT_OF_MEMORY)
        return 0;
    replay->limit = replay->options->heap_bytes;
    if (replay->limit == 0) {
        /* A tenth more than is live, and what handles and headers take. */
        enum { SLACK = 64 << 10, PER_BLOCK = 32 };
        const struct replay_plan *plan = &replay->options->plan;
        uint64_t live = plan->scanned ? plan->peak_bytes : replay->totals.peak_live_bytes;
        uint64_t blocks = plan->scanned ? plan->peak_blocks : replay->totals.peak_live_blocks;
        replay->limit = (size_t)(live + live / 10 + PER_BLOCK * blocks + SLACK);
    }
    if (backend->limit != NULL) {
        while (backend->limit(replay->limit, true) != 0) {
            if (errno != ENOMEM && errno != EINVAL)
                break;
            if (fit)
                return -1;
            replay->limit *= 2;
        }
        return 0;
    }
    struct rlimit limit;
    limit.rlim_cur = limit.rlim_max = (rlim_t)measure_data() + replay->limit;
    return setrlimit(RLIMIT_DATA, &limit);
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
    replay_take_map(replay);
    int64_t peak = measure_resident_peak() - replay->baseline;
    if (peak > result->resident_peak && !replay->backend->ideal && replay->map_file < 0)
        result->resident_peak = peak;
    /* A block larger than every hole comes from the system, and may until the peak is reached
     * again. */
    int64_t room = result->resident_peak - result->resident_end;
    result->largest_end = hole > room ? hole : room;
    hole = largest_hole(replay->backend);
    room = result->resident_peak - result->resident_tidy;
    result->largest_tidy = hole > room ? hole : room;
}

static void fill_result(struct replay *replay) {
    struct replay_result *result = replay->result;
    size_t pauses = (size_t)result->pause_count;
    double points = replay->point_count != 0 ? (double)replay->point_count : 1;
    result->operations = replay->operations;
    if (replay->live.totals.peak_live_bytes > result->peak_live)
        result->peak_live = replay->live.totals.peak_live_bytes;
    if (replay->backend->ideal)
        result->resident_peak = (int64_t)((result->peak_live + 4095) / 4096 * 4096);
    result->end_live = replay_live_bytes(replay);
    result->end_blocks = replay->live.live_blocks + replay->kept_count;
    result->resident_average = replay->resident_sum / points;
    result->share_average = replay->share_sum / points;
    result->live_average = replay->live_sum / points;
    result->pause_wall = measure_percentiles(replay->pause_wall, pauses);
    result->pause_cpu = measure_percentiles(replay->pause_cpu, pauses);
    result->seconds = (double)replay->elapsed_ns / 1e9;
    result->cpu_seconds = (double)replay->cpu_ns / 1e9;
    if (replay->histograms != NULL) {
        double tick_ns = latency_tick_ns();
        for (unsigned kind = 0; kind < KINDS; kind++)
            result->latency[kind] = latency_summary(&replay->histograms[kind], tick_ns);
    }
    result->done = 1;
}

static int run_measured(struct replay *replay) {
    measure_reset_peak();
    measure_memory(&replay->baseline, &replay->share_baseline);
    if (set_limit(replay) != 0) {
        if (replay->pass != REPLAY_FIT)
            steve_complain("%s: cannot limit the heap: %s", replay->backend->name, strerror(errno));
        return -1;
    }
    if (has_compactor(replay) &&
        pthread_create(&replay->compactor, NULL, compact_in_background, replay) != 0) {
        steve_complain("cannot start a thread");
        return -1;
    }
    int result = run_rounds(replay);
    if (has_compactor(replay)) {
        atomic_store(&replay->compactor_ends, 1);
        pthread_join(replay->compactor, NULL);
    }
    if (result == 0)
        measure_end(replay);
    return result;
}

int replay_run(const char *path, const struct replay_backend *backend, enum replay_pass pass,
               const struct replay_options *options, struct replay_result *ret_result) {
    static struct replay replay;
    replay.path = path;
    replay.backend = backend;
    replay.options = options;
    replay.pass = pass;
    replay.result = ret_result;
    if (prepare(&replay) != 0 || run_measured(&replay) != 0)
        return -1;
    fill_result(&replay);
    if (pass == REPLAY_FIT)
        return 0;
    /* What is still there is checked, and freed. */
    if (options->rounds == 1) {
        replay.kept_capacity = (size_t)replay.live.live_blocks;
        replay.kept = measure_map(replay.kept_capacity * sizeof *replay.kept);
    } else {
        replay.kept_capacity += (size_t)replay.live.live_blocks;
        struct replay_kept *larger = measure_map(replay.kept_capacity * sizeof *larger);
        if (larger != NULL)
            memcpy(larger, replay.kept, replay.kept_count * sizeof *larger);
        replay.kept = larger;
    }
    if (replay.kept == NULL) {
        steve_complain("out of memory");
        return -1;
    }
    if (keep_survivors(&replay) != 0 || free_share(&replay, 1) != 0)
        return -1;
    if (replay.map_file >= 0)
        close(replay.map_file);
    trace_live_finish(&replay.live);
    trace_reader_close(replay.reader);
    return 0;
}
