// The backward kernels of depthwise_scales on the host for one element type, behind C functions.
// -DELEMENT=float|__half|__nv_bfloat16 -DKERNELS=1,3,5,7
#include "cuda/depthwise_scales_bwd.cuh"

using lmwp::cuda::DepthwiseBackwardBranch;
using lmwp::cuda::DepthwiseBranch;
using lmwp::cuda::DepthwiseGradBranch;
using lmwp::cuda::DepthwiseGradTask;
using lmwp::cuda::DepthwiseTask;
using Sizes = std::integer_sequence<int, KERNELS>;

static_assert(sizeof(DepthwiseBackwardBranch) == 320, "Branch in bwd_cases.py has this layout");

extern "C" {

void set_order(int order, unsigned seed) {
  host_cuda::machine.order = static_cast<host_cuda::Order>(order);
  host_cuda::machine.random.seed(seed);
}

const char* report() { return host_cuda::machine.report.c_str(); }

int64_t scratch(const DepthwiseBackwardBranch* branches, int count, int kernel, int stride,
                int dilation) {
  return lmwp::cuda::depthwise_scales_bwd_weight_scratch<ELEMENT, Sizes>(
      std::vector<DepthwiseGradBranch>(branches, branches + count), kernel, stride, dilation);
}

int run(const DepthwiseBackwardBranch* branches, int count, int kernel, int stride, int dilation,
        float* floats) {
  return lmwp::cuda::depthwise_scales_bwd<ELEMENT, Sizes>({branches, branches + count}, kernel,
                                                          stride, dilation, floats, nullptr);
}

// Bit 0: the sums of a 3 x 3 kernel go through tiles; bits 1 on: sweeps of a block.
int plan(const DepthwiseBackwardBranch* branch, int stride, int dilation) {
  std::vector<DepthwiseGradTask> tasks;
  stride == 1 ? lmwp::cuda::plan_gradients<ELEMENT, 3, 1>({*branch}, dilation, tasks)
              : lmwp::cuda::plan_gradients<ELEMENT, 3, 2>({*branch}, dilation, tasks);
  return tasks[0].tiled + 2 * tasks[0].steps;
}

int is_tiled(const DepthwiseBranch* branch, int stride, int dilation) {
  DepthwiseTask task{};
  stride == 1 ? lmwp::cuda::plan_bwd_input<ELEMENT, 3, 1>(*branch, dilation, task)
              : lmwp::cuda::plan_bwd_input<ELEMENT, 3, 2>(*branch, dilation, task);
  return task.tiled;
}
}
