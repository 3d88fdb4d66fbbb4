// Depthwise convolution with affine and PReLU over all branches of a multi-scale feature.
//
// Input rows pass through a ring of zero-padded float32 rows that stays in cache: conversion,
// padding, any strides and, for stride 2, the split into even and odd columns happen there once,
// and the inner loop reads unit-stride vectors only. A block is kRows output rows that share input
// rows, `dilation` apart; see the op's README for the counts.
#include "cpu/depthwise_scales.h"

#include "cpu/denormals.h"
#include "cpu/depthwise_ring.h"

namespace lmwp::LMWP_ISA {
namespace {

// Ring, kRows output rows, and room to align.
int64_t scratch_floats(const Plan& plan, const DepthwiseBranch& branch) {
  return InputRing<float>::scratch_floats(plan, branch) + kRows * align(branch.out_width) + kAlign;
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
      : branch_(branch),
        kernel_(problem.kernel),
        plan_(plan),
        whole_block_(rows_function<kRows>(problem.kernel, plan.row_step, branch.out_width)),
        one_row_(rows_function<1>(problem.kernel, plan.row_step, branch.out_width)),
        ring_(problem, branch, plan, to_cache_line(scratch)),
        out_(to_cache_line(scratch) + InputRing<T>::scratch_floats(plan, branch)) {}

  void run(int64_t task) {
    const Band band(branch_, plan_, task);
    const int64_t c = band.channel;
    channel_.weight = branch_.weight + c * kernel_ * kernel_;
    channel_.scale = branch_.scale ? branch_.scale[c] : 1.0f;
    channel_.shift = branch_.shift ? branch_.shift[c] : 0.0f;
    channel_.slope = branch_.slope ? branch_.slope[c] : 1.0f;
    y_ = static_cast<T*>(branch_.y) + band.image * branch_.y_stride[0] + c * branch_.y_stride[1];
    for_each_block(plan_, band, ring_, [&](int64_t h) { block(h, band.end); });
  }

 private:
  // Output rows h, h + group, ... below `end`, at most kRows of them.
  void block(int64_t h, int64_t end) {
    const float* rows[2 * (kRows - 1) + kMaxKernel];
    ring_.shared_rows(h, rows);
    const int valid = rows_of_block(plan_, h, end);
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

  const DepthwiseBranch& branch_;
  const int kernel_;
  const Plan& plan_;
  const RowsFunction whole_block_, one_row_;
  InputRing<T> ring_;
  float* const out_;
  Channel channel_;
  T* y_;
};

template <typename T>
void run_as(const DepthwiseProblem& problem, int64_t begin, int64_t end, float* scratch) {
  for_each_branch(problem, begin, end,
                  [&](const DepthwiseBranch& branch, const Plan& plan, int64_t from, int64_t to) {
                    BranchRunner<T> runner(problem, branch, plan, scratch);
                    for (int64_t task = from; task < to; ++task) runner.run(task);
                  });
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
