// The gradients of sparse_conv2d as a torch op.
#include "cpu/epilogue_backward_torch.h"
#include "cpu/sparse_arguments.h"
#include "cpu/sparse_conv2d_torch.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;
using SevenKinds = std::tuple<Tensors, Tensors, Tensors, Tensors, Tensors, Tensors, Tensors>;

void set_tensors(const Tensor& from, const Tensor& to, SparseConvProblem& problem) {
  problem.dtype = dtype_of(kSparseOp, from);
  problem.x = from.const_data_ptr();
  problem.batch = from.size(0);
  for (int d = 0; d < 4; ++d) {
    problem.x_stride[d] = from.stride(d);
    problem.y_stride[d] = to.stride(d);
  }
}

// Convolves the gradient with the transposed weight, phase by phase of the input's pixels.
Tensor input_gradient(const Tensor& dy, const Tensor& x, const SparseGeometry& geometry,
                      const SparseWeight& weight) {
  Tensor dx = empty_output(x, x.size(1), x.size(2), x.size(3));
  for (int64_t i = 0; i < std::min(geometry.step[0], geometry.size[0]); ++i) {
    for (int64_t j = 0; j < std::min(geometry.step[1], geometry.size[1]); ++j) {
      const SparsePhase phase(geometry, {i, j});
      const SparseTranspose transpose(weight.matrix(), geometry, phase, weight.shared_inputs());
      SparseConvProblem problem{};
      set_tensors(dy, dx, problem);
      const int64_t first = i * dx.stride(2) + j * dx.stride(3);
      problem.y = static_cast<char*>(dx.mutable_data_ptr()) + first * dx.element_size();
      for (int d = 0; d < 2; ++d) problem.y_stride[2 + d] *= geometry.step[d];
      convolve(phase.geometry, transpose.matrix(), problem);
    }
  }
  return dx;
}

Tensor values_gradient(const Tensor& dy, const Tensor& x, const Tensor& values,
                       SparseGeometry geometry, const SparseWeight& weight) {
  static const SparseValuesKernel kernel = LMWP_BEST_KERNEL(sparse_values_kernel);
  SparseValuesProblem problem{};
  SparseConvProblem& conv = problem.conv;
  set_tensors(x, dy, conv);
  if (joins_rows(geometry, conv.x_stride, conv.y_stride)) join_rows(geometry);
  const SparsePlan plan(geometry, weight.matrix().channels);
  weight.matrix().describe(conv);
  set_sizes(geometry, conv);
  plan.describe(conv, 1);
  problem.dy = dy.const_data_ptr();
  problem.values = weight.values();
  problem.value_count = values.numel();
  std::vector<float> partials(kernel.partial_floats(problem));
  const int64_t floats_needed = kernel.scratch_floats(problem);
  torch::stable::parallel_for(0, kernel.task_count(problem), 1, [&](int64_t begin, int64_t end) {
    kernel.run(problem, begin, end, partials.data(), thread_scratch(floats_needed));
  });
  Tensor sums = empty_floats(sizes_of(values));
  float* const to = floats(sums);
  std::fill_n(to, problem.value_count, 0.0f);
  for (auto run = partials.begin(); run != partials.end(); run += problem.value_count) {
    std::transform(to, to + problem.value_count, run, to, std::plus<>());
  }
  return with_dtype_of(values, sums);
}

// `wanted` follows the tensors that the op begins with: x, values, indices, bias, scale, shift and
// slope.
SevenKinds backward(const Tensor& grad, const Tensor& x, const Tensor& values,
                    const Tensors& indices, const Tensors& bias, const Tensors& scale,
                    const Tensors& shift, const Tensors& slope, const std::string& format,
                    const Counts& shape, const Counts& block, const Counts& stride,
                    const Counts& padding, const Counts& dilation, int64_t groups,
                    const std::vector<bool>& flags) {
  const SparseGeometry geometry = geometry_of(x, shape, stride, padding, dilation, groups);
  STD_TORCH_CHECK(grad.is_cpu() && grad.scalar_type() == x.scalar_type() && grad.dim() == 4 &&
                      grad.size(0) == x.size(0) && grad.size(1) == shape[0] &&
                      grad.size(2) == geometry.out_size[0] && grad.size(3) == geometry.out_size[1],
                  kSparseOp, ": grad: expected the shape and the dtype of the result");
  STD_TORCH_CHECK(flags.size() == 7, kSparseOp, ": wanted: expected 7 flags");
  Wanted wanted(kSparseOp, {flags[0], flags[1], flags[4], flags[5], flags[6]});
  wanted.bias = flags[3] && !bias.empty();
  const auto convolve = [&](const Tensors& wide, const Tensor& wide_values) {
    return Tensors{sparse_conv2d(wide[0], wide_values, indices, in_float32(bias), {}, {}, {},
                                 format, shape, block, stride, padding, dilation, groups)};
  };
  const EpilogueGradients found =
      epilogue_backward(kSparseOp, {grad}, {x}, values, scale, shift, slope, wanted, convolve);
  const Tensor& dz = found.sums[0];
  const SparseWeight weight(x, values, indices, format, shape, block, groups);
  Tensors of_x, of_values, of_bias;
  if (wanted.xs) of_x.push_back(input_gradient(dz, x, geometry, weight));
  if (wanted.weights) of_values.push_back(values_gradient(dz, x, values, geometry, weight));
  if (wanted.bias) of_bias.push_back(with_dtype_of(bias[0], found.bias[0]));
  return {of_x, of_values, {}, of_bias, found.scale, found.shift, found.slope};
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("sparse_conv2d_backward_cpp", TORCH_BOX(&lmwp::backward));
}
