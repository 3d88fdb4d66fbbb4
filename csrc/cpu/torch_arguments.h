// What the torch-facing sources of the CPU kernels share.
#pragma once

#include <initializer_list>

#include "common/cpu_capability.h"
#include "common/memory_pool.h"
#include "common/stable.h"
#include "cpu/dtype.h"

namespace lmwp {

// `name` of the best instruction set that this processor has.
#if defined(__x86_64__)
#define LMWP_BEST_KERNEL(name)                                                \
  (::lmwp::cpu_capability() == ::lmwp::CpuCapability::avx512 ? avx512::name() \
   : ::lmwp::cpu_capability() == ::lmwp::CpuCapability::avx2 ? avx2::name()   \
                                                             : sse42::name())
#else
#define LMWP_BEST_KERNEL(name) generic::name()
#endif

constexpr int64_t kPooledBytes = 1 << 16;  // below, the C library does not go to the system

// An uninitialised dense tensor with dtype and device of x, in pooled memory where it is large.
inline torch::stable::Tensor empty_pooled(const torch::stable::Tensor& x,
                                          const std::array<int64_t, 4>& sizes,
                                          const std::array<int64_t, 4>& strides) {
  const std::size_t bytes = x.element_size() * sizes[0] * sizes[1] * sizes[2] * sizes[3];
  if (bytes < kPooledBytes) {
    return empty_strided(4, sizes.data(), strides.data(), dtype_code(x), x);
  }
  void* const memory = take_memory(bytes);
  return torch::stable::from_blob(memory, sizes, strides, x.device(), x.scalar_type(),
                                  [bytes](void* data) { give_memory(data, bytes); });
}

// The same [n, c, h, w] with the layout of x.
inline torch::stable::Tensor empty_output(const torch::stable::Tensor& x, int64_t c, int64_t h,
                                          int64_t w) {
  return empty_pooled(x, {x.size(0), c, h, w}, strides_like(x, c, h, w));
}

inline Dtype dtype_of(const char* op, const torch::stable::Tensor& x) {
  switch (x.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return Dtype::float32;
    case torch::headeronly::ScalarType::Half:
      return Dtype::float16;
    case torch::headeronly::ScalarType::BFloat16:
      return Dtype::bfloat16;
    default:
      STD_TORCH_CHECK(false, op, ": xs: expected float32, float16 or bfloat16");
  }
}

// An uninitialised contiguous float32, whatever torch's default dtype is.
inline torch::stable::Tensor empty_floats(const std::vector<int64_t>& sizes) {
  return torch::stable::empty(sizes, torch::headeronly::ScalarType::Float);
}

inline float* floats(torch::stable::Tensor& tensor) {
  return static_cast<float*>(tensor.mutable_data_ptr());
}

inline std::vector<int64_t> sizes_of(const torch::stable::Tensor& x) {
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < x.dim(); ++d) sizes.push_back(x.size(d));
  return sizes;
}

// A gradient in float32 with the dtype of its parameter.
inline torch::stable::Tensor with_dtype_of(const torch::stable::Tensor& parameter,
                                           const torch::stable::Tensor& gradient) {
  if (parameter.scalar_type() == gradient.scalar_type()) return gradient;
  return torch::stable::to(gradient, parameter.scalar_type());
}

inline torch::stable::Tensor in_float32(const torch::stable::Tensor& x) {
  using torch::headeronly::ScalarType;
  return x.scalar_type() == ScalarType::Float ? x : torch::stable::to(x, ScalarType::Float);
}

inline Tensors in_float32(const Tensors& xs) {
  Tensors wide;
  for (const torch::stable::Tensor& x : xs) wide.push_back(in_float32(x));
  return wide;
}

// Scratch of the calling thread, from a cache line on.
inline float* thread_scratch(int64_t floats) {
  constexpr int64_t kLine = 64;
  thread_local std::vector<float> scratch;
  const int64_t needed = floats + kLine / sizeof(float);
  if (static_cast<int64_t>(scratch.size()) < needed) scratch.resize(needed);
  const auto address = reinterpret_cast<uintptr_t>(scratch.data());
  return scratch.data() + (kLine - address % kLine) % kLine / sizeof(float);
}

// A parameter of the given shape, in float32 or the dtype of x, as contiguous float32; what it
// points to lives in `keep`.
inline const float* parameter(const char* op, const torch::stable::Tensor& given,
                              std::initializer_list<int64_t> shape, const torch::stable::Tensor& x,
                              Tensors& keep) {
  using torch::headeronly::ScalarType;
  const ScalarType dtype = given.scalar_type();
  bool fits = given.is_cpu() && given.dim() == static_cast<int64_t>(shape.size()) &&
              (dtype == ScalarType::Float || dtype == x.scalar_type());
  int64_t d = 0;
  for (const int64_t size : shape) fits = fits && given.size(d++) == size;
  STD_TORCH_CHECK(fits, op, ": a parameter has another shape, dtype or device than expected");
  torch::stable::Tensor p = in_float32(given);
  if (!p.is_contiguous()) p = torch::stable::contiguous(p);
  keep.push_back(p);
  return static_cast<const float*>(p.const_data_ptr());
}

// The same for entry i of a list; null where the list is empty.
inline const float* parameter(const char* op, const Tensors& list, std::size_t i,
                              std::initializer_list<int64_t> shape, const torch::stable::Tensor& x,
                              Tensors& keep) {
  if (list.empty()) return nullptr;
  STD_TORCH_CHECK(i < list.size(), op, ": expected one parameter per branch");
  return parameter(op, list[i], shape, x, keep);
}

// No list of an epilogue has another number of entries than there are outputs.
inline void check_epilogue(const char* op, const Tensors& scale, const Tensors& shift,
                           const Tensors& slope, std::size_t count) {
  STD_TORCH_CHECK(scale.size() == shift.size() && (scale.empty() || scale.size() == count) &&
                      (slope.empty() || slope.size() == count),
                  op, ": expected one parameter per branch");
}

}  // namespace lmwp
