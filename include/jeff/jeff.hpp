/* Jeff for C++17: an owner for a handle, guards for locks and read sections. Header only, on top of
 * <jeff/jeff.h>; what that says about threads, moves and misuse holds here too.
 *
 * Blocks are moved by copying their bytes, so what is kept in them must be trivially copyable. When there
 * is no memory, std::bad_alloc is thrown. A purged block gives an empty guard, never an exception.
 */
#ifndef JEFF_JEFF_HPP
#define JEFF_JEFF_HPP

#include <jeff/jeff.h>

#include <cerrno>
#include <cstddef>
#include <limits>
#include <new>
#include <system_error>
#include <type_traits>
#include <utility>

namespace jeff {

/* A lock on a block, seen as elements of T; unlocks at its end. Move-only. Empty (false) after a move
 * out of it, and when the block was purged or, from try_lock, could not be locked at once. */
template <class T> class locked {
    static_assert(std::is_trivially_copyable_v<T>, "blocks are moved by copying their bytes");

  public:
    locked() noexcept = default;

    /* Takes over a lock that the caller holds: `address` is what rmlock gave, may be nullptr. */
    locked(rmhandle_t handle, void *address) noexcept
        : handle_(handle), address_(static_cast<T *>(address)) {}

    locked(locked &&other) noexcept
        : handle_(std::exchange(other.handle_, nullptr)),
          address_(std::exchange(other.address_, nullptr)) {}

    locked &operator=(locked &&other) noexcept {
        if (this != &other) {
            unlock();
            handle_ = std::exchange(other.handle_, nullptr);
            address_ = std::exchange(other.address_, nullptr);
        }
        return *this;
    }

    locked(const locked &) = delete;
    locked &operator=(const locked &) = delete;

    ~locked() {
        unlock();
    }

    explicit operator bool() const noexcept {
        return address_ != nullptr;
    }
    T *get() const noexcept {
        return address_;
    }
    T &operator*() const noexcept {
        return *address_;
    }
    T *operator->() const noexcept {
        return address_;
    }
    T &operator[](std::size_t index) const noexcept {
        return address_[index];
    }

    /* Whole elements in the block. */
    std::size_t size() const noexcept {
        return address_ ? rmsize(handle_) / sizeof(T) : 0;
    }
    T *begin() const noexcept {
        return address_;
    }
    T *end() const noexcept {
        return address_ + size();
    }

    /* Before its time. No-op on an empty one. */
    void unlock() noexcept {
        if (address_ != nullptr)
            rmunlock(handle_);
        handle_ = nullptr;
        address_ = nullptr;
    }

  private:
    rmhandle_t handle_ = nullptr;
    T *address_ = nullptr;
};

/* Owns one block and frees it at its end. Move-only. The block must not be locked then. */
class handle {
  public:
    handle() noexcept = default;

    /* A block of `size` bytes in `heap` (nullptr: the default heap). Throws std::bad_alloc. */
    explicit handle(std::size_t size, rmheap_t heap = nullptr)
        : handle_(require(rmheap_malloc(heap, size))) {}

    /* A block of `size` bytes that stays aligned to `alignment`. Throws std::bad_alloc, also for an
     * alignment that rmaligned_alloc refuses. */
    handle(std::size_t size, std::align_val_t alignment, rmheap_t heap = nullptr)
        : handle_(require(rmheap_aligned_alloc(heap, static_cast<std::size_t>(alignment), size))) {}

    handle(handle &&other) noexcept : handle_(other.release()) {}

    handle &operator=(handle &&other) noexcept {
        if (this != &other)
            reset(other.release());
        return *this;
    }

    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;

    ~handle() {
        rmfree(handle_);
    }

    /* A block for `count` elements of T, contents undefined. Throws std::bad_alloc. */
    template <class T> static handle of(std::size_t count, rmheap_t heap = nullptr) {
        static_assert(std::is_trivially_copyable_v<T>, "blocks are moved by copying their bytes");
        if (count > std::numeric_limits<std::size_t>::max() / sizeof(T))
            throw std::bad_alloc();
        if constexpr (alignof(T) > 16)
            return handle(count * sizeof(T), std::align_val_t{alignof(T)}, heap);
        else
            return handle(count * sizeof(T), heap);
    }

    /* Takes over a block that the caller owns; may be nullptr. */
    static handle adopt(rmhandle_t block) noexcept {
        handle owner;
        owner.handle_ = block;
        return owner;
    }

    rmhandle_t get() const noexcept {
        return handle_;
    }
    explicit operator bool() const noexcept {
        return handle_ != nullptr;
    }

    /* Gives the block to the caller. */
    rmhandle_t release() noexcept {
        return std::exchange(handle_, nullptr);
    }

    /* Frees the block and takes over another. */
    void reset(rmhandle_t block = nullptr) noexcept {
        rmfree(std::exchange(handle_, block));
    }

    void swap(handle &other) noexcept {
        std::swap(handle_, other.handle_);
    }

    /* Bytes usable; 0 when purged. */
    std::size_t size() const noexcept {
        return rmsize(handle_);
    }

    /* As rmrealloc; the block is untouched when this throws: std::bad_alloc when there is no memory,
     * std::system_error with EBUSY when it is locked and would have to move. */
    void resize(std::size_t size) {
        if (rmrealloc(handle_, size) == 0)
            return;
        if (errno == EBUSY)
            throw std::system_error(EBUSY, std::generic_category(), "jeff::handle::resize");
        throw std::bad_alloc();
    }

    /* As rmpurgeable: true when the block is empty already. */
    bool purgeable(int priority) noexcept {
        return rmpurgeable(handle_, priority) == 1;
    }

    template <class T = std::byte> locked<T> lock() const noexcept {
        return locked<T>(handle_, rmlock(handle_));
    }

    template <class T = std::byte> locked<T> try_lock() const noexcept {
        return locked<T>(handle_, rmtrylock(handle_));
    }

    template <class T = std::byte> locked<T> lock_long() const noexcept {
        return locked<T>(handle_, rmlock_long(handle_));
    }

  private:
    static rmhandle_t require(rmhandle_t block) {
        if (block == nullptr)
            throw std::bad_alloc();
        return block;
    }

    rmhandle_t handle_ = nullptr;
};

inline void swap(handle &first, handle &second) noexcept {
    first.swap(second);
}

/* A read section of the calling thread, open as long as this lives. Belongs to the thread that made it. */
class read_section {
  public:
    read_section() noexcept {
        rmread_begin();
    }
    ~read_section() {
        rmread_end();
    }
    read_section(const read_section &) = delete;
    read_section &operator=(const read_section &) = delete;

    /* The block's address, good until the section ends; nullptr when purged. */
    template <class T = std::byte> const T *deref(rmhandle_t block) const noexcept {
        static_assert(std::is_trivially_copyable_v<T>, "blocks are moved by copying their bytes");
        return static_cast<const T *>(rmderef(block));
    }

    template <class T = std::byte> const T *deref(const handle &block) const noexcept {
        return deref<T>(block.get());
    }
};

} // namespace jeff

#endif
