/* The sampled heap profile: see profile.h. Stacks and sampled blocks lie in tables of fixed size outside the
 * arena; what does not fit is not sampled.
 */
#include "malloc/profile.h"

#include "base/line.h"
#include "base/options.h"

#include <string.h>

enum {
    FRAMES_MAX = 32,
    STACKS_LOG2 = 13,
    BLOCKS_LOG2 = 16,
    PROBES = 32, /* places looked at for one key */
    RATE = 512 << 10,
    RATE_LEAST = 1024,
    PATH_MAX_LENGTH = 200,
    SIGNAL_MAX = 64,
    OWN_FRAMES = 5, /* from the system's call to the facade's slow path */
};

struct stack {
    uint64_t hash; /* 0: not in use */
    size_t live_count, live_bytes, count, bytes;
    size_t depth;
    void *frames[FRAMES_MAX];
};

struct block {
    uintptr_t address; /* 0: not in use; read by anybody */
    size_t size;
    struct stack *stack;
};

struct jf_profile {
    jf_mutex mutex;
    size_t rate;
    uint32_t files;
    char path[PATH_MAX_LENGTH];
    struct stack stacks[1 << STACKS_LOG2];
    struct block blocks[1 << BLOCKS_LOG2];
};

/* Sampling allocates now and then: what it allocates is not sampled. */
static JF_THREAD_LOCAL bool inside;

static uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

bool jf_profile_start(const char *path) {
    size_t size = jf_bits_round_up(sizeof(struct jf_profile), jf_os_page_size());
    uint64_t rate = RATE;
    uint64_t number;
    const char *value = jf_os_environment("JEFF_PROFILE_RATE");
    if (path == NULL || path[0] == '\0' || strlen(path) >= PATH_MAX_LENGTH)
        return false;
    if (value != NULL)
        jf_options_parse_number(value, UINT32_MAX, &rate);
    uintptr_t memory = jf_os_reserve(size, jf_os_page_size());
    if (memory == 0)
        return false;
    if (!jf_os_make_accessible(memory, size)) {
        jf_os_release(memory, size);
        return false;
    }
    struct jf_profile *profile = (struct jf_profile *)memory;
    jf_os_mutex_init(&profile->mutex);
    profile->rate = rate > RATE_LEAST ? (size_t)rate : RATE_LEAST;
    memcpy(profile->path, path, strlen(path) + 1);
    jf_malloc.profile = profile;
    value = jf_os_environment("JEFF_PROFILE_SIGNAL");
    if (value != NULL && jf_options_parse_number(value, SIGNAL_MAX, &number))
        jf_os_note_signal((int)number, &jf_malloc.profile_wanted);
    return true;
}

/* The stack's entry, a new one if need be; NULL when there is no room near its place. */
static struct stack *stack_of(struct jf_profile *profile, void *const *frames, size_t depth) {
    uint64_t hash = depth;
    for (size_t i = 0; i < depth; i++)
        hash = mix(hash ^ (uintptr_t)frames[i]);
    hash |= 1;
    for (size_t i = 0; i < PROBES; i++) {
        struct stack *stack = &profile->stacks[(hash + i) >> 1 & ((1 << STACKS_LOG2) - 1)];
        if (stack->hash == hash)
            return stack;
        if (stack->hash == 0) {
            stack->hash = hash;
            stack->depth = depth;
            memcpy(stack->frames, frames, depth * sizeof *frames);
            return stack;
        }
    }
    return NULL;
}

static struct block *place_of(struct jf_profile *profile, uintptr_t address, size_t probe) {
    return &profile->blocks[(mix(address) + probe) & ((1 << BLOCKS_LOG2) - 1)];
}

static void add_block(struct jf_profile *profile, uintptr_t address, size_t size,
                      struct stack *stack) {
    for (size_t i = 0; i < PROBES; i++) {
        struct block *block = place_of(profile, address, i);
        if (block->address != 0)
            continue;
        block->size = size;
        block->stack = stack;
        stack->live_count++;
        stack->live_bytes += size;
        stack->count++;
        stack->bytes += size;
        __atomic_store_n(&block->address, address, __ATOMIC_RELEASE);
        return;
    }
}

JF_NOINLINE static void sample(struct jf_profile *profile, const void *pointer, size_t size) {
    void *frames[FRAMES_MAX + OWN_FRAMES];
    size_t depth = jf_os_call_stack(frames, FRAMES_MAX + OWN_FRAMES);
    size_t own = depth > OWN_FRAMES ? OWN_FRAMES : 0;
    jf_os_mutex_lock(&profile->mutex);
    struct stack *stack = stack_of(profile, frames + own, depth - own);
    if (stack != NULL)
        add_block(profile, (uintptr_t)pointer, size, stack);
    jf_os_mutex_unlock(&profile->mutex);
}

void jf_profile_allocated(struct jf_cache *cache, const void *pointer, size_t size) {
    struct jf_profile *profile = jf_malloc.profile;
    if (cache == NULL || inside)
        return;
    inside = true;
    if (__atomic_exchange_n(&jf_malloc.profile_wanted, 0, __ATOMIC_RELAXED) != 0)
        jf_profile_write(false);
    cache->until_sample -= (int64_t)size;
    if (cache->until_sample < 0) {
        /* between half of the rate and one and a half: no pattern of the program's is followed */
        cache->sample_state = mix(cache->sample_state + (uintptr_t)pointer);
        cache->until_sample = (int64_t)(profile->rate / 2 + cache->sample_state % profile->rate);
        sample(profile, pointer, size);
    }
    inside = false;
}

void jf_profile_freed(const void *pointer) {
    struct jf_profile *profile = jf_malloc.profile;
    uintptr_t address = (uintptr_t)pointer;
    for (size_t i = 0; i < PROBES; i++) {
        struct block *block = place_of(profile, address, i);
        if (__atomic_load_n(&block->address, __ATOMIC_ACQUIRE) != address)
            continue;
        jf_os_mutex_lock(&profile->mutex);
        block->stack->live_count--;
        block->stack->live_bytes -= block->size;
        __atomic_store_n(&block->address, 0, __ATOMIC_RELEASE);
        jf_os_mutex_unlock(&profile->mutex);
        return;
    }
}

/* ------------------------------------------------------------------------------------- the file */

static void add_counts(struct jf_line *line, const struct stack *stack) {
    jf_line_add_number(line, stack->live_count);
    jf_line_add(line, ": ");
    jf_line_add_number(line, stack->live_bytes);
    jf_line_add(line, " [");
    jf_line_add_number(line, stack->count);
    jf_line_add(line, ": ");
    jf_line_add_number(line, stack->bytes);
    jf_line_add(line, "] @");
}

static void write_stack(int file, const struct stack *stack) {
    struct jf_line line;
    jf_line_start(&line);
    add_counts(&line, stack);
    for (size_t i = 0; i < stack->depth; i++) {
        if (line.length > JF_LINE_MAX / 2) {
            jf_os_file_write(file, line.text, line.length);
            jf_line_start(&line);
        }
        jf_line_add(&line, " ");
        jf_line_add_address(&line, (uintptr_t)stack->frames[i]);
    }
    jf_line_add(&line, "\n");
    jf_os_file_write(file, line.text, line.length);
}

static void write_file(const struct jf_profile *profile, int file, const struct stack *total) {
    struct jf_line line;
    jf_line_start(&line);
    jf_line_add(&line, "heap profile: ");
    add_counts(&line, total);
    jf_line_add(&line, " heap_v2/");
    jf_line_add_number(&line, profile->rate);
    jf_line_add(&line, "\n");
    jf_os_file_write(file, line.text, line.length);
    for (size_t i = 0; i < (size_t)1 << STACKS_LOG2; i++)
        if (profile->stacks[i].count != 0)
            write_stack(file, &profile->stacks[i]);
    static const char mappings[] = "\nMAPPED_LIBRARIES:\n";
    jf_os_file_write(file, mappings, sizeof mappings - 1);
    jf_os_file_write_mappings(file);
}

static void file_name(struct jf_profile *profile, struct jf_line *ret_name) {
    jf_line_start(ret_name);
    jf_line_add(ret_name, profile->path);
    jf_line_add(ret_name, ".");
    jf_line_add_number(ret_name, jf_os_process_id());
    jf_line_add(ret_name, ".");
    jf_line_add_number(ret_name, ++profile->files);
}

static void say_leaks(const struct stack *total, const struct jf_line *name, bool written) {
    struct jf_line line;
    jf_line_start(&line);
    jf_line_add(&line, "jeff: profile: ");
    jf_line_add_number(&line, total->live_count);
    jf_line_add(&line, " of ");
    jf_line_add_number(&line, total->count);
    jf_line_add(&line, " sampled blocks are still allocated, ");
    jf_line_add_number(&line, total->live_bytes);
    jf_line_add(&line, written ? " bytes: " : " bytes; cannot write ");
    jf_line_add(&line, name->text);
    jf_os_print_line(line.text);
}

void jf_profile_write(bool leaks) {
    struct jf_profile *profile = jf_malloc.profile;
    struct stack total = {0};
    struct jf_line name;
    if (profile == NULL)
        return;
    jf_os_mutex_lock(&profile->mutex);
    for (size_t i = 0; i < (size_t)1 << STACKS_LOG2; i++) {
        const struct stack *stack = &profile->stacks[i];
        total.live_count += stack->live_count;
        total.live_bytes += stack->live_bytes;
        total.count += stack->count;
        total.bytes += stack->bytes;
    }
    file_name(profile, &name);
    int file = jf_os_file_create(name.text);
    if (file >= 0) {
        write_file(profile, file, &total);
        jf_os_file_close(file);
    }
    jf_os_mutex_unlock(&profile->mutex);
    if (leaks)
        say_leaks(&total, &name, file >= 0);
}

void jf_profile_fork_prepare(void) {
    if (jf_malloc.profile != NULL)
        jf_os_mutex_lock(&jf_malloc.profile->mutex);
}

void jf_profile_fork_done(void) {
    if (jf_malloc.profile != NULL)
        jf_os_mutex_unlock(&jf_malloc.profile->mutex);
}
