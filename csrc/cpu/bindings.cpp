// The CPU kernels as implementations of torch ops.
#include "common/cpu_capability.h"
#include "common/depthwise_scales_checks.h"
#include "common/stable.h"
#include "cpu/depthwise_scales.h"

namespace lmwp {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kGrainOutputs = 32768;  // outputs that are worth a thread

DepthwiseKernel depthwise_kernel() {
#if defined(__x86_64__)
  switch (cpu_capability()) {
    case CpuCapability::avx512:
      return avx512::depthwise_scales_kernel();
    case CpuCapability::avx2:
      return avx2::depthwise_scales_kernel();
    default:
      return sse42::depthwise_scales_kernel();
  }
#else
  return generic::depthwise_scales_kernel();
#endif
}

Dtype dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return Dtype::float32;
    case ScalarType::Half:
      return Dtype::float16;
    case ScalarType::BFloat16:
      return Dtype::bfloat16;
    default:
      STD_TORCH_CHECK(false, "depthwise_scales_cpp: xs: expected float32, float16 or bfloat16");
  }
}

// A parameter of `count` elements as contiguous float32; what it points to lives in `keep`.
const float* parameter(const Tensors& list, std::size_t b, int64_t count, Tensors& keep) {
  if (list.empty()) return nullptr;
  STD_TORCH_CHECK(list[b].is_cpu() && list[b].numel() == count,
                  "depthwise_scales_cpp: parameter of branch ", b, ": expected ", count,
                  " elements on the CPU, got ", list[b].numel());
  Tensor p = list[b];
  if (p.scalar_type() != ScalarType::Float) p = torch::stable::to(p, ScalarType::Float);
  if (!p.is_contiguous()) p = torch::stable::contiguous(p);
  keep.push_back(p);
  return static_cast<const float*>(p.const_data_ptr());
}

void run(const DepthwiseProblem& problem, int64_t outputs) {
  static const DepthwiseKernel kernel = depthwise_kernel();
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
  check_depthwise_scales("depthwise_scales_cpp", xs, weights, scale, shift, slope, stride,
                         dilation);
  STD_TORCH_CHECK(xs[0].is_cpu(), "depthwise_scales_cpp: xs: expected CPU tensors");
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
    ys.push_back(empty_like_layout(x, branch.out_height, branch.out_width));
    branch.x = x.const_data_ptr();
    branch.y = ys[b].mutable_data_ptr();
    for (int d = 0; d < 4; ++d) {
      branch.x_stride[d] = x.stride(d);
      branch.y_stride[d] = ys[b].stride(d);
    }
    branch.weight = parameter(weights, b, branch.channels * k * k, keep);
    branch.scale = parameter(scale, b, branch.channels, keep);
    branch.shift = parameter(shift, b, branch.channels, keep);
    branch.slope = parameter(slope, b, branch.channels, keep);
    outputs += branch.batch * branch.channels * branch.out_height * branch.out_width;
  }
  run({branches.data(), static_cast<int64_t>(branches.size()), static_cast<int>(k),
       static_cast<int>(stride), dilation, dtype_of(xs[0])},
      outputs);
  return ys;
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("depthwise_scales_cpp", TORCH_BOX(&lmwp::depthwise_scales));
}
