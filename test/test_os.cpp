// The boundary to the system, hosted half: what base/os.h promises the layers above.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

extern "C" {
#include "base/bits.h"
#include "base/os.h"
}

namespace {

constexpr size_t mib = size_t{1} << 20;

// A reservation that is given back at the end of the test.
struct Range {
    Range(size_t bytes_wanted, size_t alignment)
        : address(jf_os_reserve(bytes_wanted, alignment)), size(bytes_wanted) {}
    ~Range() {
        if (address != 0) {
            jf_os_release(address, size);
        }
    }
    Range(const Range &) = delete;
    Range &operator=(const Range &) = delete;

    char *bytes() const {
        return reinterpret_cast<char *>(address);
    }

    uintptr_t address;
    size_t size;
};

// What a function writes to standard error.
template <typename Function> std::string standard_error_of(Function function) {
    testing::internal::CaptureStderr();
    function();
    return testing::internal::GetCapturedStderr();
}

} // namespace

TEST(Os, PageSizeIsAPowerOfTwo) {
    EXPECT_TRUE(jf_bits_is_power_of_two(jf_os_page_size()));
    EXPECT_GE(jf_os_page_size(), 4096u);
}

TEST(Os, ReservationsAreAlignedAsAsked) {
    for (unsigned shift = 16; shift <= 33; shift++) {
        size_t size = size_t{1} << shift;
        Range range(size, size);
        ASSERT_NE(range.address, 0u) << shift;
        EXPECT_EQ(range.address & (size - 1), 0u) << shift;
    }
    Range small_and_far(64 * 1024, size_t{1} << 32);
    ASSERT_NE(small_and_far.address, 0u);
    EXPECT_EQ(small_and_far.address & ((size_t{1} << 32) - 1), 0u);
}

TEST(Os, ImpossibleReservationIsRefused) {
    errno = 7;
    EXPECT_EQ(jf_os_reserve(size_t{1} << 62, size_t{1} << 62), 0u);
    EXPECT_EQ(errno, 7);
}

TEST(Os, AccessibleMemoryReadsAsZeroAndKeepsWhatIsWritten) {
    Range range(4 * mib, mib);
    ASSERT_TRUE(jf_os_make_accessible(range.address + mib, mib));
    for (size_t i = 0; i < mib; i++) {
        ASSERT_EQ(range.bytes()[mib + i], 0);
    }
    std::memset(range.bytes() + mib, 0x5a, mib);
    ASSERT_TRUE(jf_os_make_accessible(range.address, 4 * mib));
    EXPECT_EQ(range.bytes()[2 * mib - 1], 0x5a);
    EXPECT_EQ(range.bytes()[2 * mib], 0);
}

TEST(OsDeathTest, ReservedMemoryIsNotAccessible) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_DEATH(
        {
            Range range(mib, mib);
            *static_cast<volatile char *>(range.bytes()) = 1;
        },
        "");
}

TEST(Os, MemoryGivenBackIsGoneAndReadsAsZero) {
    Range range(16 * mib, mib);
    ASSERT_TRUE(jf_os_make_accessible(range.address, range.size));
    EXPECT_EQ(jf_os_resident(range.address, range.size), 0u);
    std::memset(range.bytes(), 1, range.size);
    EXPECT_EQ(jf_os_resident(range.address, range.size), range.size);
    errno = 7;
    jf_os_give_back(range.address + 4 * mib, 8 * mib);
    EXPECT_EQ(errno, 7);
    EXPECT_EQ(jf_os_resident(range.address, range.size), 8 * mib);
    EXPECT_EQ(range.bytes()[4 * mib - 1], 1);
    EXPECT_EQ(range.bytes()[4 * mib], 0);
    EXPECT_EQ(range.bytes()[12 * mib - 1], 0);
    EXPECT_EQ(range.bytes()[12 * mib], 1);
}

TEST(Os, MemoryMovesWithItsPages) {
    Range range(64 * mib, mib);
    ASSERT_TRUE(jf_os_make_accessible(range.address, 64 * mib));
    memset(range.bytes(), 1, 8 * mib);
    memset(range.bytes() + 32 * mib, 2, 8 * mib);
    errno = 7;
    if (!jf_os_move(range.address, range.address + 32 * mib, 8 * mib)) {
        EXPECT_EQ(range.bytes()[8 * mib - 1], 1);
        GTEST_SKIP() << "the system cannot";
    }
    EXPECT_EQ(errno, 7);
    EXPECT_EQ(jf_os_resident(range.address, 32 * mib), 0u);
    EXPECT_EQ(std::count(range.bytes(), range.bytes() + 8 * mib, 0), std::ptrdiff_t{8 * mib});
    EXPECT_EQ(std::count(range.bytes() + 32 * mib, range.bytes() + 40 * mib, 1),
              std::ptrdiff_t{8 * mib});
    range.bytes()[0] = range.bytes()[40 * mib - 1] = 3;
}

TEST(Os, MoveThatIsRefusedLeavesBothAccessible) {
    Range range(4 * mib, mib);
    ASSERT_TRUE(jf_os_make_accessible(range.address, 4 * mib));
    range.bytes()[0] = range.bytes()[2 * mib] = 1;
    errno = 7;
    EXPECT_FALSE(jf_os_move(range.address, range.address + mib, 2 * mib)) << "they overlap";
    EXPECT_EQ(errno, 7);
    EXPECT_EQ(range.bytes()[0], 1);
    range.bytes()[3 * mib - 1] = 1;
}

TEST(Os, PopulatedMemoryReadsAsZeroAndGoesBackInParts) {
    Range range(16 * mib, JF_OS_HUGE);
    ASSERT_TRUE(jf_os_make_accessible(range.address, 16 * mib));
    errno = 7;
    jf_os_populate(range.address + 4096, 6 * mib);
    EXPECT_EQ(errno, 7);
    EXPECT_LE(jf_os_resident(range.address, 16 * mib), 6 * mib);
    EXPECT_EQ(std::count(range.bytes(), range.bytes() + 8 * mib, 0), std::ptrdiff_t{8 * mib});
    memset(range.bytes(), 1, 8 * mib);
    jf_os_give_back(range.address + 2 * mib + 4096, 4 * mib);
    EXPECT_EQ(jf_os_resident(range.address, 16 * mib), 4 * mib);
    EXPECT_EQ(range.bytes()[2 * mib + 4095], 1);
    EXPECT_EQ(range.bytes()[2 * mib + 4096], 0);
}

TEST(Os, OneByteHoldsOnePage) {
    Range range(8 * mib, 4 * mib);
    ASSERT_TRUE(jf_os_make_accessible(range.address, range.size));
    range.bytes()[5 * mib + 17] = 1;
    EXPECT_EQ(jf_os_resident(range.address, range.size), jf_os_page_size());
}

TEST(Os, RefusedAccessLeavesErrnoAlone) {
    Range range(mib, mib);
    uintptr_t gone = range.address;
    jf_os_release(range.address, range.size);
    range.address = 0;
    errno = 7;
    EXPECT_FALSE(jf_os_make_accessible(gone, mib));
    EXPECT_EQ(errno, 7);
}

TEST(Os, ClockDoesNotGoBack) {
    uint64_t before = jf_os_clock_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t now = jf_os_clock_ns();
        ASSERT_GE(now, before);
        before = now;
    }
    EXPECT_GT(before, 0u);
}

TEST(Os, MutexKeepsOthersOut) {
    jf_mutex mutex;
    jf_os_mutex_init(&mutex);
    long count = 0;
    auto add = [&] {
        for (int i = 0; i < 20000; i++) {
            jf_os_mutex_lock(&mutex);
            count++;
            jf_os_mutex_unlock(&mutex);
        }
    };
    std::thread first(add);
    std::thread second(add);
    first.join();
    second.join();
    EXPECT_EQ(count, 40000);

    jf_os_mutex_lock(&mutex);
    bool taken = true;
    std::thread([&] { taken = jf_os_mutex_trylock(&mutex); }).join();
    EXPECT_FALSE(taken);
    jf_os_mutex_unlock(&mutex);
    ASSERT_TRUE(jf_os_mutex_trylock(&mutex));
    jf_os_mutex_unlock(&mutex);
    jf_os_mutex_finish(&mutex);
}

TEST(Os, FenceLeavesErrnoAlone) {
    errno = 7;
    if (jf_os_fence_prepare()) {
        EXPECT_TRUE(jf_os_fence_prepare());
        jf_os_fence_all();
    }
    jf_os_yield();
    EXPECT_EQ(errno, 7);
}

TEST(Os, RandomNumbersDiffer) {
    EXPECT_NE(jf_os_random(), jf_os_random());
}

TEST(Os, EnvironmentIsRead) {
    setenv("JEFF_TEST_OF_OS", "value", 1);
    ASSERT_NE(jf_os_environment("JEFF_TEST_OF_OS"), nullptr);
    EXPECT_STREQ(jf_os_environment("JEFF_TEST_OF_OS"), "value");
    unsetenv("JEFF_TEST_OF_OS");
    EXPECT_EQ(jf_os_environment("JEFF_TEST_OF_OS"), nullptr);
}

TEST(Os, LinesAreWrittenWhole) {
    EXPECT_EQ(standard_error_of([] { jf_os_print_line("one line"); }), "one line\n");
    EXPECT_EQ(standard_error_of([] { jf_os_print_line(""); }), "\n");
    std::string longer(200000, 'x');
    EXPECT_EQ(standard_error_of([&] { jf_os_print_line(longer.c_str()); }), longer + "\n");
}

TEST(Os, LineGoesThroughANonBlockingPipeInParts) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    ASSERT_EQ(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    std::string longer(300000, 'y');
    std::string got;
    std::thread reader([&] {
        char buffer[1000];
        for (ssize_t count; (count = read(ends[0], buffer, sizeof buffer)) > 0;) {
            got.append(buffer, static_cast<size_t>(count));
        }
    });
    int saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    errno = 7;
    jf_os_print_line(longer.c_str());
    int error = errno;
    dup2(saved, STDERR_FILENO);
    close(saved);
    reader.join();
    close(ends[0]);
    EXPECT_EQ(got, longer + "\n");
    EXPECT_EQ(error, 7);
}

TEST(Os, ClosedStandardErrorIsNoTrouble) {
    int saved = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    errno = 7;
    jf_os_print_line("nobody reads this");
    int error = errno;
    dup2(saved, STDERR_FILENO);
    close(saved);
    EXPECT_EQ(error, 7);
}

TEST(OsDeathTest, AbortRaisesSigabrt) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(jf_os_abort(), testing::KilledBySignal(SIGABRT), "");
}

TEST(Os, ErrorNumbersAreTheSystems) {
    jf_os_set_errno(JF_OS_ENOMEM);
    EXPECT_EQ(errno, ENOMEM);
    jf_os_set_errno(JF_OS_EINVAL);
    EXPECT_EQ(errno, EINVAL);
    jf_os_set_errno(JF_OS_EBUSY);
    EXPECT_EQ(errno, EBUSY);
    int saved = jf_os_save_errno();
    errno = 0;
    jf_os_restore_errno(saved);
    EXPECT_EQ(errno, EBUSY);
}

TEST(Os, LockedMemoryGivenBackStillReadsAsZero) {
    Range range(64 * 1024, 64 * 1024);
    ASSERT_TRUE(jf_os_make_accessible(range.address, range.size));
    std::memset(range.bytes(), 1, range.size);
    if (mlock(range.bytes(), range.size) != 0) {
        GTEST_SKIP() << "the system locks no memory for this user";
    }
    jf_os_give_back(range.address, range.size);
    for (size_t i = 0; i < range.size; i++) {
        ASSERT_EQ(range.bytes()[i], 0);
    }
    munlock(range.bytes(), range.size);
}
