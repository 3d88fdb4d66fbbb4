// The CPU kernel of mwpm_block as a torch op.
#include "cpu/image_kernel_torch.h"
#include "cpu/mwpm_block.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

constexpr const char* kOp = "mwpm_block_cpp";
constexpr int64_t kLargestOctave = 15;

const ImageKernel<MwpmProblem>& kernel_of(Dtype dtype) {
  static const ImageKernel<MwpmProblem>* const kernels = LMWP_BEST_KERNEL(mwpm_block_kernels);
  return kernels[static_cast<int>(dtype)];
}

void set_branches(MwpmProblem& p, const Tensors& depthwise, const Tensor& x, Tensors& keep) {
  const int64_t m = p.expand.out;
  STD_TORCH_CHECK(depthwise.size() == 3, kOp, ": depthwise: expected three tensors");
  p.weights = parameter(kOp, depthwise[0], {p.branches, m, 3, 3}, x, keep);
  p.scale = parameter(kOp, depthwise[1], {p.branches, m}, x, keep);
  p.shift = parameter(kOp, depthwise[2], {p.branches, m}, x, keep);
}

// What every call would make of these parameters.
Tensor mwpm_block_pack(const Tensors& expand, const Tensors& depthwise, const Tensors& project) {
  STD_TORCH_CHECK(
      !expand.empty() && expand[0].is_cpu() && !depthwise.empty() && depthwise[0].dim() == 4, kOp,
      ": expected parameters on the CPU");
  Tensors keep;
  MwpmProblem p{};
  p.expand = layer_of(kOp, expand, 4, expand[0], keep);
  p.project = layer_of(kOp, project, 4, expand[0], keep);
  p.branches = depthwise[0].size(0);
  set_branches(p, depthwise, expand[0], keep);
  const ImageKernel<MwpmProblem>& kernel = kernel_of(Dtype::float32);
  Tensor packed = empty_floats({kernel.packed_floats(p)});
  kernel.pack(p, floats(packed));
  return packed;
}

Tensor mwpm_block(const Tensor& x, const Tensors& expand, const Tensors& gate,
                  const Tensors& depthwise, const Tensors& project, const Ints& octaves,
                  const Ints& dilations, const std::optional<Tensor>& packed) {
  STD_TORCH_CHECK(x.dim() == 4 && x.is_cpu() && x.size(1) > 0 && x.size(2) > 0 && x.size(3) > 0,
                  kOp, ": x: expected a 4-D CPU tensor with channels and pixels");
  STD_TORCH_CHECK(!octaves.empty() && octaves.size() == dilations.size(), kOp,
                  ": expected as many octaves as dilations, and at least one");
  for (std::size_t k = 0; k < octaves.size(); ++k) {
    STD_TORCH_CHECK(octaves[k] >= 0 && octaves[k] <= kLargestOctave && dilations[k] > 0, kOp,
                    ": expected octaves of 0 to ", kLargestOctave, " and positive dilations");
  }
  Tensors keep;
  MwpmProblem p{};
  p.dtype = dtype_of(kOp, x);
  p.batch = x.size(0);
  p.rows = x.size(2);
  p.columns = x.size(3);
  p.expand = layer_of(kOp, expand, 4, x, keep);
  p.project = layer_of(kOp, project, 4, x, keep);
  const int64_t m = p.expand.out, c = x.size(1);
  STD_TORCH_CHECK(p.expand.in == c && p.project.in == m && p.project.out == c, kOp,
                  ": expected layers from and to the channels of x");
  p.branches = static_cast<int64_t>(octaves.size());
  p.octaves = octaves.data();
  p.dilations = dilations.data();
  STD_TORCH_CHECK(gate.size() == 6 && gate[0].dim() == 2 && gate[0].size(0) > 0, kOp,
                  ": gate: expected six tensors");
  const int64_t hidden = gate[0].size(0);
  p.gate = {hidden,
            parameter(kOp, gate[0], {hidden, m}, x, keep),
            parameter(kOp, gate[1], {hidden}, x, keep),
            parameter(kOp, gate[2], {hidden}, x, keep),
            parameter(kOp, gate[3], {p.branches * m, hidden}, x, keep),
            parameter(kOp, gate[4], {p.branches * m}, x, keep),
            parameter(kOp, gate[5], {m}, x, keep)};
  set_branches(p, depthwise, x, keep);
  p.threads = static_cast<int64_t>(torch::stable::get_num_threads());
  const ImageKernel<MwpmProblem>& kernel = kernel_of(p.dtype);
  if (packed) {
    STD_TORCH_CHECK(packed->is_cpu() && packed->is_contiguous() &&
                        packed->scalar_type() == torch::headeronly::ScalarType::Float &&
                        packed->numel() == kernel.packed_floats(p),
                    kOp, ": packed: expected what was made of these parameters");
    p.packed = static_cast<const float*>(packed->const_data_ptr());
  }
  const Tensor dense = regular(x);
  const Tensor out = empty_output(dense, c, p.rows, p.columns);
  p.x = feature_of(dense);
  p.out = feature_of(out);
  run_images(kernel, p);
  return in_layout_of(x, out);
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("mwpm_block_cpp", TORCH_BOX(&lmwp::mwpm_block));
  m.impl("mwpm_block_pack_cpp", TORCH_BOX(&lmwp::mwpm_block_pack));
}
