/* Running the measurements of one program and printing its figures. */
#include "harness.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace bench {

static bool quick_wanted;

bool quick() {
    return quick_wanted;
}

unsigned repeats() {
    return quick_wanted ? 3 : 7;
}

void add_loop(const std::string &name, std::function<void(benchmark::State &)> body) {
    benchmark::RegisterBenchmark(name.c_str(), std::move(body))
        ->Repetitions(static_cast<int>(repeats()))
        ->MinTime(quick_wanted ? 0.02 : 0.1);
}

void add_child(const std::string &name, std::function<Values()> work, unsigned times) {
    auto body = [work = std::move(work)](benchmark::State &state) {
        for (auto _ : state) {
            try {
                Values values = run_in_child(work);
                state.SetIterationTime(values["time"] * 1e-9);
                for (const auto &[value, number] : values)
                    state.counters[value] = number;
            } catch (const std::exception &error) {
                state.SkipWithError(error.what());
                break;
            }
        }
    };
    benchmark::RegisterBenchmark(name.c_str(), std::move(body))
        ->Repetitions(static_cast<int>(times != 0 ? times : repeats()))
        ->Iterations(1)
        ->UseManualTime();
}

/* ---------------------------------------------------------------------------------------- results */

void Results::add(const std::string &name, const std::string &value, double number) {
    values_[name][value].push_back(number);
}

bool Results::has(const std::string &name) const {
    return values_.count(name) != 0;
}

std::vector<double> Results::all(const std::string &name, const std::string &value) const {
    auto found = values_.find(name);
    if (found == values_.end() || found->second.count(value) == 0)
        return {};
    std::vector<double> numbers = found->second.at(value);
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

double Results::median(const std::string &name, const std::string &value) const {
    std::vector<double> numbers = all(name, value);
    if (numbers.empty())
        return NAN;
    size_t half = numbers.size() / 2;
    return numbers.size() % 2 != 0 ? numbers[half] : (numbers[half - 1] + numbers[half]) / 2;
}

double Results::minimum(const std::string &name, const std::string &value) const {
    std::vector<double> numbers = all(name, value);
    return numbers.empty() ? NAN : numbers.front();
}

double Results::maximum(const std::string &name, const std::string &value) const {
    std::vector<double> numbers = all(name, value);
    return numbers.empty() ? NAN : numbers.back();
}

double percentile(uint32_t *begin, uint32_t *end, double rank) {
    if (begin == end)
        return NAN;
    std::sort(begin, end);
    double position = std::ceil(rank * static_cast<double>(end - begin)) - 1;
    return begin[static_cast<size_t>(std::max(position, 0.0))];
}

/* Gathers what Google Benchmark measures; shows a line for each measurement. */
class Gatherer : public benchmark::BenchmarkReporter {
  public:
    explicit Gatherer(Results &results) : results_(results) {}
    bool failed = false;

    bool ReportContext(const Context &) override {
        return true;
    }

    void ReportRuns(const std::vector<Run> &runs) override {
        if (runs.front().run_type != Run::RT_Iteration)
            return;
        for (const Run &run : runs) {
            const std::string &name = run.run_name.function_name;
            if (run.error_occurred) {
                printf("%-44s %s\n", name.c_str(), run.error_message.c_str());
                failed = true;
            } else {
                gather(name, run);
            }
        }
        const std::string &last = runs.back().run_name.function_name;
        if (results_.has(last))
            printf("%-44s %12.4g ns  (%.4g .. %.4g)\n", last.c_str(), results_.median(last),
                   results_.minimum(last), results_.maximum(last));
        fflush(stdout);
    }

  private:
    void gather(const std::string &name, const Run &run) {
        bool has_time = false;
        for (const auto &[value, counter] : run.counters) {
            results_.add(name, value, counter.value);
            has_time = has_time || value == "time";
        }
        if (!has_time)
            results_.add(name, "time", run.GetAdjustedCPUTime());
    }

    Results &results_;
};

/* ---------------------------------------------------------------------------------------- figures */

static double compared(const Figure &figure) {
    return figure.reference_name.empty() ? figure.jeff : figure.jeff / figure.reference;
}

static const char *verdict(const Figure &figure) {
    double value = compared(figure);
    if (figure.reach == Reach::nothing || std::isnan(value))
        return "";
    bool reached = figure.reach == Reach::at_most ? value <= figure.target : value >= figure.target;
    return reached ? "yes" : "NO";
}

void Report::figure(const Figure &figure) {
    if (!std::isnan(figure.jeff))
        figures_.push_back(figure);
}

void Report::point(const std::string &picture, const std::string &curve, double x, double y) {
    if (!std::isnan(y))
        points_.push_back({picture, curve, x, y});
}

static std::string number_text(double number, const std::string &unit) {
    if (std::isnan(number))
        return "";
    char text[64];
    snprintf(text, sizeof text, "%.4g%s%s", number, unit.empty() ? "" : " ", unit.c_str());
    return text;
}

void Report::print() const {
    printf("\n%-52s %14s %28s %8s %9s %s\n", program_.c_str(), "Jeff", "reference", "ratio",
           "target", "reached");
    for (const Figure &figure : figures_) {
        std::string reference = number_text(figure.reference, figure.unit);
        if (!figure.reference_name.empty())
            reference = figure.reference_name + " " + reference;
        double ratio = figure.reference_name.empty() ? NAN : compared(figure);
        std::string target = number_text(figure.target, "");
        if (figure.reach != Reach::nothing)
            target = (figure.reach == Reach::at_most ? "<= " : ">= ") + target;
        printf("%-52s %14s %28s %8s %9s %-3s %s\n", figure.what.c_str(),
               number_text(figure.jeff, figure.unit).c_str(), reference.c_str(),
               number_text(ratio, "").c_str(), target.c_str(), verdict(figure),
               figure.note.c_str());
    }
}

static void json_text(FILE *file, const char *name, const std::string &text) {
    fprintf(file, "\"%s\": \"", name);
    for (char c : text) {
        if (c == '"' || c == '\\')
            fputc('\\', file);
        fputc(c, file);
    }
    fputc('"', file);
}

static void json_number(FILE *file, const char *name, double number) {
    if (std::isfinite(number))
        fprintf(file, "\"%s\": %.6g", name, number);
    else
        fprintf(file, "\"%s\": null", name);
}

static void json_figure(FILE *file, const std::string &program, const Figure &figure) {
    static const char *const reach_names[] = {"", "at most", "at least"};
    fputs("{", file);
    json_text(file, "program", program);
    fputs(", ", file);
    json_text(file, "what", figure.what);
    fputs(", ", file);
    json_text(file, "unit", figure.unit);
    fputs(", ", file);
    json_number(file, "jeff", figure.jeff);
    fputs(", ", file);
    json_text(file, "reference_name", figure.reference_name);
    fputs(", ", file);
    json_number(file, "reference", figure.reference);
    fputs(", ", file);
    json_number(file, "ratio", figure.reference_name.empty() ? NAN : compared(figure));
    fputs(", ", file);
    json_text(file, "reach", reach_names[static_cast<int>(figure.reach)]);
    fputs(", ", file);
    json_number(file, "target", figure.target);
    fputs(", ", file);
    json_text(file, "reached", verdict(figure));
    fputs(", ", file);
    json_text(file, "note", figure.note);
    fputs("}\n", file);
}

void Report::append_to(const std::string &path) const {
    FILE *file = fopen(path.c_str(), "a");
    if (file == nullptr)
        throw std::runtime_error(path + " cannot be written");
    for (const Figure &figure : figures_)
        json_figure(file, program_, figure);
    for (const Point &point : points_) {
        fputs("{", file);
        json_text(file, "picture", point.picture);
        fputs(", ", file);
        json_text(file, "curve", point.curve);
        fprintf(file, ", \"x\": %.6g, \"y\": %.6g}\n", point.x, point.y);
    }
    fclose(file);
}

/* ---------------------------------------------------------------------------------------- main */

/* Why this build, or this environment, would give figures that mean nothing; empty when it would not. */
static std::string why_not() {
#if !defined(__OPTIMIZE__) || !defined(JEFF_BENCH_RELEASE)
    return "this is no release build (meson setup --buildtype=release)";
#else
    for (const char *name : {"JEFF_CHECK", "JEFF_SCRAMBLE"}) {
        const char *value = getenv(name);
        if (value != nullptr && strtoul(value, nullptr, 10) != 0)
            return std::string(name) + " is set";
    }
    return {};
#endif
}

/* Takes our own options out of the arguments and puts Google Benchmark's defaults in front. */
static std::vector<char *> take_options(int argc, char **argv, std::string *ret_figures) {
    static char interleaving[] = "--benchmark_enable_random_interleaving=true";
    std::vector<char *> arguments{argv[0], interleaving};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            quick_wanted = true;
        else if (strncmp(argv[i], "--figures=", 10) == 0)
            *ret_figures = argv[i] + 10;
        else
            arguments.push_back(argv[i]);
    }
    return arguments;
}

int run(int argc, char **argv, const char *program, void (*add)(),
        void (*report)(const Results &, Report &)) {
    std::string figures;
    std::string reason = why_not();
    if (!reason.empty()) {
        fprintf(stderr, "%s: no timings: %s\n", program, reason.c_str());
        return 2;
    }
    std::vector<char *> arguments = take_options(argc, argv, &figures);
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data()))
        return 2;
    add();
    Results results;
    Gatherer gatherer(results);
    benchmark::RunSpecifiedBenchmarks(&gatherer);
    Report table(program);
    report(results, table);
    table.print();
    if (!figures.empty())
        table.append_to(figures);
    return gatherer.failed ? 1 : 0;
}

} // namespace bench
