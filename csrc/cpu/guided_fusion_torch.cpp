// The CPU kernel of guided_fusion as a torch op.
#include "cpu/guided_fusion.h"
#include "cpu/image_kernel_torch.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;

constexpr const char* kOp = "guided_fusion_cpp";

void check_feature(const char* name, const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4 && x.is_cpu() && x.size(1) > 0 && x.size(2) > 0 && x.size(3) > 0,
                  kOp, ": ", name, ": expected a 4-D CPU tensor with channels and pixels");
}

Tensor guided_fusion(const Tensors& xs, const Tensor& gate, const Tensors& encode,
                     const Tensors& decode, const Tensors& guide, const Tensors& depthwise,
                     const Tensors& fuse, const std::vector<int64_t>& dilations) {
  static const ImageKernel<GuidedFusionProblem>* const kernels =
      LMWP_BEST_KERNEL(guided_fusion_kernels);
  STD_TORCH_CHECK(xs.size() == 2, kOp, ": xs: expected two features");
  const Tensor &encoder = xs[0], &decoder = xs[1];
  check_feature("encoder", encoder);
  check_feature("decoder", decoder);
  STD_TORCH_CHECK(
      decoder.size(0) == encoder.size(0) && decoder.scalar_type() == encoder.scalar_type(), kOp,
      ": decoder: expected batch size and dtype of encoder");
  STD_TORCH_CHECK(!dilations.empty(), kOp, ": dilations: expected at least one");
  for (const int64_t dilation : dilations) {
    STD_TORCH_CHECK(dilation > 0, kOp, ": dilations: expected positive ones");
  }
  Tensors keep;
  GuidedFusionProblem p{};
  p.dtype = dtype_of(kOp, encoder);
  p.batch = encoder.size(0);
  p.rows = encoder.size(2);
  p.columns = encoder.size(3);
  p.low_rows = decoder.size(2);
  p.low_columns = decoder.size(3);
  p.encoder = layer_of(kOp, encode, 3, encoder, keep);
  p.decoder = layer_of(kOp, decode, 3, encoder, keep);
  p.fuse = layer_of(kOp, fuse, 4, encoder, keep);
  const int64_t c = p.encoder.out;
  STD_TORCH_CHECK(p.encoder.in == encoder.size(1) && p.decoder.in == decoder.size(1) &&
                      p.decoder.out == c && p.fuse.in == c,
                  kOp, ": expected layers from the channels of both features to those of fuse");
  STD_TORCH_CHECK(guide.size() == 2, kOp, ": guide: expected a weight and a bias");
  p.guide = parameter(kOp, guide[0], {1, p.decoder.in, 1, 1}, encoder, keep);
  p.guide_bias = parameter(kOp, guide[1], {1}, encoder, keep);
  p.gate = parameter(kOp, gate, {p.batch, c}, encoder, keep);
  p.branches = static_cast<int64_t>(dilations.size());
  p.dilations = dilations.data();
  STD_TORCH_CHECK(depthwise.size() == 3, kOp, ": depthwise: expected three tensors");
  p.weights = parameter(kOp, depthwise[0], {p.branches, c, 3, 3}, encoder, keep);
  p.scale = parameter(kOp, depthwise[1], {p.branches, c}, encoder, keep);
  p.shift = parameter(kOp, depthwise[2], {p.branches, c}, encoder, keep);
  p.threads = static_cast<int64_t>(torch::stable::get_num_threads());
  const Tensor fine = regular(encoder), coarse = regular(decoder);
  const Tensor out = empty_output(fine, p.fuse.out, p.rows, p.columns);
  p.from_encoder = feature_of(fine);
  p.from_decoder = feature_of(coarse);
  p.out = feature_of(out);
  run_images(kernels[static_cast<int>(p.dtype)], p);
  return in_layout_of(encoder, out);
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("guided_fusion_cpp", TORCH_BOX(&lmwp::guided_fusion));
}
