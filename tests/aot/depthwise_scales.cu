// Enough of the kernel's instantiations to show each of them at its hungriest.
#include "cuda/depthwise_scales_fwd.cuh"

namespace lmwp::cuda {

#define INSTANTIATE(T, K, S)                                     \
  template __global__ void depthwise_scales_fwd_kernel<T, K, S>( \
      __grid_constant__ const Tasks<DepthwiseTask>)

INSTANTIATE(float, 3, 1);
INSTANTIATE(float, 7, 1);
INSTANTIATE(float, 7, 2);
INSTANTIATE(__half, 3, 2);
INSTANTIATE(__half, 7, 1);
INSTANTIATE(__nv_bfloat16, 3, 1);
INSTANTIATE(__nv_bfloat16, 7, 2);

}  // namespace lmwp::cuda
