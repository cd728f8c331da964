/* Jeff in handle form: a reference is a handle, and memory is touched between lock and unlock. One
 * backend for each policy of compaction. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include <jeff/jeff.h>

#include "measure.h"
#include "replay.h"

static void *allocate(size_t size) {
    return rmmalloc(size);
}

static void *allocate_zeroed(size_t size) {
    return rmcalloc(1, size);
}

static void *allocate_aligned(size_t alignment, size_t size) {
    return rmaligned_alloc(alignment, size);
}

static void *resize(void *handle, size_t size) {
    return rmrealloc(handle, size) == 0 ? handle : NULL;
}

static void release(void *handle) {
    rmfree(handle);
}

static void *open_block(void *handle) {
    return rmlock(handle);
}

static void close_block(void *handle) {
    rmunlock(handle);
}

static void compact(uint32_t budget_us) {
    rmcompact_us(budget_us, NULL);
}

static const char *tidy(void) {
    static char what[48];
    struct rm_compact_result result;
    rm_compact_status status = rmcompact_us(0, &result);
    const char *reason = status == RM_COMPACT_DONE        ? "done"
                         : status == RM_COMPACT_LOCKED    ? "rest locked"
                         : status == RM_COMPACT_NOT_WORTH ? "rest not worth it"
                                                          : "stopped";
    snprintf(what, sizeof what, "rmcompact(0): %s", reason);
    return what;
}

static const char *tidy_nothing(void) {
    return "none";
}

static int set_limit(size_t bytes, bool first) {
    struct rm_options options;
    (void)first;
    rmoptions_init(&options);
    options.limit = bytes;
    return rmconfigure(&options);
}

/* The buffer's pages are there before the first measurement, as a device's memory would be. */
static int set_buffer(size_t bytes, bool first) {
    if (!first) {
        errno = ENOMEM;
        return -1;
    }
    void *buffer = measure_map(bytes);
    if (buffer == NULL) {
        errno = ENOMEM;
        return -1;
    }
    return rminit(buffer, bytes);
}

#define JEFF                                                                                       \
    .handles = true, .alignment_max = (size_t)512 << 10, .allocate = allocate,                     \
    .allocate_zeroed = allocate_zeroed, .allocate_aligned = allocate_aligned, .resize = resize,    \
    .release = release, .open = open_block, .close = close_block

const struct replay_backend replay_jeff = {
    .name = "jeff",
    .description = "Jeff, blocks behind handles, compaction at idle points",
    .policy = POLICY_IDLE,
    .compact = compact,
    .tidy = tidy,
    .limit = set_limit,
    JEFF,
};

const struct replay_backend replay_jeff_never = {
    .name = "jeff-never",
    .description = "Jeff, blocks behind handles, never compacted",
    .policy = POLICY_NEVER,
    .tidy = tidy_nothing,
    .limit = set_limit,
    JEFF,
};

const struct replay_backend replay_jeff_oom = {
    .name = "jeff-oom",
    .description = "Jeff, blocks behind handles, compaction when memory runs out",
    .policy = POLICY_OUT_OF_MEMORY,
    .tidy = tidy,
    .limit = set_limit,
    JEFF,
};

const struct replay_backend replay_jeff_background = {
    .name = "jeff-background",
    .description = "Jeff, blocks behind handles, compaction by a thread of its own",
    .policy = POLICY_BACKGROUND,
    .compact = compact,
    .tidy = tidy,
    .limit = set_limit,
    JEFF,
};

const struct replay_backend replay_jeff_fixed = {
    .name = "jeff-fixed",
    .description = "Jeff in a buffer of fixed size, compaction when memory runs out",
    .policy = POLICY_OUT_OF_MEMORY,
    .tidy = tidy,
    .limit = set_buffer,
    JEFF,
};
