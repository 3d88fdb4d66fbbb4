// A 1 x 1 convolution with its affine and activation, as callers of the kernels see it.
#pragma once

#include <stdint.h>

namespace lmwp {

// out = PReLU(scale * (weight in) + shift), weight [out, in] and the others per output channel,
// null where absent.
struct PointwiseLayer {
  int64_t in, out;
  const float* weight;
  const float *scale, *shift, *slope;
};

}  // namespace lmwp
