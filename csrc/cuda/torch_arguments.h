// What the torch-facing sources of the CUDA kernels share.
#pragma once

#include "common/stable.h"
#include "cuda/depthwise_scales_plan.cuh"

namespace lmwp::cuda {

inline InMap map_of(const torch::stable::Tensor& x) {
  return {x.const_data_ptr(), {x.stride(0), x.stride(1), x.stride(2), x.stride(3)}};
}
inline OutMap out_map_of(torch::stable::Tensor& y) {
  return {y.mutable_data_ptr(), {y.stride(0), y.stride(1), y.stride(2), y.stride(3)}};
}

// A parameter of `count` elements; a copy that had to be made lives in `keep`.
inline Param parameter(const char* op, const Tensors& list, std::size_t b,
                       const torch::stable::Tensor& x, int64_t count, Tensors& keep) {
  using torch::headeronly::ScalarType;
  if (list.empty()) return {};
  torch::stable::Tensor p = list[b];
  STD_TORCH_CHECK(p.is_cuda() && p.get_device() == x.get_device() && p.numel() == count &&
                      (p.scalar_type() == ScalarType::Float || p.scalar_type() == x.scalar_type()),
                  op, ": parameter of branch ", b, ": expected ", count,
                  " elements on the device of xs, float32 or the dtype of xs; got ", p.numel());
  if (!p.is_contiguous()) {
    p = torch::stable::contiguous(p);
    keep.push_back(p);
  }
  return {p.const_data_ptr(), p.scalar_type() == ScalarType::Float};
}

inline void check_maps(const char* op, const Tensors& xs) {
  for (const torch::stable::Tensor& x : xs) {
    STD_TORCH_CHECK(x.is_cuda(), op, ": xs: expected CUDA tensors");
    for (const int d : {1, 2, 3}) {
      STD_TORCH_CHECK(x.size(d) <= kMaxExtent, op, ": xs: expected at most ", kMaxExtent,
                      " channels, rows and columns, got ", x.size(d));
    }
  }
}

inline cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// Calls run(T{}) with the element type of x.
template <typename Run>
auto for_dtype(const char* op, const torch::stable::Tensor& x, Run run) {
  using torch::headeronly::ScalarType;
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return run(float{});
    case ScalarType::Half:
      return run(__half{});
    case ScalarType::BFloat16:
      return run(__nv_bfloat16{});
    default:
      STD_TORCH_CHECK(false, op, ": xs: expected float32, float16 or bfloat16");
  }
}

}  // namespace lmwp::cuda
