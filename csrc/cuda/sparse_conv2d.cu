// lmwp_ops::sparse_conv2d_cuda. Only torch's stable ABI is used.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <string>

#include "cuda/sparse_conv2d_fwd.cuh"
#include "cuda/torch_arguments.h"

namespace lmwp::cuda {
namespace {

using torch::stable::Tensor;
using Counts = std::vector<int64_t>;

constexpr const char* kOp = "sparse_conv2d_cuda";
constexpr int64_t kSlab = 64;  // input channels, see lmwp_ops' layout.py

// A list of indices on the device of x; a copy that had to be made lives in `keep`.
const int32_t* indices_of(const Tensor& given, int64_t count, const Tensor& x, Tensors& keep) {
  STD_TORCH_CHECK(given.is_cuda() && given.get_device() == x.get_device() && given.dim() == 1 &&
                      given.size(0) == count &&
                      given.scalar_type() == torch::headeronly::ScalarType::Int,
                  kOp, ": indices: expected 1-D int32 tensors of the right lengths beside x");
  keep.push_back(given.is_contiguous() ? given : torch::stable::contiguous(given));
  return static_cast<const int32_t*>(keep.back().const_data_ptr());
}

// The pixels of a plane of x lie in a row.
bool is_planar(const Tensor& x) {
  return (x.size(3) == 1 || x.stride(3) == 1) && (x.size(2) == 1 || x.stride(2) == x.size(3));
}

void check_settings(const Tensor& x, const Tensors& indices, const Counts& shape,
                    const Counts& block, const Counts& stride, const Counts& padding,
                    int64_t groups) {
  STD_TORCH_CHECK(x.is_cuda() && x.dim() == 4 && is_planar(x), kOp,
                  ": x: expected a 4-D CUDA tensor, its pixels in a row");
  STD_TORCH_CHECK(shape.size() == 4 && shape[2] == 1 && shape[3] == 1 && stride == Counts({1, 1}) &&
                      padding == Counts({0, 0}),
                  kOp, ": expected a 1 x 1 convolution of stride 1 without padding");
  STD_TORCH_CHECK(block.size() == 2 && block[0] > 0 && block[1] > 0 && indices.size() == 2 &&
                      indices[1].dim() == 1,
                  kOp, ": block and indices: expected two of each");
  STD_TORCH_CHECK(groups > 0 && shape[0] % groups == 0 && x.size(1) == shape[1] * groups &&
                      shape[1] % block[1] == 0 &&
                      (groups == 1 || shape[0] / groups % block[0] == 0),
                  kOp, ": groups and blocks have to divide the channels");
}

Tensor sparse_conv2d(const Tensor& x, const Tensor& values, const Tensors& indices,
                     const Tensors& bias, const Tensors& scale, const Tensors& shift,
                     const Tensors& slope, const std::string& format, const Counts& shape,
                     const Counts& block, const Counts& stride, const Counts& padding,
                     const Counts&, int64_t groups) {
  check_settings(x, indices, shape, block, stride, padding, groups);
  const int32_t device = x.get_device();
  const torch::stable::accelerator::DeviceGuard guard(device);
  Tensors keep;
  Tensor y = empty_like_layout(x, shape[0], x.size(2), x.size(3));
  STD_TORCH_CHECK(is_planar(y), kOp, ": x: expected channels that are not innermost");
  SparseConvCall call{};
  call.slabs = format == "unstructured" ? static_cast<int>(ceil_div(shape[1], kSlab)) : 1;
  call.blocks = static_cast<int>(indices[1].size(0));
  const int64_t block_rows = ceil_div(shape[0], block[0]);
  call.offset = indices_of(indices[0], call.slabs * block_rows + 1, x, keep);
  call.column = indices_of(indices[1], call.blocks, x, keep);
  call.x = x.const_data_ptr();
  call.y = y.mutable_data_ptr();
  for (int d = 0; d < 2; ++d) {
    call.x_step[d] = x.stride(d);
    call.y_step[d] = y.stride(d);
  }
  call.batch = x.size(0);
  call.pixels = x.size(2) * x.size(3);
  call.inputs = static_cast<int>(x.size(1));
  call.outputs = static_cast<int>(shape[0]);
  call.group_inputs = static_cast<int>(shape[1]);
  call.group_outputs = static_cast<int>(shape[0] / groups);
  call.rows = static_cast<int>(block[0]);
  call.columns = static_cast<int>(block[1]);
  call.values = parameter(kOp, {values}, 0, x, int64_t{call.blocks} * block[0] * block[1], keep);
  call.bias = parameter(kOp, bias, 0, x, shape[0], keep);
  call.scale = parameter(kOp, scale, 0, x, shape[0], keep);
  call.shift = parameter(kOp, shift, 0, x, shape[0], keep);
  call.slope = parameter(kOp, slope, 0, x, shape[0], keep);
  int multiprocessors = 0;
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  STD_CUDA_CHECK(for_dtype(kOp, x, [&](auto element) {
    return sparse_conv2d_fwd<decltype(element)>(call, multiprocessors, current_stream(device));
  }));
  return y;
}

}  // namespace
}  // namespace lmwp::cuda

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CUDA, m) {
  m.impl("sparse_conv2d_cuda", TORCH_BOX(&lmwp::cuda::sparse_conv2d));
}
