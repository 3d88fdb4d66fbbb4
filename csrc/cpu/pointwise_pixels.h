// A 1 x 1 convolution of a feature whose channels lie side by side, as its callers see it, whatever
// the instruction set.
#pragma once

#include "cpu/dtype.h"
#include "cpu/feature.h"
#include "cpu/pointwise_layer.h"

namespace lmwp {

struct PointwiseProblem {
  Dtype dtype;
  int64_t batch, pixels;
  PointwiseLayer layer;
  ImageFeature x, out;  // of pixels
};

// The layer is packed once; then a thread runs ranges of the tasks with scratch of its own.
struct PointwiseKernel {
  int64_t (*packed_floats)(const PointwiseLayer& layer);
  void (*pack)(const PointwiseLayer& layer, float* packed);
  int64_t (*task_count)(const PointwiseProblem& problem);
  int64_t (*scratch_floats)(const PointwiseProblem& problem);
  void (*run)(const PointwiseProblem& problem, const float* packed, int64_t begin, int64_t end,
              float* scratch);
};

#define LMWP_DECLARE_POINTWISE(isa)          \
  namespace isa {                            \
  PointwiseKernel pointwise_pixels_kernel(); \
  }
LMWP_DECLARE_POINTWISE(generic)
LMWP_DECLARE_POINTWISE(sse42)
LMWP_DECLARE_POINTWISE(avx2)
LMWP_DECLARE_POINTWISE(avx512)
#undef LMWP_DECLARE_POINTWISE

}  // namespace lmwp
