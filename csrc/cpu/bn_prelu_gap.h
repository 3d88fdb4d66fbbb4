// Batch norm in training mode with PReLU, and its gradients, as callers see them, whatever the
// instruction set.
#pragma once

#include "cpu/channel_problem.h"

namespace lmwp {

// One branch.
struct NormProblem : ChannelProblem {
  double eps;
  ChannelFeature x;
  ChannelFeature grad;  // of y; backward only
  ChannelFeature out;   // y, backward the gradient of x
  const float* weight;  // [channels], as all parameters and their gradients
  const float* bias;
  const float* slope;  // null where absent
  float* batch_mean;   // [channels], written forward, read backward
  float* batch_var;
  float* means;  // [batch, channels]; forward only
  float *grad_weight, *grad_bias, *grad_slope;
};

// `reduce` sums over units, `combine` turns sums into what `apply` needs of each channel, and
// `apply` writes units.
struct NormPasses {
  int64_t (*units)(const ChannelProblem& problem);
  int64_t (*sum_doubles)(const ChannelProblem& problem);
  int64_t (*channel_floats)(const NormProblem& problem);
  void (*prepare)(const NormProblem& problem);
  void (*reduce)(const NormProblem& problem, int64_t begin, int64_t end);
  void (*combine)(const NormProblem& problem, int64_t first_channel, int64_t end);
  void (*apply)(const NormProblem& problem, int64_t begin, int64_t end);
  void (*finish)(const NormProblem& problem);
};

#define LMWP_DECLARE_NORM(isa)        \
  namespace isa {                     \
  NormPasses bn_prelu_gap_forward();  \
  NormPasses bn_prelu_gap_backward(); \
  }
LMWP_DECLARE_NORM(generic)
LMWP_DECLARE_NORM(sse42)
LMWP_DECLARE_NORM(avx2)
LMWP_DECLARE_NORM(avx512)
#undef LMWP_DECLARE_NORM

}  // namespace lmwp
