/* The allocators that Jeff is compared with, opened at run time. */
#ifndef JEFF_BENCH_PEERS_H
#define JEFF_BENCH_PEERS_H

#include "workloads.h"

#include <string>
#include <vector>

namespace bench {

struct Peer {
    const char *name;
    const char *library; /* NULL: the C library's */
};

/* Those that this machine has, glibc first. */
std::vector<Peer> installed_peers();

/* Opens it in this process, for this process only; to be done in a child that does nothing else. Throws
 * std::runtime_error. */
MallocStore open_peer(const Peer &peer);

} // namespace bench

#endif
