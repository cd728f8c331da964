/* Jeff's arrays for C++17: an owner with the type of its elements. Header only, on top of <jeff/array.h>; what
 * that says about growing, locks, threads and misuse holds here too.
 *
 * Elements are moved by copying their bytes, so they must be trivially copyable. Failures are exceptions:
 * std::bad_alloc when there is no memory, std::out_of_range for an index beyond the length,
 * std::system_error with EBUSY when the array is locked and would have to get more capacity.
 */
#ifndef JEFF_ARRAY_HPP
#define JEFF_ARRAY_HPP

#include <jeff/array.h>
#include <jeff/jeff.hpp>

#include <stdexcept>

namespace jeff {

/* Throws what errno says about a failed call. */
[[noreturn]] inline void throw_array_error(const char *call) {
    if (errno == ENOMEM)
        throw std::bad_alloc();
    if (errno == EINVAL)
        throw std::out_of_range(call);
    throw std::system_error(errno, std::generic_category(), call);
}

/* The elements under lock, as many as there were when it was locked; unlocks at its end. */
template <class T> class array_view {
  public:
    array_view(rmarray_t array, T *first, std::size_t length) noexcept
        : lock_(rmarray_handle(array), const_cast<std::remove_const_t<T> *>(first)),
          length_(first != nullptr ? length : 0) {}

    explicit operator bool() const noexcept {
        return static_cast<bool>(lock_);
    }
    T *data() const noexcept {
        return lock_.get();
    }
    std::size_t size() const noexcept {
        return length_;
    }
    T &operator[](std::size_t index) const noexcept {
        return lock_[index];
    }
    T *begin() const noexcept {
        return data();
    }
    T *end() const noexcept {
        return data() + length_;
    }

  private:
    locked<T> lock_;
    std::size_t length_;
};

/* Owns one array and destroys it at its end. Move-only; copy() says what it does. */
template <class T> class array {
    static_assert(std::is_trivially_copyable_v<T>, "elements are moved by copying their bytes");

  public:
    /* An empty array in `heap` (nullptr: the default heap); aligned for T at least. */
    explicit array(rmheap_t heap = nullptr, const rm_array_options *options = nullptr) {
        rm_array_options own;
        rmarray_options_init(&own);
        if (options != nullptr)
            own = *options;
        if (own.alignment < alignof(T))
            own.alignment = alignof(T);
        array_ = rmarray_create(heap, sizeof(T), &own);
        if (array_ == nullptr)
            throw_array_error("jeff::array");
    }

    array(array &&other) noexcept : array_(other.release()) {}

    array &operator=(array &&other) noexcept {
        if (this != &other) {
            rmarray_destroy(array_);
            array_ = other.release();
        }
        return *this;
    }

    array(const array &) = delete;
    array &operator=(const array &) = delete;

    ~array() {
        rmarray_destroy(array_);
    }

    /* Takes over an array of elements of T that the caller owns. */
    static array adopt(rmarray_t from) noexcept {
        return array(from);
    }

    array copy() const {
        rmarray_t made = rmarray_copy(array_);
        if (made == nullptr)
            throw_array_error("jeff::array::copy");
        return array(made);
    }

    rmarray_t get() const noexcept {
        return array_;
    }
    rmarray_t release() noexcept {
        return std::exchange(array_, nullptr);
    }

    std::size_t size() const noexcept {
        return rmarray_length(array_);
    }
    std::size_t capacity() const noexcept {
        return rmarray_capacity(array_);
    }
    bool empty() const noexcept {
        return size() == 0;
    }
    void reserve(std::size_t count) {
        require(rmarray_reserve(array_, count));
    }
    void resize(std::size_t length) {
        require(rmarray_resize(array_, length));
    }
    void shrink_to_fit() {
        require(rmarray_shrink(array_));
    }
    void clear() {
        require(rmarray_clear(array_));
    }

    T at(std::size_t index) const {
        T value;
        require(rmarray_get(array_, index, &value));
        return value;
    }
    void set(std::size_t index, const T &value) {
        require(rmarray_set(array_, index, &value));
    }
    void push_back(const T &value) {
        require(rmarray_push(array_, &value));
    }
    T pop_back() {
        T value;
        require(rmarray_pop(array_, &value));
        return value;
    }
    void insert(std::size_t index, const T *values, std::size_t count) {
        require(rmarray_insert(array_, index, values, count));
    }
    void append(const T *values, std::size_t count) {
        require(rmarray_append(array_, values, count));
    }
    void append(const array &from) {
        require(rmarray_concat(array_, from.array_));
    }
    void erase(std::size_t index, std::size_t count = 1) {
        require(rmarray_remove(array_, index, count));
    }
    void erase_swap(std::size_t index) {
        require(rmarray_remove_swap(array_, index));
    }

    array_view<T> lock() {
        return array_view<T>(array_, static_cast<T *>(rmarray_lock(array_)), size());
    }
    array_view<const T> lock() const {
        return array_view<const T>(array_, static_cast<const T *>(rmarray_lock(array_)), size());
    }

    /* A burst of appends under one lock. The array must not be used otherwise while it lives. */
    class appender {
      public:
        explicit appender(array &to) {
            if (rmarray_append_begin(&cursor_, to.array_, sizeof(T)) != 0)
                throw_array_error("jeff::array::appender");
        }
        ~appender() {
            rmarray_append_end(&cursor_);
        }
        appender(const appender &) = delete;
        appender &operator=(const appender &) = delete;
        void push_back(const T &value) {
            if (!RM_LIKELY(cursor_.next != cursor_.end) && rmarray_append_more(&cursor_) != 0)
                throw_array_error("jeff::array::appender");
            *reinterpret_cast<T *>(cursor_.next) = value;
            cursor_.next += sizeof(T);
        }

      private:
        rm_array_cursor cursor_;
    };

  private:
    explicit array(rmarray_t from) noexcept : array_(from) {}

    static void require(int result) {
        if (result != 0)
            throw_array_error("jeff::array");
    }

    rmarray_t array_ = nullptr;
};

} // namespace jeff

#endif
