// What the torch-facing sources of every library share. Only torch's stable ABI is used.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <vector>

namespace lmwp {

using Tensors = std::vector<torch::stable::Tensor>;

// Whether the channels of a pixel lie side by side.
inline bool is_interleaved(const torch::stable::Tensor& x) {
  return x.size(1) > 1 && x.stride(1) == 1 && (x.size(2) > 1 || x.size(3) > 1);
}

// The strides of a dense [n, c, h, w] with the layout of x, by the rule of lmwp_ops/_layout.py.
inline std::array<int64_t, 4> strides_like(const torch::stable::Tensor& x, int64_t c, int64_t h,
                                           int64_t w) {
  return is_interleaved(x) ? std::array<int64_t, 4>{h * w * c, 1, w * c, c}
                           : std::array<int64_t, 4>{c * h * w, h * w, w, 1};
}

// An uninitialised tensor of these sizes and strides on the device of `like`.
inline torch::stable::Tensor empty_strided(int64_t dim, const int64_t* sizes,
                                           const int64_t* strides, int32_t dtype,
                                           const torch::stable::Tensor& like) {
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle y;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, sizes, strides, dtype, device_type, device_index, &y));
  return torch::stable::Tensor(y);
}

inline int32_t dtype_code(const torch::stable::Tensor& x) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  return dtype;
}

// An uninitialised [n, c, h, w] with dtype, device and layout of x = [n, ...].
inline torch::stable::Tensor empty_like_layout(const torch::stable::Tensor& x, int64_t c, int64_t h,
                                               int64_t w) {
  const std::array<int64_t, 4> sizes{x.size(0), c, h, w};
  const std::array<int64_t, 4> strides = strides_like(x, c, h, w);
  return empty_strided(4, sizes.data(), strides.data(), dtype_code(x), x);
}

// An uninitialised contiguous tensor with sizes, dtype and device of x.
inline torch::stable::Tensor empty_dense(const torch::stable::Tensor& x) {
  const int64_t dim = x.dim();
  std::vector<int64_t> sizes(dim), strides(dim);
  int64_t count = 1;
  for (int64_t d = dim; d-- > 0;) {
    sizes[d] = x.size(d);
    strides[d] = count;
    count *= sizes[d];
  }
  return empty_strided(dim, sizes.data(), strides.data(), dtype_code(x), x);
}

// `count` uninitialised float32 on the device of x.
inline torch::stable::Tensor empty_floats(int64_t count, const torch::stable::Tensor& x) {
  const int64_t stride = 1;
  return empty_strided(1, &count, &stride, aoti_torch_dtype_float32(), x);
}

}  // namespace lmwp
