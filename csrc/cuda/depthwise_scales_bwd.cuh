#pragma once

#include "cuda/depthwise_scales_bwd_input.cuh"
#include "cuda/depthwise_scales_bwd_weight.cuh"

namespace lmwp::cuda {

// One branch of the backward pass; the data of dx is null where it is not wanted. dz is wanted
// where dx is and there is a slope: else dz = scale * dy, which the kernel of dx computes as it
// goes.
struct DepthwiseBackwardBranch : DepthwiseGradBranch {
  OutMap dx;
};

// All gradients that are wanted, the same of every branch, in up to three launches. Limits and
// errors are those of depthwise_scales_fwd; `scratch` is as large as
// depthwise_scales_bwd_weight_scratch says.
template <typename T, typename Sizes = KernelSizes>
cudaError_t depthwise_scales_bwd(const std::vector<DepthwiseBackwardBranch>& branches, int kernel,
                                 int stride, int64_t dilation, float* scratch,
                                 cudaStream_t stream) {
  std::vector<DepthwiseGradBranch> sums;
  std::vector<DepthwiseBranch> inputs;
  for (const DepthwiseBackwardBranch& branch : branches) {
    if (branch.wants_sums() || branch.dz.data != nullptr) sums.push_back(branch);
    if (branch.dx.data == nullptr) continue;
    DepthwiseBranch input{};
    input.in = branch.dy;
    input.scale = branch.scale;
    if (branch.dz.data != nullptr) {
      input.in = {branch.dz.data, {}};
      std::copy_n(branch.dz.stride, 4, input.in.stride);
      input.scale = {};
    }
    input.out = branch.dx;
    input.weight = branch.weight;
    input.batch = branch.batch;
    input.channels = branch.channels;
    input.height = branch.height;
    input.width = branch.width;
    inputs.push_back(input);
  }
  const cudaError_t status =
      depthwise_scales_bwd_weight<T, Sizes>(sums, kernel, stride, dilation, scratch, stream);
  if (status != cudaSuccess) return status;
  return depthwise_scales_bwd_input<T, Sizes>(inputs.data(), static_cast<int>(inputs.size()),
                                              kernel, stride, dilation, stream);
}

}  // namespace lmwp::cuda
