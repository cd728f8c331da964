/* Work for an allocator under the standard names, one workload for each run: bench/compare_malloc preloads
 * the allocators one after the other. Prints nanoseconds of processor time per operation, or KiB.
 *
 * usage: malloc_workloads WORKLOAD [NUMBER...]
 *        malloc_workloads run LIBRARY PROGRAM [ARGUMENT...]
 *
 * The second form runs a program with the library preloaded ("": none), its output thrown away, and prints its
 * seconds of user and system time and the most KiB it had resident. This process is small: what a child had
 * resident before it became the program counts too.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PAIRS = 4000000,
    REPLACEMENTS = 2000000,
    SIZE_LEAST = 16,
    SIZES = 497, /* 16 to 512 bytes */
    DELIVERY = 256,
    PARCELS = 10000 * DELIVERY,
    RING = 16 * DELIVERY,
    CHURN_THREADS = 40,
    CHURN_BLOCKS = 1000,
    CHURN_STEPS = 50000,
    SHORT_THREADS = 10000,
    SHORT_BLOCKS = 50,
    GROW_ROUNDS = 5,
    GROW_FIRST = 100000,
    GROW_STEP = 50000,
    FRAGMENT_BLOCKS = 1000000,
    FRAGMENT_NEW = 100000,
    THREADS_MAX = 8,
};
#define GROW_LAST ((size_t)64 << 20)

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t random_size(uint64_t *state) {
    return SIZE_LEAST + next_random(state) % SIZES;
}

static double read_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Of all threads, user and system. */
static double processor_ns(void) {
    return read_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static void print(double from, double operations) {
    printf("%.3f\n", (processor_ns() - from) / operations);
}

static void *get(size_t size) {
    char *block = malloc(size);
    if (block == NULL)
        abort();
    block[0] = 1;
    return block;
}

static size_t argument(char **arguments, int count, int index) {
    return index < count ? strtoull(arguments[index], NULL, 10) : 1;
}

/* ------------------------------------------------------------------------------------- one block */

static void run_pair(size_t size) {
    double from = 0;
    for (int i = -PAIRS / 10; i < PAIRS; i++) {
        if (i == 0)
            from = processor_ns();
        void *volatile block = malloc(size);
        free(block);
    }
    print(from, PAIRS);
}

/* ------------------------------------------------------------------------------------- replacement */

/* Each thread measures itself: another that is to read a clock when they start may have to wait for a processor. */
struct replacer {
    pthread_t thread;
    uint64_t seed;
    double ns;
};
static size_t live;
static pthread_barrier_t filled;

static void *replace(void *argument) {
    struct replacer *self = argument;
    uint64_t state = 88172645463325252u + self->seed;
    void **blocks = calloc(live, sizeof *blocks);
    for (size_t i = 0; i < live; i++)
        blocks[i] = get(random_size(&state));
    pthread_barrier_wait(&filled);
    double from = read_ns(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < REPLACEMENTS; i++) {
        size_t at = next_random(&state) % live;
        free(blocks[at]);
        blocks[at] = get(random_size(&state));
    }
    self->ns = read_ns(CLOCK_THREAD_CPUTIME_ID) - from;
    pthread_barrier_wait(&filled);
    for (size_t i = 0; i < live; i++)
        free(blocks[i]);
    free(blocks);
    return NULL;
}

static void run_replace(size_t count, size_t threads) {
    struct replacer all[THREADS_MAX];
    double ns = 0;
    threads = threads < THREADS_MAX ? threads : THREADS_MAX;
    live = count;
    pthread_barrier_init(&filled, NULL, (unsigned)threads);
    for (size_t i = 0; i < threads; i++) {
        all[i] = (struct replacer){.seed = i};
        pthread_create(&all[i].thread, NULL, replace, &all[i]);
    }
    for (size_t i = 0; i < threads; i++) {
        pthread_join(all[i].thread, NULL);
        ns += all[i].ns;
    }
    printf("%.3f\n", ns / ((double)REPLACEMENTS * (double)threads));
}

/* ------------------------------------------------------------------------------------- hand over */

/* By deliveries of many parcels: who has to wait sleeps, since turning around would count as work. */
static void *ring[RING];
static sem_t empty, full; /* deliveries there is room for, and that are there */

static void await(sem_t *semaphore) {
    while (sem_wait(semaphore) != 0)
        continue; /* a signal */
}

static void *produce(void *unused) {
    uint64_t state = 12345;
    for (size_t i = 0; i < PARCELS; i++) {
        if (i % DELIVERY == 0)
            await(&empty);
        ring[i % RING] = get(random_size(&state));
        if (i % DELIVERY == DELIVERY - 1)
            sem_post(&full);
    }
    return unused;
}

static void *consume(void *unused) {
    for (size_t i = 0; i < PARCELS; i++) {
        if (i % DELIVERY == 0)
            await(&full);
        free(ring[i % RING]);
        if (i % DELIVERY == DELIVERY - 1)
            sem_post(&empty);
    }
    return unused;
}

static void run_hand_over(void) {
    pthread_t threads[2];
    sem_init(&empty, 0, RING / DELIVERY);
    sem_init(&full, 0, 0);
    double from = processor_ns();
    pthread_create(&threads[0], NULL, produce, NULL);
    pthread_create(&threads[1], NULL, consume, NULL);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    print(from, PARCELS);
}

/* ------------------------------------------------------------------------------------- many threads */

/* Each thread goes on with the blocks of the one before (after Larson and Krishnan, 1998). */
static void *churn(void *given) {
    void **blocks = given;
    uint64_t state = (uintptr_t)given | 1;
    for (int i = 0; i < CHURN_STEPS; i++) {
        size_t at = next_random(&state) % CHURN_BLOCKS;
        free(blocks[at]);
        blocks[at] = get(SIZE_LEAST + next_random(&state) % 1000);
    }
    return NULL;
}

static void run_churn(void) {
    static void *blocks[2][CHURN_BLOCKS];
    double from = processor_ns();
    for (int i = 0; i < CHURN_THREADS / 2; i++) {
        pthread_t threads[2];
        for (int side = 0; side < 2; side++)
            pthread_create(&threads[side], NULL, churn, blocks[side]);
        for (int side = 0; side < 2; side++)
            pthread_join(threads[side], NULL);
    }
    print(from, (double)CHURN_THREADS * CHURN_STEPS);
}

static void *live_shortly(void *unused) {
    void *blocks[SHORT_BLOCKS];
    for (size_t i = 0; i < SHORT_BLOCKS; i++)
        blocks[i] = get(SIZE_LEAST + 20 * i);
    for (size_t i = 0; i < SHORT_BLOCKS; i++)
        free(blocks[i]);
    return unused;
}

static void run_short_threads(void) {
    double from = processor_ns();
    for (int i = 0; i < SHORT_THREADS / 2; i++) {
        pthread_t threads[2];
        pthread_create(&threads[0], NULL, live_shortly, NULL);
        pthread_create(&threads[1], NULL, live_shortly, NULL);
        pthread_join(threads[0], NULL);
        pthread_join(threads[1], NULL);
    }
    print(from, SHORT_THREADS);
}

/* ------------------------------------------------------------------------------------- large blocks */

static void run_grow(void) {
    double from = processor_ns();
    for (int round = 0; round < GROW_ROUNDS; round++) {
        char *block = NULL;
        size_t before = 0;
        for (size_t size = GROW_FIRST; size < GROW_LAST; size += size / 8 + GROW_STEP) {
            block = realloc(block, size);
            memset(block + before, 1, size - before);
            before = size;
        }
        free(block);
    }
    print(from, GROW_ROUNDS);
}

/* ------------------------------------------------------------------------------------- what stays */

static long resident_kib(void) {
    long pages = 0;
    long skipped;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &skipped, &pages) != 2)
        abort();
    fclose(file);
    return pages * 4;
}

/* Nine tenths of many blocks are freed, then a few come again: with `mixed` one in 20 is larger. */
static void run_fragment(size_t mixed) {
    uint64_t state = 777;
    void **blocks = calloc(FRAGMENT_BLOCKS, sizeof *blocks);
    for (size_t i = 0; i < FRAGMENT_BLOCKS; i++) {
        size_t size = random_size(&state);
        if (mixed != 0 && next_random(&state) % 20 == 0)
            size = SIZE_LEAST + next_random(&state) % 8000;
        blocks[i] = malloc(size);
        memset(blocks[i], 1, size);
    }
    for (size_t i = 0; i < FRAGMENT_BLOCKS; i++) {
        if (next_random(&state) % 10 != 0) {
            free(blocks[i]);
            blocks[i] = NULL;
        }
    }
    size_t added = 0;
    for (size_t i = 0; i < FRAGMENT_BLOCKS && added < FRAGMENT_NEW; i++) {
        if (blocks[i] == NULL) {
            size_t size = random_size(&state);
            blocks[i] = malloc(size);
            memset(blocks[i], 1, size);
            added++;
        }
    }
    printf("%ld\n", resident_kib());
}

/* ------------------------------------------------------------------------------------- a program */

static double seconds(struct timeval time) {
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static int run_program(const char *library, char **command) {
    pid_t child = fork();
    if (child == 0) {
        if (library[0] != '\0')
            setenv("LD_PRELOAD", library, 1);
        if (freopen("/dev/null", "w", stdout) == NULL || freopen("/dev/null", "w", stderr) == NULL)
            _exit(1);
        execvp(command[0], command);
        _exit(1);
    }
    int status = 1;
    struct rusage usage;
    if (child < 0 || wait4(child, &status, 0, &usage) != child)
        return 1;
    printf("%.6f %ld\n", seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
}

int main(int count, char **arguments) {
    if (count > 3 && strcmp(arguments[1], "run") == 0)
        return run_program(arguments[2], arguments + 3);
    const char *name = count > 1 ? arguments[1] : "";
    size_t first = argument(arguments, count, 2);
    size_t second = argument(arguments, count, 3);
    if (strcmp(name, "pair") == 0)
        run_pair(first);
    else if (strcmp(name, "replace") == 0)
        run_replace(first, second);
    else if (strcmp(name, "hand_over") == 0)
        run_hand_over();
    else if (strcmp(name, "churn") == 0)
        run_churn();
    else if (strcmp(name, "short_threads") == 0)
        run_short_threads();
    else if (strcmp(name, "grow") == 0)
        run_grow();
    else if (strcmp(name, "fragment") == 0)
        run_fragment(first);
    else
        return 2;
    return 0;
}
