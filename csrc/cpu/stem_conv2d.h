// A dense convolution of a few planes, as its callers see it, whatever the instruction set.
#pragma once

#include "cpu/dtype.h"
#include "cpu/feature.h"
#include "cpu/pointwise_layer.h"

namespace lmwp {

// Zero padding keeps the size, which the stride divides, rounding up.
struct StemProblem {
  Dtype dtype;
  int64_t batch, channels, rows, columns;
  int64_t kernel;        // 1, 3, 5 or 7
  int64_t stride;        // 1 or 2
  PointwiseLayer layer;  // from the taps of all channels
  ImageFeature x;        // of planes
  ImageFeature out;

  int64_t out_rows() const { return (rows - 1) / stride + 1; }
  int64_t out_columns() const { return (columns - 1) / stride + 1; }
};

// The layer is packed once; then a thread runs ranges of the tasks with scratch of its own.
struct StemKernel {
  int64_t (*packed_floats)(const PointwiseLayer& layer);
  void (*pack)(const PointwiseLayer& layer, float* packed);
  int64_t (*task_count)(const StemProblem& problem);
  int64_t (*scratch_floats)(const StemProblem& problem);
  void (*run)(const StemProblem& problem, const float* packed, int64_t begin, int64_t end,
              float* scratch);
};

#define LMWP_DECLARE_STEM(isa)     \
  namespace isa {                  \
  StemKernel stem_conv2d_kernel(); \
  }
LMWP_DECLARE_STEM(generic)
LMWP_DECLARE_STEM(sse42)
LMWP_DECLARE_STEM(avx2)
LMWP_DECLARE_STEM(avx512)
#undef LMWP_DECLARE_STEM

}  // namespace lmwp
