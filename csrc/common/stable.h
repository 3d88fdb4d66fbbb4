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

// The strides of a dense [n, c, h, w] with the layout of x, by the rule of lmwp_ops/_layout.py.
inline std::array<int64_t, 4> strides_like(const torch::stable::Tensor& x, int64_t c, int64_t h,
                                           int64_t w) {
  const bool channels_last = x.size(1) > 1 && x.stride(1) == 1 && (x.size(2) > 1 || x.size(3) > 1);
  return channels_last ? std::array<int64_t, 4>{h * w * c, 1, w * c, c}
                       : std::array<int64_t, 4>{c * h * w, h * w, w, 1};
}

// An uninitialised [n, c, h, w] with dtype, device and layout of x = [n, ...].
inline torch::stable::Tensor empty_like_layout(const torch::stable::Tensor& x, int64_t c, int64_t h,
                                               int64_t w) {
  const std::array<int64_t, 4> sizes{x.size(0), c, h, w};
  const std::array<int64_t, 4> strides = strides_like(x, c, h, w);
  int32_t dtype, device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(x.get(), &device_index));
  AtenTensorHandle y;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(4, sizes.data(), strides.data(), dtype,
                                                  device_type, device_index, &y));
  return torch::stable::Tensor(y);
}

}  // namespace lmwp
