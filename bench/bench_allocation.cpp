/* rmmalloc and rmfree beside malloc and free of the C library and of Debian's allocators: one block at a
 * time, and random replacement among many live ones. Each run has a process of its own.
 */
#include "harness.h"
#include "peers.h"

namespace {

using bench::Array;
using bench::MallocStore;
using bench::Peer;
using bench::Random;
using bench::Values;

std::vector<Peer> peers;

const size_t counts[] = {1000, 100000, 1000000};

/* --------------------------------------------------------------------- loops */

/* Jeff and the peers as the loops see them: nothing but the two calls. */
struct JeffCalls {
    using Block = rmhandle_t;
    Block allocate(size_t size) const {
        return rmmalloc(size);
    }
    void release(Block block) const {
        rmfree(block);
    }
    void resize(Block &block, size_t size) const {
        if (rmrealloc(block, size) != 0)
            throw std::runtime_error("no memory");
    }
    void write(Block block, uint64_t word) const {
        *static_cast<uint64_t *>(rmlock(block)) = word;
        rmunlock(block);
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
    void resize(Block &block, size_t size) const {
        block = store.realloc(block, size);
        if (block == nullptr)
            throw std::runtime_error("no memory");
    }
    void write(Block block, uint64_t word) const {
        *static_cast<uint64_t *>(block) = word;
    }
};

template <class Calls> Values hot(const Calls &calls) {
    const size_t pairs = bench::quick() ? 2000000 : 10000000;
    uint64_t start = 0;
    for (size_t i = 0; i < pairs + pairs / 10; i++) {
        if (i == pairs / 10)
            start = bench::cpu_ns();
        auto block = calls.allocate(64);
        benchmark::DoNotOptimize(block);
        calls.release(block);
    }
    return {{"time", static_cast<double>(bench::cpu_ns() - start) / static_cast<double>(pairs)}};
}

/* Indexes and sizes are drawn before the clock starts. */
struct Draws {
    struct Draw {
        uint32_t index, size;
    };

    Draws(size_t live, size_t most) : draws(most) {
        Random random(live);
        for (Draw &draw : draws)
            draw = {static_cast<uint32_t>(random.below(live)),
                    static_cast<uint32_t>(bench::replaced_size(random))};
    }

    Array<Draw> draws;
};

template <class Calls> Values replacement(const Calls &calls, size_t live, bool write) {
    const size_t warm = 4 * live, measured = bench::quick() ? 1000000 : 4000000;
    Draws draws(live, measured);
    Array<typename Calls::Block> blocks(live);
    Random random(live + 1);
    for (auto &block : blocks)
        block = calls.allocate(bench::replaced_size(random));
    uint64_t start = 0;
    for (size_t i = 0; i < warm + measured; i++) {
        if (i == warm)
            start = bench::cpu_ns();
        const Draws::Draw &draw = draws.draws[i % measured];
        calls.release(blocks[draw.index]);
        blocks[draw.index] = calls.allocate(draw.size);
        if (write)
            calls.write(blocks[draw.index], i);
    }
    return {{"time", static_cast<double>(bench::cpu_ns() - start) / static_cast<double>(measured)}};
}

/* Random replacement of blocks that are larger than most: they have no bin, or share one. */
struct Medium {
    size_t live, least, most;
};

const Medium mediums[] = {{10000, 16, 4096}, {100000, 16, 4096}, {2000, 1024, 60 << 10}};

/* Bytes that Jeff's heap holds over those that live. */
double held_by(const JeffCalls &) {
    struct rm_stats stats;
    stats.struct_size = sizeof stats;
    rmheap_stats(nullptr, &stats);
    return static_cast<double>(stats.committed) / static_cast<double>(stats.live);
}

double held_by(const MallocCalls &) {
    return NAN;
}

template <class Calls> Values replace_medium(const Calls &calls, const Medium &medium) {
    const size_t warm = 4 * medium.live, measured = bench::quick() ? 200000 : 1000000;
    Random random(medium.live);
    Array<typename Calls::Block> blocks(medium.live);
    for (auto &block : blocks)
        block = calls.allocate(random.between(medium.least, medium.most));
    uint64_t start = 0;
    for (size_t i = 0; i < warm + measured; i++) {
        if (i == warm)
            start = bench::cpu_ns();
        auto &block = blocks[random.below(medium.live)];
        calls.release(block);
        block = calls.allocate(random.between(medium.least, medium.most));
    }
    double time = static_cast<double>(bench::cpu_ns() - start) / static_cast<double>(measured);
    return {{"time", time}, {"held", held_by(calls)}};
}

/* Blocks picked at random grow by a half each time, from 16 bytes until they would have more than 1 KiB; then they are
 * replaced by one of 16 bytes. */
template <class Calls> Values growing(const Calls &calls) {
    const size_t live = 100000, measured = bench::quick() ? 1000000 : 4000000;
    struct Block {
        typename Calls::Block block;
        size_t size;
    };
    Array<Block> blocks(live);
    for (Block &block : blocks)
        block = {calls.allocate(16), 16};
    Random random(live);
    uint64_t start = 0;
    for (size_t i = 0; i < 10 * live + measured; i++) {
        if (i == 10 * live)
            start = bench::cpu_ns();
        Block &block = blocks[random.below(live)];
        block.size += block.size / 2;
        if (block.size <= 1024) {
            calls.resize(block.block, block.size);
            continue;
        }
        calls.release(block.block);
        block = {calls.allocate(16), 16};
    }
    return {{"time", static_cast<double>(bench::cpu_ns() - start) / static_cast<double>(measured)}};
}

/* --------------------------------------------------------------------- the program */

std::string name(const std::string &what, const char *who) {
    return what + "/" + who;
}

std::string replacement_name(size_t live, bool write) {
    return "replacement/" + std::to_string(live) + (write ? "/written" : "");
}

template <class Measure> void add_all(const std::string &what, Measure measure) {
    bench::add_child(name(what, "jeff"), [=] { return measure(JeffCalls{}); });
    for (const Peer &peer : peers)
        bench::add_child(name(what, peer.name),
                         [=] { return measure(MallocCalls{bench::open_peer(peer)}); });
}

std::string medium_name(const Medium &medium) {
    return "medium/" + std::to_string(medium.live) + "/" + std::to_string(medium.most);
}

void add() {
    peers = bench::installed_peers();
    for (const Medium &medium : mediums)
        add_all(medium_name(medium),
                [=](const auto &calls) { return replace_medium(calls, medium); });
    add_all("hot", [](const auto &calls) { return hot(calls); });
    add_all("growing", [](const auto &calls) { return growing(calls); });
    for (size_t live : counts)
        for (bool write : {false, true})
            add_all(replacement_name(live, write),
                    [=](const auto &calls) { return replacement(calls, live, write); });
}

void compare(const bench::Results &results, bench::Report &report, const std::string &what,
             const std::string &text, const char *peer, double target) {
    report.figure({text, "ns", results.median(name(what, "jeff")), peer,
                   results.median(name(what, peer)),
                   std::isnan(target) ? bench::Reach::nothing : bench::Reach::at_most, target});
}

const char *best_peer(const bench::Results &results, const std::string &what) {
    const char *best = "glibc";
    for (const Peer &peer : peers)
        if (results.median(name(what, peer.name)) < results.median(name(what, best)))
            best = peer.name;
    return best;
}

void report(const bench::Results &results, bench::Report &report) {
    static const double targets[] = {1.3, 1.0, 2.1};
    const char *best = best_peer(results, "hot");
    for (const Peer &peer : peers)
        compare(results, report, "hot", "malloc and free, 64 B, hot", peer.name,
                strcmp(peer.name, best) == 0 ? 1.25 : NAN);
    for (size_t i = 0; i < std::size(counts); i++) {
        std::string text = "random replacement, " + std::to_string(counts[i]) + " live";
        for (const Peer &peer : peers) {
            bool is_mimalloc = strcmp(peer.name, "mimalloc") == 0;
            bool is_glibc = strcmp(peer.name, "glibc") == 0;
            compare(results, report, replacement_name(counts[i], false), text, peer.name,
                    is_mimalloc ? targets[i]
                    : is_glibc  ? 1.0
                                : NAN);
        }
    }
    for (size_t live : counts)
        for (const Peer &peer : peers)
            compare(results, report, replacement_name(live, true),
                    "the same, a word written, " + std::to_string(live) + " live", peer.name, NAN);
    for (const Medium &medium : mediums) {
        std::string text = "random replacement, " + std::to_string(medium.live) + " live, " +
                           std::to_string(medium.least) + " to " + std::to_string(medium.most) +
                           " B";
        for (const Peer &peer : peers)
            compare(results, report, medium_name(medium), text, peer.name, NAN);
        report.figure({text + ": bytes held over bytes live", "",
                       results.median(name(medium_name(medium), "jeff"), "held")});
    }
    for (const Peer &peer : peers)
        compare(results, report, "growing", "reallocation that grows by a half, 100000 live",
                peer.name, NAN);
}

} // namespace

int main(int argc, char **argv) {
    bench::want_static_tls(argv);
    return bench::run(argc, argv, "bench_allocation", add, report);
}
