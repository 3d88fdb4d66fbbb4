// What the torch ops of multi-scale convolutions share: their arguments as problems of the kernels.
#pragma once

#include "cpu/multiscale_conv.h"
#include "cpu/torch_arguments.h"

namespace lmwp {

using Counts = std::vector<int64_t>;

constexpr std::size_t kMostScales = kMostTerms;
constexpr int64_t kGrainMultiplications = 1 << 20;  // worth a thread

struct Size {
  int64_t height, width;
};

inline int64_t multiplications(const ConvProblem& problem) {
  int64_t sum = 0;
  for (int64_t j = 0; j < problem.output_count; ++j) {
    const ConvOutput& output = problem.outputs[j];
    const int64_t taps = problem.columns * problem.kernel * problem.kernel;
    const int64_t stages = output.depthwise ? 18 : 0;
    sum += problem.batch * output.height * output.width * output.channels * (taps + stages);
  }
  return sum;
}

inline void run_problem(const ConvProblem& problem) {
  static const MultiscaleConvKernel kernel = LMWP_BEST_KERNEL(multiscale_conv_kernel);
  const int64_t tasks = kernel.task_count(problem);
  if (tasks == 0) return;
  std::vector<float> packed(kernel.packed_floats(problem));
  kernel.pack(problem, packed.data());
  const int64_t scratch_floats = kernel.scratch_floats(problem);
  const int64_t grain = kGrainMultiplications * tasks / (multiplications(problem) + 1) + 1;
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    kernel.run(problem, packed.data(), begin, end, thread_scratch(scratch_floats));
  });
}

inline ConvInput input_of(const torch::stable::Tensor& x, bool entry_pool = false) {
  return {x.const_data_ptr(),
          x.size(1),
          x.size(2),
          x.size(3),
          {x.stride(0), x.stride(1), x.stride(2), x.stride(3)},
          entry_pool};
}

// `count` channels of an input from `first` on.
inline ConvInput channels_of(const torch::stable::Tensor& x, int64_t first, int64_t count) {
  ConvInput input = input_of(x);
  const int64_t bytes = first * x.stride(1) * static_cast<int64_t>(x.element_size());
  input.x = static_cast<const char*>(input.x) + bytes;
  input.channels = count;
  return input;
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

// The arguments that every multi-scale convolution has, checked.
struct MultiscaleArguments {
  const char* op;
  const Tensors& xs;
  Branches in, out;
  bool entry_pool;
  int64_t kernel = 0;
  const float* weight = nullptr;  // [out.columns, in.columns, kernel, kernel]
  std::vector<ConvInput> inputs;
  Tensors keep;

  MultiscaleArguments(const char* op, const Tensors& xs, const torch::stable::Tensor& given,
                      const Counts& in_channels, const Counts& out_channels, bool entry_pool)
      : op(op), xs(xs), in(op, in_channels), out(op, out_channels), entry_pool(entry_pool) {
    STD_TORCH_CHECK(xs.size() == in.count() && in.count() > 0 && out.count() > 0, op,
                    ": expected one tensor per input branch with channels");
    STD_TORCH_CHECK(in_channels.size() <= kMostScales && out_channels.size() <= kMostScales, op,
                    ": expected at most ", kMostScales, " scales");
    STD_TORCH_CHECK(given.dim() == 4 && given.size(0) == out.columns &&
                        given.size(1) == in.columns && (given.size(3) == 1 || given.size(3) == 3),
                    op, ": weight: expected [out, in, k, k] with k 1 or 3");
    kernel = given.size(3);
    weight = parameter(op, given, {out.columns, in.columns, kernel, kernel}, xs[0], keep);
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const torch::stable::Tensor& x = xs[i];
      STD_TORCH_CHECK(x.is_cpu() && x.dim() == 4 && x.size(1) == in.channels[i] &&
                          x.size(0) == xs[0].size(0) && x.scalar_type() == xs[0].scalar_type(),
                      op, ": xs: expected 4-D CPU tensors of one dtype and batch size");
      inputs.push_back(input_of(x, entry_pool));
      const Size size = input_size(i);
      STD_TORCH_CHECK(size.height > 0 && size.width > 0, op, ": xs: expected pixels to pool");
    }
  }

  Size input_size(std::size_t i) const {
    const int64_t step = entry_pool ? 2 : 1;
    return {inputs[i].height / step, inputs[i].width / step};
  }

  // That of the input branch of the same scale, else that of the finest one brought there.
  Size output_size(std::size_t j) const {
    for (std::size_t i = 0; i < in.count(); ++i) {
      if (in.scale[i] == out.scale[j]) return input_size(i);
    }
    const Size finest = input_size(0);
    const int64_t down = out.scale[j] - in.scale[0];
    const Size size = down > 0 ? Size{finest.height >> down, finest.width >> down}
                               : Size{finest.height << -down, finest.width << -down};
    STD_TORCH_CHECK(size.height > 0 && size.width > 0, op, ": xs: expected more pixels");
    return size;
  }

  // Pooling by maxima needs branches of exactly half the size, rounded down, per scale.
  void check_halves() const {
    const Size finest = input_size(0);
    for (std::size_t i = 0; i < in.count(); ++i) {
      const int64_t steps = in.scale[i] - in.scale[0];
      const Size size = input_size(i);
      STD_TORCH_CHECK(size.height == finest.height >> steps && size.width == finest.width >> steps,
                      op, ": xs: expected sizes that halve from branch to branch");
    }
  }

  // Scales from input branch i down to output branch j.
  int64_t steps_down(std::size_t i, std::size_t j) const { return out.scale[j] - in.scale[i]; }
};

}  // namespace lmwp
