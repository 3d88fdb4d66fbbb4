// The CPU kernels of multiscale_mix, of multiscale_norm_mix and of their backward as torch ops.
#include <algorithm>
#include <optional>
#include <tuple>

#include "cpu/multiscale_mix.h"
#include "cpu/torch_arguments.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;
using Ints = std::vector<int64_t>;
using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Five = std::tuple<Tensors, Tensors, Tensors, Tensors, Tensors>;

constexpr int64_t kGrainElements = 16384;  // that are worth a thread
constexpr int64_t kLargestOctave = 15;

void run(const MixKernel& kernel, const MixProblem& problem) {
  const int64_t tasks = kernel.task_count(problem);
  if (tasks == 0) return;
  const int64_t scratch_floats = kernel.scratch_floats(problem);
  const int64_t elements = problem.batch * problem.channels * problem.rows * problem.columns;
  const int64_t grain = kGrainElements * tasks / (elements + 1) + 1;
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    kernel.run(problem, begin, end, thread_scratch(scratch_floats));
  });
}

// Whether the columns of a row lie side by side.
bool is_planar(const Tensor& x) { return x.stride(3) == 1 || x.size(3) == 1; }

Tensor planar(const Tensor& x, Tensors& keep) {
  if (is_planar(x)) return x;
  keep.push_back(torch::stable::contiguous(x));
  return keep.back();
}

MixFeature feature(const Tensor& x) {
  return {const_cast<void*>(x.const_data_ptr()), x.stride(0), x.stride(1), x.stride(2)};
}

// A result with the layout of u, which kernels write through planar memory.
class Result {
 public:
  explicit Result(const Tensor& u)
      : given_(empty_output(u, u.size(1), u.size(2), u.size(3))),
        written_(is_planar(given_) ? given_ : empty_dense(u)) {}

  MixFeature target() const { return feature(written_); }
  Tensor take() {
    if (!is_planar(given_)) torch::stable::copy_(given_, written_);
    return given_;
  }

 private:
  Tensor given_, written_;
};

MixProblem problem_of(const char* op, const Tensor& u, const Tensor& weights, const Tensor& mix,
                      const Tensor& scale, const Tensor& shift, const Ints& octaves,
                      const Ints& dilations, Tensors& keep) {
  STD_TORCH_CHECK(u.dim() == 4 && u.is_cpu() && u.size(1) > 0 && u.size(2) > 0 && u.size(3) > 0, op,
                  ": u: expected a 4-D CPU tensor with a channel and a pixel");
  STD_TORCH_CHECK(!octaves.empty() && octaves.size() == dilations.size(), op,
                  ": expected as many octaves as dilations, and at least one");
  for (std::size_t k = 0; k < octaves.size(); ++k) {
    STD_TORCH_CHECK(octaves[k] >= 0 && octaves[k] <= kLargestOctave && dilations[k] > 0, op,
                    ": expected octaves of 0 to ", kLargestOctave, " and positive dilations");
  }
  MixProblem p{};
  p.dtype = dtype_of(op, u);
  p.batch = u.size(0);
  p.channels = u.size(1);
  p.rows = u.size(2);
  p.columns = u.size(3);
  p.branches = static_cast<int64_t>(octaves.size());
  p.octaves = octaves.data();
  p.dilations = dilations.data();
  p.u = feature(planar(u, keep));
  p.weights = parameter(op, weights, {p.branches, p.channels, 3, 3}, u, keep);
  p.mix = parameter(op, mix, {p.batch, p.branches, p.channels}, u, keep);
  p.scale = parameter(op, scale, {p.branches, p.channels}, u, keep);
  p.shift = parameter(op, shift, {p.branches, p.channels}, u, keep);
  return p;
}

Tensor multiscale_mix(const Tensor& u, const Tensor& weights, const Tensor& mix,
                      const Tensor& scale, const Tensor& shift, const Ints& octaves,
                      const Ints& dilations) {
  static const MixKernel kernel = LMWP_BEST_KERNEL(multiscale_mix_kernel);
  Tensors keep;
  MixProblem p =
      problem_of("multiscale_mix_cpp", u, weights, mix, scale, shift, octaves, dilations, keep);
  Result result(u);
  p.out = result.target();
  run(kernel, p);
  return result.take();
}

Four multiscale_norm_mix(const Tensor& u, const Tensor& weights, const Tensor& mix,
                         const Tensor& gamma, const Tensor& beta, const Ints& octaves,
                         const Ints& dilations, double eps) {
  static const MixKernel kernel = LMWP_BEST_KERNEL(multiscale_norm_mix_kernel);
  constexpr const char* op = "multiscale_norm_mix_cpp";
  Tensors keep;
  MixProblem p = problem_of(op, u, weights, mix, gamma, beta, octaves, dilations, keep);
  STD_TORCH_CHECK(eps > 0, op, ": eps: expected a positive number, got ", eps);
  const int64_t window = int64_t{1} << *std::max_element(octaves.begin(), octaves.end());
  STD_TORCH_CHECK(p.batch != 1 || u.size(2) > window || u.size(3) > window, op,
                  ": u: expected more than one value per channel at every octave");
  p.eps = eps;
  Result result(u);
  p.out = result.target();
  Tensor mean = empty_floats({p.branches, p.channels});
  Tensor var = empty_floats({p.branches, p.channels});
  Tensor means = empty_floats({p.batch, p.branches, p.channels});
  p.batch_mean = floats(mean);
  p.batch_var = floats(var);
  p.means = floats(means);
  run(kernel, p);
  return {result.take(), means, mean, var};
}

// The gradients of u, weights, mix, scale and shift, each where wanted.
Five backward_of(const char* op, MixProblem& p, const Tensor& grad, const Tensor& u,
                 const Tensor& weights, const Tensor& mix, const Tensor& scale, const Tensor& shift,
                 const std::vector<bool>& wanted, Tensors& keep) {
  static const MixKernel kernel = LMWP_BEST_KERNEL(multiscale_mix_backward_kernel);
  STD_TORCH_CHECK(wanted.size() == 5, op, ": wanted: expected 5 flags");
  bool fits = grad.dim() == 4 && grad.is_cpu() && grad.scalar_type() == u.scalar_type();
  for (int d = 0; d < 4; ++d) fits = fits && grad.size(d) == u.size(d);
  STD_TORCH_CHECK(fits, op, ": grad: expected a tensor like u");
  p.grad = feature(planar(grad, keep));
  std::optional<Result> du;
  if (wanted[0]) {
    du.emplace(u);
    p.out = du->target();
  }
  const Tensor* const parameters[4] = {&weights, &mix, &scale, &shift};
  float** const targets[4] = {&p.grad_weights, &p.grad_mix, &p.grad_scale, &p.grad_shift};
  Tensors found[4];
  for (int i = 0; i < 4; ++i) {
    if (!wanted[i + 1]) continue;
    found[i].push_back(empty_floats(sizes_of(*parameters[i])));
    *targets[i] = floats(found[i][0]);
  }
  run(kernel, p);
  for (int i = 0; i < 4; ++i) {
    for (Tensor& gradient : found[i]) gradient = with_dtype_of(*parameters[i], gradient);
  }
  return {du ? Tensors{du->take()} : Tensors{}, found[0], found[1], found[2], found[3]};
}

Five multiscale_mix_backward(const Tensor& grad, const Tensor& u, const Tensor& weights,
                             const Tensor& mix, const Tensor& scale, const Tensor& shift,
                             const Ints& octaves, const Ints& dilations,
                             const std::vector<bool>& wanted) {
  constexpr const char* op = "multiscale_mix_backward_cpp";
  Tensors keep;
  MixProblem p = problem_of(op, u, weights, mix, scale, shift, octaves, dilations, keep);
  return backward_of(op, p, grad, u, weights, mix, scale, shift, wanted, keep);
}

Five multiscale_norm_mix_backward(const Tensor& grad, const Tensor& u, const Tensor& weights,
                                  const Tensor& mix, const Tensor& gamma, const Tensor& beta,
                                  const Tensor& batch_mean, const Tensor& batch_var,
                                  const Ints& octaves, const Ints& dilations, double eps,
                                  const std::vector<bool>& wanted) {
  constexpr const char* op = "multiscale_norm_mix_backward_cpp";
  Tensors keep;
  MixProblem p = problem_of(op, u, weights, mix, gamma, beta, octaves, dilations, keep);
  STD_TORCH_CHECK(eps > 0, op, ": eps: expected a positive number, got ", eps);
  p.eps = eps;
  p.batch_mean = const_cast<float*>(parameter(op, batch_mean, {p.branches, p.channels}, u, keep));
  p.batch_var = const_cast<float*>(parameter(op, batch_var, {p.branches, p.channels}, u, keep));
  return backward_of(op, p, grad, u, weights, mix, gamma, beta, wanted, keep);
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("multiscale_mix_cpp", TORCH_BOX(&lmwp::multiscale_mix));
  m.impl("multiscale_mix_backward_cpp", TORCH_BOX(&lmwp::multiscale_mix_backward));
  m.impl("multiscale_norm_mix_backward_cpp", TORCH_BOX(&lmwp::multiscale_norm_mix_backward));
  m.impl("multiscale_norm_mix_cpp", TORCH_BOX(&lmwp::multiscale_norm_mix));
}
