/* Time per operation from a thousand live blocks to a hundred million: what grows is the price of cache
 * misses only; that the instructions stay the same is counted by tools/bench.
 */
#include "harness.h"
#include "workloads.h"

namespace {

using bench::Array;
using bench::Random;
using bench::Values;

enum { SIZE = 16, OPERATIONS = 1000000 };

const size_t counts[] = {1000, 10000, 100000, 1000000, 10000000, 100000000};

size_t largest_count() {
    return bench::quick() ? 1000000 : 100000000;
}

double since(uint64_t start, size_t operations) {
    return static_cast<double>(bench::cpu_ns() - start) / static_cast<double>(operations);
}

Values measure(size_t count) {
    Array<rmhandle_t> handles(count);
    Array<uint32_t> indexes(OPERATIONS);
    Random random(count);
    for (uint32_t &index : indexes)
        index = static_cast<uint32_t>(random.below(count));
    uint64_t start = bench::cpu_ns();
    for (rmhandle_t &handle : handles)
        handle = rmmalloc(SIZE);
    Values values{{"allocate", since(start, count)}};
    if (handles[count - 1] == nullptr)
        throw std::runtime_error("rmmalloc: no memory");
    start = bench::cpu_ns();
    for (uint32_t index : indexes) {
        void *address = rmlock(handles[index]);
        benchmark::DoNotOptimize(address);
        rmunlock(handles[index]);
    }
    values["lock"] = since(start, OPERATIONS);
    start = bench::cpu_ns();
    for (uint32_t index : indexes) {
        rmfree(handles[index]);
        handles[index] = rmmalloc(SIZE);
    }
    values["replace"] = values["time"] = since(start, OPERATIONS);
    start = bench::cpu_ns();
    for (rmhandle_t handle : handles)
        rmfree(handle);
    values["free"] = since(start, count);
    return values;
}

std::string name(size_t count) {
    return "live/" + std::to_string(count);
}

void add() {
    for (size_t count : counts)
        if (count <= largest_count())
            bench::add_child(
                name(count), [count] { return measure(count); }, count > 1000000 ? 1 : 0);
}

void report(const bench::Results &results, bench::Report &report) {
    static const struct {
        const char *value, *text;
    } operations[] = {
        {"allocate", "rmmalloc, in a row"},
        {"free", "rmfree, in a row"},
        {"lock", "rmlock and rmunlock, at random"},
        {"replace", "rmfree and rmmalloc, at random"},
    };
    for (const auto &operation : operations)
        for (size_t count : counts) {
            double time = results.median(name(count), operation.value);
            report.point("scale", operation.text, static_cast<double>(count), time);
            report.figure(
                {std::string(operation.text) + ", " + std::to_string(count) + " live", "ns", time});
        }
}

} // namespace

int main(int argc, char **argv) {
    return bench::run(argc, argv, "bench_scale", add, report);
}
