// The multi-scale mixes and their gradients as callers see them, whatever the instruction set.
#pragma once

#include <stdint.h>

#include "cpu/dtype.h"

namespace lmwp {

// A feature [batch, channels, rows, columns] whose columns lie side by side; strides count
// elements.
struct MixFeature {
  void* data;
  int64_t image, channel, row;
};

// Tables of parameters are [branches, channels], weights have 9 values for each entry.
struct MixProblem {
  Dtype dtype;
  int64_t batch, channels, rows, columns;
  int64_t branches;
  const int64_t *octaves, *dilations;
  MixFeature u;
  MixFeature grad;  // of the result; backward only
  MixFeature out;   // the result, backward the gradient of u or null where not wanted
  const float* weights;
  const float* mix;    // [batch, branches, channels]
  const float* scale;  // with a norm its gamma, and shift its beta
  const float* shift;
  double eps;         // with a norm only, as the statistics
  float* batch_mean;  // written forward, read backward; null without a norm
  float* batch_var;
  float* means;  // [batch, branches, channels]; forward only
  float *grad_weights, *grad_mix, *grad_scale, *grad_shift;  // null where not wanted
};

// A problem is cut into independent tasks; a thread runs ranges of them with scratch of its own.
// A task is a plane, image * channels + channel, or, where a sum runs over images, a channel.
struct MixKernel {
  int64_t (*task_count)(const MixProblem& problem);
  int64_t (*scratch_floats)(const MixProblem& problem);
  void (*run)(const MixProblem& problem, int64_t begin, int64_t end, float* scratch);
};

#define LMWP_DECLARE_MIX(isa)                               \
  namespace isa {                                           \
  MixKernel multiscale_mix_kernel();                        \
  MixKernel multiscale_mix_backward_kernel(); /* of both */ \
  MixKernel multiscale_norm_mix_kernel();                   \
  }
LMWP_DECLARE_MIX(generic)
LMWP_DECLARE_MIX(sse42)
LMWP_DECLARE_MIX(avx2)
LMWP_DECLARE_MIX(avx512)
#undef LMWP_DECLARE_MIX

}  // namespace lmwp
