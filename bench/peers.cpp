/* Opening Debian's allocators beside the C library's. */
#include "peers.h"

#include <cstdlib>
#include <dlfcn.h>

namespace bench {

static const Peer peers[] = {
    {"glibc", nullptr},
    {"jemalloc", "libjemalloc.so.2"},
    {"mimalloc", "libmimalloc.so.2"},
    {"tcmalloc", "libtcmalloc_minimal.so.4"},
};

/* The library calls its own functions, not those of the same name that were there before. */
static void *open_library(const Peer &peer) {
    return dlopen(peer.library, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
}

std::vector<Peer> installed_peers() {
    std::vector<Peer> found;
    for (const Peer &peer : peers) {
        Values values = run_in_child([&] {
            bool there = peer.library == nullptr || open_library(peer) != nullptr;
            return Values{{"there", there ? 1.0 : 0.0}};
        });
        if (values["there"] != 0)
            found.push_back(peer);
    }
    return found;
}

MallocStore open_peer(const Peer &peer) {
    MallocStore store;
    if (peer.library == nullptr) {
        store.malloc = malloc;
        store.free = free;
        store.realloc = realloc;
        return store;
    }
    void *library = open_library(peer);
    if (library == nullptr)
        throw std::runtime_error(dlerror());
    store.malloc = reinterpret_cast<void *(*)(size_t)>(dlsym(library, "malloc"));
    store.free = reinterpret_cast<void (*)(void *)>(dlsym(library, "free"));
    store.realloc = reinterpret_cast<void *(*)(void *, size_t)>(dlsym(library, "realloc"));
    if (store.malloc == nullptr || store.free == nullptr || store.realloc == nullptr)
        throw std::runtime_error(std::string(peer.library) + " has no malloc");
    return store;
}

} // namespace bench
