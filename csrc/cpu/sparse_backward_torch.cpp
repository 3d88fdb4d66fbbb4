// The gradients of sparse_conv2d, without its epilogue, as a torch op.
#include "cpu/sparse_arguments.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;
using Gradients = std::tuple<Tensors, Tensors>;

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
  problem.out_channels = geometry.out_channels;
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

Gradients backward(const Tensor& dy, const Tensor& x, const Tensor& values, const Tensors& indices,
                   const std::string& format, const Counts& shape, const Counts& block,
                   const Counts& stride, const Counts& padding, const Counts& dilation,
                   int64_t groups, bool wants_x, bool wants_values) {
  const SparseGeometry geometry = geometry_of(x, shape, stride, padding, dilation, groups);
  STD_TORCH_CHECK(dy.is_cpu() && dy.scalar_type() == x.scalar_type() && dy.dim() == 4 &&
                      dy.size(0) == x.size(0) && dy.size(1) == shape[0] &&
                      dy.size(2) == geometry.out_size[0] && dy.size(3) == geometry.out_size[1],
                  kSparseOp, ": grad: expected the shape and the dtype of the result");
  const SparseWeight weight(x, values, indices, format, shape, block, groups);
  Gradients gradients;
  if (wants_x) std::get<0>(gradients).push_back(input_gradient(dy, x, geometry, weight));
  if (wants_values) {
    std::get<1>(gradients).push_back(values_gradient(dy, x, values, geometry, weight));
  }
  return gradients;
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("sparse_conv2d_conv_backward_cpp", TORCH_BOX(&lmwp::backward));
}
