/* A line editor without a screen: reads a text, makes random edits to it, each an insertion into a
 * line, a new line or the loss of one, and prints a checksum of what has become of it. Lines are
 * blocks behind handles, and so is the list of them; a line is locked while it is edited.
 *
 * usage: editor [EDITS] <TEXT */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "handles.h"

enum { LINE_BYTES = 4096, LINES_FIRST = 64 };

static rmhandle_t lines; /* handles, `capacity` of them */
static size_t count, capacity;
static uint64_t random_state = 1;

static size_t random_below(size_t limit) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(random_state >> 33) % limit;
}

static rmhandle_t allocate(size_t size) {
    rmhandle_t handle = rmmalloc(size);
    if (handle == NULL)
        exit(1);
    return handle;
}

static rmhandle_t new_line(const char *text) {
    size_t size = strlen(text) + 1;
    rmhandle_t line = allocate(size);
    char *bytes = rmlock(line);
    memcpy(bytes, text, size);
    rmunlock(line);
    return line;
}

/* A larger list in place of the full one. */
static void grow(void) {
    size_t larger = capacity != 0 ? 2 * capacity : LINES_FIRST;
    rmhandle_t list = allocate(larger * sizeof(rmhandle_t));
    if (lines != NULL) {
        rmhandle_t *to = rmlock(list);
        const rmhandle_t *from = rmlock(lines);
        memcpy(to, from, count * sizeof *to);
        rmunlock(lines);
        rmunlock(list);
        rmfree(lines);
    }
    lines = list;
    capacity = larger;
}

static void insert_line(size_t at, const char *text) {
    if (count == capacity)
        grow();
    rmhandle_t line = new_line(text);
    rmhandle_t *list = rmlock(lines);
    memmove(list + at + 1, list + at, (count - at) * sizeof *list);
    list[at] = line;
    rmunlock(lines);
    count++;
}

static void remove_line(size_t at) {
    rmhandle_t *list = rmlock(lines);
    rmhandle_t line = list[at];
    count--;
    memmove(list + at, list + at + 1, (count - at) * sizeof *list);
    rmunlock(lines);
    rmfree(line);
}

static rmhandle_t line_at(size_t at) {
    const rmhandle_t *list = rmlock(lines);
    rmhandle_t line = list[at];
    rmunlock(lines);
    return line;
}

/* Some letters into the middle of a line: a new block, both locked while it is filled. */
static void edit_line(size_t at) {
    rmhandle_t old = line_at(at);
    const char *text = rmlock(old);
    size_t length = strlen(text), place = random_below(length + 1), more = 1 + random_below(8);
    if (length + more >= LINE_BYTES) {
        rmunlock(old);
        return;
    }
    rmhandle_t edited = allocate(length + more + 1);
    char *bytes = rmlock(edited);
    memcpy(bytes, text, place);
    memset(bytes + place, 'a' + (int)random_below(26), more);
    memcpy(bytes + place + more, text + place, length - place + 1);
    rmunlock(edited);
    rmunlock(old);
    rmhandle_t *list = rmlock(lines);
    list[at] = edited;
    rmunlock(lines);
    rmfree(old);
}

static uint64_t checksum(void) {
    uint64_t sum = 0;
    const rmhandle_t *list = rmlock(lines);
    for (size_t i = 0; i < count; i++) {
        const char *text = rmlock(list[i]);
        for (const char *at = text; *at != '\0'; at++)
            sum = sum * 31 + (unsigned char)*at;
        rmunlock(list[i]);
    }
    rmunlock(lines);
    return sum;
}

int main(int argc, char **argv) {
    static char text[LINE_BYTES];
    size_t edits = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
    while (fgets(text, sizeof text, stdin) != NULL)
        insert_line(count, text);
    for (size_t i = 0; i < edits && count > 0; i++) {
        size_t at = random_below(count), choice = random_below(10);
        if (choice < 6)
            edit_line(at);
        else if (choice < 8)
            insert_line(at, "a new line\n");
        else
            remove_line(at);
    }
    printf("%zu lines, checksum %016llx\n", count, (unsigned long long)checksum());
    return 0;
}
