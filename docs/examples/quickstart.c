/* A thousand letters, most of them thrown away, and what compaction makes of that. */
#include <jeff/jeff.h>

#include <stdio.h>
#include <string.h>

enum { LETTERS = 1000, SIZE = 2000 };

static rmhandle_t letters[LETTERS];

static int write_all(void) {
    for (int i = 0; i < LETTERS; i++) {
        letters[i] = rmmalloc(SIZE);
        if (letters[i] == NULL)
            return -1;
        char *text = rmlock(letters[i]); /* from here on it stays where it is ... */
        snprintf(text, SIZE, "letter %d", i);
        rmunlock(letters[i]); /* ... to here; `text` must not be used any more */
    }
    return 0;
}

static void throw_most_away(void) {
    for (int i = 0; i < LETTERS; i++) {
        if (i % 10 == 0)
            continue;
        rmfree(letters[i]);
        letters[i] = NULL;
    }
}

static int is_whole(int i) {
    char expected[32];
    snprintf(expected, sizeof expected, "letter %d", i);
    int same = strcmp(rmlock(letters[i]), expected) == 0;
    rmunlock(letters[i]);
    return same;
}

int main(void) {
    struct rm_stats before, after;
    if (write_all() != 0)
        return 1;
    throw_most_away();
    rmstats(&before);
    rm_compact_status status = rmcompact(0); /* until there is nothing left to gain */
    rmstats(&after);
    printf("live %llu, held before %llu, after %llu bytes\n", (unsigned long long)after.live,
           (unsigned long long)before.committed, (unsigned long long)after.committed);
    for (int i = 0; i < LETTERS; i += 10)
        if (!is_whole(i))
            return 1;
    return status == RM_COMPACT_DONE && after.committed < before.committed ? 0 : 1;
}
