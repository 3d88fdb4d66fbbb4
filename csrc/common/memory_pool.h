// Memory of outputs that were freed, kept for the next ones.
//
// A C library returns large blocks to the system at once, and every page of a new one then costs a
// fault: more than a small network's kernels take to fill it.
#pragma once

#include <cstddef>

namespace lmwp {

// At least `bytes` of memory aligned to cache lines, from the pool or the C library. Throws
// std::bad_alloc. Thread-safe.
void* take_memory(std::size_t bytes);

// Returns what take_memory gave for as many bytes. The pool keeps at most LMWP_OPS_POOL_MB
// (default 256) and lets the oldest go first.
void give_memory(void* memory, std::size_t bytes) noexcept;

}  // namespace lmwp
