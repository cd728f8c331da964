/* What it costs to get at a block: lock and unlock beside a bare atomic add and subtract, a dereference in
 * a read section beside two dependent loads.
 */
#include "harness.h"
#include "workloads.h"

#include <future>
#include <memory>
#include <thread>

namespace {

using bench::Array;
using bench::Random;
using bench::Values;

enum { BATCH = 1000, PAYLOAD = 64, STRIDE = 80 };

const size_t counts[] = {1, 1000, 100000, 1000000};

size_t largest_count() {
    return bench::quick() ? 100000 : 1000000;
}

/* `count` blocks, and the same built by hand: a table of words that hold the addresses of blocks, which
 * lie as far apart as Jeff's. Every block names the next of a cycle through all. */
struct Blocks {
    explicit Blocks(size_t count)
        : handles(count), memory(count * STRIDE), words(count), slots(count),
          heap(rmheap_create(nullptr)) {
        for (size_t i = 0; i < count; i++) {
            handles[i] = rmheap_malloc(heap, PAYLOAD);
            words[i] = reinterpret_cast<uint64_t>(memory.data() + i * STRIDE);
            slots[i] = &words[i];
        }
        Random(count).shuffle(handles.begin(), handles.end());
        Random(count).shuffle(slots.begin(), slots.end());
        for (size_t i = 0; i < count; i++) {
            size_t next = (i + 1) % count;
            memcpy(rmlock(handles[i]), &handles[next], sizeof handles[next]);
            rmunlock(handles[i]);
            memcpy(reinterpret_cast<void *>(*slots[i]), &slots[next], sizeof slots[next]);
        }
    }

    ~Blocks() {
        rmheap_destroy(heap);
    }

    Array<rmhandle_t> handles;
    bench::Mapping memory;
    Array<uint64_t> words;
    Array<uint64_t *> slots;
    rmheap_t heap;
};

/* One at a time is kept, since at a million blocks they fill the cache. */
Blocks &blocks(size_t count) {
    static std::unique_ptr<Blocks> kept;
    if (kept == nullptr || kept->handles.size() != count) {
        kept.reset();
        kept = std::make_unique<Blocks>(count);
    }
    return *kept;
}

/* Calls `visit` with successive elements, round and round. */
template <class T, class Visit>
void go_round(benchmark::State &state, const Array<T> &array, Visit visit) {
    size_t at = 0;
    while (state.KeepRunningBatch(BATCH))
        for (int i = 0; i < BATCH; i++) {
            T item = array[at];
            at = at + 1 < array.size() ? at + 1 : 0;
            visit(item);
        }
}

void lock_one(rmhandle_t handle) {
    void *address = rmlock(handle);
    benchmark::DoNotOptimize(address);
    rmunlock(handle);
}

void lock_one(uint64_t *slot) {
    uint64_t old = __atomic_fetch_add(slot, uint64_t{1} << 52, __ATOMIC_ACQUIRE);
    benchmark::DoNotOptimize(old);
    __atomic_fetch_sub(slot, uint64_t{1} << 52, __ATOMIC_RELEASE);
}

void lock_jeff(benchmark::State &state, size_t count) {
    go_round(state, blocks(count).handles, [](rmhandle_t handle) { lock_one(handle); });
}

void lock_bare(benchmark::State &state, size_t count) {
    go_round(state, blocks(count).slots, [](uint64_t *slot) { lock_one(slot); });
}

/* In a process that has a second thread, which does nothing: in a child, since a process that ever had one
 * does not become single-threaded again. */
template <class T> Values lock_beside_thread(const Array<T> &array) {
    const size_t rounds = (bench::quick() ? 1000000 : 5000000) / array.size() + 1;
    std::promise<void> end;
    std::thread idle([&] { end.get_future().wait(); });
    uint64_t start = 0;
    for (size_t i = 0; i <= rounds; i++) {
        if (i == 1) /* the first round warms up */
            start = bench::cpu_ns();
        for (const T &item : array)
            lock_one(item);
    }
    uint64_t ns = bench::cpu_ns() - start;
    end.set_value();
    idle.join();
    return {{"time", static_cast<double>(ns) / static_cast<double>(rounds * array.size())}};
}

/* Blocks read one after the other, by an array of handles: many cache misses at a time. */
void stream_jeff(benchmark::State &state, size_t count) {
    const Array<rmhandle_t> &handles = blocks(count).handles;
    size_t at = 0;
    uint64_t sum = 0;
    while (state.KeepRunningBatch(BATCH)) {
        rmread_begin();
        for (int i = 0; i < BATCH; i++) {
            sum += *static_cast<const uint64_t *>(rmderef(handles[at]));
            at = at + 1 < handles.size() ? at + 1 : 0;
        }
        rmread_end();
        benchmark::DoNotOptimize(sum);
    }
}

void stream_bare(benchmark::State &state, size_t count) {
    const Array<uint64_t *> &slots = blocks(count).slots;
    size_t at = 0;
    uint64_t sum = 0;
    while (state.KeepRunningBatch(BATCH)) {
        for (int i = 0; i < BATCH; i++) {
            sum +=
                *reinterpret_cast<const uint64_t *>(__atomic_load_n(slots[at], __ATOMIC_ACQUIRE));
            at = at + 1 < slots.size() ? at + 1 : 0;
        }
        benchmark::DoNotOptimize(sum);
    }
}

/* A list followed: every address depends on the block before. */
void chain_jeff(benchmark::State &state, size_t count) {
    rmhandle_t handle = blocks(count).handles[0];
    while (state.KeepRunningBatch(BATCH)) {
        rmread_begin();
        for (int i = 0; i < BATCH; i++)
            handle = *static_cast<const rmhandle_t *>(rmderef(handle));
        rmread_end();
        benchmark::DoNotOptimize(handle);
    }
}

void chain_bare(benchmark::State &state, size_t count) {
    uint64_t *slot = blocks(count).slots[0];
    while (state.KeepRunningBatch(BATCH)) {
        for (int i = 0; i < BATCH; i++)
            slot = *reinterpret_cast<uint64_t *const *>(__atomic_load_n(slot, __ATOMIC_ACQUIRE));
        benchmark::DoNotOptimize(slot);
    }
}

std::string name(const char *what, size_t count, const char *who) {
    return std::string(what) + "/" + std::to_string(count) + "/" + who;
}

void add() {
    for (size_t count : counts) {
        if (count > largest_count())
            continue;
        auto add_one = [count](const char *what, const char *who,
                               void (*body)(benchmark::State &, size_t)) {
            bench::add_loop(name(what, count, who),
                            [body, count](benchmark::State &state) { body(state, count); });
        };
        add_one("lock", "jeff", lock_jeff);
        add_one("lock", "bare", lock_bare);
        bench::add_child(name("lock beside", count, "jeff"),
                         [count] { return lock_beside_thread(blocks(count).handles); });
        bench::add_child(name("lock beside", count, "bare"),
                         [count] { return lock_beside_thread(blocks(count).slots); });
        add_one("deref", "jeff", stream_jeff);
        add_one("deref", "bare", stream_bare);
        add_one("chain", "jeff", chain_jeff);
        add_one("chain", "bare", chain_bare);
    }
}

void report(const bench::Results &results, bench::Report &report) {
    auto compare = [&](const char *what, const char *text, size_t count, const char *reference,
                       double target) {
        bench::Figure figure;
        figure.what = count == 1 ? std::string(text) + ", hot"
                                 : std::string(text) + ", " + std::to_string(count) + " at random";
        figure.unit = "ns";
        figure.jeff = results.median(name(what, count, "jeff"));
        figure.reference_name = reference;
        figure.reference = results.median(name(what, count, "bare"));
        figure.reach = std::isnan(target) ? bench::Reach::nothing : bench::Reach::at_most;
        figure.target = target;
        report.figure(figure);
    };
    for (size_t count : counts)
        compare("lock", "lock and unlock, one thread", count, "atomic add, sub",
                count == 1 ? 1.25 : NAN);
    for (size_t count : counts)
        compare("lock beside", "lock and unlock beside another thread", count, "atomic add, sub",
                count == 1 ? 1.25 : NAN);
    for (size_t count : counts)
        compare("chain", "dereference along a list", count, "two loads", 1.5);
    for (size_t count : counts)
        compare("deref", "dereference by an array", count, "two loads", count == 1 ? NAN : 1.5);
}

} // namespace

int main(int argc, char **argv) {
    return bench::run(argc, argv, "bench_lock", add, report);
}
