// Depthwise convolution with affine and PReLU over branches whose channels lie side by side.
//
// A task is a row of one branch's output. A vector of channels of a few neighbouring pixels keeps
// its sums in registers while the taps pass by; pixels whose taps reach beyond a row's ends are
// computed one by one.
#include "common/epilogue.h"
#include "cpu/denormals.h"
#include "cpu/depthwise_scales.h"
#include "cpu/flat_vectors.h"
#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int kPixels = 8;
constexpr int kMostTaps = 49;

int64_t tap_floats(const DepthwiseProblem& problem, const DepthwiseBranch& branch) {
  return problem.kernel * problem.kernel * align(branch.channels);
}

int64_t task_count(const DepthwiseProblem& problem) {
  int64_t tasks = 0;
  for (int64_t b = 0; b < problem.count; ++b) {
    tasks += problem.branches[b].batch * problem.branches[b].out_height;
  }
  return tasks;
}

int64_t scratch_floats(const DepthwiseProblem& problem) {
  int64_t floats = 0;
  for (int64_t b = 0; b < problem.count; ++b) {
    floats = max(floats, tap_floats(problem, problem.branches[b]));
  }
  return floats + kAlign;
}

// Weights as [tap, channel].
void pack(const DepthwiseProblem& problem, const DepthwiseBranch& branch, float* taps) {
  const int64_t count = problem.kernel * problem.kernel, pitch = align(branch.channels);
  for (int64_t c = 0; c < branch.channels; ++c) {
    for (int64_t t = 0; t < count; ++t) taps[t * pitch + c] = branch.weight[c * count + t];
  }
}

// The taps of an output pixel that exist: where they read, from the input's first element on.
struct Taps {
  int64_t from[kMostTaps];
  const float* weight[kMostTaps];
  int64_t count = 0;
};

template <typename T>
class Row {
 public:
  Row(const DepthwiseProblem& problem, const DepthwiseBranch& branch, const float* taps,
      int64_t image, int64_t h)
      : problem_(problem),
        branch_(branch),
        taps_(taps),
        x_(static_cast<const T*>(branch.x) + image * branch.x_stride[0]),
        y_(static_cast<T*>(branch.y) + image * branch.y_stride[0] + h * branch.y_stride[2]),
        h_(h),
        dilation_(min(problem.dilation, max(branch.height, branch.width))) {}

  void run() const {
    const int64_t reach = problem_.kernel / 2 * dilation_, stride = problem_.stride;
    const int64_t inner = min(branch_.out_width, ceil_div(reach, stride));
    const int64_t last = branch_.width - reach - 1;
    const int64_t outer = max(inner, last < 0 ? 0 : min(branch_.out_width, last / stride + 1));
    for (int64_t w = 0; w < inner; ++w) pixels<1>(w, taps_of(w), 0);
    const Taps taps = taps_of(inner);
    const int64_t step = stride * branch_.x_stride[3];
    int64_t w = inner;
    for (; w + kPixels <= outer; w += kPixels) pixels<kPixels>(w, taps, (w - inner) * step);
    for (; w < branch_.out_width; ++w) pixels<1>(w, taps_of(w), 0);
  }

 private:
  // `count` pixels from column w on, which read `offset` behind the taps.
  template <int count>
  void pixels(int64_t w, const Taps& taps, int64_t offset) const {
    const T* const x = x_ + offset;
    const int64_t step = problem_.stride * branch_.x_stride[3], pitch = branch_.y_stride[3];
    T* const to = y_ + w * pitch;
    for_vectors<1>(branch_.channels, [&]<int, Part part>(int64_t c, int64_t lanes) {
      Vec sum[count] = {};
      for (int64_t t = 0; t < taps.count; ++t) {
        const Vec weight = get<part>(taps.weight[t] + c, lanes);
        const T* from = x + taps.from[t] + c;
#pragma GCC unroll 8
        for (int p = 0; p < count; ++p, from += step) sum[p] += weight * get<part>(from, lanes);
      }
      const Vec scale = branch_.scale ? get<part>(branch_.scale + c, lanes) : broadcast<Vec>(1);
      const Vec shift = branch_.shift ? get<part>(branch_.shift + c, lanes) : Vec{};
      const Vec slope = branch_.slope ? get<part>(branch_.slope + c, lanes) : broadcast<Vec>(1);
#pragma GCC unroll 8
      for (int p = 0; p < count; ++p) {
        put<part>(affine_prelu(sum[p], scale, shift, slope), to + p * pitch + c, lanes);
      }
    });
  }

  Taps taps_of(int64_t w) const {
    const int64_t kernel = problem_.kernel, reach = kernel / 2, pitch = align(branch_.channels);
    Taps taps;
    for (int64_t i = 0; i < kernel; ++i) {
      const int64_t row = h_ * problem_.stride + (i - reach) * dilation_;
      if (row < 0 || row >= branch_.height) continue;
      for (int64_t j = 0; j < kernel; ++j) {
        const int64_t column = w * problem_.stride + (j - reach) * dilation_;
        if (column < 0 || column >= branch_.width) continue;
        taps.from[taps.count] = row * branch_.x_stride[2] + column * branch_.x_stride[3];
        taps.weight[taps.count++] = taps_ + (i * kernel + j) * pitch;
      }
    }
    return taps;
  }

  const DepthwiseProblem& problem_;
  const DepthwiseBranch& branch_;
  const float* const taps_;
  const T* const x_;
  T* const y_;
  const int64_t h_;
  const int64_t dilation_;  // from the map's extent on, all taps but the centre read zeros
};

template <typename T>
void run_as(const DepthwiseProblem& problem, int64_t begin, int64_t end, float* scratch) {
  Arena arena(scratch);
  float* const taps = arena.take(0);
  for (int64_t b = 0; b < problem.count && begin < end; ++b) {
    const DepthwiseBranch& branch = problem.branches[b];
    const int64_t tasks = branch.batch * branch.out_height;
    if (begin < tasks) pack(problem, branch, taps);
    for (; begin < min(tasks, end); ++begin) {
      Row<T>(problem, branch, taps, begin / branch.out_height, begin % branch.out_height).run();
    }
    begin -= tasks;
    end -= tasks;
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

DepthwiseKernel depthwise_pixels_kernel() { return {task_count, scratch_floats, run}; }

}  // namespace lmwp::LMWP_ISA
