// Depthwise convolution with affine and PReLU over all branches of a multi-scale feature.
//
// Input rows pass through a ring of zero-padded float32 rows that stays in cache: conversion,
// padding, any strides and, for stride 2, the split into even and odd columns happen there once,
// and the inner loop reads unit-stride vectors only. A block is kRows output rows that share input
// rows, `dilation` apart; see the op's README for the counts.
#include "cpu/depthwise_scales.h"

#include "cpu/denormals.h"
#include "cpu/depthwise_rows.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int kMaxKernel = 7;
constexpr int64_t kTaskOutputs = 32768;       // enough work to be worth a task
constexpr int64_t kRingFloats = 4096;         // half of a first-level cache
constexpr int64_t kInterleavedTaskRows = 16;  // keeps all channels of a band in cache

// How one branch is cut into tasks and laid out in scratch.
struct Plan {
  int64_t dilation, padding;
  int64_t group;     // distance of the output rows of a block
  int64_t row_step;  // input rows, in units of dilation, from one output row of a block to the next
  int64_t half;      // floats of the even columns of a stride-2 row, before the odd ones
  int64_t first;     // where column 0 of an input row goes (stride 1)
  int64_t row;       // floats from one scratch row to the next
  int64_t ring_rows;  // input rows kept, at least those that a block can reach
  int64_t bands, band_rows;
  bool interleaved;         // channels are innermost in memory: neighbouring tasks are channels
  int64_t tap[kMaxKernel];  // where tap j of output column 0 lies in a scratch row
};

Plan make_plan(const DepthwiseProblem& problem, const DepthwiseBranch& branch) {
  Plan plan;
  const int64_t k = problem.kernel, stride = problem.stride;
  // From the map's extent on, every tap but the centre reads padding, whatever the dilation.
  plan.dilation = min(problem.dilation, max(branch.height, branch.width));
  plan.padding = plan.dilation * (k / 2);
  const bool halves = stride == 2 && plan.dilation % 2 == 0;
  plan.group = halves ? plan.dilation / 2 : plan.dilation;
  plan.row_step = halves ? 1 : stride;
  plan.ring_rows = stride * (plan.group * kRows - 1) + (k - 1) * plan.dilation + 1;
  const int64_t columns = align(branch.out_width);
  if (stride == 1) {
    plan.first = align(plan.padding);
    plan.half = 0;
    plan.row = plan.first + columns + align(plan.padding);
  } else {
    plan.first = 0;
    plan.half = columns + align(plan.padding + 1);
    plan.row = 2 * plan.half;
  }
  plan.row |= kAlign;  // an odd number of cache lines, so that rows do not share cache sets
  // Rows are read ahead as far as the cache allows: loads that straddle two young stores stall.
  const int64_t padded_rows = branch.height + 2 * plan.padding;
  plan.ring_rows = max(plan.ring_rows, min(padded_rows, kRingFloats / plan.row));
  for (int64_t j = 0; j < k; ++j) {
    const int64_t column = j * plan.dilation;  // in the padded row
    plan.tap[j] =
        stride == 1 ? plan.first - plan.padding + column : column % 2 * plan.half + column / 2;
  }
  plan.interleaved = branch.x_stride[3] != 1 && branch.x_stride[1] == 1;
  const int64_t rows = plan.interleaved ? kInterleavedTaskRows : kTaskOutputs / branch.out_width;
  const int64_t block = kRows * plan.group;
  plan.band_rows = ceil_div(max(rows, plan.ring_rows), block) * block;
  plan.bands = ceil_div(branch.out_height, plan.band_rows);
  return plan;
}

int64_t task_count(const DepthwiseProblem& problem) {
  int64_t tasks = 0;
  for (int64_t b = 0; b < problem.count; ++b) {
    const DepthwiseBranch& branch = problem.branches[b];
    tasks += branch.batch * branch.channels * make_plan(problem, branch).bands;
  }
  return tasks;
}

int64_t unsplit_floats(const DepthwiseBranch& branch) { return align(branch.width) + kAlign; }

// Ring, a row of zeros, an input row before its split, kRows output rows, and room to align.
int64_t scratch_floats(const Plan& plan, const DepthwiseBranch& branch) {
  return (plan.ring_rows + 1) * plan.row + unsplit_floats(branch) +
         kRows * align(branch.out_width) + kAlign;
}

int64_t scratch_floats(const DepthwiseProblem& problem) {
  int64_t floats = 0;
  for (int64_t b = 0; b < problem.count; ++b) {
    const DepthwiseBranch& branch = problem.branches[b];
    floats = max(floats, scratch_floats(make_plan(problem, branch), branch));
  }
  return floats;
}

// Runs the tasks of one branch with elements of type T.
template <typename T>
class BranchRunner {
 public:
  BranchRunner(const DepthwiseProblem& problem, const DepthwiseBranch& branch, const Plan& plan,
               float* scratch)
      : problem_(problem),
        branch_(branch),
        plan_(plan),
        whole_block_(rows_function<kRows>(problem.kernel, plan.row_step, branch.out_width)),
        one_row_(rows_function<1>(problem.kernel, plan.row_step, branch.out_width)) {
    const uintptr_t misaligned = reinterpret_cast<uintptr_t>(scratch) / sizeof(float) % kAlign;
    ring_ = scratch + (kAlign - misaligned) % kAlign;
    zeros_ = ring_ + plan.ring_rows * plan.row;
    unsplit_ = zeros_ + plan.row;
    out_ = unsplit_ + unsplit_floats(branch);
    // Padding is written here once; rows are read into the space between.
    __builtin_memset(ring_, 0, (out_ - ring_) * sizeof(float));
  }

  void run(int64_t task) {
    const int64_t channels = branch_.channels;
    const int64_t inner = plan_.interleaved ? channels : plan_.bands;
    const int64_t outer = plan_.interleaved ? plan_.bands : channels;
    const int64_t image = task / (inner * outer);
    const int64_t i = task % inner, o = task / inner % outer;
    const int64_t c = plan_.interleaved ? i : o;
    const int64_t band = plan_.interleaved ? o : i;

    const int k = problem_.kernel;
    channel_.weight = branch_.weight + c * k * k;
    channel_.scale = branch_.scale ? branch_.scale[c] : 1.0f;
    channel_.shift = branch_.shift ? branch_.shift[c] : 0.0f;
    channel_.slope = branch_.slope ? branch_.slope[c] : 1.0f;
    x_ = static_cast<const T*>(branch_.x) + image * branch_.x_stride[0] + c * branch_.x_stride[1];
    y_ = static_cast<T*>(branch_.y) + image * branch_.y_stride[0] + c * branch_.y_stride[1];

    const int64_t begin = band * plan_.band_rows;
    const int64_t end = min(branch_.out_height, begin + plan_.band_rows);
    const int64_t last_input = min(branch_.height - 1, (end - 1) * problem_.stride + plan_.padding);
    next_input_ = max(0, begin * problem_.stride - plan_.padding);
    ring_begin_ = next_input_;
    for (int64_t h = begin; h < end; h += kRows * plan_.group) {
      const int64_t oldest = h * problem_.stride - plan_.padding;
      if (oldest - ring_begin_ >= plan_.ring_rows) ring_begin_ += plan_.ring_rows;
      read_until(min(last_input + 1, oldest + plan_.ring_rows));
      for (int64_t g = h; g < min(end, h + plan_.group); ++g) block(g, end);
    }
  }

 private:
  // Reads the input rows before `stop` that the ring does not hold yet.
  void read_until(int64_t stop) {
    const T* end = x_ + (branch_.height - 1) * branch_.x_stride[2] +
                   (branch_.width - 1) * branch_.x_stride[3] + 1;
    for (; next_input_ < stop; ++next_input_) {
      float* row = ring_row(next_input_);
      const T* x = x_ + next_input_ * branch_.x_stride[2];
      if (problem_.stride == 1) {
        read_row(x, branch_.x_stride[3], branch_.width, end, row + plan_.first);
      } else {
        read_row(x, branch_.x_stride[3], branch_.width, end, unsplit_);
        const int64_t parity = plan_.padding % 2;
        float* even = row + parity * plan_.half + plan_.padding / 2;
        float* odd = row + (1 - parity) * plan_.half + (plan_.padding + 1) / 2;
        split_columns(unsplit_, branch_.width, even, odd);
      }
    }
  }

  // Where input row h lies, one of the ring_rows from the oldest in use on.
  float* ring_row(int64_t h) const {
    const int64_t slot = h - ring_begin_;
    return ring_ + (slot < plan_.ring_rows ? slot : slot - plan_.ring_rows) * plan_.row;
  }

  const float* input_row(int64_t h) const {
    return h < 0 || h >= branch_.height ? zeros_ : ring_row(h);
  }

  // Output rows h, h + group, ... below `end`, at most kRows of them.
  void block(int64_t h, int64_t end) {
    const float* rows[2 * (kRows - 1) + kMaxKernel];
    const int64_t shared = plan_.row_step * (kRows - 1) + problem_.kernel;
    const int64_t top = h * problem_.stride - plan_.padding;
    for (int64_t r = 0; r < shared; ++r) rows[r] = input_row(top + r * plan_.dilation);

    int valid = 1;
    while (valid < kRows && h + valid * plan_.group < end) ++valid;
    const RowsFunction compute = valid == 1 ? one_row_ : whole_block_;
    const int64_t width = branch_.out_width;
    const bool direct = is_float32(y_) && branch_.y_stride[3] == 1 && width >= kNarrowest;
    float* out[kRows];
    for (int t = 0; t < kRows; ++t) {
      out[t] = direct && t < valid ? reinterpret_cast<float*>(output_row(h, t))
                                   : out_ + t * align(width);
    }
    compute(rows, plan_.tap, channel_, width, out);
    if (direct) return;
    for (int t = 0; t < valid; ++t) {
      write_row(out[t], width, output_row(h, t), branch_.y_stride[3]);
    }
  }

  T* output_row(int64_t h, int64_t t) const {
    return y_ + (h + t * plan_.group) * branch_.y_stride[2];
  }

  const DepthwiseProblem& problem_;
  const DepthwiseBranch& branch_;
  const Plan& plan_;
  const RowsFunction whole_block_, one_row_;
  float *ring_, *zeros_, *unsplit_, *out_;
  Channel channel_;
  const T* x_;
  T* y_;
  int64_t next_input_;  // first input row not read yet
  int64_t ring_begin_;  // input row in the ring's first slot, or ring_rows before it
};

template <typename T>
void run_as(const DepthwiseProblem& problem, int64_t begin, int64_t end, float* scratch) {
  int64_t first = 0;
  for (int64_t b = 0; b < problem.count && first < end; ++b) {
    const DepthwiseBranch& branch = problem.branches[b];
    const Plan plan = make_plan(problem, branch);
    const int64_t tasks = branch.batch * branch.channels * plan.bands;
    const int64_t from = max(begin - first, 0), to = min(end - first, tasks);
    if (from < to) {
      BranchRunner<T> runner(problem, branch, plan, scratch);
      for (int64_t task = from; task < to; ++task) runner.run(task);
    }
    first += tasks;
  }
}

void run(const DepthwiseProblem& problem, int64_t begin, int64_t end, float* scratch) {
  const FlushDenormals flush;
  switch (problem.dtype) {
    case Dtype::float32:
      return run_as<float>(problem, begin, end, scratch);
    case Dtype::float16:
      return run_as<Half>(problem, begin, end, scratch);
    case Dtype::bfloat16:
      return run_as<BFloat16>(problem, begin, end, scratch);
  }
}

}  // namespace

DepthwiseKernel depthwise_scales_kernel() { return {task_count, scratch_floats, run}; }

}  // namespace lmwp::LMWP_ISA
