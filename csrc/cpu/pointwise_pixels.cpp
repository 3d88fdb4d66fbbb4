// A 1 x 1 convolution of pixels whose channels lie side by side, a stretch of pixels at a time.
#include "cpu/pointwise_pixels.h"

#include "cpu/denormals.h"
#include "cpu/feature_pixels.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kStretchPixels = 192;  // of a task

using Problem = PointwiseProblem;

int64_t stretches(const Problem& p) { return ceil_div(p.pixels, kStretchPixels); }
int64_t task_count(const Problem& p) { return p.batch * stretches(p); }

// Room for what is read, converted, and for what is written, in whole vectors.
int64_t scratch_floats(const Problem& p) {
  return kStretchPixels * (align(p.layer.in) + padded(p.layer.out)) + kAlign;
}

template <typename T>
void run_task(const Problem& p, const float* packed, int64_t task, float* scratch) {
  const int64_t image = task / stretches(p), first = task % stretches(p) * kStretchPixels;
  const int64_t pixels = min(kStretchPixels, p.pixels - first), out = padded(p.layer.out);
  Arena arena(scratch);
  float* const results = arena.take(kStretchPixels * out);
  const PixelSource source = pixels_of<T>(p.x, image, first, p.layer.in, pixels, arena.take(0));
  T* const to = first_of<T>(p.out, image, first);
  if constexpr (is_float32(static_cast<const T*>(nullptr))) {
    if (p.layer.out == out) {
      return apply(p.layer, packed, source, pixels, {to, pixels, p.out.pixel, 0});
    }
  }
  apply(p.layer, packed, source, pixels, {results, pixels, out, 0});
  to_pixels(results, pixels, p.layer.out, to, p.out.pixel,
            []<Part>(int64_t, int64_t, int64_t, Vec v) { return v; });
}

template <typename T>
void run_as(const Problem& p, const float* packed, int64_t begin, int64_t end, float* scratch) {
  for (int64_t task = begin; task < end; ++task) run_task<T>(p, packed, task, scratch);
}

void run(const Problem& p, const float* packed, int64_t begin, int64_t end, float* scratch) {
  const FlushDenormals flush;
  switch (p.dtype) {
    case Dtype::float32:
      return run_as<float>(p, packed, begin, end, scratch);
    case Dtype::float16:
      return run_as<Half>(p, packed, begin, end, scratch);
    case Dtype::bfloat16:
      return run_as<BFloat16>(p, packed, begin, end, scratch);
  }
}

}  // namespace

PointwiseKernel pointwise_pixels_kernel() {
  return {packed_floats, pack, task_count, scratch_floats, run};
}

}  // namespace lmwp::LMWP_ISA
