// lmwp_ops::depthwise_scales_cuda. Only torch's stable ABI is used.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "common/depthwise_scales_checks.h"
#include "common/stable.h"
#include "cuda/depthwise_scales_fwd.cuh"

namespace lmwp::cuda {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A parameter of `count` elements; a copy that had to be made lives in `keep`.
Param parameter(const Tensors& list, std::size_t b, const Tensor& x, int64_t count, Tensors& keep) {
  if (list.empty()) return {};
  Tensor p = list[b];
  STD_TORCH_CHECK(p.is_cuda() && p.get_device() == x.get_device() && p.numel() == count &&
                      (p.scalar_type() == ScalarType::Float || p.scalar_type() == x.scalar_type()),
                  "depthwise_scales_cuda: parameter of branch ", b, ": expected ", count,
                  " elements on the device of xs, float32 or the dtype of xs; got ", p.numel());
  if (!p.is_contiguous()) {
    p = torch::stable::contiguous(p);
    keep.push_back(p);
  }
  return {p.const_data_ptr(), p.scalar_type() == ScalarType::Float};
}

void check_maps(const Tensors& xs) {
  for (const Tensor& x : xs) {
    STD_TORCH_CHECK(x.is_cuda(), "depthwise_scales_cuda: xs: expected CUDA tensors");
    for (const int d : {1, 2, 3}) {
      STD_TORCH_CHECK(x.size(d) <= kMaxExtent, "depthwise_scales_cuda: xs: expected at most ",
                      kMaxExtent, " channels, rows and columns, got ", x.size(d));
    }
  }
}

cudaError_t launch(ScalarType dtype, const std::vector<DepthwiseBranch>& branches, int kernel,
                   int stride, int64_t dilation, cudaStream_t stream) {
  const int count = static_cast<int>(branches.size());
  switch (dtype) {
    case ScalarType::Float:
      return depthwise_scales_fwd<float>(branches.data(), count, kernel, stride, dilation, stream);
    case ScalarType::Half:
      return depthwise_scales_fwd<__half>(branches.data(), count, kernel, stride, dilation, stream);
    case ScalarType::BFloat16:
      return depthwise_scales_fwd<__nv_bfloat16>(branches.data(), count, kernel, stride, dilation,
                                                 stream);
    default:
      STD_TORCH_CHECK(false, "depthwise_scales_cuda: xs: expected float32, float16 or bfloat16");
  }
}

Tensors depthwise_scales(const Tensors& xs, const Tensors& weights, const Tensors& scale,
                         const Tensors& shift, const Tensors& slope, int64_t stride,
                         int64_t dilation) {
  check_depthwise_scales("depthwise_scales_cuda", xs, weights, scale, shift, slope, stride,
                         dilation);
  check_maps(xs);
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
    branch.x = x.const_data_ptr();
    branch.y = ys[b].mutable_data_ptr();
    for (int d = 0; d < 4; ++d) {
      branch.x_stride[d] = x.stride(d);
      branch.y_stride[d] = ys[b].stride(d);
    }
    branch.weight = parameter(weights, b, x, branch.channels * k * k, keep);
    branch.scale = parameter(scale, b, x, branch.channels, keep);
    branch.shift = parameter(shift, b, x, branch.channels, keep);
    branch.slope = parameter(slope, b, x, branch.channels, keep);
  }
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  STD_CUDA_CHECK(launch(xs[0].scalar_type(), branches, static_cast<int>(k),
                        static_cast<int>(stride), dilation, static_cast<cudaStream_t>(stream)));
  return ys;
}

}  // namespace
}  // namespace lmwp::cuda

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CUDA, m) {
  m.impl("depthwise_scales_cuda", TORCH_BOX(&lmwp::cuda::depthwise_scales));
}
