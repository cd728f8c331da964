/* A program to be recorded: does what its first argument says, with sizes that are easy to find in
 * a trace. */
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The compiler may not leave out what is allocated and freed without being used. */
static void *volatile kept;

static void *keep(void *block) {
    if (block == NULL)
        abort();
    kept = block;
    return block;
}

__attribute__((constructor)) static void before_main(void) {
    keep(malloc(11111));
}

/* Every function that gives memory, once. */
static void use_all(void) {
    void *aligned = NULL;
    free(keep(malloc(100001)));
    free(keep(calloc(3, 100002)));
    void *grown = keep(malloc(100003));
    grown = keep(realloc(grown, 200003));
    free(keep(realloc(grown, 50003)));
    free(keep(reallocarray(NULL, 2, 100004)));
    free(keep(aligned_alloc(256, 100096)));
    if (posix_memalign(&aligned, 4096, 100005) != 0)
        abort();
    free(keep(aligned));
    free(keep(memalign(64, 100006)));
    free(keep(valloc(100007)));
    free(keep(strdup("twelve bytes")));
    void *last = keep(realloc(NULL, 100008));
    if (malloc_usable_size(last) < 100008)
        abort();
    free(last);
    if (realloc(keep(malloc(100009)), 0) != NULL)
        abort();
    /* Fails and leaves the block as it was. */
    void *refused = keep(malloc(100010));
    if (realloc(refused, (size_t)1 << 62) != NULL)
        abort();
    free(refused);
}

/* Blocks go round from thread to thread: allocated by one, resized by the next, freed by a third,
 * so that addresses are used again by other threads all the time. */
enum { THREADS = 4, SLOTS = 64, ROUNDS = 30000 };
static void *_Atomic slots[SLOTS];

static void *pass_round(void *argument) {
    unsigned seed = *(unsigned *)argument;
    for (int i = 0; i < ROUNDS; i++) {
        void *mine = malloc(16 + (size_t)rand_r(&seed) % 200);
        void *others =
            __atomic_exchange_n((void **)&slots[rand_r(&seed) % SLOTS], mine, __ATOMIC_ACQ_REL);
        if (others != NULL && i % 3 == 0)
            others = realloc(others, 16 + (size_t)rand_r(&seed) % 400);
        free(others);
    }
    return NULL;
}

static void use_threads(void) {
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i + 1;
        if (pthread_create(&threads[i], NULL, pass_round, &seeds[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < SLOTS; i++)
        free(slots[i]);
}

/* A child that allocates; the parent goes on afterwards. */
__attribute__((noinline)) static void use_fork(void) {
    void *before = keep(malloc(30001));
    pid_t child = fork();
    if (child == 0) {
        free(before);
        keep(malloc(30002));
        _exit(0);
    }
    waitpid(child, NULL, 0);
    free(before);
    keep(malloc(30003));
}

/* A child that uses, resizes and frees what it has from its parent. */
static void use_inherited(void) {
    char *grows = keep(malloc(30001)), *shrinks = keep(malloc(30004));
    memset(grows, 1, 30001);
    memset(shrinks, 2, 30004);
    if (fork() == 0) {
        grows = keep(realloc(grows, 60001));
        shrinks = keep(realloc(shrinks, 20001));
        if (grows[30000] != 1 || shrinks[20000] != 2)
            abort();
        ((volatile char *)grows)[60000] = 1;
        free(grows);
        exit(0);
    }
    int status = -1;
    wait(&status);
    if (status != 0)
        abort();
    free(grows);
    free(shrinks);
}

/* Two places that allocate, one of them much more. */
__attribute__((noinline)) static void allocate_little(int times) {
    for (int i = 0; i < times; i++)
        keep(malloc(100));
}

__attribute__((noinline)) static void allocate_much(int times) {
    for (int i = 0; i < times; i++) {
        free(keep(malloc(7000)));
        keep(realloc(malloc(10), 5000));
    }
}

__attribute__((noinline)) static void call_both(int times) {
    allocate_little(times);
    allocate_much(times);
    allocate_little(times);
    kept = NULL; /* the last call is none that ends the function */
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    keep(malloc(22222));
    if (strcmp(what, "all") == 0)
        use_all();
    else if (strcmp(what, "threads") == 0)
        use_threads();
    else if (strcmp(what, "sites") == 0)
        call_both(50);
    else if (strcmp(what, "fork") == 0)
        use_fork();
    else if (strcmp(what, "inherit") == 0)
        use_inherited();
    else if (strcmp(what, "exec") == 0)
        execl(argv[0], argv[0], "after-exec", (char *)NULL);
    else if (strcmp(what, "after-exec") == 0)
        keep(malloc(44444));
    else if (strcmp(what, "_exit") == 0)
        _exit(7);
    else if (strcmp(what, "abort") == 0)
        abort();
    else if (strcmp(what, "kill") == 0)
        kill(getpid(), SIGKILL);
    return 0;
}
