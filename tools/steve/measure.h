/* What the replayer measures of its own process: memory and time. */
#ifndef STEVE_MEASURE_H
#define STEVE_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#include "replay.h"

/* Opens the files of /proc, before the first measurement. -1 with errno set when there are none. */
int measure_open(void);

/* Makes the pages of all mapped files present, programs and libraries that is: what is run for the
 * first time during the measurement is not the allocator's memory. Does nothing before Linux 5.14. */
void measure_touch_files(void);

/* Resident bytes of this process now, exact (the sum over its mappings). */
int64_t measure_resident(void);

/* Both kinds of bytes of this process at once: resident, and of those its share where others have
 * them, too (proportional set size), without pages of files. */
void measure_memory(int64_t *ret_resident, int64_t *ret_share);

/* Bytes of data this process has mapped, as the limit on them counts. */
int64_t measure_data(void);

/* Most resident bytes since measure_reset_peak. */
int64_t measure_resident_peak(void);
int measure_reset_peak(void);

/* Nanoseconds, of the wall clock and of this thread's use of the processor. */
uint64_t measure_wall_ns(void);
uint64_t measure_cpu_ns(void);

/* Memory that no allocator under test knows of, zero and present. NULL when there is none. */
void *measure_map(size_t size);

/* Percentiles (nearest rank) of times in nanoseconds. Sorts `times`. All 0 when count is 0. */
struct replay_percentiles measure_percentiles(uint64_t *times, size_t count);

#endif
