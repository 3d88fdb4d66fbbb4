// Convolutions from branches at several scales to branches at several scales, as their callers see
// them, whatever the instruction set. Serves goctconv2d, il_block and dilated_bank.
#pragma once

#include <stdint.h>

#include "cpu/dtype.h"

namespace lmwp {

// One input branch; strides count elements.
struct ConvInput {
  const void* x;  // [batch, channels, height, width]
  int64_t channels, height, width;
  int64_t stride[4];
  bool entry_pool;  // average 2 x 2 pixels first
};

// An adjoint brings gradients back the way that the values of the forward pass came.
enum class Resample {
  none,
  max_pool,               // over windows of 2^steps, before the convolution
  bilinear_down,          // to the size of the output, before the convolution
  bilinear_up,            // to the size of the output, after the convolution
  max_pool_adjoint,       // to where the output's `routed` has its maxima, after the convolution
  bilinear_down_adjoint,  // after the convolution
  bilinear_up_adjoint,    // before the convolution
};

constexpr int64_t kMostTerms = 8;  // of one output

// What one input adds to one output.
struct ConvTerm {
  const ConvInput* input;
  Resample resample;
  int steps;         // scales from the finer to the coarser of input and output
  int64_t column;    // of the input's first channel in the weight
  int64_t dilation;  // times that of the group
};

// Output channels that share a dilation.
struct ConvGroup {
  const float* weight;  // [channels, columns, kernel, kernel]
  int64_t channels, dilation;
};

// Per channel; each of these is null where absent.
struct ConvEpilogue {
  const float *scale, *shift, *slope;
};

// A depthwise 3 x 3 convolution that follows.
struct DepthwiseStage {
  const float* weight;  // [channels, 3, 3]
  ConvEpilogue epilogue;
};

// One output branch: the sum of its terms, its epilogue, then two depthwise stages or none.
struct ConvOutput {
  void* y;  // [batch, channels, height, width], or of the spread size
  int64_t channels, height, width;
  int64_t stride[4];
  const ConvTerm* terms;
  int64_t term_count;
  const ConvGroup* groups;
  int64_t group_count;
  ConvEpilogue epilogue;
  const DepthwiseStage* depthwise;
  const ConvInput* routed;              // null without max_pool_adjoint
  int64_t spread_height, spread_width;  // unless zero, y holds a quarter of each result four times
};

struct ConvProblem {
  const ConvOutput* outputs;
  int64_t output_count;
  int64_t batch;
  int64_t columns;  // input channels of the weight
  int kernel;       // 1 or 3
  Dtype dtype;
  int64_t threads;  // how finely to cut; results do not depend on it
};

// Weights are packed once; then a problem is cut into independent tasks, and a thread runs ranges
// of them with scratch of its own.
struct MultiscaleConvKernel {
  int64_t (*packed_floats)(const ConvProblem& problem);
  void (*pack)(const ConvProblem& problem, float* packed);
  int64_t (*task_count)(const ConvProblem& problem);
  int64_t (*scratch_floats)(const ConvProblem& problem);
  void (*run)(const ConvProblem& problem, const float* packed, int64_t begin, int64_t end,
              float* scratch);
};

#define LMWP_DECLARE_MULTISCALE_CONV(isa)        \
  namespace isa {                                \
  MultiscaleConvKernel multiscale_conv_kernel(); \
  }
LMWP_DECLARE_MULTISCALE_CONV(generic)
LMWP_DECLARE_MULTISCALE_CONV(sse42)
LMWP_DECLARE_MULTISCALE_CONV(avx2)
LMWP_DECLARE_MULTISCALE_CONV(avx512)
#undef LMWP_DECLARE_MULTISCALE_CONV

}  // namespace lmwp
