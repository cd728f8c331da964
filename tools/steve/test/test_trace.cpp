// The trace format: what is written is read again, and whatever else is read gives an error that
// names the place, never a crash.
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "trace_codec.h"
#include "trace_live.h"
#include "trace_read.h"
#include "trace_write.h"

#include "trace_events.hpp"

using steve::access;
using steve::event;
using steve::Events;
using steve::random_trace;

namespace {

using Bytes = std::vector<uint8_t>;

// One of everything, over several threads, with the largest values there are.
Events small_trace() {
    return {
        event(TRACE_MALLOC, 0, 100),
        event(TRACE_CALLOC, 1, 0, 0, 100),
        event(TRACE_ALIGNED, 2, 70000, 3, 100, 12),
        event(TRACE_REALLOC, 0, TRACE_SIZE_MAX - 1, 0, 100),
        event(TRACE_FREE, 1, 0, 70000, 5000000000),
        event(TRACE_MALLOC, 1, 1, 70000, 5000000000),
        event(TRACE_FREE, 0, 0, 0, 5000000100),
        event(TRACE_FREE, 1, 0, 0, 5000000100),
        event(TRACE_FREE, 2, 0, 0, 5000000100),
        event(TRACE_EXEC, 0, 0, 0, 5000000100),
        event(TRACE_ALIGNED, 0, 16, 0, 6000000000, TRACE_ALIGNMENT_LOG2_MAX),
    };
}

// What version 1.1 brought, with the largest values there are.
Events trace_with_uses() {
    static const uint64_t frames[TRACE_STACK_MAX] = {0x401234, 0x401200, ~uint64_t(0), 1,
                                                     0x7fff0000};
    trace_event stack = event(TRACE_STACK, 0);
    stack.frames = frames;
    stack.frame_count = TRACE_STACK_MAX;
    Events events = {stack, event(TRACE_MALLOC, 0, TRACE_SIZE_MAX - 1), event(TRACE_MALLOC, 1, 64)};
    events.push_back(access(1, 8, 16, 3, 4));
    events.push_back(access(0, TRACE_SIZE_MAX - 2, 1, TRACE_COUNT_MAX - 1, TRACE_COUNT_MAX - 1));
    events.push_back(event(TRACE_LOCK, 1));
    events.push_back(event(TRACE_LOCK, 1));
    events.push_back(event(TRACE_UNLOCK, 1, 0, 5, 100));
    events.push_back(event(TRACE_REALLOC, 1, 100, 5, 100));
    stack.frame_count = 0;
    stack.time_us = 100;
    events.push_back(stack);
    events.push_back(event(TRACE_UNLOCK, 1, 0, 0, 100));
    events.push_back(event(TRACE_FREE, 1, 0, 0, 100));
    return events;
}

void expect_same(const trace_event &expected, const trace_event &found) {
    ASSERT_EQ(expected.op, found.op);
    ASSERT_EQ(expected.thread, found.thread);
    ASSERT_EQ(expected.time_us, found.time_us);
    ASSERT_EQ(expected.block, found.block);
    ASSERT_EQ(expected.size, found.size);
    ASSERT_EQ(expected.alignment_log2, found.alignment_log2);
    ASSERT_EQ(expected.offset, found.offset);
    ASSERT_EQ(expected.reads, found.reads);
    ASSERT_EQ(expected.writes, found.writes);
    ASSERT_EQ(expected.frame_count, found.frame_count);
}

trace_event stack_of(const uint64_t *frames, uint32_t count, uint64_t time_us = 0) {
    trace_event result = event(TRACE_STACK, 0, 0, 0, time_us);
    result.frames = frames;
    result.frame_count = count;
    return result;
}

struct Outcome {
    Events events;
    std::string error; // empty = the end was reached
};

class Trace : public testing::Test {
  protected:
    Trace() : file(memfd_create("trace-test", 0)), path("/proc/self/fd/" + std::to_string(file)) {}
    ~Trace() override {
        close(file);
    }

    // Writes a trace; the file's bytes.
    Bytes write(const Events &events, bool compress) {
        char command[] = "program\0an argument";
        trace_header header{};
        header.pid = 17;
        header.page_size = 4096;
        header.start_unix_us = 1234567890123456;
        header.command = command;
        header.command_bytes = sizeof command;
        trace_error error{};
        int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        trace_writer *writer = trace_writer_create(descriptor, "test", &header, compress, &error);
        EXPECT_NE(writer, nullptr) << error.text;
        trace_live live;
        EXPECT_EQ(trace_live_init(&live, 0), 0);
        for (trace_event each : events) {
            EXPECT_EQ(trace_live_apply(&live, &each, &error), 0) << error.text;
            EXPECT_EQ(trace_writer_add(writer, &each, &error), 0) << error.text;
        }
        trace_totals totals = live.totals;
        totals.wait_status = 256;
        EXPECT_EQ(trace_writer_finish(writer, &totals, &error), 0) << error.text;
        trace_live_finish(&live);
        std::ifstream stream(path, std::ios::binary);
        return Bytes(std::istreambuf_iterator<char>(stream), {});
    }

    void put(const Bytes &bytes) {
        std::ofstream stream(path, std::ios::binary | std::ios::trunc);
        stream.write(reinterpret_cast<const char *>(bytes.data()), std::streamsize(bytes.size()));
    }

    // Reads the file, following the events as a replay does.
    Outcome read() {
        Outcome outcome;
        trace_error error{};
        trace_reader *reader = trace_reader_open(path.c_str(), &error);
        if (reader == nullptr)
            return {{}, error.text};
        trace_live live;
        EXPECT_EQ(trace_live_init(&live, 0), 0);
        trace_event next;
        int result;
        while ((result = trace_reader_next(reader, &next, &error)) == 1) {
            outcome.events.push_back(next);
            trace_error senseless;
            trace_live_apply(&live, &next, &senseless);
        }
        EXPECT_TRUE(result == 0 || result == -1);
        if (result < 0) {
            outcome.error = error.text;
            EXPECT_NE(outcome.error, "");
            EXPECT_EQ(trace_reader_next(reader, &next, &error), -1) << "an error is for good";
        }
        trace_live_finish(&live);
        trace_reader_close(reader);
        return outcome;
    }

    Outcome read(const Bytes &bytes) {
        put(bytes);
        return read();
    }

    void expect_round_trip(const Events &events, bool compress) {
        write(events, compress);
        Outcome outcome = read();
        EXPECT_EQ(outcome.error, "");
        ASSERT_EQ(outcome.events.size(), events.size());
        for (size_t i = 0; i < events.size(); i++)
            ASSERT_NO_FATAL_FAILURE(expect_same(events[i], outcome.events[i])) << "event " << i;
    }

    int file; // in memory: tens of thousands are written
    std::string path;
};

// --- Files put together by hand.

size_t header_size(const Bytes &file) {
    return trace_get_u32(file.data() + 12);
}

void repair_header(Bytes &file) {
    size_t size = header_size(file);
    trace_put_u32(file.data() + size - 4, trace_crc32(0, file.data(), size - 4));
}

Bytes frame(uint8_t type, uint64_t first_event, uint32_t events, const Bytes &contents) {
    Bytes bytes(TRACE_FRAME_BYTES);
    trace_put_u32(bytes.data(), TRACE_FRAME_MAGIC);
    bytes[4] = type;
    bytes[5] = TRACE_STORED;
    trace_put_u32(bytes.data() + 8, uint32_t(contents.size()));
    trace_put_u32(bytes.data() + 12, uint32_t(contents.size()));
    trace_put_u64(bytes.data() + 16, first_event);
    trace_put_u32(bytes.data() + 24, events);
    uint32_t crc = trace_crc32(0, bytes.data(), 28);
    trace_put_u32(bytes.data() + 28, trace_crc32(crc, contents.data(), contents.size()));
    bytes.insert(bytes.end(), contents.begin(), contents.end());
    return bytes;
}

// The header of `file`, then the frames, then an end.
Bytes assemble(const Bytes &file, const std::vector<Bytes> &frames) {
    Bytes bytes(file.begin(), file.begin() + std::ptrdiff_t(header_size(file)));
    for (const Bytes &each : frames)
        bytes.insert(bytes.end(), each.begin(), each.end());
    Bytes trailer(TRACE_TRAILER_BYTES);
    trace_put_u64(trailer.data(), bytes.size());
    std::memcpy(trailer.data() + 8, TRACE_END_MAGIC, 8);
    Bytes end = frame(TRACE_FRAME_END, 0, 0, {});
    bytes.insert(bytes.end(), end.begin(), end.end());
    bytes.insert(bytes.end(), trailer.begin(), trailer.end());
    return bytes;
}

// --- The small encodings.

TEST(TraceVarint, EveryLengthComesBack) {
    for (unsigned shift = 0; shift < 64; shift++) {
        for (uint64_t value :
             {uint64_t(1) << shift, (uint64_t(1) << shift) - 1, ~uint64_t(0) >> shift}) {
            uint8_t bytes[TRACE_VARINT_MAX];
            uint8_t *end = trace_put_varint(bytes, value);
            uint64_t found = ~value;
            EXPECT_EQ(trace_get_varint(bytes, end, &found), end);
            EXPECT_EQ(found, value);
            EXPECT_EQ(trace_get_varint(bytes, end - 1, &found), nullptr) << "cut off";
        }
    }
}

TEST(TraceVarint, WrittenTooLongIsRefused) {
    uint64_t value;
    const Bytes padded = {0x81, 0x00};
    EXPECT_EQ(trace_get_varint(padded.data(), padded.data() + 2, &value), nullptr);
    const Bytes beyond = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    EXPECT_EQ(trace_get_varint(beyond.data(), beyond.data() + 10, &value), nullptr);
}

TEST(TraceVarint, DifferencesOfEitherSignAreSmallNumbers) {
    EXPECT_EQ(trace_zigzag(0), 0u);
    EXPECT_EQ(trace_zigzag(-1), 1u);
    EXPECT_EQ(trace_zigzag(1), 2u);
    for (int64_t value : {int64_t(0), int64_t(-1), int64_t(12345), INT64_MAX, INT64_MIN})
        EXPECT_EQ(trace_unzigzag(trace_zigzag(value)), value);
}

TEST(TraceChecksum, IsTheUsualCrc32) {
    EXPECT_EQ(trace_crc32(0, "123456789", 9), 0xcbf43926u);
    EXPECT_EQ(trace_crc32(trace_crc32(0, "1234", 4), "56789", 5), 0xcbf43926u);
}

// --- Round trips.

TEST_F(Trace, EveryKindOfEventComesBack) {
    expect_round_trip(small_trace(), false);
    expect_round_trip(small_trace(), true);
}

TEST_F(Trace, AccessesLocksAndStacksComeBack) {
    expect_round_trip(trace_with_uses(), false);
    expect_round_trip(trace_with_uses(), true);
}

TEST_F(Trace, TheAddressesOfAStackComeBack) {
    write(trace_with_uses(), true);
    trace_error error{};
    trace_event found{};
    trace_reader *reader = trace_reader_open(path.c_str(), &error);
    ASSERT_NE(reader, nullptr) << error.text;
    ASSERT_EQ(trace_reader_next(reader, &found, &error), 1);
    ASSERT_EQ(found.frame_count, uint32_t(TRACE_STACK_MAX));
    for (uint32_t i = 0; i < found.frame_count; i++)
        EXPECT_EQ(found.frames[i], trace_with_uses()[0].frames[i]) << i;
    trace_reader_close(reader);
}

// Stacks from a few, over more than a frame: most are written as what they were before.
TEST_F(Trace, AStackThatComesAgainIsTheSameAndSmall) {
    enum { STACKS = 5000, FRAMES = 20, COUNT = 60000 };
    static uint64_t frames[STACKS][FRAMES];
    std::mt19937_64 random(11);
    for (auto &stack : frames) {
        for (uint64_t &frame : stack)
            frame = 0x7f0000000000 + random() % 0x10000000;
    }
    Events events;
    std::vector<size_t> numbers;
    for (uint32_t i = 0; i < COUNT; i++) {
        // In the second half from few enough for every frame to name them all.
        numbers.push_back(random() % (i < COUNT / 2 ? STACKS : 50));
        events.push_back(stack_of(frames[numbers.back()], FRAMES));
        events.push_back(event(TRACE_MALLOC, i, 16));
    }
    size_t size = write(events, false).size();
    EXPECT_LT(size, size_t(COUNT) / 2 * (FRAMES * 4 + 8));
    trace_error error{};
    trace_reader *reader = trace_reader_open(path.c_str(), &error);
    ASSERT_NE(reader, nullptr) << error.text;
    trace_event next;
    for (size_t i = 0; i < numbers.size(); i++) {
        ASSERT_EQ(trace_reader_next(reader, &next, &error), 1) << error.text;
        ASSERT_EQ(next.op, TRACE_STACK);
        ASSERT_EQ(next.frame_count, uint32_t(FRAMES));
        ASSERT_EQ(std::memcmp(next.frames, frames[numbers[i]], sizeof frames[0]), 0) << i;
        ASSERT_EQ(trace_reader_next(reader, &next, &error), 1) << error.text;
        ASSERT_EQ(next.block, i);
    }
    EXPECT_EQ(trace_reader_next(reader, &next, &error), 0);
    trace_reader_close(reader);
}

TEST_F(Trace, AStackThatWasNotThereCannotComeAgain) {
    Bytes empty = write({}, false);
    // time 0; a stack of one address; the stack 0 again; the stack 1 again, which there is not.
    Bytes contents = {0, TRACE_STACK, 1, 8, TRACE_STACK_AGAIN, 1, 0, TRACE_STACK_AGAIN, 1, 1};
    Outcome outcome = read(assemble(empty, {frame(TRACE_FRAME_EVENTS, 0, 3, contents)}));
    EXPECT_NE(outcome.error.find("the event is damaged"), std::string::npos) << outcome.error;
    ASSERT_EQ(outcome.events.size(), 2u);
    EXPECT_EQ(outcome.events[1].op, TRACE_STACK);
    EXPECT_EQ(outcome.events[1].frame_count, 1u);
}

TEST_F(Trace, AFileOfCodeComesBack) {
    const std::string longest(TRACE_NAME_MAX, 'x');
    for (const std::string &name : {std::string(), std::string("/usr/bin/true"), longest}) {
        const uint64_t numbers[3] = {0x400000, 0x7fffffffffff, 0x3ff000};
        trace_event module = event(TRACE_MODULE, 0);
        module.frames = numbers;
        module.frame_count = 3;
        module.name = name.c_str();
        write({module, event(TRACE_MALLOC, 0, 1)}, true);
        trace_error error{};
        trace_reader *reader = trace_reader_open(path.c_str(), &error);
        ASSERT_NE(reader, nullptr) << error.text;
        trace_event next;
        ASSERT_EQ(trace_reader_next(reader, &next, &error), 1) << error.text;
        EXPECT_EQ(next.op, TRACE_MODULE);
        EXPECT_EQ(std::memcmp(next.frames, numbers, sizeof numbers), 0);
        EXPECT_EQ(next.name, name);
        EXPECT_EQ(trace_reader_next(reader, &next, &error), 1) << error.text;
        trace_reader_close(reader);
    }
}

TEST_F(Trace, EveryEventIsFoundByItsNumber) {
    Events events = random_trace(200000, 3);
    write(events, true);
    for (uint64_t number : {0, 1, 99999, 131072, 199999, 200000, 200001}) {
        trace_error error{};
        trace_event found{};
        trace_reader *reader = trace_reader_open(path.c_str(), &error);
        ASSERT_NE(reader, nullptr) << error.text;
        ASSERT_EQ(trace_reader_seek(reader, number, &error), 0) << error.text;
        int result = trace_reader_next(reader, &found, &error);
        ASSERT_EQ(result, number < events.size() ? 1 : 0) << error.text;
        if (result == 1) {
            EXPECT_EQ(found.number, number);
            ASSERT_NO_FATAL_FAILURE(expect_same(events[number], found));
            uint64_t frames, bytes;
            trace_reader_progress(reader, &frames, &bytes);
            EXPECT_EQ(frames, 1u) << "the frames before are not unpacked";
        }
        trace_reader_close(reader);
    }
}

TEST_F(Trace, ATraceIsReadAgainFromItsFirstEvent) {
    Events events = random_trace(150000, 5);
    write(events, true);
    trace_error error{};
    trace_event found{};
    trace_reader *reader = trace_reader_open(path.c_str(), &error);
    ASSERT_NE(reader, nullptr) << error.text;
    // From within a frame, and from the end.
    for (size_t count : {100u, 90000u, 150000u, 150000u}) {
        for (size_t i = 0; i < count; i++) {
            ASSERT_EQ(trace_reader_next(reader, &found, &error), 1) << error.text;
            EXPECT_EQ(found.number, i);
            ASSERT_NO_FATAL_FAILURE(expect_same(events[i], found));
        }
        if (count == events.size()) {
            EXPECT_EQ(trace_reader_next(reader, &found, &error), 0);
        }
        ASSERT_EQ(trace_reader_rewind(reader, &error), 0) << error.text;
    }
    trace_reader_close(reader);
}

TEST_F(Trace, ADamagedFileIsNotSearchedForEver) {
    Bytes trace = write(random_trace(100000, 4), false);
    trace_put_u32(trace.data() + header_size(trace) + 8, TRACE_FRAME_RAW_MAX);
    put(trace);
    trace_error error{};
    trace_reader *reader = trace_reader_open(path.c_str(), &error);
    ASSERT_NE(reader, nullptr) << error.text;
    EXPECT_EQ(trace_reader_seek(reader, 99999, &error), -1);
    EXPECT_NE(std::string(error.text).find("offset"), std::string::npos);
    trace_reader_close(reader);
}

TEST_F(Trace, ManyFramesComeBack) {
    Events events = random_trace(300000, 1);
    expect_round_trip(events, false);
    expect_round_trip(events, true);
}

TEST_F(Trace, AnEmptyTraceComesBack) {
    expect_round_trip({}, true);
}

TEST_F(Trace, CompressionMakesItSmaller) {
    if (!trace_can_compress())
        GTEST_SKIP() << "built without zstd";
    Events events = random_trace(100000, 2);
    size_t stored = write(events, false).size();
    EXPECT_LT(write(events, true).size(), stored * 9 / 10);
}

TEST_F(Trace, TheHeaderTellsTheCommand) {
    write({}, true);
    trace_error error{};
    trace_reader *reader = trace_reader_open(path.c_str(), &error);
    ASSERT_NE(reader, nullptr) << error.text;
    const trace_header *header = trace_reader_header(reader);
    EXPECT_EQ(header->version_major, unsigned(TRACE_VERSION_MAJOR));
    EXPECT_EQ(header->pid, 17u);
    EXPECT_EQ(header->page_size, 4096u);
    EXPECT_EQ(header->start_unix_us, 1234567890123456u);
    EXPECT_EQ(std::string(header->command, header->command_bytes),
              std::string("program\0an argument", 20));
    trace_reader_close(reader);
}

TEST_F(Trace, TotalsAreReadWithoutDisturbingTheStream) {
    Events events = random_trace(100000, 3);
    write(events, true);
    trace_error error{};
    trace_reader *reader = trace_reader_open(path.c_str(), &error);
    ASSERT_NE(reader, nullptr) << error.text;
    trace_totals totals;
    ASSERT_EQ(trace_reader_totals(reader, &totals, &error), 0) << error.text;
    EXPECT_EQ(totals.events, events.size());
    EXPECT_EQ(totals.allocations + totals.reallocations + totals.frees, events.size());
    EXPECT_EQ(totals.duration_us, events.back().time_us);
    EXPECT_EQ(totals.wait_status, 256u);
    trace_event found;
    size_t count = 0;
    while (trace_reader_next(reader, &found, &error) == 1)
        ASSERT_NO_FATAL_FAILURE(expect_same(events[count++], found));
    EXPECT_EQ(count, events.size());
    trace_reader_close(reader);
}

// --- Bad files.

TEST_F(Trace, EveryTruncationIsAnErrorThatNamesTheOffset) {
    for (bool compress : {false, true}) {
        Bytes whole = write(random_trace(200, 4), compress);
        for (size_t size = 0; size < whole.size(); size++) {
            Outcome outcome = read(Bytes(whole.begin(), whole.begin() + std::ptrdiff_t(size)));
            EXPECT_NE(outcome.error.find(": offset "), std::string::npos)
                << size << " bytes: " << outcome.error;
        }
    }
}

TEST_F(Trace, EventsBeforeTheCutAreRead) {
    Events events = random_trace(300000, 5);
    Bytes whole = write(events, true);
    whole.resize(whole.size() / 2);
    Outcome outcome = read(whole);
    EXPECT_NE(outcome.error, "");
    ASSERT_GT(outcome.events.size(), events.size() / 4);
    for (size_t i = 0; i < outcome.events.size(); i++)
        ASSERT_NO_FATAL_FAILURE(expect_same(events[i], outcome.events[i]));
}

TEST_F(Trace, EveryFlippedBitIsAnErrorThatNamesTheOffset) {
    for (bool compress : {false, true}) {
        Bytes whole = write(random_trace(100, 6), compress);
        for (size_t bit = 0; bit < 8 * whole.size(); bit++) {
            whole[bit / 8] ^= uint8_t(1 << bit % 8);
            Outcome outcome = read(whole);
            EXPECT_NE(outcome.error.find(": offset "), std::string::npos)
                << "bit " << bit << ": " << outcome.error;
            whole[bit / 8] ^= uint8_t(1 << bit % 8);
        }
    }
}

// With the checksum right, only the decoder stands between the bytes and the program.
TEST_F(Trace, RandomContentsBehindAGoodChecksumNeverCrash) {
    std::mt19937_64 random(7);
    Bytes empty = write({}, false);
    Bytes good = write(random_trace(300, 8), false);
    size_t start = header_size(good) + TRACE_FRAME_BYTES;
    size_t size = trace_get_u32(good.data() + header_size(good) + 8);
    const Bytes contents(good.begin() + std::ptrdiff_t(start),
                         good.begin() + std::ptrdiff_t(start + size));
    unsigned errors = 0;
    for (unsigned round = 0; round < 3000; round++) {
        Bytes mutated = contents;
        for (unsigned change = 0; change <= random() % 4; change++)
            mutated[random() % mutated.size()] = uint8_t(random());
        if (random() % 4 == 0)
            mutated.resize(random() % mutated.size());
        uint32_t count = random() % 4 == 0 ? uint32_t(random()) : 300;
        Outcome outcome = read(assemble(empty, {frame(TRACE_FRAME_EVENTS, 0, count, mutated)}));
        errors += !outcome.error.empty();
        EXPECT_TRUE(outcome.error.empty() || outcome.error.find(": offset ") != std::string::npos)
            << outcome.error;
    }
    EXPECT_GT(errors, 1000u);
}

// Contents that were good once, and have a good checksum still.
TEST_F(Trace, MutatedContentsNeverCrash) {
    Bytes empty = write({}, false);
    Bytes whole = write(trace_with_uses(), false);
    size_t start = header_size(whole) + TRACE_FRAME_BYTES;
    Bytes contents(whole.begin() + long(start),
                   whole.begin() + long(start + trace_get_u32(whole.data() + start - 24)));
    std::mt19937 random(5);
    size_t read_through = 0;
    for (int i = 0; i < 20000; i++) {
        Bytes mutated = contents;
        for (unsigned changes = 1 + random() % 3; changes > 0; changes--) {
            size_t at = random() % mutated.size();
            if (random() % 4 == 0)
                mutated.erase(mutated.begin() + long(at));
            else if (random() % 4 == 0)
                mutated.insert(mutated.begin() + long(at), uint8_t(random()));
            else
                mutated[at] = uint8_t(random() % 2 ? random() : mutated[at] ^ 1u << random() % 8);
        }
        Outcome outcome = read(assemble(
            empty, {frame(TRACE_FRAME_EVENTS, 0, uint32_t(trace_with_uses().size()), mutated)}));
        if (outcome.error.empty())
            read_through++;
        else
            EXPECT_NE(outcome.error.find("offset"), std::string::npos) << outcome.error;
    }
    EXPECT_GT(read_through, 0u);
}

TEST_F(Trace, CompressedGarbageBehindAGoodChecksumIsAnError) {
    Bytes empty = write({}, false);
    std::mt19937_64 random(9);
    for (unsigned round = 0; round < 300; round++) {
        Bytes contents(random() % 200);
        for (uint8_t &byte : contents)
            byte = uint8_t(random());
        Bytes bytes = frame(TRACE_FRAME_EVENTS, 0, 10, contents);
        bytes[5] = TRACE_ZSTD;
        trace_put_u32(bytes.data() + 12, uint32_t(random() % TRACE_FRAME_RAW_MAX));
        uint32_t crc = trace_crc32(0, bytes.data(), 28);
        trace_put_u32(bytes.data() + 28, trace_crc32(crc, contents.data(), contents.size()));
        EXPECT_NE(read(assemble(empty, {bytes})).error, "");
    }
}

TEST_F(Trace, AnotherMajorVersionIsRefusedByItsNumber) {
    Bytes trace = write(small_trace(), false);
    trace_put_u16(trace.data() + 8, 7);
    repair_header(trace);
    EXPECT_NE(read(trace).error.find("format version 7.2"), std::string::npos);
}

TEST_F(Trace, ALaterMinorVersionIsRead) {
    Bytes trace = write(small_trace(), false);
    trace_put_u16(trace.data() + 10, 9);
    repair_header(trace);
    Outcome outcome = read(trace);
    EXPECT_EQ(outcome.error, "");
    EXPECT_EQ(outcome.events.size(), small_trace().size());
}

TEST_F(Trace, WhatMayBeSkippedIsSkipped) {
    Bytes empty = write({}, false);
    // time 5; malloc block 0 of 9 bytes; an unknown event of 3 bytes; free block 0.
    Bytes contents = {5,    TRACE_MALLOC, 0,          9, TRACE_OP_SKIPPABLE + 30, 3, 0xff,
                      0xff, 0xff,         TRACE_FREE, 0};
    Outcome outcome = read(assemble(empty, {frame(TRACE_FRAME_SKIPPABLE | 5, 0, 0, {1, 2, 3}),
                                            frame(TRACE_FRAME_EVENTS, 0, 3, contents)}));
    EXPECT_EQ(outcome.error, "");
    ASSERT_EQ(outcome.events.size(), 2u);
    expect_same(event(TRACE_MALLOC, 0, 9, 0, 5), outcome.events[0]);
    expect_same(event(TRACE_FREE, 0, 0, 0, 5), outcome.events[1]);
}

TEST_F(Trace, WhatIsUnknownAndMayNotBeSkippedIsAnError) {
    Bytes empty = write({}, false);
    EXPECT_NE(read(assemble(empty, {frame(TRACE_FRAME_EVENTS, 0, 1, {0, 17, 0})})).error, "");
    EXPECT_NE(read(assemble(empty, {frame(9, 0, 0, {})})).error.find("type 9"), std::string::npos);
}

TEST_F(Trace, AMissingFrameIsNoticed) {
    Bytes empty = write({}, false);
    Bytes contents = {0, TRACE_MALLOC, 0, 9};
    EXPECT_EQ(read(assemble(empty, {frame(TRACE_FRAME_EVENTS, 0, 1, contents)})).error, "");
    EXPECT_NE(read(assemble(empty, {frame(TRACE_FRAME_EVENTS, 1, 1, contents)})).error, "");
}

TEST_F(Trace, TimeThatGoesBackwardsIsAnError) {
    Bytes empty = write({}, false);
    Outcome outcome =
        read(assemble(empty, {frame(TRACE_FRAME_EVENTS, 0, 1, {9, TRACE_MALLOC, 0, 9}),
                              frame(TRACE_FRAME_EVENTS, 1, 1, {8, TRACE_FREE, 0})}));
    EXPECT_NE(outcome.error.find("backwards"), std::string::npos) << outcome.error;
}

TEST_F(Trace, SomethingAfterTheTrailerIsAnError) {
    Bytes trace = write(small_trace(), true);
    trace.push_back(0);
    EXPECT_NE(read(trace).error.find("after the trailer"), std::string::npos);
}

TEST_F(Trace, AMissingFileAndAnotherKindOfFileAreErrors) {
    trace_error error{};
    EXPECT_EQ(trace_reader_open("/nonexistent/trace", &error), nullptr);
    EXPECT_NE(std::string(error.text).find("/nonexistent/trace"), std::string::npos);
    Outcome outcome = read(Bytes(1000, 'x'));
    EXPECT_NE(outcome.error.find("wrong magic"), std::string::npos) << outcome.error;
}

TEST_F(Trace, AFullDiskIsAnErrorThatNamesTheOffset) {
    trace_error error{};
    trace_header header{};
    int descriptor = open("/dev/full", O_WRONLY);
    ASSERT_GE(descriptor, 0);
    EXPECT_EQ(trace_writer_create(descriptor, "full", &header, 0, &error), nullptr);
    EXPECT_EQ(std::string(error.text), "full: cannot write at offset 0: No space left on device");
}

} // namespace
