/* A table of numbers as one string, by printf; then many numbers by a cursor, under one lock. */
#include <jeff/array.h>

#include <stdio.h>
#include <string.h>

RM_ARRAY_TYPE(numbers, double);

static int print_table(rmarray_t text) {
    for (int i = 1; i <= 20; i++)
        if (rmarray_printf(text, "%2d squared is %3d\n", i, i * i) != 0)
            return -1;
    return rmarray_append_string(text, "and so on\n");
}

static int fill(numbers list, size_t count) {
    numbers_cursor cursor;
    int result = numbers_append_begin(&cursor, list);
    for (size_t i = 0; i < count && result == 0; i++)
        result = numbers_append_next(&cursor, (double)i / 2);
    numbers_append_end(&cursor); /* what was added until then counts */
    return result;
}

int main(void) {
    struct rm_array_options options;
    rmarray_options_init(&options);
    options.hints = RM_ARRAY_LONG_LIVED; /* grows by little: spends time to be small */
    rmarray_t text = rmarray_create_string(NULL, &options);
    numbers list = numbers_create(NULL, NULL);
    if (print_table(text) != 0 || fill(list, 100000) != 0)
        return 1;
    if (rmarray_shrink(text) != 0 || numbers_shrink(list) != 0)
        return 1;

    struct rm_array_stats stats;
    rmarray_stats(text, &stats);
    printf("%zu characters in %zu bytes\n", stats.length, stats.bytes);
    const char *first = rmarray_lock(text);
    fputs(first, stdout);
    int right = strlen(first) == stats.length;
    rmarray_unlock(text);

    double last;
    right = right && numbers_pop(list, &last) == 0 && last == 49999.5;
    numbers_destroy(list);
    rmarray_destroy(text);
    return right ? 0 : 1;
}
