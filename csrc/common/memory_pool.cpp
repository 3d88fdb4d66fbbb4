#include "common/memory_pool.h"

#include <cstdlib>
#include <deque>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lmwp {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

struct Block {
  void* memory;
  std::size_t bytes;
};

std::size_t limit() {
  const char* megabytes = std::getenv("LMWP_OPS_POOL_MB");
  return (megabytes ? std::strtoull(megabytes, nullptr, 10) : 256) << 20;
}

// Never destroyed: tensors may outlive everything else of this library.
struct Pool {
  std::mutex mutex;
  std::deque<Block> blocks;  // oldest first
  std::size_t bytes = 0;
  const std::size_t most = limit();
};

Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

std::size_t rounded(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Memory of the C library; where it can, large blocks are of huge pages, each a single fault.
void* allocate(std::size_t bytes) {
  const bool large = bytes >= kHugePage;
  void* const memory = std::aligned_alloc(large ? kHugePage : kAlignment, bytes);
  if (memory == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (large) madvise(memory, bytes, MADV_HUGEPAGE);  // a failure costs nothing but time
#endif
  return memory;
}

}  // namespace

void* take_memory(std::size_t bytes) {
  bytes = rounded(bytes);
  Pool& kept = pool();
  // Whoever finds the pool busy goes to the C library; so no one waits, not even after a fork.
  if (const std::unique_lock lock(kept.mutex, std::try_to_lock); lock) {
    for (auto block = kept.blocks.rbegin(); block != kept.blocks.rend(); ++block) {
      if (block->bytes != bytes) continue;
      void* const memory = block->memory;
      kept.bytes -= bytes;
      kept.blocks.erase(std::next(block).base());
      return memory;
    }
  }
  return allocate(bytes);
}

void give_memory(void* memory, std::size_t bytes) noexcept {
  bytes = rounded(bytes);
  Pool& kept = pool();
  if (const std::unique_lock lock(kept.mutex, std::try_to_lock); lock && bytes <= kept.most) {
    try {
      kept.blocks.push_back({memory, bytes});
    } catch (const std::bad_alloc&) {
      std::free(memory);
      return;
    }
    kept.bytes += bytes;
    while (kept.bytes > kept.most) {
      std::free(kept.blocks.front().memory);
      kept.bytes -= kept.blocks.front().bytes;
      kept.blocks.pop_front();
    }
    return;
  }
  std::free(memory);
}

}  // namespace lmwp
