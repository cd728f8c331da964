/* Times of single calls. */
#include "replay_latency.h"

#include <time.h>

#include "measure.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

static unsigned bucket_of(uint64_t ticks) {
    if (ticks >> LATENCY_SUB_LOG2 == 0)
        return (unsigned)ticks;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ticks) - LATENCY_SUB_LOG2;
    return ((shift + 1) << LATENCY_SUB_LOG2) +
           (unsigned)(ticks >> shift & ((1u << LATENCY_SUB_LOG2) - 1));
}

/* The largest tick count of a bucket. */
static uint64_t bucket_end(unsigned bucket) {
    if (bucket >> LATENCY_SUB_LOG2 == 0)
        return bucket;
    unsigned shift = (bucket >> LATENCY_SUB_LOG2) - 1;
    uint64_t start = (uint64_t)(1u << LATENCY_SUB_LOG2 | (bucket & ((1u << LATENCY_SUB_LOG2) - 1)));
    return (start << shift) + (((uint64_t)1 << shift) - 1);
}

void latency_add(struct latency_histogram *histogram, uint64_t ticks) {
    histogram->count++;
    histogram->sum += ticks;
    if (ticks > histogram->max)
        histogram->max = ticks;
    histogram->buckets[bucket_of(ticks)]++;
}

uint64_t latency_clock(void) {
#if defined(__x86_64__)
    /* Waits for what was begun before, so that a call's own work is in its time. */
    unsigned processor;
    return __rdtscp(&processor);
#else
    return measure_wall_ns();
#endif
}

double latency_tick_ns(void) {
    struct timespec pause = {0, 20000000};
    uint64_t wall = measure_wall_ns();
    uint64_t ticks = latency_clock();
    nanosleep(&pause, NULL);
    ticks = latency_clock() - ticks;
    return ticks != 0 ? (double)(measure_wall_ns() - wall) / (double)ticks : 1;
}

uint64_t latency_clock_cost(void) {
    enum { TRIES = 1000 };
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        uint64_t before = latency_clock();
        uint64_t cost = latency_clock() - before;
        if (cost < least)
            least = cost;
    }
    return least;
}

uint64_t latency_percentile(const struct latency_histogram *histogram, double share) {
    double wanted = share * (double)histogram->count;
    uint64_t seen = 0;
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen != 0 && (double)seen >= wanted)
            return bucket_end(i) < histogram->max ? bucket_end(i) : histogram->max;
    }
    return histogram->max;
}

struct replay_latency latency_summary(const struct latency_histogram *histogram, double tick_ns) {
    struct replay_latency result = {.count = histogram->count};
    if (histogram->count == 0)
        return result;
    result.mean_ns = (double)histogram->sum / (double)histogram->count * tick_ns;
    result.p50_ns = (double)latency_percentile(histogram, 0.5) * tick_ns;
    result.p99_ns = (double)latency_percentile(histogram, 0.99) * tick_ns;
    result.p999_ns = (double)latency_percentile(histogram, 0.999) * tick_ns;
    result.max_ns = (double)histogram->max * tick_ns;
    return result;
}
