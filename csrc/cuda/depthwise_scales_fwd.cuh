#pragma once

#include "cuda/depthwise_scales_conv.cuh"

namespace lmwp::cuda {

// y = PReLU(scale * conv(x) + shift) for every branch; a block serves one branch.
template <typename T, int K, int S>
__global__ void __launch_bounds__(kThreads)
    depthwise_scales_fwd_kernel(__grid_constant__ const Tasks<DepthwiseTask> tasks) {
  KL_DYN_SHARED(uint4, tile);
  KL_SHARED(float, weight, [K * K]);
  KL_SHARED(Affine, affine, [1]);
  const DepthwiseTask& task = task_of_block(tasks);
  const uint32_t block = blockIdx.x - task.first_block;
  if (task.tiled) {
    conv_tile<T, K, S>(task, block, tile, weight, affine);
  } else {
    conv_direct<T, K, S>(task, block);
  }
}

template <typename T, int K, int S>
cudaError_t launch_depthwise_scales_fwd(const DepthwiseBranch* branches, int count,
                                        int64_t dilation, cudaStream_t stream) {
  static_assert(max_tile_bytes<K, S>() + sizeof(float) * K * K + sizeof(Affine) <= 48 << 10,
                "a block has 48 KB of shared memory");
  std::vector<DepthwiseTask> tasks(count);
  for (int b = 0; b < count; ++b) {
    if (!plan_conv<T, K, S>(branches[b], dilation, tasks[b])) return cudaErrorInvalidValue;
  }
  return launch_branches(depthwise_scales_fwd_kernel<T, K, S>, tasks, stream);
}

// All branches in one launch for every kMaxBranches of them: x is `in`, y is `out`. kernel is 1,
// 3, 5 or 7, stride 1 or 2, padding dilation * (kernel / 2). cudaErrorInvalidValue: a map beyond
// the index range.
template <typename T, typename Sizes = KernelSizes>
cudaError_t depthwise_scales_fwd(const DepthwiseBranch* branches, int count, int kernel, int stride,
                                 int64_t dilation, cudaStream_t stream) {
  return for_kernel_and_stride(Sizes{}, kernel, stride, [&](auto k, auto s) {
    return launch_depthwise_scales_fwd<T, k(), s()>(branches, count, dilation, stream);
  });
}

}  // namespace lmwp::cuda
