/* The time limit of a compaction call: a clock, or the estimated cost of the work where there is none. */
#include "compact/budget.h"

#include "base/os.h"

void jf_budget_start(struct jf_budget *ret_budget, uint32_t max_us) {
    ret_budget->start_ns = jf_os_clock_ns();
    ret_budget->total_ns = (uint64_t)max_us * 1000;
    ret_budget->worked_ns = 0;
}

static uint64_t elapsed_ns(const struct jf_budget *budget) {
    uint64_t now = jf_os_clock_ns();
    return now != 0 ? now - budget->start_ns : budget->worked_ns;
}

/* Of `total`, what steps may use. */
static uint64_t without_slack(uint64_t total_ns) {
    return total_ns > JF_BUDGET_SLACK_NS ? total_ns - JF_BUDGET_SLACK_NS : 0;
}

uint64_t jf_budget_left(const struct jf_budget *budget) {
    if (budget->total_ns == 0)
        return UINT64_MAX;
    uint64_t usable = without_slack(budget->total_ns);
    uint64_t elapsed = elapsed_ns(budget);
    return elapsed < usable ? usable - elapsed : 0;
}

bool jf_budget_affords(const struct jf_budget *budget, uint64_t cost_ns) {
    return budget->total_ns == 0 || cost_ns <= jf_budget_left(budget);
}

bool jf_budget_could_ever_afford(const struct jf_budget *budget, uint64_t cost_ns) {
    /* An eighth is for what a call does before it gets to such a step; else a step that just fits would
     * be put off by every call. */
    uint64_t usable = without_slack(budget->total_ns);
    return budget->total_ns == 0 || cost_ns <= usable - usable / 8;
}

void jf_budget_worked(struct jf_budget *budget, size_t bytes, size_t blocks) {
    budget->worked_ns += jf_budget_move_ns(bytes, blocks);
}

uint32_t jf_budget_elapsed_us(const struct jf_budget *budget) {
    uint64_t elapsed_us = elapsed_ns(budget) / 1000;
    return elapsed_us < UINT32_MAX ? (uint32_t)elapsed_us : UINT32_MAX;
}
