// The CPU kernels of goctconv2d, il_block and dilated_bank as torch ops.
#include "cpu/multiscale_conv_torch.h"

#include <algorithm>

#include "cpu/feature_torch.h"
#include "cpu/pointwise_pixels.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;

// A call's arguments as a problem; it owns everything the problem points to.
class Call {
 public:
  Call(const char* op, const Tensors& xs, const Tensor& weight, const Counts& in_channels,
       const Counts& out_channels, bool entry_pool)
      : given_(op, xs, weight, in_channels, out_channels, entry_pool) {}

  void check_epilogues(const Tensors& scale, const Tensors& shift, const Tensors& slope,
                       std::size_t layers) const {
    check_epilogue(given_.op, scale, shift, slope, layers * given_.out.count());
  }

  // Outputs of every branch, from the input of the same scale or from all of them.
  void add_outputs(const Tensors& scale, const Tensors& shift, const Tensors& slope,
                   bool cross_scale, bool bilinear_down) {
    if (cross_scale && !bilinear_down) given_.check_halves();
    terms_.resize(given_.out.count());
    groups_.resize(given_.out.count());
    for (std::size_t j = 0; j < given_.out.count(); ++j) {
      const int64_t channels = given_.out.channels[j];
      const Size size = given_.output_size(j);
      for (std::size_t i = 0; i < given_.in.count(); ++i) {
        const int64_t steps = given_.steps_down(i, j);
        if (steps != 0 && !cross_scale) continue;
        const Resample resample = steps == 0      ? Resample::none
                                  : steps < 0     ? Resample::bilinear_up
                                  : bilinear_down ? Resample::bilinear_down
                                                  : Resample::max_pool;
        terms_[j].push_back(
            {&given_.inputs[i], resample, static_cast<int>(steps), given_.in.column[i], 1});
      }
      STD_TORCH_CHECK(!terms_[j].empty(), given_.op, ": out_channels: expected an input for each");
      groups_[j] = {
          given_.weight + given_.out.column[j] * given_.in.columns * given_.kernel * given_.kernel,
          channels, 1};
      ys_.push_back(empty_output(given_.xs[0], channels, size.height, size.width));
      ConvOutput output{ys_[j].mutable_data_ptr(),
                        channels,
                        size.height,
                        size.width,
                        {},
                        terms_[j].data(),
                        static_cast<int64_t>(terms_[j].size()),
                        &groups_[j],
                        1,
                        epilogue(scale, shift, slope, j, channels),
                        nullptr,
                        nullptr,
                        0,
                        0};
      for (int d = 0; d < 4; ++d) output.stride[d] = ys_[j].stride(d);
      outputs_.push_back(output);
    }
  }

  // Two depthwise stages after the convolution; every list holds those of one stage, then those
  // of the next, and the epilogues' lists begin with the convolution's own.
  void add_stages(const Tensors& weights, const Tensors& scale, const Tensors& shift,
                  const Tensors& slope) {
    const std::size_t count = given_.out.count();
    STD_TORCH_CHECK(weights.size() == 2 * count, given_.op, ": depthwise: expected two per output");
    stages_.resize(2 * count);
    for (std::size_t j = 0; j < count; ++j) {
      const int64_t channels = given_.out.channels[j];
      for (std::size_t s = 0; s < 2; ++s) {
        stages_[2 * j + s] = {parameter(given_.op, weights, s * count + j, {channels, 1, 3, 3},
                                        given_.xs[0], given_.keep),
                              epilogue(scale, shift, slope, (s + 1) * count + j, channels)};
      }
      outputs_[j].depthwise = &stages_[2 * j];
    }
  }

  Tensors run() {
    run_problem({outputs_.data(), static_cast<int64_t>(outputs_.size()), given_.xs[0].size(0),
                 given_.in.columns, static_cast<int>(given_.kernel),
                 dtype_of(given_.op, given_.xs[0]),
                 static_cast<int64_t>(torch::stable::get_num_threads())});
    return ys_;
  }

 private:
  ConvEpilogue epilogue(const Tensors& scale, const Tensors& shift, const Tensors& slope,
                        std::size_t i, int64_t channels) {
    return {parameter(given_.op, scale, i, {channels}, given_.xs[0], given_.keep),
            parameter(given_.op, shift, i, {channels}, given_.xs[0], given_.keep),
            parameter(given_.op, slope, i, {channels}, given_.xs[0], given_.keep)};
  }

  MultiscaleArguments given_;
  Tensors ys_;
  std::vector<std::vector<ConvTerm>> terms_;
  std::vector<ConvGroup> groups_;
  std::vector<DepthwiseStage> stages_;
  std::vector<ConvOutput> outputs_;
};

// Whether it is a 1 x 1 convolution of a branch of pixels to one of the same scale.
bool is_pointwise(const Tensors& xs, const Tensor& weight, const Counts& in_channels,
                  const Counts& out_channels, bool entry_pool) {
  const std::size_t scales = std::min(in_channels.size(), out_channels.size());
  for (std::size_t i = 0; i < scales; ++i) {
    if (in_channels[i] != 0 && out_channels[i] == weight.size(0)) {
      return xs.size() == 1 && weight.size(3) == 1 && !entry_pool && is_interleaved(xs[0]) &&
             xs[0].size(1) == weight.size(1) && is_regular(xs[0]);
    }
  }
  return false;
}

Tensors pointwise(const char* op, const Tensor& x, const Tensor& weight, const Tensors& scale,
                  const Tensors& shift, const Tensors& slope) {
  static const PointwiseKernel kernel = LMWP_BEST_KERNEL(pointwise_pixels_kernel);
  const int64_t in = x.size(1), out = weight.size(0);
  Tensors keep;
  const PointwiseLayer layer{in,
                             out,
                             parameter(op, weight, {out, in, 1, 1}, x, keep),
                             parameter(op, scale, 0, {out}, x, keep),
                             parameter(op, shift, 0, {out}, x, keep),
                             parameter(op, slope, 0, {out}, x, keep)};
  const Tensor y = empty_output(x, out, x.size(2), x.size(3));
  const ImageFeature to{y.mutable_data_ptr(), y.stride(0), 1, out};
  const PointwiseProblem p{dtype_of(op, x), x.size(0),     x.size(2) * x.size(3),
                           layer,           feature_of(x), to};
  const int64_t tasks = kernel.task_count(p), scratch_floats = kernel.scratch_floats(p);
  if (tasks == 0) return {y};
  std::vector<float> packed(kernel.packed_floats(layer));
  kernel.pack(layer, packed.data());
  const int64_t grain = kGrainMultiplications * tasks / (p.batch * p.pixels * in * out) + 1;
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    kernel.run(p, packed.data(), begin, end, thread_scratch(scratch_floats));
  });
  return {y};
}

Tensors il_block(const Tensors& xs, const Tensor& weight, const Tensors& depthwise,
                 const Tensors& scale, const Tensors& shift, const Tensors& slope,
                 const Counts& in_channels, const Counts& out_channels, bool entry_pool) {
  Call call("il_block_cpp", xs, weight, in_channels, out_channels, entry_pool);
  call.check_epilogues(scale, shift, slope, 3);
  call.add_outputs(scale, shift, slope, true, false);
  call.add_stages(depthwise, scale, shift, slope);
  return call.run();
}

}  // namespace

Tensors goctconv2d(const Tensors& xs, const Tensor& weight, const Tensors& scale,
                   const Tensors& shift, const Tensors& slope, const Counts& in_channels,
                   const Counts& out_channels, bool entry_pool, bool cross_scale,
                   bool bilinear_down) {
  Call call("goctconv2d_cpp", xs, weight, in_channels, out_channels, entry_pool);
  call.check_epilogues(scale, shift, slope, 1);
  if (is_pointwise(xs, weight, in_channels, out_channels, entry_pool)) {
    return pointwise("goctconv2d_cpp", xs[0], weight, scale, shift, slope);
  }
  call.add_outputs(scale, shift, slope, cross_scale, bilinear_down);
  return call.run();
}

// Every scale is a problem of its own.
Tensors dilated_bank(const Tensors& xs, const Tensors& weights, const Tensors& scale,
                     const Tensors& shift, const Tensors& slope, const Counts& dilations,
                     const Counts& counts) {
  constexpr const char* op = "dilated_bank_cpp";
  STD_TORCH_CHECK(!xs.empty() && counts.size() == xs.size() && dilations.size() == weights.size(),
                  op, ": expected one count per branch and one dilation per weight");
  const auto banks = counts.size() - std::count(counts.begin(), counts.end(), 0);
  STD_TORCH_CHECK(banks > 0, op, ": counts: expected a weight in some branch");
  check_epilogue(op, scale, shift, slope, banks);
  Tensors ys, keep;
  std::size_t next = 0;
  for (std::size_t b = 0; b < xs.size(); ++b) {
    const Tensor& x = xs[b];
    STD_TORCH_CHECK(x.is_cpu() && x.dim() == 4 && x.scalar_type() == xs[0].scalar_type() &&
                        x.size(1) > 0 && x.size(2) > 0 && x.size(3) > 0,
                    op, ": xs: expected 4-D CPU tensors of one dtype, not empty");
    const int64_t width = x.size(1), count = counts[b];
    STD_TORCH_CHECK(count >= 0 && next + count <= weights.size(), op,
                    ": counts: expected one weight for each");
    if (count == 0) continue;
    std::vector<ConvGroup> groups;
    int64_t channels = 0;
    for (int64_t d = 0; d < count; ++d, ++next) {
      const int64_t out = weights[next].dim() == 4 ? weights[next].size(0) : 0;
      STD_TORCH_CHECK(dilations[next] > 0 && out > 0, op,
                      ": expected positive dilations and weights [out, in, 3, 3]");
      groups.push_back(
          {parameter(op, weights[next], {out, width, 3, 3}, x, keep), out, dilations[next]});
      channels += out;
    }
    const ConvInput input = input_of(x);
    const ConvTerm term{&input, Resample::none, 0, 0, 1};
    const std::size_t j = ys.size();
    ys.push_back(empty_output(x, channels, input.height, input.width));
    const Tensor& y = ys[j];
    const ConvOutput output{
        y.mutable_data_ptr(),
        channels,
        input.height,
        input.width,
        {y.stride(0), y.stride(1), y.stride(2), y.stride(3)},
        &term,
        1,
        groups.data(),
        count,
        {parameter(op, scale, j, {channels}, x, keep), parameter(op, shift, j, {channels}, x, keep),
         parameter(op, slope, j, {channels}, x, keep)},
        nullptr,
        nullptr,
        0,
        0};
    run_problem({&output, 1, x.size(0), width, 3, dtype_of(op, x),
                 static_cast<int64_t>(torch::stable::get_num_threads())});
  }
  return ys;
}

}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("goctconv2d_cpp", TORCH_BOX(&lmwp::goctconv2d));
  m.impl("dilated_bank_cpp", TORCH_BOX(&lmwp::dilated_bank));
  m.impl("il_block_cpp", TORCH_BOX(&lmwp::il_block));
}
