/* The handle table of the growing profile: popping, pushing, pages changing hands. */
#include "handle/table.h"

#include "base/debug.h"
#include "base/os.h"

uint32_t jf_table_carve(const struct jf_table *table, struct jf_table_owner *owner) {
    struct jf_table_page *page = owner->page;
    JF_ASSERT(page->carved < JF_TABLE_PAGE_ENTRIES);
    uint32_t index = jf_table_page_first(table, page) + page->carved;
    jf_table_page_carved(page);
    page->used++;
    /* added, not stored: a stale handle may be counting on this word just now */
    if (page->floor != 0)
        jf_word_fetch_add(jf_space_entry(table->space, index),
                          (jf_word)page->floor * JF_ENTRY_GENERATION_ONE);
    return index;
}

static void push_own(const struct jf_table *table, struct jf_table_owner *owner,
                     struct jf_table_page *page, uint32_t index) {
    JF_ASSERT(page->used != 0);
    jf_word_publish_low(jf_space_entry(table->space, index), jf_entry_low_free(page->free));
    page->free = index;
    page->used--;
    jf_table_list_page(owner, page);
}

static void push_remote(const struct jf_table *table, struct jf_table_owner *to, uint32_t index) {
    jf_word head = jf_word_load(&to->remote);
    do
        jf_word_publish_low(jf_space_entry(table->space, index), jf_entry_low_free((uint32_t)head));
    while (!jf_word_compare_swap(&to->remote, &head, index));
}

static struct jf_table_owner *page_owner(const struct jf_table_page *page) {
    return __atomic_load_n(&page->owner, __ATOMIC_ACQUIRE);
}

void jf_table_push(const struct jf_table *table, struct jf_table_owner *owner, uint32_t index,
                   bool retire) {
    struct jf_table_page *page = jf_table_page_of(table, index);
    jf_word *entry = jf_space_entry(table->space, index);
    if (jf_entry_generation(jf_word_load(entry)) == 0) {
        jf_space_forget_head(table->space, index); /* a later block's handle will be the same */
        if (retire) {
            jf_word_publish_low(entry, jf_entry_low_free(0));
            __atomic_fetch_add(&page->retired, 1, __ATOMIC_RELAXED);
            return;
        }
    }
    struct jf_table_owner *home = page_owner(page);
    if (home == owner)
        push_own(table, owner, page, index);
    else
        push_remote(table, home, index);
}

/* Sorts the entries that others freed into their pages; pages may have changed hands meanwhile. */
static void collect(const struct jf_table *table, struct jf_table_owner *owner) {
    uint32_t index = (uint32_t)jf_word_fetch_and(&owner->remote, 0);
    while (index != 0) {
        uint32_t next = jf_entry_link(jf_word_load(jf_space_entry(table->space, index)));
        jf_table_push(table, owner, index, false);
        index = next;
    }
}

bool jf_table_refill(const struct jf_table *table, struct jf_table_owner *owner) {
    if (jf_word_load(&owner->remote) != 0)
        collect(table, owner);
    if (jf_table_ready(owner))
        return true;
    struct jf_table_page *page = owner->page_list;
    if (page == NULL)
        return false;
    owner->page_list = page->next;
    page->listed = false;
    owner->page = page;
    return true;
}

void jf_table_give_page(struct jf_table *table, struct jf_table_owner *owner,
                        struct jf_table_page *page) {
    if (page == table->pages && page->carved == 0) {
        page->carved = 1; /* index 0 is no entry */
        page->used = 1;
    }
    __atomic_store_n(&page->owner, owner, __ATOMIC_RELEASE);
    jf_table_list_page(owner, page);
}

void jf_table_take_over(const struct jf_table *table, struct jf_table_owner *owner,
                        struct jf_table_owner *from) {
    struct jf_table_page *page = from->page;
    from->page = NULL;
    if (page != NULL && (page->free != 0 || page->carved < JF_TABLE_PAGE_ENTRIES))
        jf_table_list_page(from, page);
    while ((page = from->page_list) != NULL) {
        from->page_list = page->next;
        page->listed = false;
        __atomic_store_n(&page->owner, owner, __ATOMIC_RELEASE);
        jf_table_list_page(owner, page);
    }
    if (jf_word_load(&from->remote) != 0) {
        collect(table, from);
        /* entries of full pages: those pages have free entries now and can come over too */
        if (from->page_list != NULL)
            jf_table_take_over(table, owner, from);
    }
}

/* The generation that the page's entries may start from when their words are gone. */
static uint16_t next_floor(const struct jf_table *table, const struct jf_table_page *page) {
    const jf_word *entry = jf_space_entry(table->space, jf_table_page_first(table, page));
    unsigned highest = page->floor;
    for (unsigned i = 0; i < page->carved; i++)
        if (jf_entry_generation(jf_word_load(&entry[i])) > highest)
            highest = jf_entry_generation(jf_word_load(&entry[i]));
    return (uint16_t)highest;
}

size_t jf_table_trim(struct jf_table *table, struct jf_table_owner *owner, size_t most) {
    size_t trimmed = 0;
    struct jf_table_page **link = &owner->page_list;
    while (*link != NULL && trimmed < most) {
        struct jf_table_page *page = *link;
        if (page->used != 0 || page->retired != 0) {
            link = &page->next;
            continue;
        }
        *link = page->next;
        page->listed = false;
        page->floor = next_floor(table, page);
        page->carved = 0;
        page->free = 0;
        uint32_t first = jf_table_page_first(table, page);
        jf_os_give_back((uintptr_t)jf_space_entry(table->space, first), JF_TABLE_PAGE_SIZE);
        jf_os_give_back((uintptr_t)jf_space_head(table->space, first), JF_TABLE_PAGE_SIZE);
        page->next = table->free_pages;
        table->free_pages = page;
        trimmed++;
    }
    return trimmed;
}
