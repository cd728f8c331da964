/* Two threads beside one: blocks of their own, blocks that the other one frees, and one block that both read.
 * Costs are CPU time of the threads: what they cost each other shows, what other programs take does not;
 * the wall time stands beside it.
 */
#include "harness.h"
#include "peers.h"

#include <algorithm>
#include <atomic>
#include <thread>

namespace {

using bench::Array;
using bench::MallocStore;
using bench::Peer;
using bench::Random;
using bench::Values;

std::vector<Peer> peers;

struct JeffCalls {
    using Block = rmhandle_t;
    Block allocate(size_t size) const {
        return rmmalloc(size);
    }
    void release(Block block) const {
        rmfree(block);
    }
};

struct MallocCalls {
    using Block = void *;
    MallocStore store;
    Block allocate(size_t size) const {
        return store.malloc(size);
    }
    void release(Block block) const {
        store.free(block);
    }
};

size_t operations() {
    return bench::quick() ? 1000000 : 5000000;
}

/* Runs `body(thread number)` on as many threads, all starting together; CPU nanoseconds per operation of
 * one thread, and operations per microsecond of wall time of all. */
template <class Body> Values run_threads(unsigned count, Body body) {
    std::atomic<unsigned> ready{0};
    std::vector<double> cpu(count);
    std::vector<uint64_t> ends(count);
    std::vector<std::thread> threads;
    std::atomic<uint64_t> begin{0};
    for (unsigned i = 0; i < count; i++)
        threads.emplace_back([&, i] {
            ready++;
            while (ready < count)
                std::this_thread::yield();
            if (i == 0)
                begin = bench::wall_ns();
            uint64_t start = bench::cpu_ns();
            body(i);
            cpu[i] = static_cast<double>(bench::cpu_ns() - start);
            ends[i] = bench::wall_ns();
        });
    for (std::thread &thread : threads)
        thread.join();
    double total = 0;
    for (double one : cpu)
        total += one;
    double done = static_cast<double>(operations()) * count;
    double wall = static_cast<double>(*std::max_element(ends.begin(), ends.end()) - begin);
    return {{"time", total / done}, {"rate", done / wall * 1e3}};
}

/* --------------------------------------------------------------------- blocks of their own */

template <class Calls> Values own_blocks(const Calls &calls, unsigned count) {
    return run_threads(count, [&](unsigned number) {
        Random random(number);
        Array<typename Calls::Block> blocks(10000);
        for (auto &block : blocks)
            block = calls.allocate(bench::replaced_size(random));
        for (size_t i = 0; i < operations(); i++) {
            auto &block = blocks[random.below(blocks.size())];
            calls.release(block);
            block = calls.allocate(bench::replaced_size(random));
        }
        for (auto &block : blocks)
            calls.release(block);
    });
}

/* --------------------------------------------------------------------- each other's blocks */

/* Blocks on their way from one thread to another, a batch at a time. */
template <class Block> class Pipe {
  public:
    enum { BATCH = 256, BATCHES = 16 };

    void put(const Block *blocks) {
        while (sent_ - received_.load(std::memory_order_acquire) == BATCHES)
            std::this_thread::yield();
        std::copy(blocks, blocks + BATCH, slots_[sent_ % BATCHES]);
        sent_.store(sent_ + 1, std::memory_order_release);
    }

    bool take(Block *blocks) {
        size_t number = received_.load(std::memory_order_relaxed);
        if (sent_.load(std::memory_order_acquire) == number)
            return false;
        std::copy(slots_[number % BATCHES], slots_[number % BATCHES] + BATCH, blocks);
        received_.store(number + 1, std::memory_order_release);
        return true;
    }

  private:
    alignas(64) std::atomic<size_t> sent_{0};
    alignas(64) std::atomic<size_t> received_{0};
    alignas(64) Block slots_[BATCHES][BATCH];
};

/* Two threads allocate, hand over, and free what they are handed: the other's, or their own. */
template <class Calls> Values handed_over(const Calls &calls, bool each_others) {
    using Block = typename Calls::Block;
    static Pipe<Block> pipes[2];
    return run_threads(2, [&](unsigned number) {
        Pipe<Block> &out = pipes[number];
        Pipe<Block> &in = pipes[each_others ? 1 - number : number];
        Random random(number);
        Block batch[Pipe<Block>::BATCH];
        size_t batches = operations() / Pipe<Block>::BATCH, taken = 0;
        for (size_t i = 0; i < batches; i++) {
            for (Block &block : batch)
                block = calls.allocate(bench::replaced_size(random));
            out.put(batch);
            while (in.take(batch)) {
                taken++;
                for (Block block : batch)
                    calls.release(block);
            }
        }
        while (taken < batches) {
            if (!in.take(batch)) {
                std::this_thread::yield();
                continue;
            }
            taken++;
            for (Block block : batch)
                calls.release(block);
        }
    });
}

/* --------------------------------------------------------------------- the same block */

Values read_same(unsigned count) {
    rmhandle_t handle = rmcalloc(1, 64);
    return run_threads(count, [&](unsigned) {
        uint64_t sum = 0;
        for (size_t i = 0; i < operations();) {
            rmread_begin();
            for (size_t end = std::min(i + 100, operations()); i < end; i++) {
                sum += *static_cast<const uint64_t *>(rmderef(handle));
                benchmark::DoNotOptimize(sum);
            }
            rmread_end();
        }
    });
}

Values lock_blocks(unsigned count, bool same) {
    rmhandle_t handles[2] = {rmcalloc(1, 64), rmcalloc(1, 64)};
    return run_threads(count, [&](unsigned number) {
        rmhandle_t handle = handles[same ? 0 : number];
        for (size_t i = 0; i < operations(); i++) {
            void *address = rmlock(handle);
            benchmark::DoNotOptimize(address);
            rmunlock(handle);
        }
    });
}

/* Blocks from each thread itself: the entries lie on lines of their own. */
Values lock_own(unsigned count) {
    return run_threads(count, [&](unsigned) {
        rmhandle_t handle = rmcalloc(1, 64);
        for (size_t i = 0; i < operations(); i++) {
            void *address = rmlock(handle);
            benchmark::DoNotOptimize(address);
            rmunlock(handle);
        }
    });
}

/* --------------------------------------------------------------------- the program */

std::string name(const char *what, const char *how, const char *who) {
    return std::string(what) + "/" + how + "/" + who;
}

template <class Calls>
void add_calls(const char *who, Calls (*calls)(const Peer &), const Peer &peer) {
    bench::add_child(name("own", "1", who), [=] { return own_blocks(calls(peer), 1); });
    bench::add_child(name("own", "2", who), [=] { return own_blocks(calls(peer), 2); });
    bench::add_child(name("handed", "own", who), [=] { return handed_over(calls(peer), false); });
    bench::add_child(name("handed", "other", who), [=] { return handed_over(calls(peer), true); });
}

void add() {
    peers = bench::installed_peers();
    add_calls<JeffCalls>(
        "jeff", [](const Peer &) { return JeffCalls{}; }, Peer{});
    for (const Peer &peer : peers)
        add_calls<MallocCalls>(
            peer.name, [](const Peer &which) { return MallocCalls{bench::open_peer(which)}; },
            peer);
    for (unsigned count : {1u, 2u}) {
        std::string text = std::to_string(count);
        bench::add_child(name("read", text.c_str(), "jeff"), [=] { return read_same(count); });
        bench::add_child(name("lock same", text.c_str(), "jeff"),
                         [=] { return lock_blocks(count, true); });
        bench::add_child(name("lock line", text.c_str(), "jeff"),
                         [=] { return lock_blocks(count, false); });
        bench::add_child(name("lock own", text.c_str(), "jeff"), [=] { return lock_own(count); });
    }
}

/* How much two threads get done for what one does in the same time. */
void scaling(const bench::Results &results, bench::Report &report, const char *what,
             const std::string &text, const char *who, double target) {
    std::string one = name(what, "1", who), two = name(what, "2", who);
    double scale = 2 * results.median(one) / results.median(two);
    double wall = results.maximum(two, "rate") / results.maximum(one, "rate");
    char note[96];
    snprintf(note, sizeof note, "%.2f and %.2f ns; by wall time, best of each: %.2f",
             results.median(one), results.median(two), wall);
    auto reach = std::isnan(target) ? bench::Reach::nothing : bench::Reach::at_least;
    report.figure({text, "", scale, "", NAN, reach, target, note});
    report.point("threads", text, 1, 1);
    report.point("threads", text, 2, scale);
}

double handed_ratio(const bench::Results &results, const char *who) {
    return results.median(name("handed", "other", who)) /
           results.median(name("handed", "own", who));
}

void report(const bench::Results &results, bench::Report &report) {
    scaling(results, report, "own", "own blocks, Jeff", "jeff", 1.9);
    for (const Peer &peer : peers)
        scaling(results, report, "own", std::string("own blocks, ") + peer.name, peer.name, NAN);
    double mimalloc = handed_ratio(results, "mimalloc");
    report.figure({"freeing the other's blocks, over freeing one's own", "",
                   handed_ratio(results, "jeff"), "mimalloc", mimalloc, bench::Reach::at_most, 1});
    for (const char *how : {"own", "other"})
        for (const Peer &peer : peers)
            report.figure({std::string("malloc, hand over, free ") + how, "ns",
                           results.median(name("handed", how, "jeff")), peer.name,
                           results.median(name("handed", how, peer.name))});
    scaling(results, report, "read", "one block, read by both", "jeff", 1.9);
    scaling(results, report, "lock own", "locks, blocks of their own", "jeff", NAN);
    scaling(results, report, "lock line", "locks, entries on one cache line", "jeff", NAN);
    scaling(results, report, "lock same", "locks, one block", "jeff", NAN);
}

} // namespace

int main(int argc, char **argv) {
    bench::want_static_tls(argv);
    return bench::run(argc, argv, "bench_threads", add, report);
}
