/* A benchmark program's own process: its clocks, its memory, and children that measure one thing each, so
 * that no measurement finds the heap that another one left behind.
 */
#ifndef JEFF_BENCH_PROCESS_H
#define JEFF_BENCH_PROCESS_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace bench {

/* Nanoseconds. */
uint64_t wall_ns();
uint64_t cpu_ns(); /* of the calling thread */

/* Bytes of memory the process has, from /proc/self/smaps_rollup; and the most it had since reset_peak. */
size_t resident_bytes();
size_t peak_resident_bytes();
void reset_peak();

/* What a measurement yields, by name. */
using Values = std::map<std::string, double>;

/* Runs `work` in a child process and gives what it returns. Throws std::runtime_error when the child
 * does not end well. No other thread may be running. */
Values run_in_child(const std::function<Values()> &work);

/* Starts the program again with room for the thread-local storage of libraries that are opened at run
 * time, unless it has that already. */
void want_static_tls(char **argv);

/* `count` elements in memory of their own, which is there from the beginning and is no allocator's. */
class Mapping {
  public:
    explicit Mapping(size_t size);
    ~Mapping();
    Mapping(const Mapping &) = delete;
    Mapping &operator=(const Mapping &) = delete;
    char *data() const {
        return data_;
    }
    size_t size() const {
        return size_;
    }

  private:
    char *data_;
    size_t size_;
};

template <class T> class Array {
  public:
    explicit Array(size_t count) : mapping_(count * sizeof(T)), count_(count) {}
    T &operator[](size_t index) {
        return data()[index];
    }
    const T &operator[](size_t index) const {
        return data()[index];
    }
    T *data() const {
        return reinterpret_cast<T *>(mapping_.data());
    }
    T *begin() const {
        return data();
    }
    T *end() const {
        return data() + count_;
    }
    size_t size() const {
        return count_;
    }

  private:
    Mapping mapping_;
    size_t count_;
};

} // namespace bench

#endif
