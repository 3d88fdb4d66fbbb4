// Enough of the backward kernels' instantiations to show each of them at its hungriest.
#include "cuda/depthwise_scales_bwd.cuh"

namespace lmwp::cuda {

#define INSTANTIATE(T, K, S)                                            \
  template __global__ void depthwise_scales_bwd_input_kernel<T, K, S>(  \
      __grid_constant__ const Tasks<DepthwiseTask>);                    \
  template __global__ void depthwise_scales_bwd_weight_kernel<T, K, S>( \
      __grid_constant__ const Tasks<DepthwiseGradTask>)
#define INSTANTIATE_SUM(T)                                     \
  template __global__ void depthwise_scales_bwd_sum_kernel<T>( \
      __grid_constant__ const Tasks<DepthwiseSumTask>)

INSTANTIATE(float, 3, 1);
INSTANTIATE(float, 5, 1);
INSTANTIATE(float, 7, 1);
INSTANTIATE(float, 7, 2);
INSTANTIATE(__half, 3, 1);
INSTANTIATE(__half, 3, 2);
INSTANTIATE(__half, 5, 2);
INSTANTIATE(__half, 7, 1);
INSTANTIATE(__nv_bfloat16, 3, 1);
INSTANTIATE(__nv_bfloat16, 5, 1);
INSTANTIATE(__nv_bfloat16, 7, 2);
INSTANTIATE_SUM(float);
INSTANTIATE_SUM(__half);

}  // namespace lmwp::cuda
