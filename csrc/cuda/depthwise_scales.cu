// lmwp_ops::depthwise_scales_cuda. Only torch's stable ABI is used.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "common/depthwise_scales_checks.h"
#include "cuda/depthwise_scales_fwd.cuh"
#include "cuda/torch_arguments.h"

namespace lmwp::cuda {
namespace {

using torch::stable::Tensor;

constexpr const char* kOp = "depthwise_scales_cuda";

Tensors depthwise_scales(const Tensors& xs, const Tensors& weights, const Tensors& scale,
                         const Tensors& shift, const Tensors& slope, int64_t stride,
                         int64_t dilation) {
  check_depthwise_scales(kOp, xs, weights, scale, shift, slope, stride, dilation);
  check_maps(kOp, xs);
  const int32_t device = xs[0].get_device();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const int64_t k = weights[0].size(3);
  Tensors ys, keep;
  std::vector<DepthwiseBranch> branches(xs.size());
  for (std::size_t b = 0; b < xs.size(); ++b) {
    const Tensor& x = xs[b];
    DepthwiseBranch& branch = branches[b];
    branch.batch = x.size(0);
    branch.channels = x.size(1);
    branch.height = x.size(2);
    branch.width = x.size(3);
    ys.push_back(empty_like_layout(x, x.size(1), ceil_div(branch.height, stride),
                                   ceil_div(branch.width, stride)));
    branch.in = map_of(x);
    branch.out = out_map_of(ys[b]);
    branch.weight = parameter(kOp, weights, b, x, branch.channels * k * k, keep);
    branch.scale = parameter(kOp, scale, b, x, branch.channels, keep);
    branch.shift = parameter(kOp, shift, b, x, branch.channels, keep);
    branch.slope = parameter(kOp, slope, b, x, branch.channels, keep);
  }
  STD_CUDA_CHECK(for_dtype(kOp, xs[0], [&](auto zero) {
    return depthwise_scales_fwd<decltype(zero)>(branches.data(), static_cast<int>(branches.size()),
                                                static_cast<int>(k), static_cast<int>(stride),
                                                dilation, current_stream(device));
  }));
  return ys;
}

}  // namespace
}  // namespace lmwp::cuda

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CUDA, m) {
  m.impl("depthwise_scales_cuda", TORCH_BOX(&lmwp::cuda::depthwise_scales));
}
