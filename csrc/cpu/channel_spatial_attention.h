// The gates on the channels and on the pixels of a feature, as callers see them, whatever the
// instruction set.
#pragma once

#include "cpu/dtype.h"
#include "cpu/feature.h"

namespace lmwp {

struct AttentionProblem {
  Dtype dtype;
  bool mean, max;  // which pools are used, at least one
  int64_t batch, channels, rows, columns;
  int64_t hidden;  // between the layers of the channel gate; 0 for no channel gate
  int64_t size;    // of the kernel, 3, 5 or 7; 0 for no spatial gate
  ImageFeature x;
  ImageFeature grad;                  // of out; backward only
  ImageFeature out;                   // backward the gradient of x, null if it is not wanted
  const float *reduce, *reduce_bias;  // [hidden, channels], [hidden] or null
  const float *expand, *expand_bias;  // [channels, hidden], [channels] or null
  const float* kernel;                // [pools, size, size]
  float *grad_reduce, *grad_reduce_bias, *grad_expand, *grad_expand_bias, *grad_kernel;
  float* records;  // scratch of all images, backward only
};

// One of the steps of an image, which follow one another; the items of a step are independent.
struct AttentionStep {
  int64_t (*items)(const AttentionProblem& problem);
  void (*run)(const AttentionProblem& problem, int64_t image, float* scratch, int64_t begin,
              int64_t end);
};

// Of planes, or forward of pixels, too. An image is computed by `whole`, or by all `steps` in turn,
// with the same bits.
struct AttentionPasses {
  int64_t (*scratch_floats)(const AttentionProblem& problem);
  void (*whole)(const AttentionProblem& problem, int64_t image, float* scratch);
  const AttentionStep* steps;  // the last is behind them, without `run`
};

// Behind all images, `combine` sums the gradients of parameters over what each image recorded.
struct AttentionGradientPasses {
  AttentionPasses images;
  int64_t (*record_floats)(const AttentionProblem& problem);  // of an image
  void (*combine)(const AttentionProblem& problem);
};

// The passes of each Dtype.
#define LMWP_DECLARE_ATTENTION(isa)                                    \
  namespace isa {                                                      \
  const AttentionPasses* channel_spatial_attention_forward();          \
  const AttentionGradientPasses* channel_spatial_attention_backward(); \
  }
LMWP_DECLARE_ATTENTION(generic)
LMWP_DECLARE_ATTENTION(sse42)
LMWP_DECLARE_ATTENTION(avx2)
LMWP_DECLARE_ATTENTION(avx512)
#undef LMWP_DECLARE_ATTENTION

}  // namespace lmwp
