/* Words and how often each occurs: an array of structs of one type, and the text as one string. */
#include <jeff/array.h>

#include <stdio.h>
#include <string.h>

struct word {
    size_t start, length; /* where in the text: a position, never a pointer */
    int count;
};
RM_ARRAY_TYPE(words, struct word);

/* Index of a word in the list that reads like these characters. */
static size_t find(words list, const char *text, const char *characters, size_t length) {
    const struct word *all = words_lock(list);
    size_t found = RM_ARRAY_NONE;
    for (size_t i = 0; i < words_length(list) && found == RM_ARRAY_NONE; i++)
        if (all[i].length == length && memcmp(text + all[i].start, characters, length) == 0)
            found = i;
    words_unlock(list);
    return found;
}

static int count_word(words list, rmarray_t text, const char *characters, size_t length) {
    const char *all = rmarray_lock(text);
    size_t found = find(list, all, characters, length);
    rmarray_unlock(text);
    if (found != RM_ARRAY_NONE) {
        struct word word;
        words_get(list, found, &word);
        word.count++;
        return words_set(list, found, word);
    }
    struct word word = {rmarray_length(text), length, 1};
    if (rmarray_append(text, characters, length) != 0)
        return -1;
    return words_push(list, word);
}

static int by_count(const void *first, const void *second) {
    const struct word *one = first, *other = second;
    return (one->count < other->count) - (one->count > other->count);
}

int main(void) {
    static const char poem[] = "the more the merrier and the sooner the better and so on";
    rmarray_t text = rmarray_create_string(NULL, NULL);
    words list = words_create(NULL, NULL);
    for (size_t at = 0; at < sizeof poem - 1;) {
        size_t length = strcspn(poem + at, " ");
        if (count_word(list, text, poem + at, length) != 0)
            return 1;
        at += length + 1;
    }
    words_sort(list, by_count);
    rmcompact(0); /* list and text may lie elsewhere now; the two names are as good as before */
    struct word most;
    words_get(list, 0, &most);
    const char *all = rmarray_lock(text);
    printf("%.*s: %d times\n", (int)most.length, all + most.start, most.count);
    rmarray_unlock(text);
    int right = most.count == 4 && words_length(list) == 8;
    words_destroy(list);
    rmarray_destroy(text);
    return right ? 0 : 1;
}
