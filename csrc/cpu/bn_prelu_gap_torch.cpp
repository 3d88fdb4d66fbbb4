// The CPU kernels of bn_prelu_gap and of its backward as torch ops.
#include <tuple>

#include "cpu/bn_prelu_gap.h"
#include "cpu/channel_problem_torch.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;
using Four = std::tuple<Tensors, Tensors, Tensors, Tensors>;

constexpr const char* kOp = "bn_prelu_gap_cpp";

void run(const NormPasses& passes, NormProblem& p, bool applies) {
  take_scratch(p, passes.sum_doubles(p), passes.channel_floats(p));
  passes.prepare(p);
  const int64_t units = passes.units(p);
  if (!p.interleaved && p.channels >= torch::stable::get_num_threads()) {
    // Both passes over a channel in turn, the second backwards, so that it begins with what the
    // first has left in cache.
    const int64_t grain = grain_of(p, p.channels);
    torch::stable::parallel_for(0, p.channels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        const int64_t first = c * p.batch;
        passes.reduce(p, first, first + p.batch);
        passes.combine(p, c, c + 1);
        for (int64_t i = first + p.batch; applies && i > first; --i) passes.apply(p, i - 1, i);
      }
    });
  } else {
    const int64_t grain = grain_of(p, units);
    torch::stable::parallel_for(0, units, grain,
                                [&](int64_t begin, int64_t end) { passes.reduce(p, begin, end); });
    passes.combine(p, 0, p.channels);
    if (applies) {
      torch::stable::parallel_for(0, units, grain,
                                  [&](int64_t begin, int64_t end) { passes.apply(p, begin, end); });
    }
  }
  passes.finish(p);
}

void check_lists(const Tensors& xs, const Tensors& weight, const Tensors& bias,
                 const Tensors& slope) {
  STD_TORCH_CHECK(!xs.empty() && weight.size() == xs.size() && bias.size() == xs.size() &&
                      (slope.empty() || slope.size() == xs.size()),
                  kOp, ": expected one entry per branch in every list");
}

NormProblem problem_of(const Tensor& x, const Tensors& weight, const Tensors& bias,
                       const Tensors& slope, std::size_t b, double eps, Tensors& keep) {
  STD_TORCH_CHECK(x.dim() == 4 && x.is_cpu() && x.size(1) > 0 && x.size(2) > 0 && x.size(3) > 0 &&
                      x.size(0) * x.size(2) * x.size(3) != 1,
                  kOp, ": xs: expected 4-D CPU tensors of more than one value per channel");
  STD_TORCH_CHECK(eps > 0, kOp, ": eps: expected a positive number, got ", eps);
  NormProblem p{};
  set_sizes(p, x, dtype_of(kOp, x));
  p.eps = eps;
  p.weight = parameter(kOp, weight, b, {p.channels}, x, keep);
  p.bias = parameter(kOp, bias, b, {p.channels}, x, keep);
  p.slope = parameter(kOp, slope, b, {p.channels}, x, keep);
  return p;
}

Four forward(const Tensors& xs, const Tensors& weight, const Tensors& bias, const Tensors& slope,
             double eps) {
  static const NormPasses passes = LMWP_BEST_KERNEL(bn_prelu_gap_forward);
  check_lists(xs, weight, bias, slope);
  Tensors ys, means, batch_mean, batch_var;
  for (std::size_t b = 0; b < xs.size(); ++b) {
    Tensors keep;
    NormProblem p = problem_of(xs[b], weight, bias, slope, b, eps, keep);
    ys.push_back(empty_output(xs[b], p.channels, p.rows, p.columns));
    means.push_back(empty_floats({p.batch, p.channels}));
    batch_mean.push_back(empty_floats({p.channels}));
    batch_var.push_back(empty_floats({p.channels}));
    p.x = feature(walkable(xs[b], xs[b], keep));
    p.out = feature(ys[b]);
    p.means = floats(means[b]);
    p.batch_mean = floats(batch_mean[b]);
    p.batch_var = floats(batch_var[b]);
    join_rows(p, {&p.x, &p.grad, &p.out});
    run(passes, p, true);
  }
  return {ys, means, batch_mean, batch_var};
}

Four backward(const Tensors& grads, const Tensors& xs, const Tensors& weight, const Tensors& bias,
              const Tensors& slope, const Tensors& batch_mean, const Tensors& batch_var, double eps,
              const std::vector<bool>& wanted) {
  static const NormPasses passes = LMWP_BEST_KERNEL(bn_prelu_gap_backward);
  check_lists(xs, weight, bias, slope);
  STD_TORCH_CHECK(grads.size() == xs.size() && batch_mean.size() == xs.size() &&
                      batch_var.size() == xs.size() && wanted.size() == 4,
                  kOp, ": expected one entry per branch in every list, and 4 flags");
  Tensors grad_xs, grad_weight, grad_bias, grad_slope;
  for (std::size_t b = 0; b < xs.size(); ++b) {
    Tensors keep;
    const Tensor& x = xs[b];
    NormProblem p = problem_of(x, weight, bias, slope, b, eps, keep);
    bool fits =
        grads[b].dim() == 4 && grads[b].is_cpu() && grads[b].scalar_type() == x.scalar_type();
    for (int d = 0; d < 4; ++d) fits = fits && grads[b].size(d) == x.size(d);
    STD_TORCH_CHECK(fits, kOp, ": grads: expected tensors like xs");
    Tensor found[3] = {empty_floats({p.channels}), empty_floats({p.channels}),
                       empty_floats({p.channels})};
    p.batch_mean = const_cast<float*>(parameter(kOp, batch_mean, b, {p.channels}, x, keep));
    p.batch_var = const_cast<float*>(parameter(kOp, batch_var, b, {p.channels}, x, keep));
    p.x = feature(walkable(x, x, keep));
    p.grad = feature(walkable(grads[b], x, keep));
    p.grad_weight = floats(found[0]);
    p.grad_bias = floats(found[1]);
    p.grad_slope = floats(found[2]);
    if (wanted[0]) {
      grad_xs.push_back(empty_output(x, p.channels, p.rows, p.columns));
      p.out = feature(grad_xs[b]);
    }
    join_rows(p, {&p.x, &p.grad, &p.out});
    run(passes, p, wanted[0]);
    if (wanted[1]) grad_weight.push_back(with_dtype_of(weight[b], found[0]));
    if (wanted[2]) grad_bias.push_back(with_dtype_of(bias[b], found[1]));
    if (wanted[3] && !slope.empty()) grad_slope.push_back(with_dtype_of(slope[b], found[2]));
  }
  return {grad_xs, grad_weight, grad_bias, grad_slope};
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("bn_prelu_gap_cpp", TORCH_BOX(&lmwp::forward));
  m.impl("bn_prelu_gap_backward_cpp", TORCH_BOX(&lmwp::backward));
}
