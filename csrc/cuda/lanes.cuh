#pragma once

#include "cuda/launch.cuh"

namespace lmwp::cuda {

__host__ __device__ constexpr int quotient_up(int a, int b) { return (a + b - 1) / b; }

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// NaN wins, as in torch.
__device__ __forceinline__ float larger(float a, float b) { return b > a || b != b ? b : a; }

// Elements in one 16-byte access.
template <typename T>
inline constexpr int kLanes = 16 / sizeof(T);

template <typename T>
union Lanes {
  uint4 bits;
  T lane[kLanes<T>];
  __host__ __device__ Lanes() : bits() {}
};

// A map [N, C, H, W] of any strides, in elements.
template <typename Data>
struct Map {
  Data* data = nullptr;
  int64_t stride[4] = {};
};
using InMap = Map<const void>;
using OutMap = Map<void>;

template <typename T>
__device__ __forceinline__ const T* plane_of(const InMap& map, int64_t image, int64_t channel) {
  return static_cast<const T*>(map.data) + image * map.stride[0] + channel * map.stride[1];
}
template <typename T>
__device__ __forceinline__ T* plane_of(const OutMap& map, int64_t image, int64_t channel) {
  return static_cast<T*>(map.data) + image * map.stride[0] + channel * map.stride[1];
}

// A parameter tensor, float32 or the dtype of x; data is null where it is absent.
struct Param {
  const void* data = nullptr;
  bool is_float32 = true;
};

template <typename T>
__device__ __forceinline__ float load_param(Param param, int64_t i, float absent) {
  if (param.data == nullptr) return absent;
  return param.is_float32 ? static_cast<const float*>(param.data)[i]
                          : to_float(static_cast<const T*>(param.data)[i]);
}

// The gradient of a parameter, with its dtype; data is null where it is not wanted.
struct OutParam {
  void* data = nullptr;
  bool is_float32 = true;
};

template <typename T>
__device__ __forceinline__ void store_param(const OutParam& param, int64_t i, float value) {
  if (param.is_float32) {
    static_cast<float*>(param.data)[i] = value;
  } else {
    static_cast<T*>(param.data)[i] = from_float<T>(value);
  }
}

}  // namespace lmwp::cuda
