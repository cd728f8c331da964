// Heaps of both profiles for tests that look inside.
#ifndef JEFF_TEST_SUPPORT_HEAPS_HPP
#define JEFF_TEST_SUPPORT_HEAPS_HPP

#include <gtest/gtest.h>

#include <vector>

#include <jeff/jeff.h>

extern "C" {
#include "check/check.h"
#include "heap/fixed.h"
#include "heap/region.h"
}

namespace support {

class Heap {
  public:
    explicit Heap(rmheap_t handle) : handle_(handle) {
        EXPECT_NE(handle, nullptr);
    }
    ~Heap() {
        rmheap_destroy(handle_);
    }
    Heap(const Heap &) = delete;
    Heap &operator=(const Heap &) = delete;

    operator rmheap_t() const {
        return handle_;
    }
    jf_heap *get() const {
        return reinterpret_cast<jf_heap *>(handle_);
    }
    jf_grow &grow() const {
        return get()->u.grow;
    }
    jf_fixed &fixed() const {
        return get()->u.fixed_part;
    }
    jf_window *window() const {
        return get()->u.grow.window;
    }

    static uint32_t index_of(const jf_heap *heap, rmhandle_t handle) {
        return jf_handle_index(heap->space, handle);
    }
    jf_word *entry(rmhandle_t handle) const {
        return jf_space_entry(get()->space, index_of(get(), handle));
    }
    uintptr_t payload(rmhandle_t handle) const {
        return jf_space_address(get()->space, jf_word_load(entry(handle)));
    }
    jf_word *header(rmhandle_t handle) const {
        return reinterpret_cast<jf_word *>(payload(handle) - JF_HEADER_SIZE);
    }
    jf_region *region(rmhandle_t handle) const {
        return static_cast<jf_region *>(jf_arena_owner(window()->arena, payload(handle)));
    }
    jf_large *large(rmhandle_t handle) const {
        return jf_grow_large_at(window(), payload(handle));
    }

    // Number of the first broken rule, its details in `fault`.
    int check() {
        return jf_check(get(), &fault);
    }

    struct rm_fault fault = {};

  private:
    rmheap_t handle_;
};

class GrowingHeap : public Heap {
  public:
    explicit GrowingHeap(const struct rm_options *options = nullptr)
        : Heap(rmheap_create(options)) {}
};

class FixedBuffer {
  protected:
    explicit FixedBuffer(size_t size) : buffer_(size) {}
    std::vector<char> buffer_;
};

class FixedHeap : private FixedBuffer, public Heap {
  public:
    explicit FixedHeap(size_t size, const struct rm_options *options = nullptr)
        : FixedBuffer(size), Heap(rmheap_create_in(buffer_.data(), size, options)) {}
};

} // namespace support

#endif
