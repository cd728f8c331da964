/* Arrays: a hundred million elements appended one by one beside std::vector and doubling by realloc; a million
 * strings that grow at random beside realloc; an element's access under one lock beside a raw pointer; one array of
 * more than 64 GiB.
 */
#include "harness.h"
#include "peers.h"

#include <algorithm>
#include <cmath>
#include <jeff/array.h>
#include <vector>

namespace {

using bench::Array;
using bench::MallocStore;
using bench::Peer;
using bench::Random;
using bench::Values;

RM_ARRAY_TYPE(Ints, int);

std::vector<Peer> peers;

void require(bool done) {
    if (!done)
        throw std::runtime_error("no memory");
}

/* What `work` takes: CPU time, and memory at its highest. */
template <class Work> Values measure(Work work) {
    bench::reset_peak();
    size_t baseline = bench::resident_bytes();
    uint64_t start = bench::cpu_ns();
    work();
    Values values;
    values["time"] = static_cast<double>(bench::cpu_ns() - start);
    values["peak"] =
        static_cast<double>(bench::peak_resident_bytes()) - static_cast<double>(baseline);
    return values;
}

/* --------------------------------------------------------------------- appending */

size_t append_count() {
    return bench::quick() ? 20000000 : 100000000;
}

Values append_cursor(unsigned hints) {
    return measure([hints] {
        rm_array_options options;
        rmarray_options_init(&options);
        options.hints = hints;
        Ints list = Ints_create(nullptr, &options);
        Ints_cursor cursor;
        require(Ints_append_begin(&cursor, list) == 0);
        for (size_t i = append_count(); i > 0; i--)
            require(Ints_append_next(&cursor, static_cast<int>(i)) == 0);
        Ints_append_end(&cursor);
    });
}

Values append_push() {
    return measure([] {
        Ints list = Ints_create(nullptr, nullptr);
        for (size_t i = append_count(); i > 0; i--)
            require(Ints_push(list, static_cast<int>(i)) == 0);
    });
}

Values append_vector() {
    return measure([] {
        std::vector<int> list;
        for (size_t i = append_count(); i > 0; i--)
            list.push_back(static_cast<int>(i));
        benchmark::DoNotOptimize(list.data());
    });
}

/* As programs in C do it. */
struct Doubled {
    int *elements = nullptr;
    size_t length = 0, capacity = 0;
};

Values append_realloc(const Peer &peer) {
    MallocStore store = bench::open_peer(peer);
    return measure([&store] {
        Doubled list;
        for (size_t i = append_count(); i > 0; i--) {
            if (list.length == list.capacity) {
                list.capacity = list.capacity != 0 ? 2 * list.capacity : 4;
                list.elements = static_cast<int *>(
                    store.realloc(list.elements, list.capacity * sizeof *list.elements));
                require(list.elements != nullptr);
            }
            list.elements[list.length++] = static_cast<int>(i);
        }
        benchmark::DoNotOptimize(list.elements);
    });
}

/* --------------------------------------------------------------------- strings */

enum { PIECE_MOST = 64, APPENDS_EACH = 16, DESTROYED_IN = 64, STRING_REPEATS = 3 };

size_t string_count() {
    return bench::quick() ? 100000 : 1000000;
}

/* Random appends of 1 to 64 characters to random strings; every 64th time the string is destroyed and begun anew.
 *
 *   struct Strings {
 *       void begin(size_t which);
 *       void end(size_t which);
 *       void append(size_t which, const char *text, size_t count);
 *   };
 */
template <class Strings> void grow_strings(Strings &strings) {
    char text[PIECE_MOST + 1];
    memset(text, 'x', sizeof text);
    Random random(4);
    for (size_t i = 0; i < string_count(); i++)
        strings.begin(i);
    for (size_t i = APPENDS_EACH * string_count(); i > 0; i--) {
        size_t which = random.below(string_count());
        if (random.below(DESTROYED_IN) == 0) {
            strings.end(which);
            strings.begin(which);
        }
        strings.append(which, text, random.between(1, PIECE_MOST));
    }
}

struct JeffStrings {
    Array<rmarray_t> arrays{string_count()};
    rm_array_options options;

    explicit JeffStrings(unsigned hints) {
        rmarray_options_init(&options);
        options.hints = hints;
        std::fill(arrays.begin(), arrays.end(), nullptr);
    }
    void begin(size_t which) {
        arrays[which] = rmarray_create_string(nullptr, &options);
        require(arrays[which] != nullptr);
    }
    void end(size_t which) {
        rmarray_destroy(arrays[which]);
    }
    void append(size_t which, const char *text, size_t count) {
        require(rmarray_append(arrays[which], text, count) == 0);
    }
};

/* Address, length and, where it is doubled, capacity are the program's to keep. */
struct ReallocStrings {
    struct String {
        char *text;
        size_t length, capacity;
    };
    MallocStore store;
    bool doubled;
    Array<String> strings{string_count()};

    ReallocStrings(const Peer &peer, bool doubling)
        : store(bench::open_peer(peer)), doubled(doubling) {
        std::fill(strings.begin(), strings.end(), String{});
    }
    void begin(size_t which) {
        strings[which] = {};
        reserve(strings[which], 1);
        strings[which].text[0] = 0;
    }
    void end(size_t which) {
        store.free(strings[which].text);
    }
    void append(size_t which, const char *text, size_t count) {
        String &string = strings[which];
        size_t need = string.length + count + 1;
        if (need > string.capacity)
            reserve(string, doubled ? std::max(need, 2 * string.capacity) : need);
        memcpy(string.text + string.length, text, count);
        string.length += count;
        string.text[string.length] = 0;
    }

  private:
    void reserve(String &string, size_t capacity) {
        string.text = static_cast<char *>(store.realloc(string.text, capacity));
        string.capacity = capacity;
        require(string.text != nullptr);
    }
};

Values strings_jeff(unsigned hints) {
    JeffStrings strings(hints);
    size_t baseline = bench::resident_bytes();
    Values values = measure([&] { grow_strings(strings); });
    auto over = [baseline] {
        return static_cast<double>(bench::resident_bytes()) - static_cast<double>(baseline);
    };
    values["grown"] = over();
    uint64_t start = bench::cpu_ns();
    rmcompact(0);
    values["compacted"] = over();
    for (rmarray_t array : strings.arrays)
        require(rmarray_shrink(array) == 0);
    rmcompact(0);
    values["shrunk"] = over();
    values["tidy"] = static_cast<double>(bench::cpu_ns() - start);
    rm_stats stats;
    rmstats_brief(&stats);
    size_t ideal = stats.table;
    for (rmarray_t array : strings.arrays)
        ideal += bench::Ideal::rounded(rmarray_length(array) + 1);
    values["ideal"] = static_cast<double>(ideal);
    return values;
}

Values strings_realloc(const Peer &peer, bool doubled) {
    ReallocStrings strings(peer, doubled);
    return measure([&] { grow_strings(strings); });
}

/* --------------------------------------------------------------------- access */

enum { ACCESS_COUNT = 1 << 16, PASSES = 4, LOOKS = 300 };

struct InOrder {
    unsigned operator()(unsigned i) const {
        return i;
    }
};

struct AtRandom {
    unsigned operator()(unsigned i) const {
        return i * 40503u & (ACCESS_COUNT - 1);
    }
};

/* Nanoseconds an element while all are summed up in some order, PASSES times; one piece of code for both. */
template <class Next> [[gnu::noinline]] double access(const int *elements, Next next) {
    uint64_t start = bench::cpu_ns();
    for (int pass = 0; pass < PASSES; pass++) {
        unsigned sum = 0;
        for (unsigned i = 0; i < ACCESS_COUNT; i++)
            sum += static_cast<unsigned>(elements[next(i)]);
        benchmark::DoNotOptimize(sum);
    }
    return static_cast<double>(bench::cpu_ns() - start) / (double{PASSES} * ACCESS_COUNT);
}

/* Least of many looks at either, in turn, so that both have the processor's best moments. */
template <class Next> Values access_both(Next next) {
    Ints list = Ints_create(nullptr, nullptr);
    require(Ints_resize(list, ACCESS_COUNT) == 0);
    Array<int> raw(ACCESS_COUNT);
    int *elements = Ints_lock(list);
    std::fill(elements, elements + ACCESS_COUNT, 1);
    std::fill(raw.begin(), raw.end(), 1);
    Values least = {{"time", HUGE_VAL}, {"raw", HUGE_VAL}};
    for (int look = 0; look < LOOKS; look++) {
        least["time"] = std::min(least["time"], access(elements, next));
        least["raw"] = std::min(least["raw"], access(raw.data(), next));
    }
    Ints_unlock(list);
    Ints_destroy(list);
    return least;
}

/* --------------------------------------------------------------------- 64 GiB */

/* Grows to 65 GiB by steps, touching a page in each; the address must stay. */
Values sparse() {
    const size_t gib = size_t{1} << 30, last = 65;
    rm_array_options options;
    rmarray_options_init(&options);
    options.hints = RM_ARRAY_WILL_GROW | RM_ARRAY_ZEROED;
    options.expected = last * gib;
    rmarray_t array = rmarray_create(nullptr, 1, &options);
    const void *first = rmarray_lock(array);
    rmarray_unlock(array);
    Values values = measure([&] {
        for (size_t size = gib; size <= last * gib; size += gib) {
            require(rmarray_resize(array, size) == 0);
            static_cast<char *>(rmarray_lock(array))[size - 1] = 1;
            rmarray_unlock(array);
        }
    });
    values["length"] = static_cast<double>(rmarray_length(array));
    values["copied"] = rmarray_lock(array) != first;
    return values;
}

/* --------------------------------------------------------------------- figures */

void add() {
    peers = bench::installed_peers();
    bench::add_child("append/cursor", [] { return append_cursor(0); });
    bench::add_child("append/will_grow", [] { return append_cursor(RM_ARRAY_WILL_GROW); });
    bench::add_child("append/push", append_push);
    bench::add_child("append/vector", append_vector);
    auto add_strings = [](const std::string &name, std::function<Values()> work) {
        bench::add_child(name, std::move(work), STRING_REPEATS);
    };
    add_strings("strings/jeff", [] { return strings_jeff(0); });
    add_strings("strings/temporary", [] { return strings_jeff(RM_ARRAY_TEMPORARY); });
    for (const Peer &peer : peers) {
        std::string name = peer.name;
        bench::add_child("append/" + name, [peer] { return append_realloc(peer); });
        add_strings("strings/" + name, [peer] { return strings_realloc(peer, true); });
        add_strings("exact/" + name, [peer] { return strings_realloc(peer, false); });
    }
    bench::add_child("in order", [] { return access_both(InOrder()); });
    bench::add_child("at random", [] { return access_both(AtRandom()); });
    bench::add_child("sparse", sparse, 1);
}

double ms(const bench::Results &results, const std::string &name) {
    return results.median(name) / 1e6;
}

double mib(const bench::Results &results, const std::string &name, const char *value) {
    return results.median(name, value) / (1 << 20);
}

void report_append(const bench::Results &results, bench::Report &report) {
    auto beside = [&](const std::string &name, const std::string &what, double target) {
        bench::Reach reach = std::isnan(target) ? bench::Reach::nothing : bench::Reach::at_most;
        report.figure({"append by a cursor, time", "ms", ms(results, "append/cursor"), what,
                       ms(results, "append/" + name), reach, target});
        report.figure({"append by a cursor, peak resident", "MiB",
                       mib(results, "append/cursor", "peak"), what,
                       mib(results, "append/" + name, "peak"), reach, target});
    };
    beside("vector", "std::vector", 1);
    for (const Peer &peer : peers)
        beside(peer.name, peer.name, peer.library == nullptr ? 1 : NAN);
    report.figure({"append by a cursor, told that it will grow", "ms",
                   ms(results, "append/will_grow"), "std::vector", ms(results, "append/vector")});
    report.figure({"append by single calls", "ms", ms(results, "append/push"), "std::vector",
                   ms(results, "append/vector")});
}

void report_strings(const bench::Results &results, bench::Report &report) {
    for (const Peer &peer : peers) {
        std::string name = peer.name;
        bool required = name == "glibc" || name == "mimalloc";
        bench::Reach reach = required ? bench::Reach::at_most : bench::Reach::nothing;
        report.figure({"growing strings, beside doubling", "ms", ms(results, "strings/jeff"), name,
                       ms(results, "strings/" + name), reach, required ? 1 : NAN});
        report.figure({"growing strings, beside exact realloc", "ms", ms(results, "strings/jeff"),
                       name, ms(results, "exact/" + name), reach, required ? 1 : NAN});
        report.figure({"growing strings, peak resident", "MiB",
                       mib(results, "strings/jeff", "peak"), name,
                       mib(results, "strings/" + name, "peak")});
    }
    report.figure({"growing strings, told that they are temporary", "ms",
                   ms(results, "strings/temporary"), "", NAN});
    report.figure({"growing strings, compacted", "MiB", mib(results, "strings/jeff", "compacted"),
                   "ideal", mib(results, "strings/jeff", "ideal")});
    report.figure({"growing strings, shrunk and compacted", "MiB",
                   mib(results, "strings/jeff", "shrunk"), "ideal",
                   mib(results, "strings/jeff", "ideal"), bench::Reach::at_most, 1.04});
}

void report(const bench::Results &results, bench::Report &report) {
    report_append(results, report);
    report_strings(results, report);
    for (const char *order : {"in order", "at random"})
        report.figure({std::string("element under one lock, ") + order, "ns",
                       results.minimum(order), "raw pointer", results.minimum(order, "raw"),
                       bench::Reach::at_most, 1.03});
    report.figure({"one array, GiB", "", results.median("sparse", "length") / (1 << 30), "", NAN,
                   bench::Reach::at_least, 64});
    report.figure({"one array of 65 GiB, resident", "MiB", mib(results, "sparse", "peak")});
    report.figure({"one array of 65 GiB, times it was copied", "",
                   results.median("sparse", "copied"), "", NAN, bench::Reach::at_most, 0});
}

} // namespace

int main(int argc, char **argv) {
    bench::want_static_tls(argv);
    return bench::run(argc, argv, "bench_array", add, report);
}
