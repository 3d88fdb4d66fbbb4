// Gradients of the weights of convolutions between branches at several scales, as their callers see
// them, whatever the instruction set. Serves goctconv2d and dilated_bank.
#pragma once

#include "cpu/multiscale_conv.h"

namespace lmwp {

// The block of a weight that takes one input to one output; its gradient sums the products of the
// pixels of both. `gradients` (of the results) and `x` are first brought to one size.
struct WeightBlock {
  ConvTerm gradients, x;
  int64_t height, width;
  float* to;    // [channels of gradients, channels of x, kernel, kernel]
  int64_t row;  // from one channel of `gradients` to the next in `to`
};

struct WeightProblem {
  const WeightBlock* blocks;
  int64_t block_count;
  int64_t batch;
  int kernel;  // 1 or 3
  Dtype dtype;
};

// A problem is cut into independent tasks that leave their sums in `partials`; `reduce` adds them
// up in a fixed order and writes the gradients.
struct MultiscaleWeightKernel {
  int64_t (*task_count)(const WeightProblem& problem);
  int64_t (*partial_floats)(const WeightProblem& problem);
  int64_t (*scratch_floats)(const WeightProblem& problem);
  void (*run)(const WeightProblem& problem, int64_t begin, int64_t end, float* partials,
              float* scratch);
  void (*reduce)(const WeightProblem& problem, const float* partials);
};

#define LMWP_DECLARE_MULTISCALE_WEIGHT(isa)          \
  namespace isa {                                    \
  MultiscaleWeightKernel multiscale_weight_kernel(); \
  }
LMWP_DECLARE_MULTISCALE_WEIGHT(generic)
LMWP_DECLARE_MULTISCALE_WEIGHT(sse42)
LMWP_DECLARE_MULTISCALE_WEIGHT(avx2)
LMWP_DECLARE_MULTISCALE_WEIGHT(avx512)
#undef LMWP_DECLARE_MULTISCALE_WEIGHT

}  // namespace lmwp
