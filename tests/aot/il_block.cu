// Enough of the kernel's instantiations to show each of them at its hungriest.
#include "cuda/il_block_fwd.cuh"

namespace lmwp::cuda {

#define INSTANTIATE(T, K) \
  template __global__ void il_block_fwd_kernel<T, K>(__grid_constant__ const IlBlockLaunch)

INSTANTIATE(float, 1);
INSTANTIATE(float, 3);
INSTANTIATE(__half, 3);
INSTANTIATE(__nv_bfloat16, 1);

}  // namespace lmwp::cuda
