/* What all benchmark programs share: they register measurements with Google Benchmark, which repeats them
 * in an order of its own, and then print figures: Jeff beside a reference from the same run, their ratio,
 * the target, and whether it is reached.
 *
 * Options of every program, besides Google Benchmark's:
 *   --quick          fewer repeats, smaller heaps
 *   --figures=FILE   appends the figures to FILE, one JSON object a line
 * Nothing is printed in builds that are not meant to be fast, or with a check level.
 */
#ifndef JEFF_BENCH_HARNESS_H
#define JEFF_BENCH_HARNESS_H

#include "process.h"

#include <benchmark/benchmark.h>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace bench {

bool quick();

/* How often every measurement is repeated. */
unsigned repeats();

/* Registers a loop: `body` runs under Google Benchmark's clock; the figure is CPU time per iteration. */
void add_loop(const std::string &name, std::function<void(benchmark::State &)> body);

/* Registers a measurement in a child process. `time` among its values (nanoseconds) is what Google
 * Benchmark shows. `times` overrides repeats(). */
void add_child(const std::string &name, std::function<Values()> work, unsigned times = 0);

/* All that the repeats of all measurements gave. Values of a loop: "time", nanoseconds. */
class Results {
  public:
    void add(const std::string &name, const std::string &value, double number);
    bool has(const std::string &name) const;
    /* Not a number when there is no such measurement (Google Benchmark's filter). */
    double median(const std::string &name, const std::string &value = "time") const;
    double minimum(const std::string &name, const std::string &value = "time") const;
    double maximum(const std::string &name, const std::string &value = "time") const;
    /* Of all repeats, smallest first. */
    std::vector<double> all(const std::string &name, const std::string &value = "time") const;

  private:
    std::map<std::string, std::map<std::string, std::vector<double>>> values_;
};

enum class Reach { nothing, at_most, at_least };

struct Figure {
    std::string what;
    std::string unit;
    double jeff = NAN;
    std::string reference_name = {};
    double reference = NAN;
    Reach reach = Reach::nothing; /* how the ratio, or without a reference the value, shall be */
    double target = NAN;
    std::string note = {};
};

class Report {
  public:
    explicit Report(std::string program) : program_(std::move(program)) {}
    /* Left out when `jeff` is not a number. */
    void figure(const Figure &figure);
    /* A point of a curve in a picture. */
    void point(const std::string &picture, const std::string &curve, double x, double y);
    void print() const;
    void append_to(const std::string &path) const;

  private:
    struct Point {
        std::string picture, curve;
        double x, y;
    };
    std::string program_;
    std::vector<Figure> figures_;
    std::vector<Point> points_;
};

/* The whole of main. */
int run(int argc, char **argv, const char *program, void (*add)(),
        void (*report)(const Results &, Report &));

/* The value that the share `rank` of all do not exceed. Sorts. */
double percentile(uint32_t *begin, uint32_t *end, double rank);

} // namespace bench

#endif
