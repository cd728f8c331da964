/* What the machine itself takes, beside what Jeff takes for the operation that runs into it: atomic operations,
 * cache misses, copying, pages touched first and given back, fences on all threads.
 */
#include "bare_heap.h"
#include "harness.h"

#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace {

using bench::Array;
using bench::Random;
using bench::Values;

enum { BATCH = 1000, PAGE = 4096, SMALL = 64 };
const size_t MIB = size_t{1} << 20;

size_t area() {
    return (bench::quick() ? 128 : 512) * MIB;
}

double cpu_since(uint64_t start, size_t operations) {
    return static_cast<double>(bench::cpu_ns() - start) / static_cast<double>(operations);
}

rmhandle_t checked(rmhandle_t handle) {
    if (handle == nullptr)
        throw std::runtime_error("rmmalloc: no memory");
    return handle;
}

/* --------------------------------------------------------------------- atomic operations */

void two_adds(benchmark::State &state) {
    alignas(64) uint64_t word = 0;
    while (state.KeepRunningBatch(BATCH))
        for (int i = 0; i < BATCH; i++) {
            uint64_t old = __atomic_fetch_add(&word, 1, __ATOMIC_ACQUIRE);
            benchmark::DoNotOptimize(old);
            __atomic_fetch_sub(&word, 1, __ATOMIC_RELEASE);
        }
}

void lock_pair(benchmark::State &state) {
    rmhandle_t handle = checked(rmcalloc(1, SMALL));
    while (state.KeepRunningBatch(BATCH))
        for (int i = 0; i < BATCH; i++) {
            void *address = rmlock(handle);
            benchmark::DoNotOptimize(address);
            rmunlock(handle);
        }
    rmfree(handle);
}

void two_swaps(benchmark::State &state) {
    alignas(64) uint64_t word = 0;
    uint64_t expected = 0;
    while (state.KeepRunningBatch(BATCH))
        for (int i = 0; i < 2 * BATCH; i++) {
            __atomic_compare_exchange_n(&word, &expected, expected + 1, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE);
            expected++;
            benchmark::DoNotOptimize(expected);
        }
}

void malloc_pair(benchmark::State &state) {
    while (state.KeepRunningBatch(BATCH))
        for (int i = 0; i < BATCH; i++) {
            rmhandle_t handle = rmmalloc(SMALL);
            benchmark::DoNotOptimize(handle);
            rmfree(handle);
        }
}

/* CPU time of two threads that each do `operation` so many times. */
template <class Operation> Values on_two_threads(Operation operation) {
    enum { TIMES = 2000000 };
    double cpu[2];
    std::thread threads[2];
    for (int i = 0; i < 2; i++)
        threads[i] = std::thread([&cpu, i, operation] {
            uint64_t start = bench::cpu_ns();
            for (int n = 0; n < TIMES; n++)
                operation();
            cpu[i] = cpu_since(start, TIMES);
        });
    for (std::thread &thread : threads)
        thread.join();
    return {{"time", (cpu[0] + cpu[1]) / 2}};
}

Values shared_adds() {
    alignas(64) static uint64_t word;
    return on_two_threads([] {
        __atomic_fetch_add(&word, 1, __ATOMIC_ACQUIRE);
        __atomic_fetch_sub(&word, 1, __ATOMIC_RELEASE);
    });
}

Values shared_locks() {
    rmhandle_t handle = checked(rmcalloc(1, SMALL));
    return on_two_threads([handle] {
        void *address = rmlock(handle);
        benchmark::DoNotOptimize(address);
        rmunlock(handle);
    });
}

/* --------------------------------------------------------------------- cache misses */

size_t far_apart() {
    return area() / 128;
}

/* One word after the other, each in a line of its own and each found only by the one before. */
Values chase_words() {
    size_t count = far_apart();
    bench::Mapping memory(count * 64);
    Array<uint32_t> order(count);
    for (size_t i = 0; i < count; i++)
        order[i] = static_cast<uint32_t>(i);
    Random(1).shuffle(order.begin(), order.end());
    char **first = reinterpret_cast<char **>(memory.data() + size_t{order[0]} * 64);
    for (size_t i = 0; i < count; i++)
        *reinterpret_cast<char **>(memory.data() + size_t{order[i]} * 64) =
            memory.data() + size_t{order[(i + 1) % count]} * 64;
    uint64_t start = bench::cpu_ns();
    char *at = reinterpret_cast<char *>(first);
    for (size_t i = 0; i < count; i++)
        at = *reinterpret_cast<char **>(at);
    benchmark::DoNotOptimize(at);
    return {{"time", 2 * cpu_since(start, count)}};
}

/* The same through handles: an entry and a block each time. */
Values chase_handles() {
    size_t count = far_apart();
    Array<rmhandle_t> handles(count);
    for (rmhandle_t &handle : handles)
        handle = checked(rmmalloc(48));
    Random(1).shuffle(handles.begin(), handles.end());
    for (size_t i = 0; i < count; i++) {
        *static_cast<rmhandle_t *>(rmlock(handles[i])) = handles[(i + 1) % count];
        rmunlock(handles[i]);
    }
    rmhandle_t handle = handles[0];
    uint64_t start = bench::cpu_ns();
    rmread_begin();
    for (size_t i = 0; i < count; i++)
        handle = *static_cast<const rmhandle_t *>(rmderef(handle));
    rmread_end();
    benchmark::DoNotOptimize(handle);
    return {{"time", cpu_since(start, count)}};
}

/* --------------------------------------------------------------------- pages and copying */

char *map_fresh(size_t size) {
    void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        throw std::runtime_error("mmap failed");
    madvise(memory, size, MADV_NOHUGEPAGE);
    return static_cast<char *>(memory);
}

/* First touch of a page, and giving it back, per MiB. */
Values pages_of_machine() {
    char *memory = map_fresh(area());
    uint64_t start = bench::cpu_ns();
    for (size_t at = 0; at < area(); at += PAGE)
        memory[at] = 1;
    double touch = cpu_since(start, area() / MIB);
    start = bench::cpu_ns();
    for (size_t at = 0; at < area(); at += MIB)
        madvise(memory + at, MIB, MADV_DONTNEED);
    return {{"time", touch}, {"give", cpu_since(start, area() / MIB)}};
}

/* A heap that grows by blocks that fill it, one word of each page written; and compacted when all are dead. */
Values pages_of_jeff() {
    size_t count = area() / PAGE;
    Array<rmhandle_t> handles(count);
    uint64_t start = bench::cpu_ns();
    for (rmhandle_t &handle : handles) {
        handle = checked(rmmalloc(PAGE - 16));
        *static_cast<volatile char *>(rmlock(handle)) = 1;
        rmunlock(handle);
    }
    double touch = cpu_since(start, area() / MIB);
    start = bench::cpu_ns();
    for (rmhandle_t handle : handles)
        rmfree(handle);
    rmcompact(0);
    return {{"time", touch}, {"give", cpu_since(start, area() / MIB)}};
}

Values copying_of_machine() {
    return {{"time", bench::memmove_ns(area() / 2) / static_cast<double>(area() / 2 / MIB)}};
}

Values copying_of_jeff() {
    Array<rmhandle_t> handles(area() / 1024);
    rmheap_t heap = rmheap_create(nullptr);
    bench::fill_shuffled(heap, handles, 1016, 1016);
    size_t live = bench::free_half(handles, 1);
    uint64_t start = bench::cpu_ns();
    rmheap_compact(heap, 0);
    return {{"time", cpu_since(start, 1) / (static_cast<double>(live) / 1024)}};
}

/* --------------------------------------------------------------------- huge pages */

/* What memory takes that the system may or may not give in huge pages of 2 MiB: the first touch of all its pages,
 * words reached at random (as entries of the handle table are), and giving it back by huge pages. */
Values pages_of_size(bool huge) {
    const size_t huge_page = 2 * MIB, words = area() / sizeof(uint64_t);
    char *memory = map_fresh(area() + huge_page);
    memory += (huge_page - reinterpret_cast<uintptr_t>(memory) % huge_page) % huge_page;
    if (huge)
        madvise(memory, area(), MADV_HUGEPAGE);
    uint64_t start = bench::cpu_ns();
    for (size_t at = 0; at < area(); at += PAGE)
        memory[at] = 1;
    double touch = cpu_since(start, area() / MIB);
    Random random(2);
    enum { ADDITIONS = 2000000 };
    start = bench::cpu_ns();
    for (int i = 0; i < ADDITIONS; i++)
        reinterpret_cast<uint64_t *>(memory)[random.below(words)]++;
    double add = cpu_since(start, ADDITIONS);
    start = bench::cpu_ns();
    for (size_t at = 0; at < area(); at += huge_page)
        madvise(memory + at, huge_page, MADV_DONTNEED);
    return {{"time", touch}, {"add", add}, {"give", cpu_since(start, area() / MIB)}};
}

/* --------------------------------------------------------------------- fences and clocks */

void fence_all(benchmark::State &state) {
    syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    for (auto _ : state)
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

void read_clock(benchmark::State &state) {
    while (state.KeepRunningBatch(BATCH))
        for (int i = 0; i < BATCH; i++) {
            uint64_t now = bench::wall_ns();
            benchmark::DoNotOptimize(now);
        }
}

void compact_nothing(benchmark::State &state) {
    rmhandle_t handle = checked(rmmalloc(SMALL));
    rmcompact(0);
    for (auto _ : state)
        rmcompact_us(1000, nullptr);
    rmfree(handle);
}

/* --------------------------------------------------------------------- the program */

void add() {
    bench::add_loop("adds/machine", two_adds);
    bench::add_loop("adds/jeff", lock_pair);
    bench::add_loop("swaps/machine", two_swaps);
    bench::add_loop("swaps/jeff", malloc_pair);
    bench::add_child("shared/machine", shared_adds);
    bench::add_child("shared/jeff", shared_locks);
    bench::add_child("chase/machine", chase_words);
    bench::add_child("chase/jeff", chase_handles);
    bench::add_child("pages/machine", pages_of_machine);
    bench::add_child("pages/jeff", pages_of_jeff);
    bench::add_child("copying/machine", copying_of_machine);
    bench::add_child("copying/jeff", copying_of_jeff);
    bench::add_child("page size/jeff", [] { return pages_of_size(true); });
    bench::add_child("page size/machine", [] { return pages_of_size(false); });
    bench::add_loop("fence/machine", fence_all);
    bench::add_loop("clock/machine", read_clock);
    bench::add_loop("fence/jeff", compact_nothing);
}

void report(const bench::Results &results, bench::Report &report) {
    auto beside = [&](const char *what, const std::string &subject, const char *limit,
                      const char *value = "time", const char *unit = "ns", double scale = 1) {
        report.figure({what, unit, results.median(subject + "/jeff", value) * scale, limit,
                       results.median(subject + "/machine", value) * scale});
    };
    beside("rmlock and rmunlock, hot", "adds", "two atomic additions");
    beside("rmmalloc and rmfree, 64 B, hot", "swaps", "two compare-and-swaps");
    beside("rmlock and rmunlock, two threads, one block", "shared", "two additions, one word");
    beside("list followed through handles, out of cache", "chase", "two dependent misses");
    beside("heap that grows, per MiB of pages", "pages", "first touch of them", "time", "us", 1e-3);
    beside("all freed and compacted, per MiB", "pages", "madvise, a MiB at a time", "give", "us",
           1e-3);
    beside("full compaction, 1016 B blocks, per MiB moved", "copying", "memmove", "time", "us",
           1e-3);
    beside("no Jeff, huge pages: first touch, per MiB", "page size", "pages of 4 KiB", "time", "us",
           1e-3);
    beside("the same: adding to random words", "page size", "pages of 4 KiB", "add");
    beside("the same: giving back, per MiB", "page size", "pages of 4 KiB", "give", "us", 1e-3);
    beside("rmcompact_us of a compacted heap", "fence", "membarrier", "time", "us", 1e-3);
    report.figure({"the same", "us", results.median("fence/jeff") * 1e-3, "reading the clock",
                   results.median("clock/machine") * 1e-3});
}

} // namespace

int main(int argc, char **argv) {
    return bench::run(argc, argv, "bench_machine", add, report);
}
