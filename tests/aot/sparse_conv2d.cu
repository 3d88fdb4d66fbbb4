// Enough of the kernel's instantiations to show each of them at its hungriest.
#include "cuda/sparse_conv2d_fwd.cuh"

namespace lmwp::cuda {

#define INSTANTIATE(T, R, V)                                  \
  template __global__ void sparse_conv2d_fwd_kernel<T, R, V>( \
      __grid_constant__ const SparseConvLaunch)

INSTANTIATE(float, 1, true);
INSTANTIATE(float, 4, true);
INSTANTIATE(float, 16, true);
INSTANTIATE(__half, 1, true);
INSTANTIATE(__nv_bfloat16, 4, true);

}  // namespace lmwp::cuda
