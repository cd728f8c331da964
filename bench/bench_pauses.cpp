/* How long compaction keeps a program waiting: the pauses of rmcompact_us at several budgets and heap sizes
 * (in the thread's CPU time, since the machine itself takes the processor away for up to 20 ms); gets from
 * other threads meanwhile (Q1); a lock that meets a suspended compactor; and a slice of a millisecond in
 * every frame (G1).
 */
#include "bare_heap.h"
#include "harness.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <sched.h>
#include <sys/mman.h>
#include <thread>
#include <time.h>

namespace {

using bench::Array;
using bench::percentile;
using bench::Random;
using bench::Values;

/* --------------------------------------------------------------------- pauses of one call */

struct Pauses {
    size_t blocks;
    uint32_t budget_us;
    bool large; /* blocks of many MiB in the mix */
    bool fixed;
};

std::string name_of(const Pauses &pauses) {
    return std::string(pauses.fixed ? "fixed/" : "pause/") + std::to_string(pauses.blocks) + "/" +
           std::to_string(pauses.budget_us) + (pauses.large ? "/large" : "");
}

const size_t block_counts[] = {10000, 100000, 1000000, 10000000};
const uint32_t budgets[] = {100, 500, 1000, 5000};

std::vector<Pauses> all_pauses() {
    std::vector<Pauses> all;
    for (size_t blocks : block_counts)
        if (!bench::quick() || blocks <= 1000000)
            for (bool large : {false, true})
                all.push_back({blocks, 1000, large, false});
    for (uint32_t budget : budgets)
        if (budget != 1000)
            all.push_back({1000000, budget, false, false});
    std::stable_sort(all.begin(), all.end(), [](const Pauses &one, const Pauses &other) {
        return one.budget_us < other.budget_us;
    });
    all.push_back({1000000, 1000, false, true});
    return all;
}

/* A heap that is never left in peace. */
class Busy {
  public:
    Busy(rmheap_t heap, const Pauses &pauses)
        : heap_(heap), handles_(pauses.blocks), large_(pauses.large ? LARGE : 1), random_(9),
          has_large_(pauses.large) {
        for (rmhandle_t &handle : handles_)
            handle = make(random_.between(16, 256));
        for (size_t i = 0; has_large_ && i < LARGE; i++)
            large_[i] = make_large();
        /* half of the blocks die; the others are joined by new ones as time goes on */
        random_.shuffle(handles_.begin(), handles_.end());
        live_ = pauses.blocks / 2;
        for (size_t i = live_; i < pauses.blocks; i++)
            rmfree(handles_[i]);
    }

    /* What the program does between two calls: some thousand blocks go, as many come. */
    void work() {
        size_t count = std::min<size_t>(live_ / 4, 2000);
        for (size_t i = 0; i < count; i++) {
            rmhandle_t &handle = handles_[random_.below(live_)];
            rmfree(handle);
            handle = make(random_.between(16, 256));
        }
        if (has_large_ && ++turn_ % 8 == 0) {
            rmhandle_t &handle = large_[random_.below(LARGE)];
            rmfree(handle);
            handle = make_large();
        }
    }

  private:
    enum { LARGE = 16 };

    rmhandle_t make(size_t size) {
        rmhandle_t handle = rmheap_malloc(heap_, size);
        if (handle == nullptr)
            throw std::runtime_error("rmmalloc: no memory");
        return handle;
    }

    rmhandle_t make_large() {
        size_t size = random_.between(1, 32) << 20;
        rmhandle_t handle = make(size);
        memset(rmlock(handle), 0x5a, size);
        rmunlock(handle);
        return handle;
    }

    rmheap_t heap_;
    Array<rmhandle_t> handles_, large_;
    Random random_;
    size_t live_;
    bool has_large_;
    unsigned turn_ = 0;
};

const double ranks[] = {0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999};

void add_percentiles(Values *ret_values, const char *kind, Array<uint32_t> &times) {
    Values &values = *ret_values;
    for (double rank : ranks) {
        char key[32];
        snprintf(key, sizeof key, "%s_p%g", kind, rank * 100);
        values[key] = percentile(times.begin(), times.end(), rank) / 1e3;
    }
    values[std::string(kind) + "_max"] = percentile(times.begin(), times.end(), 1) / 1e3;
}

/* Microseconds, by percentile. */
Values measure_pauses(const Pauses &pauses) {
    bench::Mapping buffer(pauses.fixed ? pauses.blocks * 192 : 1);
    rmheap_t heap = pauses.fixed ? rmheap_create_in(buffer.data(), buffer.size(), nullptr)
                                 : rmheap_create(nullptr);
    Busy busy(heap, pauses);
    size_t calls = bench::quick() ? 1000 : 5000;
    Array<uint32_t> cpu(calls), wall(calls);
    double bytes = 0, to_the_end = 0;
    for (size_t i = 0; i < calls; i++) {
        busy.work();
        rm_compact_result result;
        uint64_t wall_start = bench::wall_ns(), cpu_start = bench::cpu_ns();
        rm_compact_status status = rmheap_compact_us(heap, pauses.budget_us, &result);
        cpu[i] = static_cast<uint32_t>(bench::cpu_ns() - cpu_start);
        wall[i] = static_cast<uint32_t>(bench::wall_ns() - wall_start);
        bytes += static_cast<double>(result.bytes_moved);
        to_the_end += status == RM_COMPACT_BUDGET ? 1 : 0;
    }
    Values values{{"bytes", bytes / static_cast<double>(calls)},
                  {"to_the_end", to_the_end / static_cast<double>(calls)}};
    add_percentiles(&values, "cpu", cpu);
    add_percentiles(&values, "wall", wall);
    values["time"] = values["cpu_p50"] * 1e3;
    return values;
}

/* --------------------------------------------------------------------- Q1: gets meanwhile */

enum { GET_BLOCKS = 400000, GET_SIZE = 240, GETTERS = 2 };

struct Gets {
    Array<rmhandle_t> keys{GET_BLOCKS / 2};
    Array<rmhandle_t> churned{GET_BLOCKS / 2};
    std::atomic<bool> stop{false};
};

/* Latencies of gets from one thread, in nanoseconds of its CPU time. */
void get_all(const Gets &gets, uint64_t seed, Array<uint32_t> &times) {
    Random random(seed);
    uint64_t sum = 0;
    for (uint32_t &time : times) {
        rmhandle_t key = gets.keys[random.below(gets.keys.size())];
        uint64_t start = bench::cpu_ns();
        const uint64_t *words = static_cast<const uint64_t *>(rmlock(key));
        for (size_t i = 0; i < GET_SIZE / sizeof *words; i++)
            sum += words[i];
        rmunlock(key);
        time = static_cast<uint32_t>(bench::cpu_ns() - start);
    }
    benchmark::DoNotOptimize(sum);
}

Values measure_gets(bool compacting) {
    Gets gets;
    rmheap_t heap = rmheap_create(nullptr);
    for (size_t i = 0; i < GET_BLOCKS / 2; i++) {
        gets.keys[i] = rmheap_calloc(heap, 1, GET_SIZE);
        gets.churned[i] = rmheap_calloc(heap, 1, GET_SIZE);
    }
    size_t count = bench::quick() ? 500000 : 3000000;
    Array<uint32_t> times(GETTERS * count);
    Array<uint32_t> first(count), second(count);
    std::atomic<int> running{GETTERS};
    auto getter = [&](uint64_t seed, Array<uint32_t> &into) {
        get_all(gets, seed, into);
        running--;
    };
    std::thread one(getter, 1, std::ref(first)), two(getter, 2, std::ref(second));
    Random random(3);
    double moved = 0, calls = 0;
    while (running > 0) {
        for (int i = 0; i < 2000; i++) {
            rmhandle_t &handle = gets.churned[random.below(gets.churned.size())];
            rmfree(handle);
            handle = rmheap_malloc(heap, random.between(16, 2 * GET_SIZE));
        }
        rm_compact_result result{};
        if (compacting)
            rmheap_compact_us(heap, 500, &result);
        moved += static_cast<double>(result.blocks_moved);
        calls++;
    }
    one.join();
    two.join();
    std::copy(first.begin(), first.end(), times.begin());
    std::copy(second.begin(), second.end(), times.begin() + count);
    return {{"time", percentile(times.begin(), times.end(), 0.5)},
            {"p99", percentile(times.begin(), times.end(), 0.99)},
            {"p99.99", percentile(times.begin(), times.end(), 0.9999)},
            {"max", percentile(times.begin(), times.end(), 1)},
            {"moved", moved},
            {"calls", calls}};
}

/* --------------------------------------------------------------------- a suspended compactor */

enum Hold { GO_ON, ASKED, WAITING };
std::atomic<Hold> hold;

void hold_here(int) {
    Hold expected = ASKED;
    if (hold.compare_exchange_strong(expected, WAITING))
        while (hold.load() == WAITING)
            sched_yield();
}

uint64_t word_of(rmhandle_t handle) {
    uintptr_t bits = reinterpret_cast<uintptr_t>(handle);
    return __atomic_load_n(reinterpret_cast<uint64_t *>(bits & RM_HANDLE_ENTRY), __ATOMIC_RELAXED);
}

uint32_t time_of_lock(rmhandle_t handle) {
    /* the smaller of both: CPU time has the price of its system call in it, wall time that of being
     * put aside for another program */
    uint64_t cpu = bench::cpu_ns(), wall = bench::wall_ns();
    rmlock(handle);
    wall = bench::wall_ns() - wall;
    cpu = bench::cpu_ns() - cpu;
    rmunlock(handle);
    return static_cast<uint32_t>(std::min(cpu, wall));
}

struct LockTimes {
    std::vector<uint32_t> moving, other;
};

size_t plainly_live(const Array<rmhandle_t> &handles, size_t live, size_t far_from) {
    size_t other = far_from;
    do
        other = (other + live / 2 + 1) % live;
    while ((word_of(handles[other]) & RM_ENTRY_STATE) != RM_ENTRY_LIVE);
    return other;
}

/* Locks the blocks that the suspended compactor is in the middle of moving, neither live nor free; and with
 * each another block, which nobody moves. They are first in turn: the first finds little in the caches. */
void lock_moving(const Array<rmhandle_t> &handles, size_t live, LockTimes *ret_times) {
    for (size_t i = 0; i < live; i++) {
        if ((word_of(handles[i]) & RM_ENTRY_STATE) == RM_ENTRY_LIVE)
            continue;
        rmhandle_t other = handles[plainly_live(handles, live, i)];
        if (ret_times->moving.size() % 2 == 0)
            ret_times->other.push_back(time_of_lock(other));
        ret_times->moving.push_back(time_of_lock(handles[i]));
        if (ret_times->other.size() < ret_times->moving.size())
            ret_times->other.push_back(time_of_lock(other));
    }
}

Values measure_suspended() {
    const size_t wanted = bench::quick() ? 20 : 200;
    struct sigaction action {};
    action.sa_handler = hold_here;
    sigaction(SIGUSR1, &action, nullptr);
    rmheap_t heap = rmheap_create(nullptr);
    Array<rmhandle_t> handles(4000);
    LockTimes times;
    double suspended = 0;
    while (times.moving.size() < wanted && suspended < 20000) {
        for (rmhandle_t &handle : handles)
            handle = rmheap_malloc(heap, 16000);
        size_t live = bench::free_half(handles, static_cast<uint64_t>(suspended));
        std::atomic<bool> done{false};
        std::thread compactor([&] {
            rmheap_compact(heap, 0);
            done = true;
        });
        for (; !done; suspended++) {
            hold = ASKED;
            pthread_kill(compactor.native_handle(), SIGUSR1);
            while (hold == ASKED && !done)
                sched_yield();
            Hold expected = ASKED;
            if (!hold.compare_exchange_strong(expected, GO_ON))
                lock_moving(handles, live, &times);
            hold = GO_ON;
            timespec pause{0, 200000};
            nanosleep(&pause, nullptr);
        }
        compactor.join();
        for (size_t i = 0; i < live; i++)
            rmfree(handles[i]);
    }
    if (times.moving.size() < 2)
        throw std::runtime_error("the compactor was hardly ever suspended in the middle of a move");
    /* without the first: in that the dynamic linker looked for the slow path */
    uint32_t *begin = times.moving.data() + 1, *end = times.moving.data() + times.moving.size();
    uint32_t *others = times.other.data(), *others_end = others + times.other.size();
    return {{"time", percentile(begin, end, 0.5)},
            {"p99", percentile(begin, end, 0.99)},
            {"max", percentile(begin, end, 1)},
            {"other_p99", percentile(others, others_end, 0.99)},
            {"other_max", percentile(others, others_end, 1)},
            {"other_p50", percentile(others, others_end, 0.5)},
            {"hits", static_cast<double>(times.moving.size())},
            {"suspended", suspended}};
}

/* --------------------------------------------------------------------- G1: a slice in every frame */

void sleep_until(uint64_t ns) {
    timespec until{static_cast<time_t>(ns / 1000000000u), static_cast<long>(ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

enum { FRAME_NS = 33333333, FRAMES_MAX = 300, SLICE_US = 1000, FRAME_BYTES = 200000000 };

/* What the machine takes for the same at least, in as long slices of as many frames, since after each sleep the caches are
 * cold: the bare loop for blocks of the mean size, and giving back as much as is dead, two MiB at a time. */
Values frames_of_machine() {
    const size_t piece = size_t{2} << 20;
    size_t stride = bench::Ideal::rounded((16 + 4096) / 2);
    bench::BareHeap heap(FRAME_BYTES / stride, stride, 30);
    bench::Mapping dead(FRAME_BYTES / 2);
    memset(dead.data(), 1, dead.size());
    uint64_t begin = bench::wall_ns();
    double frames = 0, cpu = 0;
    bool moved = false;
    for (size_t at = 0; at < dead.size(); frames++) {
        sleep_until(begin + static_cast<uint64_t>(frames) * FRAME_NS);
        uint64_t start = bench::cpu_ns(), end = start + SLICE_US * 1000;
        moved = moved || heap.compact_until(end);
        for (; moved && at < dead.size() && bench::cpu_ns() < end; at += piece)
            madvise(dead.data() + at, std::min(piece, dead.size() - at), MADV_DONTNEED);
        cpu += static_cast<double>(bench::cpu_ns() - start);
    }
    return {{"time", cpu}, {"frames", frames}};
}

/* A heap of 200 MB, half of it dead: frames until it is clean. */
Values measure_frames() {
    rmheap_t heap = rmheap_create(nullptr);
    Array<rmhandle_t> handles(400000);
    Random random(30);
    size_t count = 0;
    for (size_t bytes = 0; bytes < FRAME_BYTES; count++) {
        size_t size = random.between(16, 4096);
        handles[count] = rmheap_calloc(heap, 1, size);
        bytes += bench::Ideal::rounded(size);
    }
    for (size_t i = 0; i < count; i++)
        if ((random.next() & 1) != 0)
            rmfree(handles[i]);
    size_t before = bench::resident_bytes();
    uint64_t start = bench::wall_ns();
    double frames = 0, longest = 0, cpu = 0, moved = 0;
    rm_compact_status status = RM_COMPACT_BUDGET;
    while (status != RM_COMPACT_DONE && frames < FRAMES_MAX) {
        sleep_until(start + static_cast<uint64_t>(frames) * FRAME_NS);
        rm_compact_result result;
        uint64_t cpu_start = bench::cpu_ns();
        status = rmheap_compact_us(heap, SLICE_US, &result);
        double pause = static_cast<double>(bench::cpu_ns() - cpu_start);
        longest = std::max(longest, pause);
        cpu += pause;
        moved += static_cast<double>(result.bytes_moved);
        frames++;
    }
    return {{"time", static_cast<double>(bench::wall_ns() - start)},
            {"frames", frames},
            {"longest", longest / 1e3},
            {"cpu", cpu / 1e6},
            {"moved", moved / 1e6},
            {"given_back", static_cast<double>(before - bench::resident_bytes()) / 1e6}};
}

/* --------------------------------------------------------------------- the program */

void add() {
    for (const Pauses &pauses : all_pauses())
        bench::add_child(
            name_of(pauses), [pauses] { return measure_pauses(pauses); }, 1);
    unsigned times = bench::quick() ? 1 : 3;
    bench::add_child(
        "gets/alone", [] { return measure_gets(false); }, times);
    bench::add_child(
        "gets/compacting", [] { return measure_gets(true); }, times);
    bench::add_child("suspended", measure_suspended, 1);
    bench::add_child("frames", measure_frames, times);
    bench::add_child("frames/machine", frames_of_machine, 3);
}

std::string notes(const bench::Results &results, const std::string &name) {
    char text[160];
    snprintf(text, sizeof text, "p50 %.0f, max %.0f; wall p99 %.0f, max %.0f; budget used %.0f %%",
             results.median(name, "cpu_p50"), results.maximum(name, "cpu_max"),
             results.median(name, "wall_p99"), results.maximum(name, "wall_max"),
             100 * results.median(name, "to_the_end"));
    return text;
}

void report_pauses(const bench::Results &results, bench::Report &report, const Pauses &pauses) {
    std::string name = name_of(pauses);
    bool growing_ms = pauses.budget_us == 1000 && !pauses.fixed;
    auto reach = growing_ms ? bench::Reach::at_most : bench::Reach::nothing;
    std::string text = std::to_string(pauses.blocks) + " blocks" + (pauses.fixed ? ", fixed" : "") +
                       (pauses.large ? ", large ones too" : "") + ", " +
                       std::to_string(pauses.budget_us) + " us: ";
    report.figure({text + "p99", "us", results.median(name, "cpu_p99"), "", NAN, reach,
                   growing_ms ? 1050 : NAN, notes(results, name)});
    report.figure({text + "p99.9", "us", results.median(name, "cpu_p99.9"), "", NAN, reach,
                   growing_ms ? 1200 : NAN});
    if (pauses.blocks != 1000000 || pauses.large || pauses.fixed)
        return;
    for (double rank : ranks) {
        char key[32];
        snprintf(key, sizeof key, "cpu_p%g", rank * 100);
        report.point("pauses", std::to_string(pauses.budget_us) + " us", rank * 100,
                     results.median(name, key));
    }
}

void report(const bench::Results &results, bench::Report &report) {
    using bench::Reach;
    for (const Pauses &pauses : all_pauses())
        report_pauses(results, report, pauses);
    double alone = results.median("gets/alone", "p99.99") / 1e3;
    double with = results.median("gets/compacting", "p99.99") / 1e3;
    char note[240];
    snprintf(note, sizeof note,
             "p99.99 %.2f with, %.2f without; p50 %.2f and %.2f; %.0f blocks moved", with, alone,
             results.median("gets/compacting") / 1e3, results.median("gets/alone") / 1e3,
             results.median("gets/compacting", "moved"));
    report.figure({"Q1: p99.99 of a get over the run without compaction", "us", with - alone, "",
                   NAN, Reach::at_most, 5, note});
    snprintf(
        note, sizeof note,
        "p50 %.3f, longest %.3f, of %.0f suspended in mid-move; of others: p50 %.3f, p99 %.3f, "
        "longest %.3f",
        results.median("suspended") / 1e3, results.maximum("suspended", "max") / 1e3,
        results.median("suspended", "hits"), results.median("suspended", "other_p50") / 1e3,
        results.median("suspended", "other_p99") / 1e3,
        results.maximum("suspended", "other_max") / 1e3);
    report.figure({"lock of a block whose move is suspended, p99", "us",
                   results.median("suspended", "p99") / 1e3, "", NAN, Reach::at_most, 1, note});
    snprintf(note, sizeof note,
             "%.0f frames, %.1f ms of CPU, longest slice %.0f us, %.0f MB given back",
             results.median("frames", "frames"), results.median("frames", "cpu"),
             results.maximum("frames", "longest"), results.median("frames", "given_back"));
    report.figure({"G1: 200 MB clean at 30 slices of 1 ms a second", "s",
                   results.median("frames") * 1e-9, "", NAN, Reach::at_most, 1, note});
    report.figure({"CPU time of that", "ms", results.median("frames", "cpu"),
                   "bare loop and giving back", results.median("frames/machine") / 1e6});
    report.figure({"frames of that", "", results.median("frames", "frames"),
                   "bare loop and giving back", results.median("frames/machine", "frames")});
}

} // namespace

int main(int argc, char **argv) {
    return bench::run(argc, argv, "bench_pauses", add, report);
}
