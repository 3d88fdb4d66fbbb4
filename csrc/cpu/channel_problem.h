// What passes over the channels of a feature share, whatever the instruction set.
#pragma once

#include <stdint.h>

#include "cpu/dtype.h"

namespace lmwp {

// A feature [batch, channels, rows, columns]; strides count elements.
struct ChannelFeature {
  void* data;
  int64_t image, channel, row, column;
};

// Features are planar (column stride 1) or interleaved (channel stride 1), all of a problem alike;
// a dense plane may come as one long row. A problem is cut into units whose order is free: a unit
// of a planar problem is a plane, channel * batch + image, one of an interleaved problem a band of
// all channels.
struct ChannelProblem {
  Dtype dtype;
  bool interleaved;
  int64_t batch, channels, rows, columns;
  double* sums;    // scratch
  float* channel;  // scratch
};

}  // namespace lmwp
