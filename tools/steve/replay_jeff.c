/* Jeff in handle form: a reference is a handle, and memory is touched between lock and unlock. */
#include <stdio.h>

#include <jeff/jeff.h>

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

const struct replay_backend replay_jeff = {
    .name = "jeff",
    .description = "Jeff, blocks behind handles",
    .alignment_max = (size_t)512 << 10,
    .allocate = allocate,
    .allocate_zeroed = allocate_zeroed,
    .allocate_aligned = allocate_aligned,
    .resize = resize,
    .release = release,
    .open = open_block,
    .close = close_block,
    .compact = compact,
    .tidy = tidy,
};
