// Every instantiation of the kernel but one that differs in rounding alone.
#include "cuda/channel_spatial_attention_fwd.cuh"

namespace lmwp::cuda {

#define INSTANTIATE(T, V)                                              \
  template __global__ void channel_spatial_attention_fwd_kernel<T, V>( \
      __grid_constant__ const AttentionLaunch)

INSTANTIATE(float, 1);
INSTANTIATE(float, 4);
INSTANTIATE(__half, 1);
INSTANTIATE(__half, 8);
INSTANTIATE(__nv_bfloat16, 8);

}  // namespace lmwp::cuda
