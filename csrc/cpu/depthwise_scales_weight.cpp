// Gradients of the weights of a depthwise convolution: for each tap, the sum of the gradients of
// the results times the input that the tap read. Rows come as in the forward pass, so that a block
// of gradients meets each vector of input once for all taps of a row or, for k up to 3, for all.
#include "cpu/denormals.h"
#include "cpu/depthwise_ring.h"

namespace lmwp::LMWP_ISA {
namespace {

int64_t taps(const DepthwiseProblem& problem) { return problem.kernel * problem.kernel; }

// Adds to sums[tap], a vector each, what T rows of gradients and their shared input rows give. The
// gradients are zero from `width` on up to a whole vector.
template <int K, int S, int T>
void accumulate_rows(const float* const* rows, const int64_t* tap, const float* const* grads,
                     int64_t width, float* sums) {
  constexpr int kShared = S * (T - 1) + K;
  constexpr int kColumns = K <= 3 ? K : 1;  // of taps whose sums stay in registers
  for (int first = 0; first < K; first += kColumns) {
    Vec sum[K][kColumns];
    for (int i = 0; i < K; ++i) {
      for (int j = 0; j < kColumns; ++j) sum[i][j] = load<Vec>(sums + (i * K + first + j) * kLanes);
    }
    for (int64_t c = 0; c < width; c += kLanes) {
      Vec grad[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) grad[t] = load<Vec>(grads[t] + c);
#pragma GCC unroll 8
      for (int j = 0; j < kColumns; ++j) {
#pragma GCC unroll 16
        for (int r = 0; r < kShared; ++r) {
          const Vec x = load<Vec>(rows[r] + tap[first + j] + c);
#pragma GCC unroll 8
          for (int t = 0; t < T; ++t) {
            if (r >= S * t && r < S * t + K) sum[r - S * t][j] += x * grad[t];
          }
        }
      }
    }
    for (int i = 0; i < K; ++i) {
      for (int j = 0; j < kColumns; ++j) store(sums + (i * K + first + j) * kLanes, sum[i][j]);
    }
  }
}

using AccumulateFunction = void (*)(const float* const*, const int64_t*, const float* const*,
                                    int64_t, float*);

template <int T>
AccumulateFunction accumulate_function(int kernel, int64_t row_step) {
  switch (kernel) {
    case 1:
      return row_step == 1 ? accumulate_rows<1, 1, T> : accumulate_rows<1, 2, T>;
    case 3:
      return row_step == 1 ? accumulate_rows<3, 1, T> : accumulate_rows<3, 2, T>;
    case 5:
      return row_step == 1 ? accumulate_rows<5, 1, T> : accumulate_rows<5, 2, T>;
    default:
      return row_step == 1 ? accumulate_rows<7, 1, T> : accumulate_rows<7, 2, T>;
  }
}

constexpr int64_t kSumFloats = kMaxKernel * kMaxKernel * kLanes;

int64_t grad_row(const DepthwiseBranch& branch) { return align(branch.out_width) + kAlign; }

// Ring, kRows rows of gradients, the sums, and room to align.
int64_t scratch_floats(const Plan& plan, const DepthwiseBranch& branch) {
  return InputRing<float>::scratch_floats(plan, branch) + kRows * grad_row(branch) + kSumFloats +
         kAlign;
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
class WeightRunner {
 public:
  WeightRunner(const DepthwiseProblem& problem, const DepthwiseBranch& branch, const Plan& plan,
               float* scratch)
      : problem_(problem),
        branch_(branch),
        plan_(plan),
        whole_block_(accumulate_function<kRows>(problem.kernel, plan.row_step)),
        one_row_(accumulate_function<1>(problem.kernel, plan.row_step)),
        ring_(problem, branch, plan, to_cache_line(scratch)),
        grads_(to_cache_line(scratch) + InputRing<T>::scratch_floats(plan, branch)),
        sums_(grads_ + kRows * grad_row(branch)) {
    // Behind the gradients of a row zeros are kept.
    __builtin_memset(grads_, 0, (sums_ - grads_) * sizeof(float));
  }

  void run(int64_t task, float* partial) {
    const Band band(branch_, plan_, task);
    const int64_t* stride = branch_.y_stride;
    dy_ = static_cast<const T*>(branch_.y) + band.image * stride[0] + band.channel * stride[1];
    __builtin_memset(sums_, 0, kSumFloats * sizeof(float));
    for_each_block(plan_, band, ring_, [&](int64_t h) { block(h, band.end); });
    for (int64_t k = 0; k < taps(problem_); ++k) {
      float sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) sum += sums_[k * kLanes + lane];
      partial[k] = sum;
    }
  }

 private:
  void block(int64_t h, int64_t end) {
    const float* rows[2 * (kRows - 1) + kMaxKernel];
    ring_.shared_rows(h, rows);
    const int valid = rows_of_block(plan_, h, end);
    const float* grads[kRows];
    for (int t = 0; t < valid; ++t) grads[t] = grad(h + t * plan_.group, t);
    if (valid == kRows) return whole_block_(rows, plan_.tap, grads, branch_.out_width, sums_);
    for (int t = 0; t < valid; ++t) {
      one_row_(rows + t * plan_.row_step, plan_.tap, grads + t, branch_.out_width, sums_);
    }
  }

  // Gradients of output row h: where they are, or in buffer t.
  const float* grad(int64_t h, int t) {
    const T* row = dy_ + h * branch_.y_stride[2];
    const int64_t width = branch_.out_width;
    if constexpr (is_float32(static_cast<const T*>(nullptr))) {
      if (branch_.y_stride[3] == 1 && width % kLanes == 0) return row;
    }
    const T* end = dy_ + (branch_.out_height - 1) * branch_.y_stride[2] +
                   (width - 1) * branch_.y_stride[3] + 1;
    float* const buffer = grads_ + t * grad_row(branch_);
    read_row(row, branch_.y_stride[3], width, end, buffer);
    return buffer;
  }

  const DepthwiseProblem& problem_;
  const DepthwiseBranch& branch_;
  const Plan& plan_;
  const AccumulateFunction whole_block_, one_row_;
  InputRing<T> ring_;
  float *const grads_, *const sums_;
  const T* dy_;
};

template <typename T>
void run_as(const DepthwiseProblem& problem, int64_t begin, int64_t end, float* partials,
            float* scratch) {
  float* partial = partials + begin * taps(problem);
  for_each_branch(problem, begin, end,
                  [&](const DepthwiseBranch& branch, const Plan& plan, int64_t from, int64_t to) {
                    WeightRunner<T> runner(problem, branch, plan, scratch);
                    for (int64_t task = from; task < to; ++task, partial += taps(problem)) {
                      runner.run(task, partial);
                    }
                  });
}

void run(const DepthwiseProblem& problem, int64_t begin, int64_t end, float* partials,
         float* scratch) {
  const FlushDenormals flush;
  switch (problem.dtype) {
    case Dtype::float32:
      return run_as<float>(problem, begin, end, partials, scratch);
    case Dtype::float16:
      return run_as<Half>(problem, begin, end, partials, scratch);
    case Dtype::bfloat16:
      return run_as<BFloat16>(problem, begin, end, partials, scratch);
  }
}

void reduce(const DepthwiseProblem& problem, const float* partials, float* const* gradients) {
  const int64_t count = taps(problem);
  for (int64_t b = 0; b < problem.count; ++b) {
    const DepthwiseBranch& branch = problem.branches[b];
    const Plan plan = make_plan(problem, branch);
    __builtin_memset(gradients[b], 0, branch.channels * count * sizeof(float));
    for (int64_t task = 0; task < task_count(plan, branch); ++task, partials += count) {
      float* const gradient = gradients[b] + Band(branch, plan, task).channel * count;
      for (int64_t k = 0; k < count; ++k) gradient[k] += partials[k];
    }
  }
}

}  // namespace

DepthwiseWeightKernel depthwise_scales_weight_kernel() {
  return {task_count, scratch_floats, run, reduce};
}

}  // namespace lmwp::LMWP_ISA
