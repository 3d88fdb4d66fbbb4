// Runs the kernel of an epilogue's gradients over the branches of an op.
#include "cpu/epilogue_backward_torch.h"

#include "cpu/channel_problem_torch.h"
#include "cpu/epilogue_backward.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;

// What the parameters of a branch have of gradients, by channel.
struct BranchSums {
  explicit BranchSums(int64_t channels)
      : scale(empty_floats({channels})),
        shift(empty_floats({channels})),
        slope(empty_floats({channels})) {}

  Tensor scale, shift, slope;
};

BranchSums run(EpilogueProblem& p) {
  static const EpilogueBackwardKernel kernel = LMWP_BEST_KERNEL(epilogue_backward_kernel);
  BranchSums sums(p.channels);
  p.grad_scale = floats(sums.scale);
  p.grad_shift = floats(sums.shift);
  p.grad_slope = floats(sums.slope);
  join_rows(p, {&p.z, &p.grad, &p.out});
  take_scratch(p, kernel.sum_doubles(p), kernel.channel_floats(p));
  kernel.prepare(p);
  const int64_t units = kernel.units(p);
  torch::stable::parallel_for(0, units, grain_of(p, units),
                              [&](int64_t begin, int64_t end) { kernel.run(p, begin, end); });
  kernel.combine(p);
  return sums;
}

}  // namespace

EpilogueGradients epilogue_backward(const char* op, const Tensors& grads, const Tensors& sums,
                                    const Tensors& scale, const Tensors& shift,
                                    const Tensors& slope, const Wanted& wanted) {
  check_epilogue(op, scale, shift, slope, grads.size());
  EpilogueGradients found;
  for (std::size_t b = 0; b < grads.size(); ++b) {
    Tensors keep;
    const Tensor& grad = grads[b];
    const Tensor& like = sums.empty() ? grad : sums[b];
    const int64_t channels = grad.size(1);
    EpilogueProblem p{};
    set_sizes(p, like, dtype_of(op, grad));
    const bool in_place = !sums.empty() && p.dtype == Dtype::float32;
    found.sums.push_back(in_place ? sums[b]
                                  : empty_pooled(grad, {p.batch, channels, p.rows, p.columns},
                                                 strides_like(like, channels, p.rows, p.columns)));
    if (!sums.empty()) p.z = feature(sums[b]);
    p.grad = feature(walkable(grad, like, keep));
    p.out = feature(found.sums[b]);
    p.scale = parameter(op, scale, b, {channels}, grad, keep);
    p.shift = parameter(op, shift, b, {channels}, grad, keep);
    p.slope = parameter(op, slope, b, {channels}, grad, keep);
    BranchSums of = run(p);
    if (wanted.scale && p.scale) found.scale.push_back(with_dtype_of(scale[b], of.scale));
    if (wanted.shift && p.shift) found.shift.push_back(with_dtype_of(shift[b], of.shift));
    if (wanted.slope && p.slope) found.slope.push_back(with_dtype_of(slope[b], of.slope));
    if (!wanted.bias) continue;
    Tensor of_bias = empty_floats({channels});
    for (int64_t c = 0; c < channels; ++c) {
      floats(of_bias)[c] = (p.scale ? p.scale[c] : 1.0f) * floats(of.shift)[c];
    }
    found.bias.push_back(of_bias);
  }
  return found;
}

Tensors bias_gradients(const char* op, const Tensors& grads) {
  Tensors found;
  for (const Tensor& grad : grads) {
    Tensors keep;
    EpilogueProblem p{};
    set_sizes(p, grad, dtype_of(op, grad));
    p.grad = feature(walkable(grad, grad, keep));
    found.push_back(run(p).shift);
  }
  return found;
}

}  // namespace lmwp
