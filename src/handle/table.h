/* The handle table of the growing profile: pages of 2048 entries, each page owned by one thread, which
 * alone pops entries from it; entries freed by others come back through the owner's remote list (as in
 * mimalloc: Leijen, Zorn, de Moura, "Mimalloc: Free List Sharding in Action", 2019). So two threads do not
 * write to the same cache line of entries. Fixed heaps keep a list of their own (heap/fixed.c).
 */
#ifndef JEFF_HANDLE_TABLE_H
#define JEFF_HANDLE_TABLE_H

#include "handle/entry.h"

enum { JF_TABLE_PAGE_SHIFT = 11, JF_TABLE_PAGE_ENTRIES = 1 << JF_TABLE_PAGE_SHIFT };
#define JF_TABLE_PAGE_SIZE ((size_t)JF_TABLE_PAGE_ENTRIES * sizeof(jf_word))

/* A note about one page; it lies apart from the page, on a cache line of its own: the next one may be
 * another thread's. */
struct jf_table_page {
    struct jf_table_owner *owner;
    struct jf_table_page *next; /* owner's pages with free entries, or the table's free pages */
    uint32_t free;              /* index of the first free entry; 0 = none */
    uint16_t carved;            /* entries ever used since the page got its memory */
    uint16_t used;
    uint16_t floor;   /* generation that fresh entries start from */
    bool listed;      /* in the owner's list of pages with free entries */
    uint32_t retired; /* entries never to be used again */
    uint32_t pad[8];
};

/* One thread's part in the table. Private to it but for `remote`. */
struct jf_table_owner {
    struct jf_table_page *page;      /* entries are popped here; NULL: none */
    struct jf_table_page *page_list; /* more pages with free entries */
    jf_word remote;                  /* index of entries freed by others, newest first; 0 = none */
};

/* The table. `pages_used`, `free_pages` under the caller's mutex. */
struct jf_table {
    const struct jf_space *space;
    struct jf_table_page *pages; /* notes, one for each page */
    size_t pages_max;            /* pages that fit */
    size_t pages_ready;          /* notes that are accessible */
    size_t pages_used;           /* pages ever used: the peak */
    struct jf_table_page *free_pages;
};

static inline struct jf_table_page *jf_table_page_of(const struct jf_table *table, uint32_t index) {
    return &table->pages[index >> JF_TABLE_PAGE_SHIFT];
}

static inline uint32_t jf_table_page_first(const struct jf_table *table,
                                           const struct jf_table_page *page) {
    return (uint32_t)(page - table->pages) << JF_TABLE_PAGE_SHIFT;
}

/* One more of the page's entries has been used; whoever takes statistics may look at the number. */
static inline void jf_table_page_carved(struct jf_table_page *page) {
    __atomic_store_n(&page->carved, page->carved + 1, __ATOMIC_RELAXED);
}

/* Whether jf_table_pop would find an entry. */
static inline bool jf_table_ready(const struct jf_table_owner *owner) {
    return owner->page != NULL &&
           (owner->page->free != 0 || owner->page->carved < JF_TABLE_PAGE_ENTRIES);
}

/* Takes an entry out of the owner's page: FREE, its generation set. jf_table_ready must hold. */
uint32_t jf_table_carve(const struct jf_table *table, struct jf_table_owner *owner);

static inline uint32_t jf_table_pop(const struct jf_table *table, struct jf_table_owner *owner) {
    struct jf_table_page *page = owner->page;
    uint32_t index = page->free;
    if (index == 0)
        return jf_table_carve(table, owner);
    page->free = jf_entry_link(jf_word_load(jf_space_entry(table->space, index)));
    page->used++;
    return index;
}

/* Frees an entry (PENDING, or just popped): into its page when that is the caller's, else to its owner.
 * `retire`: an entry whose generation has come round to 0 is never used again. */
void jf_table_push(const struct jf_table *table, struct jf_table_owner *owner, uint32_t index,
                   bool retire);

/* Puts a page with a free entry into its owner's list, unless it is there or popped from. */
static inline void jf_table_list_page(struct jf_table_owner *owner, struct jf_table_page *page) {
    if (page->listed || page == owner->page)
        return;
    page->listed = true;
    page->next = owner->page_list;
    owner->page_list = page;
}

/* As jf_table_push in the most frequent case: the entry, whose word this is, is of a page of the caller's, and its
 * generation has not come round. False, and nothing is done, in any other. */
static inline bool jf_table_push_own(const struct jf_table *table, struct jf_table_owner *owner,
                                     uint32_t index, jf_word word) {
    struct jf_table_page *page = jf_table_page_of(table, index);
    if (!RM_LIKELY(jf_entry_generation(word) != 0 &&
                   __atomic_load_n(&page->owner, __ATOMIC_ACQUIRE) == owner))
        return false;
    jf_word_publish_low(jf_space_entry(table->space, index), jf_entry_low_free(page->free));
    page->free = index;
    page->used--;
    jf_table_list_page(owner, page);
    return true;
}

/* Gets the owner a page with a free entry from what it has: its remote list, its other pages. */
bool jf_table_refill(const struct jf_table *table, struct jf_table_owner *owner);

/* Gives the owner a page nobody has: a free one, or the next that was never used; the caller has made its
 * memory accessible. Under the caller's mutex. */
void jf_table_give_page(struct jf_table *table, struct jf_table_owner *owner,
                        struct jf_table_page *page);

/* Takes what another owner has; nobody is in a call as that owner. */
void jf_table_take_over(const struct jf_table *table, struct jf_table_owner *owner,
                        struct jf_table_owner *from);

/* Takes pages without a used entry from the owner (not the one it pops from) and gives their memory back,
 * at most `most` pages. The highest generation is kept. Under the caller's mutex. Returns pages. */
size_t jf_table_trim(struct jf_table *table, struct jf_table_owner *owner, size_t most);

#endif
