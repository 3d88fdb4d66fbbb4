// A feature map as callers of kernels that take planes and pixels see it.
#pragma once

#include <stdint.h>

namespace lmwp {

// [batch, channels, rows, columns] of dense planes or, where `pixel` is not 0, of pixels that
// follow each other with their channels side by side; strides count elements.
struct ImageFeature {
  void* data;
  int64_t image, channel, pixel;
};

}  // namespace lmwp
