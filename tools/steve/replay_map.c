/* Pictures of the heap: for every page with a part of a live block in it, the bytes that are live
 * and those that are locked. The file begins with "STEVEMAP"; each picture is five 64-bit numbers
 * (operations done, microseconds, live bytes, resident bytes, pages that follow) and for each page
 * its number (64 bits), live bytes and locked bytes (32 bits each), in no order. Little-endian. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "measure.h"
#include "replay_state.h"

struct map_page {
    uint64_t number; /* + 1 while collecting; 0 = unused */
    uint32_t live, locked;
};

struct page_table {
    struct map_page *pages;
    size_t capacity; /* a power of two */
    size_t used;
};

enum { PAGE = 4096 };

static bool make_table(struct page_table *table, size_t capacity) {
    table->capacity = capacity;
    table->used = 0;
    table->pages = measure_map(capacity * sizeof *table->pages);
    return table->pages != NULL;
}

static struct map_page *find(struct page_table *table, uint64_t number) {
    size_t at = (size_t)(number * 0x9e3779b97f4a7c15u >> 24) & (table->capacity - 1);
    while (table->pages[at].number != 0 && table->pages[at].number != number + 1)
        at = (at + 1) & (table->capacity - 1);
    if (table->pages[at].number == 0) {
        table->pages[at].number = number + 1;
        table->used++;
    }
    return &table->pages[at];
}

static bool grow(struct page_table *table) {
    struct page_table larger;
    if (!make_table(&larger, 2 * table->capacity))
        return false;
    for (size_t i = 0; i < table->capacity; i++) {
        if (table->pages[i].number != 0)
            *find(&larger, table->pages[i].number - 1) = table->pages[i];
    }
    munmap(table->pages, table->capacity * sizeof *table->pages);
    *table = larger;
    return true;
}

static bool add_block(struct page_table *table, uintptr_t address, uint64_t size, bool locked) {
    uintptr_t end = address + size;
    while (address < end) {
        uintptr_t page_end = (address / PAGE + 1) * PAGE;
        uint32_t part = (uint32_t)((end < page_end ? end : page_end) - address);
        if (table->used * 2 >= table->capacity && !grow(table))
            return false;
        struct map_page *page = find(table, address / PAGE);
        page->live += part;
        page->locked += locked ? part : 0;
        address = page_end;
    }
    return true;
}

static bool collect(const struct replay *replay, struct page_table *table) {
    for (uint64_t i = 0; i < replay->live.totals.block_numbers; i++) {
        void *reference = replay->references[i];
        if (reference == NULL)
            continue;
        const struct trace_live_block *block = &replay->live.blocks[i];
        uintptr_t address = (uintptr_t)replay_open(replay, reference);
        replay_close(replay, reference);
        if (!add_block(table, address, block->size - 1, block->locks != 0))
            return false;
    }
    for (size_t i = 0; i < replay->kept_count; i++) {
        uintptr_t address = (uintptr_t)replay_open(replay, replay->kept[i].reference);
        replay_close(replay, replay->kept[i].reference);
        if (!add_block(table, address, replay->kept[i].size, false))
            return false;
    }
    return true;
}

static bool write_whole(int file, const void *bytes, size_t size) {
    const char *at = bytes;
    while (size > 0) {
        ssize_t written = write(file, at, size);
        if (written <= 0)
            return false;
        at += written;
        size -= (size_t)written;
    }
    return true;
}

void replay_take_map(struct replay *replay) {
    enum { CAPACITY = 1 << 12 };
    struct page_table table;
    if (replay->map_file < 0 || replay->backend->ideal || !make_table(&table, CAPACITY))
        return;
    int64_t resident = measure_resident() - replay->baseline;
    if (collect(replay, &table)) {
        size_t used = 0;
        for (size_t i = 0; i < table.capacity; i++) {
            if (table.pages[i].number != 0) {
                table.pages[used] = table.pages[i];
                table.pages[used++].number--;
            }
        }
        uint64_t head[] = {replay->operations, replay->time_us, replay_live_bytes(replay),
                           (uint64_t)(resident > 0 ? resident : 0), used};
        if (!write_whole(replay->map_file, head, sizeof head) ||
            !write_whole(replay->map_file, table.pages, used * sizeof *table.pages)) {
            close(replay->map_file);
            replay->map_file = -1;
        }
    }
    munmap(table.pages, table.capacity * sizeof *table.pages);
}
