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

// An uninitialised [n, c, h, w] on the device of x = [n, c, ...], laid out by the rule of
// lmwp_ops/_layout.py.
inline torch::stable::Tensor empty_like_layout(const torch::stable::Tensor& x, int64_t h,
                                               int64_t w) {
  const int64_t n = x.size(0), c = x.size(1);
  const bool channels_last = c > 1 && x.stride(1) == 1 && (x.size(2) > 1 || x.size(3) > 1);
  const std::array<int64_t, 4> sizes{n, c, h, w};
  const std::array<int64_t, 4> strides = channels_last
                                             ? std::array<int64_t, 4>{h * w * c, 1, w * c, c}
                                             : std::array<int64_t, 4>{c * h * w, h * w, w, 1};
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
