/* One compaction call: the budget, one compaction of a heap at a time, the result. */
#include "compact/compact.h"

/* Added atomically: rmstats may be reading them. */
static void count_result(struct jf_heap *heap, const struct rm_compact_result *result) {
    jf_word_fetch_add(&heap->compactions, 1);
    jf_word_fetch_add(&heap->blocks_moved, result->blocks_moved);
    jf_word_fetch_add(&heap->bytes_moved, result->bytes_moved);
    jf_word_fetch_add(&heap->bytes_released, result->bytes_released);
    jf_word_fetch_add(&heap->moves_aborted, result->moves_aborted);
}

rm_compact_status jf_compact(struct jf_heap *heap, struct jf_readers *readers,
                             const struct rm_reader *own_reader, uint32_t max_us,
                             struct rm_compact_result *ret_result) {
    struct jf_compaction compaction = {.heap = heap, .readers = readers, .own_reader = own_reader};
    jf_budget_start(&compaction.budget, max_us);
    if (__atomic_exchange_n(&heap->compactor_busy, 1, __ATOMIC_ACQUIRE) != 0) {
        compaction.result.status = RM_COMPACT_BUDGET;
    } else {
        heap->calls++;
        bool fixed = !JF_HAS_GROWING || heap->fixed;
        compaction.result.status = fixed ? jf_slide(&compaction) : jf_evacuate(&compaction);
        count_result(heap, &compaction.result);
        __atomic_store_n(&heap->compactor_busy, 0, __ATOMIC_RELEASE);
    }
    compaction.result.elapsed_us = jf_budget_elapsed_us(&compaction.budget);
    if (ret_result != NULL)
        *ret_result = compaction.result;
    return compaction.result.status;
}
