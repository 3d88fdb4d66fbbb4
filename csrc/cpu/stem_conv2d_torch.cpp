// The CPU kernel of stem_conv2d as a torch op.
#include "cpu/feature_torch.h"
#include "cpu/stem_conv2d.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;

constexpr const char* kOp = "stem_conv2d_cpp";
constexpr int64_t kGrainMultiplications = 1 << 20;  // worth a thread

Tensor stem_conv2d(const Tensor& x, const Tensor& weight, const Tensors& scale,
                   const Tensors& shift, const Tensors& slope, int64_t stride, bool channels_last) {
  static const StemKernel kernel = LMWP_BEST_KERNEL(stem_conv2d_kernel);
  STD_TORCH_CHECK(x.dim() == 4 && x.is_cpu() && x.size(1) > 0 && x.size(2) > 0 && x.size(3) > 0,
                  kOp, ": x: expected a 4-D CPU tensor with channels and pixels");
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) > 0 && weight.size(3) % 2 == 1 &&
                      weight.size(3) <= 7 && (stride == 1 || stride == 2),
                  kOp, ": expected a weight [out, in, k, k], k 1, 3, 5 or 7, and stride 1 or 2");
  check_epilogue(kOp, scale, shift, slope, 1);
  const int64_t out = weight.size(0), in = x.size(1), k = weight.size(3);
  Tensors keep;
  StemProblem p{};
  p.dtype = dtype_of(kOp, x);
  p.batch = x.size(0);
  p.channels = in;
  p.rows = x.size(2);
  p.columns = x.size(3);
  p.kernel = k;
  p.stride = stride;
  p.layer = {in * k * k,
             out,
             parameter(kOp, weight, {out, in, k, k}, x, keep),
             parameter(kOp, scale, 0, {out}, x, keep),
             parameter(kOp, shift, 0, {out}, x, keep),
             parameter(kOp, slope, 0, {out}, x, keep)};
  const Tensor planes = is_regular(x) && !is_interleaved(x) ? x : torch::stable::contiguous(x);
  const int64_t rows = p.out_rows(), columns = p.out_columns();
  const bool pixels = channels_last || is_interleaved(x);
  const Tensor y = empty_pooled(x, {p.batch, out, rows, columns},
                                {out * rows * columns, pixels ? 1 : rows * columns,
                                 pixels ? out * columns : columns, pixels ? out : 1});
  p.x = feature_of(planes);
  p.out = {y.mutable_data_ptr(), y.stride(0), y.stride(1), pixels ? out : 0};
  const int64_t tasks = kernel.task_count(p);
  if (tasks == 0) return y;
  std::vector<float> packed(kernel.packed_floats(p.layer));
  kernel.pack(p.layer, packed.data());
  const int64_t scratch_floats = kernel.scratch_floats(p);
  const int64_t work = p.batch * rows * columns * p.layer.in * out;
  torch::stable::parallel_for(
      0, tasks, kGrainMultiplications * tasks / work + 1, [&](int64_t begin, int64_t end) {
        kernel.run(p, packed.data(), begin, end, thread_scratch(scratch_floats));
      });
  return y;
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("stem_conv2d_cpp", TORCH_BOX(&lmwp::stem_conv2d));
}
