/* Touches its blocks a known number of times, for the recorder of accesses. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../steve-valgrind/hand_locks.h"

/* What is loaded is used, or Valgrind drops the loads. */
static volatile uint64_t sum;

static void *touch_in_thread(void *unused) {
    volatile char *block = malloc(5555);
    for (int i = 0; i < 50; i++)
        block[i] = 1;
    free((void *)(uintptr_t)block);
    return unused;
}

int main(int argc, char **argv) {
    volatile char *first = malloc(777);
    volatile uint64_t *second = malloc(8008);
    char on_stack[64];
    volatile char *stack = on_stack;
    pthread_t thread;
    for (int i = 0; i < 777; i++)
        first[i] = (char)i;
    for (int i = 0; i < 1001; i++)
        second[i] = 1;
    STEVE_HAND_LOCK(second);
    for (int i = 0; i < 10; i++) {
        stack[i] = 1;
        sum += second[2 + i];
    }
    STEVE_HAND_UNLOCK(second);
    for (int i = 0; i < 5; i++) {
        sum += (uint64_t)first[i];
        sum += second[i];
    }
    second[0]++;
    char *read_into = malloc(3333);
    int zero[2];
    if (pipe(zero) != 0 || write(zero[1], on_stack, 20) != 20 ||
        read(zero[0], read_into, 3000) != 20)
        return 1;
    read_into = realloc(read_into, 4444);
    sum += (uintptr_t)read_into;
    if (pthread_create(&thread, NULL, touch_in_thread, NULL) != 0 ||
        pthread_join(thread, NULL) != 0)
        return 1;
    free((void *)(uintptr_t)first);
    free(read_into);
    return argc > 1 ? atoi(argv[1]) : 0;
}
