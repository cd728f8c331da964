/* Full compaction: beside the bare loop and beside a plain memmove of the live bytes; fifteen million small
 * blocks again and again (J1); and a heap that has nothing left to gain.
 */
#include "bare_heap.h"
#include "harness.h"

#include <algorithm>

namespace {

using bench::Array;
using bench::Ideal;
using bench::Random;
using bench::Values;

const size_t sizes[] = {64, 256, 1024};

size_t heap_bytes() {
    return static_cast<size_t>(bench::quick() ? 128 : 512) << 20;
}

size_t count_of(size_t size) {
    return heap_bytes() / Ideal::rounded(size);
}

/* --------------------------------------------------------------------- half dead, handles shuffled */

Values half_dead_jeff(size_t size) {
    rmheap_t heap = rmheap_create(nullptr);
    Array<rmhandle_t> handles(count_of(size));
    bench::fill_shuffled(heap, handles, size, size);
    size_t live = bench::free_half(handles, size + 1);
    rm_compact_result result;
    uint64_t wall = bench::wall_ns(), start = bench::cpu_ns();
    rm_compact_status status = rmheap_compact_us(heap, 0, &result);
    double cpu = static_cast<double>(bench::cpu_ns() - start);
    double real = static_cast<double>(bench::wall_ns() - wall);
    if (status != RM_COMPACT_DONE)
        throw std::runtime_error("compaction is not done");
    double blocks = static_cast<double>(live);
    return {{"time", cpu / blocks},
            {"wall", real / blocks},
            {"moved", static_cast<double>(result.blocks_moved) / blocks}};
}

Values half_dead_bare(size_t size) {
    bench::BareHeap heap(count_of(size), Ideal::rounded(size), size);
    uint64_t start = bench::cpu_ns();
    size_t bytes = heap.compact();
    double cpu = static_cast<double>(bench::cpu_ns() - start);
    if (bytes != heap.live() * Ideal::rounded(size))
        throw std::runtime_error("the bare loop lost a block");
    return {{"time", cpu / static_cast<double>(heap.live())}};
}

Values half_dead_memmove(size_t size) {
    size_t live = count_of(size) / 2;
    return {{"time", bench::memmove_ns(live * Ideal::rounded(size)) / static_cast<double>(live)}};
}

/* --------------------------------------------------------------------- J1 */

/* Frees and allocates blocks at random for half a second. */
void replace_for_a_while(rmheap_t heap, Array<rmhandle_t> &handles, Random &random) {
    uint64_t end = bench::cpu_ns() + 500000000u;
    while (bench::cpu_ns() < end)
        for (int i = 0; i < 1000; i++) {
            rmhandle_t &handle = handles[random.below(handles.size())];
            rmfree(handle);
            if ((handle = rmheap_malloc(heap, 16)) == nullptr)
                throw std::runtime_error("rmmalloc: no memory");
        }
}

size_t many() {
    return bench::quick() ? 3000000 : 15000000;
}

enum { ROUNDS = 5, DEAD_PERCENT = 10 };

/* Full compactions of a heap of many small blocks, each after `disturb`: the times' median, and what was moved. */
template <class Disturb, class Mend> Values compact_again_and_again(Disturb disturb, Mend mend) {
    rmheap_t heap = rmheap_create(nullptr);
    Array<rmhandle_t> handles(many());
    for (rmhandle_t &handle : handles)
        handle = rmheap_malloc(heap, 16);
    Random random(15);
    std::vector<double> times, moved;
    for (int round = 0; round < ROUNDS; round++) {
        disturb(heap, handles, random);
        rm_compact_result result;
        uint64_t start = bench::cpu_ns();
        rmheap_compact_us(heap, 0, &result);
        times.push_back(static_cast<double>(bench::cpu_ns() - start));
        moved.push_back(static_cast<double>(result.blocks_moved));
        mend(heap, handles);
    }
    std::sort(times.begin(), times.end());
    std::sort(moved.begin(), moved.end());
    return {{"time", times[ROUNDS / 2]}, {"moved", moved[ROUNDS / 2]}};
}

Values many_replaced() {
    return compact_again_and_again(replace_for_a_while, [](rmheap_t, Array<rmhandle_t> &) {});
}

/* A tenth of the blocks is freed, so that nearly all others have to move. */
Values many_thinned() {
    return compact_again_and_again(
        [](rmheap_t, Array<rmhandle_t> &handles, Random &random) {
            for (rmhandle_t &handle : handles)
                if (random.below(100) < DEAD_PERCENT) {
                    rmfree(handle);
                    handle = nullptr;
                }
        },
        [](rmheap_t heap, Array<rmhandle_t> &handles) {
            for (rmhandle_t &handle : handles)
                if (handle == nullptr && (handle = rmheap_malloc(heap, 16)) == nullptr)
                    throw std::runtime_error("rmmalloc: no memory");
        });
}

Values many_bare() {
    bench::BareHeap heap(many(), Ideal::rounded(16), 15, DEAD_PERCENT, false);
    uint64_t start = bench::cpu_ns();
    heap.compact();
    return {{"time", static_cast<double>(bench::cpu_ns() - start)}};
}

Values many_memmove() {
    return {{"time", bench::memmove_ns(many() * Ideal::rounded(16))}};
}

/* --------------------------------------------------------------------- nothing left to gain */

Values second_time(size_t count) {
    rmheap_t heap = rmheap_create(nullptr);
    Array<rmhandle_t> handles(count);
    for (rmhandle_t &handle : handles)
        handle = rmheap_malloc(heap, 64);
    bench::free_half(handles, 7);
    rmheap_compact(heap, 0);
    rm_compact_result result;
    double longest = 0, moved = 0, done = 1;
    for (int i = 0; i < 10; i++) {
        uint64_t start = bench::wall_ns();
        rm_compact_status status = rmheap_compact_us(heap, 0, &result);
        longest = std::max(longest, static_cast<double>(bench::wall_ns() - start));
        moved += static_cast<double>(result.blocks_moved);
        done = std::min(done, status == RM_COMPACT_DONE ? 1.0 : 0.0);
    }
    return {{"time", longest}, {"moved", moved}, {"done", done}};
}

/* --------------------------------------------------------------------- the program */

std::string name(const char *what, size_t size, const char *who) {
    return std::string(what) + "/" + std::to_string(size) + "/" + who;
}

size_t second_count() {
    return bench::quick() ? 2000000 : 8000000;
}

void add() {
    for (size_t size : sizes) {
        bench::add_child(name("half dead", size, "jeff"), [size] { return half_dead_jeff(size); });
        bench::add_child(name("half dead", size, "bare"), [size] { return half_dead_bare(size); });
        bench::add_child(name("half dead", size, "memmove"),
                         [size] { return half_dead_memmove(size); });
    }
    bench::add_child("J1/replaced", many_replaced, 1);
    bench::add_child("J1/thinned", many_thinned, 1);
    bench::add_child("J1/bare", many_bare);
    bench::add_child("J1/memmove", many_memmove);
    bench::add_child(
        "second", [] { return second_time(second_count()); }, 3);
}

void report_half_dead(const bench::Results &results, bench::Report &report) {
    using bench::Reach;
    for (size_t size : sizes) {
        double jeff = results.median(name("half dead", size, "jeff"));
        double wall = results.median(name("half dead", size, "jeff"), "wall");
        std::string blocks = std::to_string(size) + " B blocks";
        report.figure({"per live block, " + blocks, "ns", jeff, "bare loop",
                       results.median(name("half dead", size, "bare")), Reach::at_most, 1.5,
                       "wall " + std::to_string(static_cast<int>(wall)) + " ns"});
        /* bytes a nanosecond: the share of memmove's bandwidth */
        double bytes = static_cast<double>(Ideal::rounded(size));
        double plain = results.median(name("half dead", size, "memmove"));
        report.figure({"bandwidth, " + blocks, "GB/s", bytes / jeff, "memmove", bytes / plain,
                       Reach::at_least, size < 256 ? 0.2 : 0.4});
        report.figure({"blocks moved of those live, " + blocks, "",
                       results.median(name("half dead", size, "jeff"), "moved")});
    }
}

void report_many(const bench::Results &results, bench::Report &report) {
    using bench::Reach;
    double plain = results.median("J1/memmove") * 1e-9;
    std::string blocks = std::string("J1, ") + (bench::quick() ? "3" : "15") + " M blocks of 16 B";
    std::string note = "memmove of the live range " + std::to_string(plain) + " s";
    /* 0.28 s or 3.5 times a memmove of the live range, whichever is more; quick runs are a fifth */
    double target = std::max(bench::quick() ? 0.056 : 0.28, 3.5 * plain);
    report.figure({blocks + ", replaced at random", "s", results.median("J1/replaced") * 1e-9, "",
                   NAN, Reach::at_most, target, note});
    report.figure({"blocks moved by that", "", results.median("J1/replaced", "moved")});
    report.figure({blocks + ", a tenth freed", "s", results.median("J1/thinned") * 1e-9,
                   "bare loop", results.median("J1/bare") * 1e-9});
    report.figure({"the same", "s", results.median("J1/thinned") * 1e-9, "memmove", plain,
                   Reach::at_most, 3.5});
    report.figure({"blocks moved by that", "", results.median("J1/thinned", "moved")});
}

void report(const bench::Results &results, bench::Report &report_to) {
    using bench::Reach;
    report_half_dead(results, report_to);
    report_many(results, report_to);
    report_to.figure({"compacted heap of " + std::to_string(second_count() / 2) + " blocks, again",
                      "us", results.median("second") / 1e3, "", NAN, Reach::at_most, 100,
                      results.minimum("second", "done") == 1 ? "done" : "not done"});
    report_to.figure({"blocks moved by that", "", results.maximum("second", "moved"), "", NAN,
                      Reach::at_most, 0});
}

} // namespace

int main(int argc, char **argv) {
    return bench::run(argc, argv, "bench_compaction", add, report);
}
