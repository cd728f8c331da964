/* Memory: what a process has resident after full compaction beside the ideal packing, with and without
 * locked blocks; at the peak, with a millisecond for compaction every 5000 operations; what the peers
 * have for the same work; and bookkeeping at a million blocks.
 */
#include "harness.h"
#include "peers.h"

#include <algorithm>

namespace {

using bench::Array;
using bench::Ideal;
using bench::JeffStore;
using bench::Live;
using bench::MallocStore;
using bench::Peer;
using bench::Random;
using bench::Values;

std::vector<Peer> peers;

const double locked_shares[] = {0, 0.001, 0.01, 0.05, 0.1};

/* --------------------------------------------------------------------- workloads, by name */

/* Calls `phase` with a name at every point where memory is looked at. */
template <class Store, class Phase> void run_m1(Store &store, Phase phase) {
    Live<Store> live(store, bench::cache_m1.most());
    phase("", live, [&] { bench::cache_m1.run(live); });
}

template <class Store, class Phase> void run_r1(Store &store, Phase phase) {
    Live<Store> live(store, bench::cache_r1.most());
    phase("", live, [&] { bench::cache_r1.run(live); });
}

template <class Store, class Phase> void run_s1(Store &store, Phase phase) {
    Live<Store> live(store, bench::Spread::most());
    phase(", after the frees", live, [&] { bench::Spread::fill_and_free(live); });
    phase("", live, [&] { bench::Spread::add_large(live); });
}

template <class Store, class Phase> void run_churn(Store &store, Phase phase, bench::Churn churn) {
    Live<Store> live(store, churn.most());
    phase("", live, [&] { churn.run(live); });
}

template <class Store, class Phase> void run_c1(Store &store, Phase phase) {
    run_churn(store, phase, bench::mix_c1);
}

template <class Store, class Phase> void run_half(Store &store, Phase phase) {
    run_churn(store, phase, {1000000, 0, 0.5, bench::replaced_size});
}

template <class Store, class Phase> void run_tenth(Store &store, Phase phase) {
    run_churn(store, phase, {1000000, 0, 0.9, bench::replaced_size});
}

template <class Store, class Phase> void run_steady(Store &store, Phase phase) {
    run_churn(store, phase,
              {1000000, bench::quick() ? 4000000u : 16000000u, 0, bench::replaced_size});
}

/* --------------------------------------------------------------------- Jeff */

template <class L> std::vector<rmhandle_t> lock_share(const L &live, double share) {
    std::vector<rmhandle_t> locked;
    Random random(77);
    for (size_t i = 0; i < live.count(); i++)
        if (static_cast<double>(random.next() >> 11) * 0x1p-53 < share) {
            rmlock(live[i].block);
            locked.push_back(live[i].block);
        }
    return locked;
}

/* Memory that no compaction can give back: the pages with a locked block, at least the ideal. */
template <class L> double page_bound(const L &live, const std::vector<rmhandle_t> &locked) {
    std::vector<uintptr_t> pages;
    for (rmhandle_t handle : locked) {
        uintptr_t first = reinterpret_cast<uintptr_t>(rmweaklock(handle)) - 8;
        uintptr_t last = first + 8 + rmsize(handle) - 1;
        for (uintptr_t page = first >> 12; page <= last >> 12; page++)
            pages.push_back(page);
    }
    std::sort(pages.begin(), pages.end());
    pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
    double ideal = static_cast<double>(live.ideal().bytes());
    double table = ideal - static_cast<double>(live.ideal().packed());
    return std::max(ideal, static_cast<double>(pages.size() * 4096) + table);
}

/* What a heap looks like at a phase's end, the blocks of `share` locked. */
template <class L>
void look(rmheap_t heap, const L &live, double share, size_t baseline, const std::string &phase,
          Values *ret_values) {
    Values &values = *ret_values;
    auto over = [&](size_t bytes) {
        return static_cast<double>(bytes) - static_cast<double>(baseline);
    };
    values["before" + phase] = over(bench::resident_bytes());
    std::vector<rmhandle_t> locked = lock_share(live, share);
    values["bound" + phase] = page_bound(live, locked);
    rmheap_compact(heap, 0);
    values["after" + phase] = over(bench::resident_bytes());
    for (rmhandle_t handle : locked)
        rmunlock(handle);
    values["ideal" + phase] = static_cast<double>(live.ideal().bytes());
    values["requested" + phase] = static_cast<double>(live.ideal().requested());
    values["peak" + phase] = over(bench::peak_resident_bytes());
    values["ideal_peak" + phase] = static_cast<double>(live.ideal().peak());
}

/* What distinguishes a phase's values: a name without a space. */
std::string key_of(const std::string &phase) {
    return phase.empty() ? "" : "_early";
}

template <class Run> Values with_jeff(Run run, double share, uint32_t slice_us) {
    Values values;
    JeffStore store;
    store.heap = rmheap_create(nullptr);
    store.slice_us = slice_us;
    size_t baseline = 0;
    uint64_t start = bench::cpu_ns();
    run(store, [&](const char *phase, auto &live, auto work) {
        if (baseline == 0) {
            bench::reset_peak();
            baseline = bench::resident_bytes();
        }
        work();
        look(store.heap, live, share, baseline, key_of(phase), &values);
    });
    values["time"] = static_cast<double>(bench::cpu_ns() - start);
    return values;
}

template <class Run> Values with_peer(Run run, const Peer &peer) {
    Values values;
    MallocStore store = bench::open_peer(peer);
    size_t baseline = 0;
    uint64_t start = bench::cpu_ns();
    run(store, [&](const char *phase, auto &live, auto work) {
        std::string key = key_of(phase);
        if (baseline == 0) {
            bench::reset_peak();
            baseline = bench::resident_bytes();
        }
        work();
        values["after" + key] = static_cast<double>(bench::resident_bytes() - baseline);
        values["peak" + key] = static_cast<double>(bench::peak_resident_bytes() - baseline);
        values["requested" + key] = static_cast<double>(live.ideal().requested());
    });
    values["time"] = static_cast<double>(bench::cpu_ns() - start);
    return values;
}

/* --------------------------------------------------------------------- bookkeeping */

/* A million blocks of 56 bytes, which with a header of 8 need no rounding, by the heap's own figures; and
 * what the process has resident beyond them. */
Values bookkeeping() {
    enum { SIZE = 56 };
    Array<rmhandle_t> handles(1000000);
    size_t baseline = bench::resident_bytes();
    rmheap_t heap = rmheap_create(nullptr);
    bool aligned = true;
    for (rmhandle_t &handle : handles) {
        handle = rmheap_malloc(heap, SIZE);
        aligned = aligned && reinterpret_cast<uintptr_t>(rmweaklock(handle)) % 16 == 0;
    }
    rm_stats stats;
    rmheap_stats(heap, &stats);
    double blocks = static_cast<double>(handles.size());
    double resident = static_cast<double>(bench::resident_bytes() - baseline);
    double table = static_cast<double>(stats.table), live = static_cast<double>(stats.live);
    double beyond = resident - live - table;
    return {{"time", 0},
            {"aligned", aligned ? 1.0 : 0.0},
            {"header", live / blocks - SIZE},
            {"entry", table / blocks},
            {"overhead", 100 * static_cast<double>(stats.overhead) / (live + table)},
            {"beyond", 100 * beyond / (live + table)}};
}

/* --------------------------------------------------------------------- the program */

std::string share_text(double share) {
    char text[16];
    snprintf(text, sizeof text, "%g", share * 100);
    return text;
}

std::string name(const std::string &workload, const std::string &how) {
    return workload + "/" + how;
}

/* Resident memory hardly differs between runs: a few repeats, the largest counts. */
unsigned times() {
    return bench::quick() ? 1 : 3;
}

template <class Run> void add_locked(const char *workload, Run run) {
    for (double share : locked_shares)
        bench::add_child(
            name(workload, "locked " + share_text(share)), [=] { return with_jeff(run, share, 0); },
            times());
}

template <class Run> void add_slices_and_peers(const char *workload, Run run) {
    bench::add_child(
        name(workload, "slices"), [=] { return with_jeff(run, 0, 1000); }, times());
    for (const Peer &peer : peers)
        bench::add_child(
            name(workload, peer.name), [=] { return with_peer(run, peer); }, times());
}

void add_steady() {
    auto run = [](auto &store, auto phase) { run_steady(store, phase); };
    bench::add_child(
        "steady/jeff", [=] { return with_jeff(run, 0, 0); }, times());
    bench::add_child(
        "steady/slices", [=] { return with_jeff(run, 0, 1000); }, times());
    for (const Peer &peer : peers)
        bench::add_child(
            name("steady", peer.name), [=] { return with_peer(run, peer); }, times());
}

void add() {
    peers = bench::installed_peers();
    auto m1 = [](auto &store, auto phase) { run_m1(store, phase); };
    auto r1 = [](auto &store, auto phase) { run_r1(store, phase); };
    auto s1 = [](auto &store, auto phase) { run_s1(store, phase); };
    auto c1 = [](auto &store, auto phase) { run_c1(store, phase); };
    add_locked("M1", m1);
    add_locked("R1", r1);
    add_locked("S1", s1);
    add_locked("C1", c1);
    add_locked("half dead", [](auto &store, auto phase) { run_half(store, phase); });
    add_locked("nine tenths dead", [](auto &store, auto phase) { run_tenth(store, phase); });
    add_slices_and_peers("M1", m1);
    add_slices_and_peers("R1", r1);
    add_slices_and_peers("S1", s1);
    add_slices_and_peers("C1", c1);
    add_steady();
    bench::add_child("bookkeeping", bookkeeping, 1);
}

const double MB = 1e6;

std::string ratio_text(const char *what, double ratio) {
    char text[64];
    snprintf(text, sizeof text, "%s %.3f", what, ratio);
    return text;
}

/* After full compaction, nothing locked. */
void report_packed(const bench::Results &results, bench::Report &report,
                   const std::string &workload, const std::string &phase) {
    std::string jeff = name(workload, "locked 0"), key = key_of(phase);
    double after = results.maximum(jeff, "after" + key);
    double requested = results.median(jeff, "requested" + key);
    double before = results.maximum(jeff, "before" + key);
    report.figure({workload + phase + ": resident after compaction", "MB", after / MB,
                   "ideal packing", results.median(jeff, "ideal" + key) / MB, bench::Reach::at_most,
                   1.04,
                   ratio_text("to requested:", after / requested) +
                       ratio_text("; before compaction:", before / requested)});
    for (const Peer &peer : peers)
        report.figure({workload + phase + ": the same, never compacted", "MB", after / MB,
                       peer.name, results.median(name(workload, peer.name), "after" + key) / MB});
}

void report_peak(const bench::Results &results, bench::Report &report,
                 const std::string &workload) {
    std::string slices = name(workload, "slices");
    report.figure({workload + ": peak, 1 ms of compaction per 5000 operations", "MB",
                   results.maximum(slices, "peak") / MB, "ideal's peak",
                   results.median(slices, "ideal_peak") / MB, bench::Reach::at_most, 1.15});
}

void report_locked(const bench::Results &results, bench::Report &report,
                   const std::string &workload, double share, double target) {
    std::string jeff = name(workload, "locked " + share_text(share));
    double ideal = results.median(jeff, "ideal");
    double after = results.maximum(jeff, "after");
    report.point("locked", workload, share * 100, after / ideal);
    if (share == 0)
        return;
    report.figure({workload + ": " + share_text(share) + " % of the live blocks locked", "MB",
                   after / MB, "ideal packing", ideal / MB,
                   std::isnan(target) ? bench::Reach::nothing : bench::Reach::at_most, target,
                   ratio_text("pages with a locked block, or the ideal:",
                              results.median(jeff, "bound") / ideal)});
}

void report_steady(const bench::Results &results, bench::Report &report) {
    double mimalloc = results.median("steady/mimalloc", "after") / MB;
    report.figure({"random replacement, 1 M live, never compacted", "MB",
                   results.maximum("steady/jeff", "before") / MB, "mimalloc", mimalloc,
                   bench::Reach::at_most, 1.15});
    report.figure({"random replacement, 1 M live, slices of 1 ms", "MB",
                   results.maximum("steady/slices", "before") / MB, "mimalloc", mimalloc,
                   bench::Reach::at_most, 1.0});
    for (const Peer &peer : peers)
        if (strcmp(peer.name, "mimalloc") != 0)
            report.figure({"random replacement, 1 M live, never compacted", "MB",
                           results.maximum("steady/jeff", "before") / MB, peer.name,
                           results.median(name("steady", peer.name), "after") / MB});
}

void report_bookkeeping(const bench::Results &results, bench::Report &report) {
    using bench::Reach;
    auto value = [&](const char *what) { return results.median("bookkeeping", what); };
    /* the table is in whole pages of 2048 entries: a million fill 488.3 */
    report.figure({"header and entry of a block, at a million", "B",
                   value("header") + value("entry"), "", NAN, Reach::at_most, 16.02,
                   value("aligned") == 1 ? "payloads aligned to 16 B" : "payloads not aligned"});
    report.figure({"all other bookkeeping, by rmstats", "%", value("overhead"), "", NAN,
                   Reach::at_most, 0.2});
    report.figure({"resident beyond blocks and entries", "%", value("beyond")});
}

void report(const bench::Results &results, bench::Report &report) {
    report_packed(results, report, "M1", "");
    report_packed(results, report, "R1", "");
    report_packed(results, report, "S1", ", after the frees");
    report_packed(results, report, "S1", "");
    report_packed(results, report, "C1", "");
    for (const char *workload : {"M1", "R1", "S1", "C1"})
        report_peak(results, report, workload);
    const double half_targets[] = {1.04, 1.05, 1.10, NAN, 1.20};
    for (size_t i = 0; i < std::size(locked_shares); i++)
        report_locked(results, report, "half dead", locked_shares[i], half_targets[i]);
    for (double share : locked_shares)
        report_locked(results, report, "nine tenths dead", share, share == 0.01 ? 1.15 : NAN);
    for (const char *workload : {"M1", "R1", "S1", "C1"})
        for (double share : locked_shares)
            report_locked(results, report, workload, share, NAN);
    report_steady(results, report);
    report_bookkeeping(results, report);
}

} // namespace

int main(int argc, char **argv) {
    bench::want_static_tls(argv);
    return bench::run(argc, argv, "bench_memory", add, report);
}
