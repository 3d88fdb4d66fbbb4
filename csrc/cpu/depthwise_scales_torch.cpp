// The CPU kernel of depthwise_scales as a torch op.
#include "common/depthwise_scales_checks.h"
#include "cpu/depthwise_scales.h"
#include "cpu/torch_arguments.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;

constexpr int64_t kGrainOutputs = 32768;  // outputs that are worth a thread

constexpr const char* kOp = "depthwise_scales_cpp";

void run(const DepthwiseProblem& problem, int64_t outputs) {
  static const DepthwiseKernel kernel = LMWP_BEST_KERNEL(depthwise_scales_kernel);
  const int64_t tasks = kernel.task_count(problem);
  if (tasks == 0) return;
  const int64_t scratch_floats = kernel.scratch_floats(problem);
  const int64_t grain = kGrainOutputs * tasks / outputs + 1;
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> scratch;
    if (static_cast<int64_t>(scratch.size()) < scratch_floats) scratch.resize(scratch_floats);
    kernel.run(problem, begin, end, scratch.data());
  });
}

Tensors depthwise_scales(const Tensors& xs, const Tensors& weights, const Tensors& scale,
                         const Tensors& shift, const Tensors& slope, int64_t stride,
                         int64_t dilation) {
  check_depthwise_scales(kOp, xs, weights, scale, shift, slope, stride, dilation);
  STD_TORCH_CHECK(xs[0].is_cpu(), kOp, ": xs: expected CPU tensors");
  const int64_t k = weights[0].size(3);
  std::vector<DepthwiseBranch> branches(xs.size());
  Tensors ys, keep;
  int64_t outputs = 0;
  for (std::size_t b = 0; b < xs.size(); ++b) {
    DepthwiseBranch& branch = branches[b];
    const Tensor& x = xs[b];
    branch.batch = x.size(0);
    branch.channels = x.size(1);
    branch.height = x.size(2);
    branch.width = x.size(3);
    branch.out_height = (branch.height - 1) / stride + 1;
    branch.out_width = (branch.width - 1) / stride + 1;
    ys.push_back(empty_output(x, branch.channels, branch.out_height, branch.out_width));
    branch.x = x.const_data_ptr();
    branch.y = ys[b].mutable_data_ptr();
    for (int d = 0; d < 4; ++d) {
      branch.x_stride[d] = x.stride(d);
      branch.y_stride[d] = ys[b].stride(d);
    }
    branch.weight = parameter(kOp, weights, b, {branch.channels, 1, k, k}, x, keep);
    branch.scale = parameter(kOp, scale, b, {branch.channels}, x, keep);
    branch.shift = parameter(kOp, shift, b, {branch.channels}, x, keep);
    branch.slope = parameter(kOp, slope, b, {branch.channels}, x, keep);
    outputs += branch.batch * branch.channels * branch.out_height * branch.out_width;
  }
  run({branches.data(), static_cast<int64_t>(branches.size()), static_cast<int>(k),
       static_cast<int>(stride), dilation, dtype_of(kOp, xs[0])},
      outputs);
  return ys;
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("depthwise_scales_cpp", TORCH_BOX(&lmwp::depthwise_scales));
}
