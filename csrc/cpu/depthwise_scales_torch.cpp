// The CPU kernel of depthwise_scales as a torch op.
#include "common/depthwise_scales_checks.h"
#include "cpu/depthwise_scales.h"
#include "cpu/epilogue_backward_torch.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;

constexpr int64_t kGrainOutputs = 32768;  // outputs that are worth a thread

// Calls run(begin, end, scratch) for ranges of the problem's tasks.
template <typename Kernel, typename Run>
void in_parallel(const Kernel& kernel, const DepthwiseProblem& problem, Run&& run) {
  const int64_t tasks = kernel.task_count(problem);
  if (tasks == 0) return;
  int64_t outputs = 0;
  for (int64_t b = 0; b < problem.count; ++b) {
    const DepthwiseBranch& branch = problem.branches[b];
    outputs += branch.batch * branch.channels * branch.out_height * branch.out_width;
  }
  const int64_t scratch_floats = kernel.scratch_floats(problem);
  const int64_t grain = kGrainOutputs * tasks / outputs + 1;
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> scratch;
    if (static_cast<int64_t>(scratch.size()) < scratch_floats) scratch.resize(scratch_floats);
    run(begin, end, scratch.data());
  });
}

void set_maps(DepthwiseBranch& branch, const Tensor& x, const Tensor& y) {
  branch.x = x.const_data_ptr();
  branch.y = const_cast<void*>(y.const_data_ptr());
  branch.batch = x.size(0);
  branch.channels = x.size(1);
  branch.height = x.size(2);
  branch.width = x.size(3);
  branch.out_height = y.size(2);
  branch.out_width = y.size(3);
  for (int d = 0; d < 4; ++d) {
    branch.x_stride[d] = x.stride(d);
    branch.y_stride[d] = y.stride(d);
  }
}

// Whether a vector of channels can be read and written at once.
bool are_side_by_side(const DepthwiseProblem& problem) {
  for (int64_t b = 0; b < problem.count; ++b) {
    const DepthwiseBranch& branch = problem.branches[b];
    const bool is_wide = branch.channels > 1 && branch.height * branch.width > 1;
    if (!is_wide || branch.x_stride[1] != 1 || branch.y_stride[1] != 1) return false;
  }
  return !problem.spread;
}

void compute(const DepthwiseProblem& problem) {
  static const DepthwiseKernel of_planes = LMWP_BEST_KERNEL(depthwise_scales_kernel);
  static const DepthwiseKernel of_pixels = LMWP_BEST_KERNEL(depthwise_pixels_kernel);
  const DepthwiseKernel& kernel = are_side_by_side(problem) ? of_pixels : of_planes;
  in_parallel(kernel, problem, [&](int64_t begin, int64_t end, float* scratch) {
    kernel.run(problem, begin, end, scratch);
  });
}

Tensors depthwise_scales(const Tensors& xs, const Tensors& weights, const Tensors& scale,
                         const Tensors& shift, const Tensors& slope, int64_t stride,
                         int64_t dilation) {
  constexpr const char* op = "depthwise_scales_cpp";
  check_depthwise_scales(op, xs, weights, scale, shift, slope, stride, dilation);
  STD_TORCH_CHECK(xs[0].is_cpu(), op, ": xs: expected CPU tensors");
  const int64_t k = weights[0].size(3);
  std::vector<DepthwiseBranch> branches(xs.size());
  Tensors ys, keep;
  for (std::size_t b = 0; b < xs.size(); ++b) {
    DepthwiseBranch& branch = branches[b];
    const Tensor& x = xs[b];
    const int64_t channels = x.size(1);
    ys.push_back(
        empty_output(x, channels, (x.size(2) - 1) / stride + 1, (x.size(3) - 1) / stride + 1));
    set_maps(branch, x, ys[b]);
    branch.weight = parameter(op, weights, b, {channels, 1, k, k}, x, keep);
    branch.scale = parameter(op, scale, b, {channels}, x, keep);
    branch.shift = parameter(op, shift, b, {channels}, x, keep);
    branch.slope = parameter(op, slope, b, {channels}, x, keep);
  }
  compute({branches.data(), static_cast<int64_t>(branches.size()), static_cast<int>(k),
           static_cast<int>(stride), dilation, dtype_of(op, xs[0]), false});
  return ys;
}

// The transposed convolution: one with the taps in reverse order, over gradients that are spread
// out to the size of the inputs where the stride is 2.
Tensors input_gradients(const char* op, const Tensors& grads, const Tensors& xs,
                        const Tensors& weights, int64_t stride, int64_t dilation) {
  const int64_t k = weights[0].size(3);
  std::vector<DepthwiseBranch> branches(xs.size());
  std::vector<std::vector<float>> reversed(xs.size());
  Tensors gradients, keep;
  for (std::size_t b = 0; b < xs.size(); ++b) {
    const Tensor& x = xs[b];
    const int64_t count = x.size(1) * k * k;
    const float* weight = parameter(op, weights, b, {x.size(1), 1, k, k}, x, keep);
    reversed[b].resize(count);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t tap = i % (k * k);
      reversed[b][i - tap + k * k - 1 - tap] = weight[i];
    }
    gradients.push_back(empty_output(x, x.size(1), x.size(2), x.size(3)));
    set_maps(branches[b], grads[b], gradients[b]);
    branches[b].height = x.size(2);
    branches[b].width = x.size(3);
    branches[b].weight = reversed[b].data();
  }
  compute({branches.data(), static_cast<int64_t>(branches.size()), static_cast<int>(k), 1, dilation,
           dtype_of(op, xs[0]), stride == 2});
  return gradients;
}

Tensors weight_gradients(const char* op, const Tensors& grads, const Tensors& xs,
                         const Tensors& weights, int64_t stride, int64_t dilation) {
  static const DepthwiseWeightKernel kernel = LMWP_BEST_KERNEL(depthwise_scales_weight_kernel);
  const int64_t k = weights[0].size(3);
  std::vector<DepthwiseBranch> branches(xs.size());
  std::vector<float*> sums;
  Tensors gradients;
  for (std::size_t b = 0; b < xs.size(); ++b) {
    set_maps(branches[b], xs[b], grads[b]);
    gradients.push_back(empty_floats({xs[b].size(1), 1, k, k}));
    sums.push_back(floats(gradients[b]));
  }
  const DepthwiseProblem problem{branches.data(),
                                 static_cast<int64_t>(branches.size()),
                                 static_cast<int>(k),
                                 static_cast<int>(stride),
                                 dilation,
                                 dtype_of(op, xs[0]),
                                 false};
  std::vector<float> partials(kernel.task_count(problem) * k * k);
  in_parallel(kernel, problem, [&](int64_t begin, int64_t end, float* scratch) {
    kernel.run(problem, begin, end, partials.data(), scratch);
  });
  kernel.reduce(problem, partials.data(), sums.data());
  for (std::size_t b = 0; b < xs.size(); ++b) {
    if (weights[b].scalar_type() != torch::headeronly::ScalarType::Float) {
      gradients[b] = torch::stable::to(gradients[b], weights[b].scalar_type());
    }
  }
  return gradients;
}

FiveKinds backward(const Tensors& grads, const Tensors& xs, const Tensors& weights,
                   const Tensors& scale, const Tensors& shift, const Tensors& slope, int64_t stride,
                   int64_t dilation, const std::vector<bool>& flags) {
  constexpr const char* op = "depthwise_scales_backward_cpp";
  check_depthwise_scales(op, xs, weights, scale, shift, slope, stride, dilation);
  STD_TORCH_CHECK(xs[0].is_cpu(), op, ": xs: expected CPU tensors");
  STD_TORCH_CHECK(grads.size() == xs.size(), op, ": grads: expected one per branch");
  for (std::size_t b = 0; b < xs.size(); ++b) {
    const Tensor &dy = grads[b], &x = xs[b];
    STD_TORCH_CHECK(dy.is_cpu() && dy.scalar_type() == x.scalar_type() && dy.dim() == 4 &&
                        dy.size(0) == x.size(0) && dy.size(1) == x.size(1) &&
                        dy.size(2) == (x.size(2) - 1) / stride + 1 &&
                        dy.size(3) == (x.size(3) - 1) / stride + 1,
                    op, ": grads: expected the shapes and the dtype of the results");
  }
  const Wanted wanted(op, flags);
  const auto convolve = [&](const Tensors& wide, const Tensors& ws) {
    return depthwise_scales(wide, ws, {}, {}, {}, stride, dilation);
  };
  const EpilogueGradients found =
      epilogue_backward(op, grads, xs, weights, scale, shift, slope, wanted, convolve);
  Tensors of_xs, of_weights;
  if (wanted.xs) of_xs = input_gradients(op, found.sums, xs, weights, stride, dilation);
  if (wanted.weights) of_weights = weight_gradients(op, found.sums, xs, weights, stride, dilation);
  return {of_xs, of_weights, found.scale, found.shift, found.slope};
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("depthwise_scales_cpp", TORCH_BOX(&lmwp::depthwise_scales));
  m.impl("depthwise_scales_backward_cpp", TORCH_BOX(&lmwp::backward));
}
