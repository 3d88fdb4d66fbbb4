// The CPU kernels of goctconv2d, il_block and dilated_bank as torch ops.
#include <algorithm>

#include "cpu/multiscale_conv.h"
#include "cpu/torch_arguments.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;
using Counts = std::vector<int64_t>;

constexpr std::size_t kMostScales = 8;
constexpr int64_t kGrainMultiplications = 1 << 20;  // worth a thread

struct Size {
  int64_t height, width;
};

int64_t multiplications(const ConvProblem& problem) {
  int64_t sum = 0;
  for (int64_t j = 0; j < problem.output_count; ++j) {
    const ConvOutput& output = problem.outputs[j];
    const int64_t taps = problem.columns * problem.kernel * problem.kernel;
    const int64_t stages = output.depthwise ? 18 : 0;
    sum += problem.batch * output.height * output.width * output.channels * (taps + stages);
  }
  return sum;
}

void run_problem(const ConvProblem& problem) {
  static const MultiscaleConvKernel kernel = LMWP_BEST_KERNEL(multiscale_conv_kernel);
  const int64_t tasks = kernel.task_count(problem);
  if (tasks == 0) return;
  std::vector<float> packed(kernel.packed_floats(problem));
  kernel.pack(problem, packed.data());
  const int64_t scratch_floats = kernel.scratch_floats(problem);
  const int64_t grain = kGrainMultiplications * tasks / (multiplications(problem) + 1) + 1;
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> scratch;
    if (static_cast<int64_t>(scratch.size()) < scratch_floats) scratch.resize(scratch_floats);
    kernel.run(problem, packed.data(), begin, end, scratch.data());
  });
}

ConvInput input_of(const Tensor& x) {
  return {x.const_data_ptr(),
          x.size(1),
          x.size(2),
          x.size(3),
          {x.stride(0), x.stride(1), x.stride(2), x.stride(3)}};
}

// Where the branches that are present lie in lists of all branches.
struct Branches {
  std::vector<int64_t> scale, column, channels;
  int64_t columns = 0;

  Branches(const char* op, const Counts& counts) {
    for (std::size_t i = 0; i < counts.size(); ++i) {
      STD_TORCH_CHECK(counts[i] >= 0, op, ": channels: expected no negative count");
      if (counts[i] > 0) {
        scale.push_back(static_cast<int64_t>(i));
        column.push_back(columns);
        channels.push_back(counts[i]);
      }
      columns += counts[i];
    }
  }
  std::size_t count() const { return scale.size(); }
};

// A call's arguments as a problem; it owns everything the problem points to.
class Call {
 public:
  Call(const char* op, const Tensors& xs, const Tensor& weight, const Counts& in_channels,
       const Counts& out_channels, bool entry_pool)
      : op_(op), xs_(xs), in_(op, in_channels), out_(op, out_channels), entry_pool_(entry_pool) {
    STD_TORCH_CHECK(xs.size() == in_.count() && in_.count() > 0 && out_.count() > 0, op,
                    ": expected one tensor per input branch with channels");
    STD_TORCH_CHECK(in_channels.size() <= kMostScales && out_channels.size() <= kMostScales, op,
                    ": expected at most ", kMostScales, " scales");
    STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == out_.columns &&
                        weight.size(1) == in_.columns &&
                        (weight.size(3) == 1 || weight.size(3) == 3),
                    op, ": weight: expected [out, in, k, k] with k 1 or 3");
    kernel_ = weight.size(3);
    weight_ = parameter(op, weight, {out_.columns, in_.columns, kernel_, kernel_}, xs[0], keep_);
    inputs_.resize(xs.size());
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const Tensor& x = xs[i];
      STD_TORCH_CHECK(x.is_cpu() && x.dim() == 4 && x.size(1) == in_.channels[i] &&
                          x.size(0) == xs[0].size(0) && x.scalar_type() == xs[0].scalar_type(),
                      op, ": xs: expected 4-D CPU tensors of one dtype and batch size");
      inputs_[i] = input_of(x);
      const Size size = input_size(i);
      STD_TORCH_CHECK(size.height > 0 && size.width > 0, op, ": xs: expected pixels to pool");
    }
  }

  void check_epilogues(const Tensors& scale, const Tensors& shift, const Tensors& slope,
                       std::size_t layers) const {
    check_epilogue(op_, scale, shift, slope, layers * out_.count());
  }

  // Outputs of every branch, from the input of the same scale or from all of them.
  void add_outputs(const Tensors& scale, const Tensors& shift, const Tensors& slope,
                   bool cross_scale, bool bilinear_down) {
    if (cross_scale && !bilinear_down) check_halves();
    terms_.resize(out_.count());
    groups_.resize(out_.count());
    for (std::size_t j = 0; j < out_.count(); ++j) {
      const int64_t channels = out_.channels[j];
      const Size size = output_size(out_.scale[j]);
      STD_TORCH_CHECK(size.height > 0 && size.width > 0, op_, ": xs: expected more pixels");
      for (std::size_t i = 0; i < in_.count(); ++i) {
        const int64_t steps = out_.scale[j] - in_.scale[i];
        if (steps != 0 && !cross_scale) continue;
        const Resample resample = steps == 0      ? Resample::none
                                  : steps < 0     ? Resample::bilinear_up
                                  : bilinear_down ? Resample::bilinear_down
                                                  : Resample::max_pool;
        terms_[j].push_back({&inputs_[i], resample, static_cast<int>(steps), in_.column[i]});
      }
      STD_TORCH_CHECK(!terms_[j].empty(), op_, ": out_channels: expected an input for each");
      groups_[j] = {weight_ + out_.column[j] * in_.columns * kernel_ * kernel_, channels, 1};
      ys_.push_back(empty_output(xs_[0], channels, size.height, size.width));
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
                        nullptr};
      for (int d = 0; d < 4; ++d) output.stride[d] = ys_[j].stride(d);
      outputs_.push_back(output);
    }
  }

  // Two depthwise stages after the convolution; every list holds those of one stage, then those
  // of the next, and the epilogues' lists begin with the convolution's own.
  void add_stages(const Tensors& weights, const Tensors& scale, const Tensors& shift,
                  const Tensors& slope) {
    const std::size_t count = out_.count();
    STD_TORCH_CHECK(weights.size() == 2 * count, op_, ": depthwise: expected two per output");
    stages_.resize(2 * count);
    for (std::size_t j = 0; j < count; ++j) {
      const int64_t channels = out_.channels[j];
      for (std::size_t s = 0; s < 2; ++s) {
        stages_[2 * j + s] = {
            parameter(op_, weights, s * count + j, {channels, 1, 3, 3}, xs_[0], keep_),
            epilogue(scale, shift, slope, (s + 1) * count + j, channels)};
      }
      outputs_[j].depthwise = &stages_[2 * j];
    }
  }

  Tensors run() {
    run_problem({outputs_.data(), static_cast<int64_t>(outputs_.size()), xs_[0].size(0),
                 in_.columns, static_cast<int>(kernel_), entry_pool_, dtype_of(op_, xs_[0]),
                 static_cast<int64_t>(torch::stable::get_num_threads())});
    return ys_;
  }

 private:
  Size input_size(std::size_t i) const {
    const int64_t step = entry_pool_ ? 2 : 1;
    return {inputs_[i].height / step, inputs_[i].width / step};
  }

  // That of the input branch of the same scale, else that of the finest one brought there.
  Size output_size(int64_t scale) const {
    for (std::size_t i = 0; i < in_.count(); ++i) {
      if (in_.scale[i] == scale) return input_size(i);
    }
    const Size finest = input_size(0);
    const int64_t down = scale - in_.scale[0];
    return down > 0 ? Size{finest.height >> down, finest.width >> down}
                    : Size{finest.height << -down, finest.width << -down};
  }

  // Pooling by maxima needs branches of exactly half the size, rounded down, per scale.
  void check_halves() const {
    const Size finest = input_size(0);
    for (std::size_t i = 0; i < in_.count(); ++i) {
      const int64_t steps = in_.scale[i] - in_.scale[0];
      const Size size = input_size(i);
      STD_TORCH_CHECK(size.height == finest.height >> steps && size.width == finest.width >> steps,
                      op_, ": xs: expected sizes that halve from branch to branch");
    }
  }

  ConvEpilogue epilogue(const Tensors& scale, const Tensors& shift, const Tensors& slope,
                        std::size_t i, int64_t channels) {
    return {parameter(op_, scale, i, {channels}, xs_[0], keep_),
            parameter(op_, shift, i, {channels}, xs_[0], keep_),
            parameter(op_, slope, i, {channels}, xs_[0], keep_)};
  }

  const char* const op_;
  const Tensors& xs_;
  const Branches in_, out_;
  const bool entry_pool_;
  int64_t kernel_;
  const float* weight_;
  Tensors ys_, keep_;
  std::vector<ConvInput> inputs_;
  std::vector<std::vector<ConvTerm>> terms_;
  std::vector<ConvGroup> groups_;
  std::vector<DepthwiseStage> stages_;
  std::vector<ConvOutput> outputs_;
};

Tensors goctconv2d(const Tensors& xs, const Tensor& weight, const Tensors& scale,
                   const Tensors& shift, const Tensors& slope, const Counts& in_channels,
                   const Counts& out_channels, bool entry_pool, bool cross_scale,
                   bool bilinear_down) {
  Call call("goctconv2d_cpp", xs, weight, in_channels, out_channels, entry_pool);
  call.check_epilogues(scale, shift, slope, 1);
  call.add_outputs(scale, shift, slope, cross_scale, bilinear_down);
  return call.run();
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

// Every scale is a problem of its own.
Tensors dilated_bank(const Tensors& xs, const Tensors& weights, const Tensors& scale,
                     const Tensors& shift, const Tensors& slope, const Counts& dilations,
                     const Counts& counts) {
  constexpr const char* op = "dilated_bank_cpp";
  STD_TORCH_CHECK(!xs.empty() && counts.size() == xs.size() && dilations.size() == weights.size(),
                  op, ": expected one count per branch and one dilation per weight");
  const auto banks = counts.size() - std::count(counts.begin(), counts.end(), 0);
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
      const int64_t out = weights[next].size(0);
      STD_TORCH_CHECK(dilations[next] > 0, op, ": dilations: expected positive ones");
      groups.push_back(
          {parameter(op, weights[next], {out, width, 3, 3}, x, keep), out, dilations[next]});
      channels += out;
    }
    const ConvInput input = input_of(x);
    const ConvTerm term{&input, Resample::none, 0, 0};
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
        nullptr};
    run_problem({&output, 1, x.size(0), width, 3, false, dtype_of(op, x),
                 static_cast<int64_t>(torch::stable::get_num_threads())});
  }
  return ys;
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("goctconv2d_cpp", TORCH_BOX(&lmwp::goctconv2d));
  m.impl("dilated_bank_cpp", TORCH_BOX(&lmwp::dilated_bank));
  m.impl("il_block_cpp", TORCH_BOX(&lmwp::il_block));
}
