// Runs CUDA kernels on the host, so that g++'s sanitizers and a plain reference can judge them.
//
// Every CUDA thread is a fiber; the threads of a block take turns from barrier to barrier on one
// OS thread, blocks follow each other. The order of threads and blocks can be chosen, shared
// memory starts as NaN (0xFF) and lies in heap blocks of exact size, and a block that cannot move
// on (a thread missing at a barrier, divergent barriers, a wrong mask) fails the launch with a
// report. Not modelled: time, caches, preemption between barriers, memory ordering.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "host_fiber.h"
#include "host_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace host_cuda {

enum class Order { kForward, kReverse, kRandom };
enum class Wait { kNothing, kBlock, kWarp, kDone };
enum class Collective { kSync, kShuffle, kBallot };

struct Location {
  const char* file = "";
  int line = 0;
  bool operator==(const Location& other) const {
    return line == other.line && std::strcmp(file, other.file) == 0;
  }
};

inline constexpr int kWarp = 32;
inline constexpr int kMaxThreads = 1024;
inline constexpr int kMaxShared = 16;
inline constexpr int kMaxCopies = 256;
inline constexpr std::size_t kMaxDynamicBytes = 48 << 10;  // unless a kernel is allowed more
inline constexpr std::size_t kMostAllowedBytes = 227 << 10;

struct Copy {
  uint4* to;
  const uint4* from;  // null: zeros
};

struct Thread {
  Fiber fiber;
  Wait wait;
  Location at;
  Collective collective;
  unsigned mask;
  uint64_t value;
  int source;  // lane that a shuffle reads
  int copies;
  Copy copy[kMaxCopies];
};

struct Machine {
  Order order = Order::kForward;
  std::mt19937 random;
  std::string report;
  Fiber scheduler;
  // Odd and even blocks run on fibers of their own: TSan then sees races between blocks.
  Thread* threads[2][kMaxThreads] = {};
  int set = 0, current = 0, size = 0;
  void (*invoke)(void*) = nullptr;
  void* closure = nullptr;
  void* dynamic = nullptr;
  struct {
    Location at;
    void* data;
  } shared[kMaxShared];
  int shared_count = 0;
  std::unordered_map<const void*, std::size_t> allowed;  // by kernel
  // Addresses that stand for the orderings TSan is told of; a barrier and the next one differ.
  char start, end, block_edge[2][2], warp_edge[2][kMaxThreads / kWarp][2];
  unsigned block_phase = 0, warp_phase[kMaxThreads / kWarp] = {};
};
inline Machine machine;

inline void release([[maybe_unused]] char& edge) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(&edge);
#endif
}
inline void acquire([[maybe_unused]] char& edge) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(&edge);
#endif
}

HOST_CUDA_RUNTIME inline Thread& self() { return *machine.threads[machine.set][machine.current]; }
HOST_CUDA_RUNTIME inline int lane_id() { return machine.current % kWarp; }

HOST_CUDA_RUNTIME inline void wait_for_others(Wait wait, Location at, char& edge) {
  Thread& me = self();
  me.wait = wait;
  me.at = at;
  release(edge);
  switch_fiber(me.fiber, machine.scheduler);
  acquire(edge);
}

HOST_CUDA_RUNTIME inline void thread_main() {
  enter_fiber(machine.scheduler);
  for (;;) {
    acquire(machine.start);
    machine.invoke(machine.closure);
    release(machine.end);
    self().wait = Wait::kDone;
    switch_fiber(self().fiber, machine.scheduler);
  }
}

HOST_CUDA_RUNTIME inline void block_barrier(Location at) {
  wait_for_others(Wait::kBlock, at, machine.block_edge[machine.set][machine.block_phase]);
}

// Waits until every lane of `mask` has come to the same place; returns this lane's result.
HOST_CUDA_RUNTIME inline uint64_t warp_collective(Collective collective, unsigned mask,
                                                  uint64_t value, int source, Location at) {
  Thread& me = self();
  const int warp = machine.current / kWarp;
  me.collective = collective;
  me.mask = mask;
  me.value = value;
  me.source = source;
  wait_for_others(Wait::kWarp, at, machine.warp_edge[machine.set][warp][machine.warp_phase[warp]]);
  return me.value;
}

// While one lives, TSan takes no allocation for a write by this thread.
struct Unwatched {
#if defined(__SANITIZE_THREAD__)
  Unwatched() { AnnotateIgnoreWritesBegin(__FILE__, __LINE__); }
  ~Unwatched() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__); }
#endif
};

HOST_CUDA_RUNTIME inline void* allocate_shared(std::size_t bytes) {
  [[maybe_unused]] const Unwatched unwatched;
  return std::memset(std::malloc(bytes), 0xFF, bytes);
}

HOST_CUDA_RUNTIME inline void free_shared() {
  [[maybe_unused]] const Unwatched unwatched;
  std::free(machine.dynamic);
  for (int i = 0; i < machine.shared_count; ++i) std::free(machine.shared[i].data);
  machine.shared_count = 0;
}

HOST_CUDA_RUNTIME inline void* shared_array(std::size_t bytes, Location at) {
  for (int i = 0; i < machine.shared_count; ++i) {
    if (machine.shared[i].at == at) return machine.shared[i].data;
  }
  if (machine.shared_count == kMaxShared) abort();
  machine.shared[machine.shared_count] = {at, allocate_shared(bytes)};
  return machine.shared[machine.shared_count++].data;
}

HOST_CUDA_RUNTIME inline void push_copy(uint4* to, const uint4* from) {
  if (self().copies == kMaxCopies) abort();
  self().copy[self().copies++] = {to, from};
}
HOST_CUDA_RUNTIME inline bool pop_copy(Copy& copy) {
  if (self().copies == 0) return false;
  copy = self().copy[--self().copies];
  return true;
}

// Lets the lanes named by the current thread's mask go on once all of them have arrived.
inline void try_release_warp(Thread* const* threads) {
  const Thread& me = *threads[machine.current];
  const int first = machine.current / kWarp * kWarp;
  const auto named = [&](int lane) { return (me.mask >> lane & 1) != 0; };
  if (!named(machine.current - first)) return;
  uint64_t value[kWarp];
  std::fill_n(value, kWarp, ~uint64_t{0});  // what a shuffle reads from a lane not named: NaN
  uint64_t ballot = 0;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!named(lane)) continue;
    if (first + lane >= machine.size) return;
    const Thread& other = *threads[first + lane];
    if (other.wait != Wait::kWarp || other.mask != me.mask || !(other.at == me.at) ||
        other.collective != me.collective) {
      return;
    }
    value[lane] = other.value;
    ballot |= uint64_t{other.value != 0} << lane;
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!named(lane)) continue;
    Thread& thread = *threads[first + lane];
    if (me.collective == Collective::kBallot) thread.value = ballot;
    if (me.collective == Collective::kShuffle) thread.value = value[thread.source];
    thread.wait = Wait::kNothing;
  }
  machine.warp_phase[first / kWarp] ^= 1;
}

inline std::vector<int> ordered(int count) {
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (machine.order == Order::kReverse) std::reverse(order.begin(), order.end());
  if (machine.order == Order::kRandom) std::shuffle(order.begin(), order.end(), machine.random);
  return order;
}

inline void report_stuck(Thread* const* threads) {
  machine.report = "block " + std::to_string(blockIdx.x) + " is stuck:";
  const Thread* last = nullptr;
  for (int t = 0; t < machine.size; ++t) {
    const Thread& thread = *threads[t];
    if (last && last->wait == thread.wait && last->at == thread.at) continue;
    last = &thread;
    machine.report += "\n  thread " + std::to_string(t);
    if (thread.wait == Wait::kDone) machine.report += " has returned";
    if (thread.wait == Wait::kBlock) machine.report += " waits for its block at ";
    if (thread.wait == Wait::kWarp) machine.report += " waits for its warp at ";
    if (thread.wait == Wait::kDone) continue;
    machine.report += std::string(thread.at.file) + ":" + std::to_string(thread.at.line);
  }
}

// Runs all threads of one block to their end; false, with a report, if they cannot get there.
HOST_CUDA_RUNTIME inline bool run_block(Thread* const* threads) {
  for (int running = machine.size; running > 0;) {
    bool moved = false;
    for (const int t : ordered(machine.size)) {
      Thread& thread = *threads[t];
      if (thread.wait != Wait::kNothing) continue;
      machine.current = t;
      threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
      switch_fiber(machine.scheduler, thread.fiber);
      moved = true;
      if (thread.wait == Wait::kWarp) try_release_warp(threads);
      if (thread.wait == Wait::kDone) --running;
      if (thread.wait == Wait::kDone && thread.copies > 0) {
        machine.report = "a thread ended without waiting for its asynchronous copies";
        return false;
      }
    }
    const bool together = std::all_of(threads, threads + machine.size, [&](const Thread* thread) {
      return thread->wait == Wait::kBlock && thread->at == threads[0]->at;
    });
    if (together) {
      for (int t = 0; t < machine.size; ++t) threads[t]->wait = Wait::kNothing;
      machine.block_phase ^= 1;
    } else if (!moved) {
      report_stuck(threads);
      return false;
    }
  }
  return true;
}

HOST_CUDA_RUNTIME inline cudaError_t run_grid(dim3 grid, dim3 block, std::size_t dynamic_bytes,
                                              std::size_t most_dynamic_bytes) {
  machine.report.clear();
  const unsigned blocks = grid.x * grid.y * grid.z;
  machine.size = static_cast<int>(block.x * block.y * block.z);
  if (machine.size < 1 || machine.size > kMaxThreads || blocks == 0 ||
      dynamic_bytes > most_dynamic_bytes) {
    return cudaErrorInvalidConfiguration;
  }
#if defined(__SANITIZE_THREAD__)
  machine.scheduler.sanitizer = __tsan_get_current_fiber();
#endif
  gridDim = grid;
  blockDim = block;
  release(machine.start);
  bool ok = true;
  for (const int b : ordered(static_cast<int>(blocks))) {
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    machine.set = b % 2;
    Thread** threads = machine.threads[machine.set];
    for (int t = 0; t < machine.size; ++t) {
      if (threads[t] == nullptr) {
        threads[t] = new Thread{};
        create_fiber(threads[t]->fiber, thread_main);
      }
      threads[t]->wait = Wait::kNothing;
      threads[t]->at = {};
      threads[t]->copies = 0;
    }
    machine.dynamic = allocate_shared(dynamic_bytes);
    ok = run_block(threads);
    free_shared();
    if (!ok) {  // what stands on a stuck fiber's stack cannot be unwound: leave it behind
      std::fill_n(threads, kMaxThreads, nullptr);
      break;
    }
  }
  acquire(machine.end);
  return ok ? cudaSuccess : cudaErrorLaunchFailure;
}

template <typename T>
T shuffle(unsigned mask, T value, int source, Location at) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_collective(Collective::kShuffle, mask, bits, source, at);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace host_cuda

// The place of the call, for barriers and reports.
#define HOST_CUDA_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(HOST_CUDA_HERE) { host_cuda::block_barrier({file, line}); }
inline void __syncwarp(unsigned mask = ~0u, HOST_CUDA_HERE) {
  host_cuda::warp_collective(host_cuda::Collective::kSync, mask, 0, 0, {file, line});
}

// Shuffles stay within segments of `width` lanes, a power of two.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, HOST_CUDA_HERE) {
  const int first = host_cuda::lane_id() & ~(width - 1);
  return host_cuda::shuffle(mask, value, first + (source & (width - 1)), {file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, int delta, int width = 32, HOST_CUDA_HERE) {
  const int lane = host_cuda::lane_id(), first = lane & ~(width - 1);
  return host_cuda::shuffle(mask, value, lane - delta < first ? lane : lane - delta, {file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int delta, int width = 32, HOST_CUDA_HERE) {
  const int lane = host_cuda::lane_id(), last = lane | (width - 1);
  return host_cuda::shuffle(mask, value, lane + delta > last ? lane : lane + delta, {file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, HOST_CUDA_HERE) {
  const int lane = host_cuda::lane_id(), last = lane | (width - 1);
  return host_cuda::shuffle(mask, value, (lane ^ bits) > last ? lane : lane ^ bits, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, HOST_CUDA_HERE) {
  return static_cast<unsigned>(host_cuda::warp_collective(host_cuda::Collective::kBallot, mask,
                                                          predicate != 0, 0, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, HOST_CUDA_HERE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, HOST_CUDA_HERE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}

#define KL_SHARED(T, name, dims)                      \
  using kl_##name##_t = T dims;                       \
  kl_##name##_t& name = *static_cast<kl_##name##_t*>( \
      host_cuda::shared_array(sizeof(kl_##name##_t), {__FILE__, __LINE__}))

#define KL_DYN_SHARED(T, name) T* name = static_cast<T*>(host_cuda::machine.dynamic)

// Junk at once, the copy at the wait: whoever reads too early sees NaN.
inline void kl_copy16_async(uint4* to, const uint4* from, bool valid) {
  *to = {~0u, ~0u, ~0u, ~0u};
  host_cuda::push_copy(to, valid ? from : nullptr);
}
inline void kl_copy_wait() {
  host_cuda::Copy copy;
  while (host_cuda::pop_copy(copy)) *copy.to = copy.from ? *copy.from : uint4{0, 0, 0, 0};
}

inline void kl_store16(uint4* to, uint4 value) { *to = value; }

template <typename... Params>
cudaError_t kl_allow_shared(void (*kernel)(Params...), std::size_t bytes) {
  if (bytes > host_cuda::kMostAllowedBytes) return cudaErrorInvalidValue;
  host_cuda::machine.allowed[reinterpret_cast<const void*>(kernel)] = bytes;
  return cudaSuccess;
}

template <typename... Params, typename... Args>
cudaError_t kl_launch(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t smem,
                      cudaStream_t, const Args&... args) {
  auto call = [&] { kernel(args...); };
  host_cuda::machine.closure = &call;
  host_cuda::machine.invoke = [](void* closure) { (*static_cast<decltype(call)*>(closure))(); };
  const auto allowed = host_cuda::machine.allowed.find(reinterpret_cast<const void*>(kernel));
  const bool is_allowed = allowed != host_cuda::machine.allowed.end();
  return host_cuda::run_grid(grid, block, smem,
                             is_allowed ? std::max(allowed->second, host_cuda::kMaxDynamicBytes)
                                        : host_cuda::kMaxDynamicBytes);
}
