#pragma once

#if defined(__CUDACC__)
#define LMWP_HD __host__ __device__
#else
#define LMWP_HD
#endif

namespace lmwp {

// y = PReLU(scale * z + shift): folded batch norm and activation in one step. T is float or a
// vector of floats; internal linkage keeps the copies of each instruction set apart.
template <typename T>
LMWP_HD static inline T affine_prelu(T z, T scale, T shift, T slope) {
  const T a = scale * z + shift;
  return a < 0.0f ? slope * a : a;
}

}  // namespace lmwp
