// Events for tests of the trace format.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "trace_format.h"

namespace steve {

using Events = std::vector<trace_event>;

inline trace_event event(trace_op op, uint32_t block, uint64_t size = 0, uint32_t thread = 0,
                         uint64_t time_us = 0, uint32_t alignment_log2 = 0) {
    trace_event result{};
    result.op = op;
    result.block = block;
    result.size = size;
    result.thread = thread;
    result.time_us = time_us;
    result.alignment_log2 = alignment_log2;
    return result;
}

inline trace_event access(uint32_t block, uint64_t offset, uint64_t size, uint64_t reads,
                          uint64_t writes) {
    trace_event result = event(TRACE_ACCESS, block, size);
    result.offset = offset;
    result.reads = reads;
    result.writes = writes;
    return result;
}

// A program that makes sense, of any length.
inline Events random_trace(size_t count, unsigned seed) {
    std::mt19937_64 random(seed);
    std::vector<uint32_t> live, unused;
    uint32_t next = 0;
    uint64_t time = 0;
    Events events;
    while (events.size() < count) {
        time += random() % 8 == 0 ? random() % 1000 : 0;
        uint32_t thread = random() % 4 == 0 ? random() % 3 : 0;
        size_t at = live.empty() ? 0 : random() % live.size();
        unsigned choice = random() % 10;
        if (live.empty() || choice < 5) {
            uint32_t block = unused.empty() ? next++ : unused.back();
            if (!unused.empty())
                unused.pop_back();
            live.push_back(block);
            events.push_back(event(TRACE_MALLOC, block, random() % 5000, thread, time));
        } else if (choice < 6) {
            events.push_back(event(TRACE_REALLOC, live[at], random() % 5000, thread, time));
        } else {
            events.push_back(event(TRACE_FREE, live[at], 0, thread, time));
            unused.push_back(live[at]);
            live[at] = live.back();
            live.pop_back();
        }
    }
    return events;
}

} // namespace steve
