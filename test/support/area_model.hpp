// A random program on areas of malloc, beside what each shall hold.
#pragma once

#include <gtest/gtest.h>

#include <jeff/malloc.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace support {

inline std::string area_contents(const void *area) {
    return std::string(static_cast<const char *>(area), jeff_area_length(area));
}

// A few areas and what they hold.
struct AreaModel {
    std::mt19937 random;
    std::vector<void *> areas;
    std::vector<std::string> texts;
    bool may_refuse = false;

    explicit AreaModel(unsigned seed) : random(seed), areas(20), texts(20) {}
    ~AreaModel() {
        for (void *area : areas)
            jeff_free(area);
    }
    size_t below(size_t count) {
        return random() % count;
    }
    size_t any_count() {
        static const size_t most[] = {3, 20, 200, 3000, 40000, 300000};
        return below(most[below(below(8) == 0 ? 6 : 4)]);
    }
    // Takes over what a call has returned. False: refused.
    bool keep(size_t which, void *result) {
        if (result == nullptr && may_refuse)
            return false;
        EXPECT_NE(nullptr, result);
        areas[which] = result;
        return true;
    }
    void check(size_t which) const {
        ASSERT_EQ(texts[which].size(), jeff_area_length(areas[which]));
        ASSERT_TRUE(texts[which] == area_contents(areas[which]));
        ASSERT_GE(jeff_area_capacity(areas[which]), texts[which].size());
    }
    void start_anew(size_t which) {
        jeff_free(areas[which]);
        areas[which] = nullptr;
        texts[which].clear();
        if (below(2) == 0 && keep(which, jeff_malloc(any_count()))) {
            texts[which].assign(jeff_malloc_usable_size(areas[which]), 'm');
            std::memset(areas[which], 'm', texts[which].size());
        }
    }
    void step() {
        size_t which = below(areas.size());
        void *area = areas[which];
        std::string &text = texts[which];
        std::string piece(any_count(), static_cast<char>('a' + below(26)));
        size_t at = below(text.size() + 1);
        size_t count = below(text.size() - at + 1);
        switch (below(9)) {
        case 0:
            start_anew(which);
            break;
        case 1:
        case 2:
            if (keep(which, jeff_area_append(area, piece.data(), piece.size())))
                text += piece;
            break;
        case 3:
            if (keep(which, jeff_area_insert(area, at, piece.data(), piece.size())))
                text.insert(at, piece);
            break;
        case 4:
            if (keep(which, jeff_area_remove(area, at, count)))
                text.erase(at, count);
            break;
        case 5:
            if (keep(which, jeff_area_resize(area, at)))
                text.resize(at);
            break;
        case 6:
            keep(which, jeff_area_reserve(area, piece.size()));
            break;
        case 7:
            if (area != nullptr)
                keep(which, jeff_area_shrink(area));
            break;
        default:
            grow_by_resize(which, piece);
        }
        check(which);
    }
    void grow_by_resize(size_t which, const std::string &piece) {
        size_t old = texts[which].size();
        if (!keep(which, jeff_area_resize(areas[which], old + piece.size())))
            return;
        if (!piece.empty())
            std::memcpy(static_cast<char *>(areas[which]) + old, piece.data(), piece.size());
        texts[which] += piece;
    }
};

} // namespace support
