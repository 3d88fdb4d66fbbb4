#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cuda/launch.cuh"

namespace lmwp::cuda {

inline constexpr int kThreads = 128;
inline constexpr int kMinBlocks = 4;  // on a multiprocessor: 128 registers a thread
inline constexpr int kMaxBranches = 8;

inline constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The blocks of a launch that serve one branch, and the dynamic shared memory that they use.
struct BlockRange {
  uint32_t first_block, block_count;
  int shared_bytes;
};

// What a kernel takes: one Task, which is a BlockRange, for every branch.
template <typename Task>
struct Tasks {
  Task task[kMaxBranches];
  int count;
};

// The branch that this block serves.
template <typename Task>
__device__ __forceinline__ const Task& task_of_block(const Tasks<Task>& tasks) {
  int branch = 0;
  while (branch + 1 < tasks.count && blockIdx.x >= tasks.task[branch + 1].first_block) ++branch;
  return tasks.task[branch];
}

// One launch for every kMaxBranches tasks; those without blocks are left out.
template <typename Task>
cudaError_t launch_branches(void (*kernel)(Tasks<Task>), const std::vector<Task>& branches,
                            cudaStream_t stream) {
  Tasks<Task> tasks{};
  int64_t blocks = 0;
  int shared = 0;
  const auto flush = [&] {
    if (blocks == 0) return cudaSuccess;
    const cudaError_t status = kl_launch(kernel, dim3(static_cast<unsigned>(blocks)),
                                         dim3(kThreads), shared, stream, tasks);
    tasks.count = 0;
    blocks = 0;
    shared = 0;
    return status;
  };
  for (const Task& branch : branches) {
    if (branch.block_count == 0) continue;
    if (tasks.count == kMaxBranches || blocks + branch.block_count > INT32_MAX) {
      if (const cudaError_t status = flush(); status != cudaSuccess) return status;
    }
    Task& task = tasks.task[tasks.count++] = branch;
    task.first_block = static_cast<uint32_t>(blocks);
    blocks += task.block_count;
    shared = std::max(shared, task.shared_bytes);
  }
  return flush();
}

using KernelSizes = std::integer_sequence<int, 1, 3, 5, 7>;

// Calls launch(K, S) with the kernel size, one of the sequence, and the stride as compile-time
// constants.
template <int... K, typename Launch>
cudaError_t for_kernel_and_stride(std::integer_sequence<int, K...>, int kernel, int stride,
                                  Launch launch) {
  cudaError_t status = cudaErrorInvalidValue;
  const auto attempt = [&](auto k) {
    if (kernel != k()) return;
    status = stride == 1 ? launch(k, std::integral_constant<int, 1>{})
                         : launch(k, std::integral_constant<int, 2>{});
  };
  (attempt(std::integral_constant<int, K>{}), ...);
  return status;
}

}  // namespace lmwp::cuda
