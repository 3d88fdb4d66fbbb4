// A 1 x 1 convolution with its affine and activation, as callers of the kernels see it.
#pragma once

#include <stdint.h>

namespace lmwp {

// out = PReLU(scale * (weight in) + shift), weight [out, in] and the others per output channel.
struct PointwiseLayer {
  int64_t in, out;
  const float *weight, *scale, *shift;
  const float* slope;  // null where there is no activation
};

}  // namespace lmwp
