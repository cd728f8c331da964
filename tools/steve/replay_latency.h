/* Times of single calls in constant memory: a histogram whose buckets are 1/64 of a power of two
 * wide, so percentiles are exact to 1.6 %. */
#ifndef STEVE_REPLAY_LATENCY_H
#define STEVE_REPLAY_LATENCY_H

#include <stdint.h>

#include "replay.h"

enum { LATENCY_SUB_LOG2 = 6, LATENCY_BUCKETS = (64 - LATENCY_SUB_LOG2 + 1) << LATENCY_SUB_LOG2 };

struct latency_histogram {
    uint64_t count, sum, max;
    uint64_t buckets[LATENCY_BUCKETS];
};

void latency_add(struct latency_histogram *histogram, uint64_t ticks);

/* A reading of the finest clock there is, and how many nanoseconds its tick takes. */
uint64_t latency_clock(void);
double latency_tick_ns(void);

/* Ticks that two readings are apart when nothing is between them. */
uint64_t latency_clock_cost(void);

/* The smallest tick count that at least `share` of all do not exceed, to 1/64. */
uint64_t latency_percentile(const struct latency_histogram *histogram, double share);

struct replay_latency latency_summary(const struct latency_histogram *histogram, double tick_ns);

#endif
