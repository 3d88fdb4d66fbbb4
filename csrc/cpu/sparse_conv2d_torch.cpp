// The CPU kernel of sparse_conv2d as a torch op.
#include "cpu/sparse_conv2d_torch.h"

#include "cpu/sparse_arguments.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;

// Epilogue parameters with the bias inside the shift.
struct Epilogue {
  Epilogue(const Tensor& x, const Tensors& bias, const Tensors& scale, const Tensors& shift,
           const Tensors& slope, int64_t channels) {
    check_epilogue(kSparseOp, scale, shift, slope, 1);
    STD_TORCH_CHECK(bias.size() <= 1, kSparseOp, ": bias: expected at most one");
    const float* const b = parameter(kSparseOp, bias, 0, {channels}, x, keep);
    this->scale = parameter(kSparseOp, scale, 0, {channels}, x, keep);
    this->shift = parameter(kSparseOp, shift, 0, {channels}, x, keep);
    this->slope = parameter(kSparseOp, slope, 0, {channels}, x, keep);
    if (b == nullptr) return;
    shifted.resize(channels);
    for (int64_t c = 0; c < channels; ++c) {
      shifted[c] = this->scale ? this->scale[c] * b[c] + this->shift[c] : b[c];
    }
    this->shift = shifted.data();
  }

  const float *scale, *shift, *slope;
  Tensors keep;
  std::vector<float> shifted;
};

}  // namespace

Tensor sparse_conv2d(const Tensor& x, const Tensor& values, const Tensors& indices,
                     const Tensors& bias, const Tensors& scale, const Tensors& shift,
                     const Tensors& slope, const std::string& format, const Counts& shape,
                     const Counts& block, const Counts& stride, const Counts& padding,
                     const Counts& dilation, int64_t groups) {
  const SparseGeometry geometry = geometry_of(x, shape, stride, padding, dilation, groups);
  const SparseWeight weight(x, values, indices, format, shape, block, groups);
  const Epilogue epilogue(x, bias, scale, shift, slope, shape[0]);
  Tensor y = empty_output(x, shape[0], geometry.out_size[0], geometry.out_size[1]);
  SparseConvProblem problem{};
  problem.dtype = dtype_of(kSparseOp, x);
  problem.x = x.const_data_ptr();
  problem.y = y.mutable_data_ptr();
  problem.batch = x.size(0);
  for (int d = 0; d < 4; ++d) {
    problem.x_stride[d] = x.stride(d);
    problem.y_stride[d] = y.stride(d);
  }
  problem.scale = epilogue.scale;
  problem.shift = epilogue.shift;
  problem.slope = epilogue.slope;
  convolve(geometry, weight.matrix(), problem);
  return y;
}

}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("sparse_conv2d_cpp", TORCH_BOX(&lmwp::sparse_conv2d));
}
