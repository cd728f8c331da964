/* Pools: allocation and free of 64-byte elements beside the peers' malloc and free, hot and with random
 * replacement among a million; memory of a handle pool after nine tenths of its elements were freed.
 */
#include "harness.h"
#include "peers.h"

#include <algorithm>
#include <jeff/pool.h>

namespace {

using bench::Array;
using bench::MallocStore;
using bench::Peer;
using bench::Random;
using bench::Values;

enum { ELEMENT = 64, ROUNDS = 7 };

std::vector<Peer> peers;

size_t live_count() {
    return bench::quick() ? 100000 : 1000000;
}

size_t operations() {
    return bench::quick() ? 1000000 : 5000000;
}

struct PoolStore {
    rmpool_t pool = rmpool_create(nullptr, ELEMENT, 0, nullptr);
    void *get() {
        return rmpool_alloc(pool);
    }
    void put(void *element) {
        rmpool_free(pool, element);
    }
};

struct PeerStore {
    MallocStore peer;
    void *get() {
        return peer.malloc(ELEMENT);
    }
    void put(void *element) {
        peer.free(element);
    }
};

/* The least nanoseconds for one of `count` operations in some rounds. */
template <class Body> Values least(size_t count, Body body) {
    double best = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t start = bench::cpu_ns();
        body();
        double ns = static_cast<double>(bench::cpu_ns() - start) / static_cast<double>(count);
        best = round == 0 ? ns : std::min(best, ns);
    }
    return {{"time", best}};
}

template <class Store> Values hot(Store store) {
    return least(operations(), [&] {
        for (size_t i = operations(); i > 0; i--) {
            void *element = store.get();
            benchmark::DoNotOptimize(element);
            store.put(element);
        }
    });
}

/* The new element's first word is written, as a program would. */
template <class Store> Values replace(Store store) {
    Array<uint64_t *> live(live_count());
    Array<uint32_t> order(operations());
    Random random(1);
    for (uint64_t *&element : live) {
        element = static_cast<uint64_t *>(store.get());
        std::fill(element, element + ELEMENT / 8, 1);
    }
    random.shuffle(live.begin(), live.end());
    for (uint32_t &which : order)
        which = static_cast<uint32_t>(random.below(live.size()));
    return least(operations(), [&] {
        for (uint32_t which : order) {
            store.put(live[which]);
            live[which] = static_cast<uint64_t *>(store.get());
            *live[which] = which;
        }
    });
}

/* A burst of a million, then all of them freed in another order. */
template <class Store> Values burst(Store store) {
    Array<uint64_t *> live(live_count());
    Array<uint32_t> order(live_count());
    for (size_t i = 0; i < order.size(); i++)
        order[i] = static_cast<uint32_t>(i);
    Random(2).shuffle(order.begin(), order.end());
    return least(live.size(), [&] {
        for (uint64_t *&element : live) {
            element = static_cast<uint64_t *>(store.get());
            *element = 1;
        }
        for (uint32_t which : order)
            store.put(live[which]);
    });
}

/* Nine tenths of the elements are freed at random, then the pool is compacted. */
Values empty_at_random(Array<rmhandle_t> &handles) {
    size_t count = handles.size();
    size_t baseline = bench::resident_bytes();
    auto over = [baseline] {
        return static_cast<double>(bench::resident_bytes()) - static_cast<double>(baseline);
    };
    rm_pool_options options;
    rmpool_options_init(&options);
    options.flags = RM_POOL_HANDLES;
    rmpool_t pool = rmpool_create(nullptr, ELEMENT, 0, &options);
    for (rmhandle_t &handle : handles) {
        handle = rmpool_alloc_handle(pool);
        memset(rmlock(handle), 1, ELEMENT);
        rmunlock(handle);
    }
    rm_stats peak;
    rmstats_brief(&peak);
    Values values;
    values["before"] = over();
    Random random(3);
    random.shuffle(handles.begin(), handles.end());
    for (size_t i = count / 10; i < count; i++)
        rmpool_free_handle(pool, handles[i]);
    values["freed"] = over();
    rm_compact_result result;
    uint64_t start = bench::cpu_ns();
    rmpool_compact(pool, 0, &result);
    values["time"] = static_cast<double>(bench::cpu_ns() - start);
    values["after"] = over();
    values["moved"] = static_cast<double>(result.blocks_moved);
    rm_pool_stats stats;
    rmpool_stats(pool, &stats);
    values["partial"] = static_cast<double>(stats.partial_blocks);
    rmpool_destroy(pool);
    values["ideal"] = static_cast<double>(count / 10 * (ELEMENT + 8) + peak.table);
    return values;
}

/* A small pool first: the pages of the program's and the libraries' code are no memory of the pool's. */
Values sparse() {
    size_t count = bench::quick() ? 1000000 : 10000000;
    Array<rmhandle_t> few(1000), handles(count);
    for (rmhandle_t &handle : handles)
        handle = nullptr;
    empty_at_random(few);
    return empty_at_random(handles);
}

void add() {
    peers = bench::installed_peers();
    bench::add_child("hot/jeff", [] { return hot(PoolStore()); });
    bench::add_child("replace/jeff", [] { return replace(PoolStore()); });
    bench::add_child("burst/jeff", [] { return burst(PoolStore()); });
    for (const Peer &peer : peers) {
        std::string name = peer.name;
        bench::add_child("hot/" + name, [peer] { return hot(PeerStore{bench::open_peer(peer)}); });
        bench::add_child("replace/" + name,
                         [peer] { return replace(PeerStore{bench::open_peer(peer)}); });
        bench::add_child("burst/" + name,
                         [peer] { return burst(PeerStore{bench::open_peer(peer)}); });
    }
    bench::add_child("sparse", sparse, 1);
}

void add_figures(const bench::Results &results, bench::Report &report, const std::string &key,
                 const std::string &what, bool required) {
    for (const Peer &peer : peers) {
        std::string name = peer.name;
        bench::Figure figure{what, "ns", results.median(key + "/jeff"), name,
                             results.median(key + "/" + name)};
        if (required && name == "mimalloc") {
            figure.reach = bench::Reach::at_most;
            figure.target = 0.9;
        }
        report.figure(figure);
    }
}

void report(const bench::Results &results, bench::Report &report) {
    add_figures(results, report, "hot", "alloc + free, hot", true);
    add_figures(results, report, "replace", "random replacement among a million", true);
    add_figures(results, report, "burst", "a million allocated, then freed in random order", false);
    auto mib = [&](const char *value) { return results.median("sparse", value) / (1 << 20); };
    report.figure({"handle pool, resident at the peak", "MiB", mib("before")});
    report.figure({"handle pool, nine tenths freed", "MiB", mib("freed")});
    report.figure({"handle pool, compacted", "MiB", mib("after"), "ideal", mib("ideal"),
                   bench::Reach::at_most, 1.02});
    report.figure({"handle pool, partial blocks after compaction", "",
                   results.median("sparse", "partial"), "", NAN, bench::Reach::at_most, 1});
    report.figure({"handle pool, compaction per element moved", "ns",
                   results.median("sparse") / results.median("sparse", "moved")});
}

} // namespace

int main(int argc, char **argv) {
    bench::want_static_tls(argv);
    return bench::run(argc, argv, "bench_pool", add, report);
}
