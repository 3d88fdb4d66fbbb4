// lmwp_ops::depthwise_scales_backward_cuda. Only torch's stable ABI is used.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <tuple>

#include "common/depthwise_scales_checks.h"
#include "cuda/depthwise_scales_bwd.cuh"
#include "cuda/torch_arguments.h"

namespace lmwp::cuda {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Gradients = std::tuple<Tensors, Tensors, Tensors, Tensors, Tensors>;

constexpr const char* kOp = "depthwise_scales_backward_cuda";

void check_grads(const Tensors& grads, const Tensors& xs, int64_t stride) {
  STD_TORCH_CHECK(grads.size() == xs.size(), kOp, ": grads: expected one entry per branch");
  for (std::size_t b = 0; b < xs.size(); ++b) {
    const Tensor& dy = grads[b];
    const Tensor& x = xs[b];
    STD_TORCH_CHECK(
        dy.is_cuda() && dy.device() == x.device() && dy.scalar_type() == x.scalar_type() &&
            dy.dim() == 4 && dy.size(0) == x.size(0) && dy.size(1) == x.size(1) &&
            dy.size(2) == ceil_div(x.size(2), stride) && dy.size(3) == ceil_div(x.size(3), stride),
        kOp, ": grads: expected the shapes, dtype and device of the outputs");
  }
}

// Where the gradient of parameter b goes, appended to `grads`; nowhere if it is not wanted.
OutParam gradient(const Tensors& parameters, std::size_t b, bool wanted, Tensors& grads) {
  if (!wanted || parameters.empty()) return {};
  grads.push_back(empty_dense(parameters[b]));
  return {grads.back().mutable_data_ptr(), parameters[b].scalar_type() == ScalarType::Float};
}

Gradients depthwise_scales_backward(const Tensors& grads, const Tensors& xs, const Tensors& weights,
                                    const Tensors& scale, const Tensors& shift,
                                    const Tensors& slope, int64_t stride, int64_t dilation,
                                    const std::vector<bool>& wanted) {
  check_depthwise_scales(kOp, xs, weights, scale, shift, slope, stride, dilation);
  check_maps(kOp, xs);
  check_grads(grads, xs, stride);
  STD_TORCH_CHECK(wanted.size() == 5, kOp, ": wanted: expected 5 flags");
  const int32_t device = xs[0].get_device();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const int64_t k = weights[0].size(3);
  Gradients result;
  auto& [grad_xs, grad_weights, grad_scale, grad_shift, grad_slope] = result;
  Tensors keep;
  std::vector<DepthwiseBackwardBranch> branches(xs.size());
  for (std::size_t b = 0; b < xs.size(); ++b) {
    const Tensor& x = xs[b];
    DepthwiseBackwardBranch& branch = branches[b];
    branch.batch = x.size(0);
    branch.channels = x.size(1);
    branch.height = x.size(2);
    branch.width = x.size(3);
    branch.x = map_of(x);
    branch.dy = map_of(grads[b]);
    branch.weight = parameter(kOp, weights, b, x, branch.channels * k * k, keep);
    branch.scale = parameter(kOp, scale, b, x, branch.channels, keep);
    branch.shift = parameter(kOp, shift, b, x, branch.channels, keep);
    branch.slope = parameter(kOp, slope, b, x, branch.channels, keep);
    branch.grad_weight = gradient(weights, b, wanted[1], grad_weights);
    branch.grad_scale = gradient(scale, b, wanted[2], grad_scale);
    branch.grad_shift = gradient(shift, b, wanted[3], grad_shift);
    branch.grad_slope = gradient(slope, b, wanted[4], grad_slope);
    if (!wanted[0]) continue;
    grad_xs.push_back(empty_like_layout(x, x.size(1), x.size(2), x.size(3)));
    branch.dx = out_map_of(grad_xs[b]);
    if (slope.empty()) continue;
    keep.push_back(empty_like_layout(x, x.size(1), grads[b].size(2), grads[b].size(3)));
    branch.dz = out_map_of(keep.back());
  }
  const int kernel = static_cast<int>(k);
  const int step = static_cast<int>(stride);
  STD_CUDA_CHECK(for_dtype(kOp, xs[0], [&](auto zero) {
    using T = decltype(zero);
    const int64_t floats = depthwise_scales_bwd_weight_scratch<T>(
        std::vector<DepthwiseGradBranch>(branches.begin(), branches.end()), kernel, step, dilation);
    if (floats < 0) return cudaErrorInvalidValue;
    keep.push_back(empty_floats(floats, xs[0]));
    return depthwise_scales_bwd<T>(branches, kernel, step, dilation,
                                   static_cast<float*>(keep.back().mutable_data_ptr()),
                                   current_stream(device));
  }));
  return result;
}

}  // namespace
}  // namespace lmwp::cuda

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CUDA, m) {
  m.impl("depthwise_scales_backward_cuda", TORCH_BOX(&lmwp::cuda::depthwise_scales_backward));
}
