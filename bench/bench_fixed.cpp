/* The fixed profile: a buffer filled, half of its blocks freed, compacted. What counts is that one hole is
 * left and that nearly all free bytes can be had in one block; and the time.
 */
#include "bare_heap.h"
#include "harness.h"

namespace {

using bench::Array;
using bench::Random;
using bench::Values;

struct Case {
    const char *name;
    size_t size; /* of the buffer */
    size_t most; /* of a block */
};

const Case cases[] = {
    {"64 KiB", size_t{64} << 10, 256},
    {"16 MiB", size_t{16} << 20, 4096},
    {"512 MiB", size_t{512} << 20, 4096},
};

/* Fills nine tenths of the buffer, then frees half of the blocks. */
size_t fill_and_free(rmheap_t heap, const Case &which, Array<rmhandle_t> &handles, uint64_t seed) {
    Random random(seed);
    size_t count = 0;
    for (size_t used = 0; used < which.size / 10 * 9 && count < handles.size(); count++) {
        size_t size = random.between(16, which.most);
        handles[count] = rmheap_malloc(heap, size);
        if (handles[count] == nullptr)
            break;
        used += bench::Ideal::rounded(size) + 8;
    }
    random.shuffle(handles.data(), handles.data() + count);
    for (size_t i = count / 2; i < count; i++)
        rmfree(handles[i]);
    return count / 2;
}

Values compact_fixed(const Case &which, uint64_t seed) {
    bench::Mapping buffer(which.size);
    Array<rmhandle_t> handles(which.size / (which.most / 4));
    rmheap_t heap = rmheap_create_in(buffer.data(), buffer.size(), nullptr);
    if (heap == nullptr)
        throw std::runtime_error("rmheap_create_in failed");
    size_t live = fill_and_free(heap, which, handles, seed);
    rm_compact_result result;
    uint64_t start = bench::cpu_ns();
    rm_compact_status status = rmheap_compact_us(heap, 0, &result);
    double time = static_cast<double>(bench::cpu_ns() - start);
    rm_stats stats;
    rmheap_stats(heap, &stats);
    size_t wanted = static_cast<size_t>(static_cast<double>(stats.hole_bytes) * 0.99);
    bool fits = rmheap_malloc(heap, wanted) != nullptr;
    return {{"time", time},
            {"done", status == RM_COMPACT_DONE ? 1.0 : 0.0},
            {"holes", static_cast<double>(stats.holes)},
            {"free", static_cast<double>(stats.hole_bytes)},
            {"fits", fits ? 1.0 : 0.0},
            {"live", static_cast<double>(live)},
            {"bytes", static_cast<double>(stats.live)}};
}

Values plain_move(const Case &which) {
    /* as many bytes as are live: half of nine tenths */
    size_t live = which.size / 20 * 9;
    return {{"time", bench::memmove_ns(live) / static_cast<double>(live)}};
}

void add() {
    for (const Case &which : cases) {
        bench::add_child(std::string(which.name) + "/jeff",
                         [&which] { return compact_fixed(which, 11); });
        bench::add_child(std::string(which.name) + "/memmove",
                         [&which] { return plain_move(which); });
    }
}

void report(const bench::Results &results, bench::Report &report) {
    using bench::Reach;
    for (const Case &which : cases) {
        std::string jeff = std::string(which.name) + "/jeff";
        std::string buffer = std::string("buffer of ") + which.name;
        double bytes = results.median(jeff, "bytes");
        report.figure({buffer + ": holes after full compaction", "", results.maximum(jeff, "holes"),
                       "", NAN, Reach::at_most, 1});
        report.figure({buffer + ": 99 % of the free bytes in one block", "",
                       results.minimum(jeff, "fits"), "", NAN, Reach::at_least, 1,
                       "1 = allocated"});
        report.figure({buffer + ": full compaction", "us", results.median(jeff) / 1e3, "memmove",
                       results.median(std::string(which.name) + "/memmove") * bytes / 1e3});
        report.figure({buffer + ": per live block", "ns",
                       results.median(jeff) / results.median(jeff, "live")});
    }
}

} // namespace

int main(int argc, char **argv) {
    return bench::run(argc, argv, "bench_fixed", add, report);
}
