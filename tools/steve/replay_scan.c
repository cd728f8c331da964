/* What must be known of a trace before it is replayed. It is found out in the parent: what a worker
 * allocates before its baseline is taken, and frees, would be in what it measures. */
#include <stdio.h>
#include <stdlib.h>

#include "replay.h"
#include "steve.h"
#include "trace_live.h"
#include "trace_read.h"

uint64_t replay_random(uint64_t *state) {
    uint64_t value = *state += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

bool replay_chance(uint64_t *state, double share) {
    return (double)(replay_random(state) >> 11) < share * 0x1p53;
}

/* Follows the trace up to that event, or to where it is cut off. `ret_peak_event`: the one after
 * which live bytes are most. 0, or -1 after a complaint; `live` is to be finished in any case. */
static int follow(const char *path, uint64_t stop_event, struct trace_live *live,
                  uint64_t *ret_peak_event) {
    enum { PROGRESS_EVERY = 1 << 20 };
    struct trace_error error;
    struct trace_event event;
    struct trace_reader *reader = trace_reader_open(path, &error);
    if (reader == NULL || trace_live_init(live, 0) != 0) {
        steve_complain("%s", reader == NULL ? error.text : "out of memory");
        trace_reader_close(reader);
        return -1;
    }
    uint64_t peak = 0;
    while (trace_reader_next(reader, &event, &error) == 1 && event.number < stop_event &&
           trace_live_apply(live, &event, &error) == 0) {
        if (live->live_bytes > peak) {
            peak = live->live_bytes;
            *ret_peak_event = event.number;
        }
        if (event.number % PROGRESS_EVERY == PROGRESS_EVERY - 1)
            steve_show_progress("looking ahead", trace_reader_share(reader));
    }
    steve_show_progress("looking ahead", 1);
    trace_reader_close(reader);
    return 0;
}

/* Which of the blocks that a round leaves live on, and so what is live at most in all rounds. The
 * same blocks as in the replay: it asks for the same random numbers in the same order. */
static int foresee_rounds(const struct trace_live *live, const struct replay_options *options,
                          struct replay_plan *plan) {
    size_t survivors = (size_t)plan->survivors;
    uint64_t *kept = malloc((survivors * (options->rounds - 1) + 1) * sizeof *kept);
    uint64_t random = options->seed;
    size_t count = 0;
    if (kept == NULL) {
        steve_complain("out of memory");
        return -1;
    }
    for (uint32_t round = 1; round < options->rounds; round++) {
        uint64_t bytes = 0;
        size_t left = 0;
        for (uint64_t i = 0; i < plan->totals.block_numbers; i++) {
            if (live->blocks[i].size != 0)
                kept[count++] = live->blocks[i].size - 1;
        }
        for (size_t i = 0; i < count; i++) {
            if (replay_chance(&random, options->free_share))
                continue;
            kept[left++] = kept[i];
            bytes += kept[i];
        }
        count = left;
        if (plan->totals.peak_live_bytes + bytes > plan->peak_bytes)
            plan->peak_bytes = plan->totals.peak_live_bytes + bytes;
        if (plan->totals.peak_live_blocks + count > plan->peak_blocks)
            plan->peak_blocks = plan->totals.peak_live_blocks + count;
    }
    free(kept);
    return 0;
}

int replay_scan(const char *path, struct replay_options *options) {
    struct replay_plan *plan = &options->plan;
    struct trace_live live = {0};
    uint64_t peak_event = 0;
    *plan = (struct replay_plan){.stop_event = UINT64_MAX};
    if (options->rounds == 1 && !options->stop_at_peak && !options->partial)
        return 0;
    int result = follow(path, UINT64_MAX, &live, &peak_event);
    if (result == 0 && options->stop_at_peak) {
        plan->stop_event = peak_event + 1;
        trace_live_finish(&live);
        result = follow(path, plan->stop_event, &live, &peak_event);
    }
    plan->scanned = true;
    plan->totals = live.totals;
    plan->survivors = live.live_blocks;
    plan->peak_bytes = live.totals.peak_live_bytes;
    plan->peak_blocks = live.totals.peak_live_blocks;
    if (result == 0)
        result = foresee_rounds(&live, options, plan);
    trace_live_finish(&live);
    return result;
}
