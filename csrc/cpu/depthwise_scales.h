// The depthwise kernel as its callers see it, whatever the instruction set.
#pragma once

#include <stdint.h>

#include "cpu/dtype.h"

namespace lmwp {

// One branch; strides count elements. scale, shift and slope are null where absent.
struct DepthwiseBranch {
  const void* x;        // [batch, channels, height, width]
  void* y;              // [batch, channels, out_height, out_width]
  const float* weight;  // [channels, kernel, kernel]
  const float* scale;   // [channels]
  const float* shift;   // [channels]
  const float* slope;   // [channels]
  int64_t batch, channels, height, width, out_height, out_width;
  int64_t x_stride[4], y_stride[4];
};

struct DepthwiseProblem {
  const DepthwiseBranch* branches;
  int64_t count;
  int kernel;  // 1, 3, 5 or 7
  int stride;  // 1 or 2
  int64_t dilation;
  Dtype dtype;
  bool spread;  // x stands for a map of the output's size with zeros between its rows and columns
};

// A problem is cut into independent tasks; a thread runs ranges of them with scratch of its own.
struct DepthwiseKernel {
  int64_t (*task_count)(const DepthwiseProblem& problem);
  int64_t (*scratch_floats)(const DepthwiseProblem& problem);
  void (*run)(const DepthwiseProblem& problem, int64_t begin, int64_t end, float* scratch);
};

// Gradients of the weights, where y holds the gradients of the results. A task leaves its sums in
// `partials`, kernel^2 for each task; `reduce` adds them up, branch by branch, in a fixed order.
struct DepthwiseWeightKernel {
  int64_t (*task_count)(const DepthwiseProblem& problem);
  int64_t (*scratch_floats)(const DepthwiseProblem& problem);
  void (*run)(const DepthwiseProblem& problem, int64_t begin, int64_t end, float* partials,
              float* scratch);
  void (*reduce)(const DepthwiseProblem& problem, const float* partials, float* const* gradients);
};

#define LMWP_DECLARE_DEPTHWISE(isa)                                                       \
  namespace isa {                                                                         \
  DepthwiseKernel depthwise_scales_kernel();                                              \
  DepthwiseKernel depthwise_pixels_kernel(); /* of features with channels side by side */ \
  DepthwiseWeightKernel depthwise_scales_weight_kernel();                                 \
  }
LMWP_DECLARE_DEPTHWISE(generic)
LMWP_DECLARE_DEPTHWISE(sse42)
LMWP_DECLARE_DEPTHWISE(avx2)
LMWP_DECLARE_DEPTHWISE(avx512)
#undef LMWP_DECLARE_DEPTHWISE

}  // namespace lmwp
