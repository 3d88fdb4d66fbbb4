// The depthwise kernel on the host for one element type, behind plain C functions for ctypes.
// -DELEMENT=float|__half|__nv_bfloat16 -DKERNELS=1,3,5,7
#include "cuda/depthwise_scales_fwd.cuh"

using lmwp::cuda::DepthwiseBranch;
using lmwp::cuda::DepthwiseTask;
using Sizes = std::integer_sequence<int, KERNELS>;

static_assert(sizeof(DepthwiseBranch) == 176, "Branch in cases.py has this layout");

extern "C" {

// order: 0 forward, 1 reverse, 2 random.
void set_order(int order, unsigned seed) {
  host_cuda::machine.order = static_cast<host_cuda::Order>(order);
  host_cuda::machine.random.seed(seed);
}

const char* report() { return host_cuda::machine.report.c_str(); }

int run(const DepthwiseBranch* branches, int count, int kernel, int stride, int dilation) {
  return lmwp::cuda::depthwise_scales_fwd<ELEMENT, Sizes>(branches, count, kernel, stride, dilation,
                                                          nullptr);
}

int is_tiled(const DepthwiseBranch* branch, int stride, int dilation) {
  DepthwiseTask task{};
  stride == 1 ? lmwp::cuda::plan_conv<ELEMENT, 3, 1>(*branch, dilation, task)
              : lmwp::cuda::plan_conv<ELEMENT, 3, 2>(*branch, dilation, task);
  return task.tiled;
}
}
