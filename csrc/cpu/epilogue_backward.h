// Gradients of the affine + PReLU epilogue, as callers see them, whatever the instruction set.
#pragma once

#include "cpu/channel_problem.h"

namespace lmwp {

// One branch: y = PReLU(scale * z + shift). dtype is that of grad and out.
struct EpilogueProblem : ChannelProblem {
  ChannelFeature z;     // float32; without data where no gradient depends on it
  ChannelFeature grad;  // of y
  ChannelFeature out;   // gradient of z; may be z itself; without data where it is not wanted
  const float* scale;   // [channels], as all parameters and their gradients; null where absent
  const float* shift;
  const float* slope;
  float *grad_scale, *grad_shift, *grad_slope;
};

// `run` writes the gradient of z unit by unit and sums up, `combine` makes of the sums the
// gradients of the parameters.
struct EpilogueBackwardKernel {
  int64_t (*units)(const ChannelProblem& problem);
  int64_t (*sum_doubles)(const ChannelProblem& problem);
  int64_t (*channel_floats)(const EpilogueProblem& problem);
  void (*prepare)(const EpilogueProblem& problem);
  void (*run)(const EpilogueProblem& problem, int64_t begin, int64_t end);
  void (*combine)(const EpilogueProblem& problem);
};

#define LMWP_DECLARE_EPILOGUE_BACKWARD(isa)          \
  namespace isa {                                    \
  EpilogueBackwardKernel epilogue_backward_kernel(); \
  }
LMWP_DECLARE_EPILOGUE_BACKWARD(generic)
LMWP_DECLARE_EPILOGUE_BACKWARD(sse42)
LMWP_DECLARE_EPILOGUE_BACKWARD(avx2)
LMWP_DECLARE_EPILOGUE_BACKWARD(avx512)
#undef LMWP_DECLARE_EPILOGUE_BACKWARD

}  // namespace lmwp
