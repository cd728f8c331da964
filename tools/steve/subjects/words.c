/* Counts the words of its input and prints the most frequent ones: a hash table with chained entries,
 * ported to handles. The table is locked for one look-up at a time, an entry while it is looked at;
 * sorting holds the list of entries, as code that has not been rewritten for handles would.
 *
 * usage: words [COUNT] <TEXT */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "handles.h"

enum { BUCKETS = 4096, WORD_MAX = 64 };

struct entry {
    rmhandle_t next;
    rmhandle_t text;
    size_t count;
};

static rmhandle_t table;
static size_t entry_count;

static size_t bucket_of(const char *word) {
    size_t hash = 14695981039346656037u;
    for (; *word != '\0'; word++)
        hash = (hash ^ (unsigned char)*word) * 1099511628211u;
    return hash % BUCKETS;
}

static int text_is(rmhandle_t handle, const char *word) {
    const char *text = rmlock(handle);
    int same = strcmp(text, word) == 0;
    rmunlock(handle);
    return same;
}

/* The entry of a word in a chain; NULL when there is none. */
static rmhandle_t find(rmhandle_t chain, const char *word) {
    while (chain != NULL) {
        const struct entry *entry = rmlock(chain);
        rmhandle_t next = entry->next;
        int found = text_is(entry->text, word);
        rmunlock(chain);
        if (found)
            return chain;
        chain = next;
    }
    return NULL;
}

static rmhandle_t new_entry(const char *word, rmhandle_t next) {
    size_t size = strlen(word) + 1;
    rmhandle_t text = rmmalloc(size);
    rmhandle_t handle = rmmalloc(sizeof(struct entry));
    if (text == NULL || handle == NULL)
        exit(1);
    char *bytes = rmlock(text);
    memcpy(bytes, word, size);
    rmunlock(text);
    struct entry *entry = rmlock(handle);
    *entry = (struct entry){next, text, 0};
    rmunlock(handle);
    entry_count++;
    return handle;
}

static void count_word(const char *word) {
    rmhandle_t *buckets = rmlock(table);
    rmhandle_t *bucket = &buckets[bucket_of(word)];
    rmhandle_t found = find(*bucket, word);
    if (found == NULL)
        found = *bucket = new_entry(word, *bucket);
    rmunlock(table);
    struct entry *entry = rmlock(found);
    entry->count++;
    rmunlock(found);
}

static void read_words(void) {
    char word[WORD_MAX];
    size_t length = 0;
    int letter;
    do {
        letter = getchar();
        if (isalnum(letter) && length < WORD_MAX - 1) {
            word[length++] = (char)tolower(letter);
        } else if (length > 0) {
            word[length] = '\0';
            count_word(word);
            length = 0;
        }
    } while (letter != EOF);
}

struct ranked {
    rmhandle_t entry;
    size_t count;
};

static int compare(const void *left, const void *right) {
    size_t a = ((const struct ranked *)left)->count, b = ((const struct ranked *)right)->count;
    return (a < b) - (a > b);
}

/* All entries, in a list of their own. */
static rmhandle_t rank_entries(void) {
    rmhandle_t list = rmmalloc((entry_count + 1) * sizeof(struct ranked));
    if (list == NULL)
        exit(1);
    struct ranked *ranked = rmlock(list);
    const rmhandle_t *buckets = rmlock(table);
    size_t at = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        for (rmhandle_t next = buckets[i]; next != NULL;) {
            rmhandle_t handle = next;
            const struct entry *entry = rmlock(handle);
            ranked[at++] = (struct ranked){handle, entry->count};
            next = entry->next;
            rmunlock(handle);
        }
    }
    rmunlock(table);
    qsort(ranked, at, sizeof *ranked, compare);
    rmunlock(list);
    return list;
}

static void print_first(rmhandle_t list, size_t count) {
    const struct ranked *ranked = rmlock(list);
    for (size_t i = 0; i < count && i < entry_count; i++) {
        const struct entry *entry = rmlock(ranked[i].entry);
        const char *text = rmlock(entry->text);
        printf("%7zu %s\n", entry->count, text);
        rmunlock(entry->text);
        rmunlock(ranked[i].entry);
    }
    rmunlock(list);
}

int main(int argc, char **argv) {
    table = rmcalloc(BUCKETS, sizeof(rmhandle_t));
    if (table == NULL)
        return 1;
    read_words();
    rmhandle_t list = rank_entries();
    print_first(list, argc > 1 ? strtoul(argv[1], NULL, 10) : 10);
    rmfree(list);
    return 0;
}
