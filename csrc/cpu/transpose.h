// Channels of a pixel side by side, from planes of one channel each.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {

// Lane j of vector i becomes lane i of vector j. With lanes and vectors numbered by the bits of
// (i, j), a round turns those bits by one.
static inline void transpose(Vec* v) {
  constexpr int half = kLanes / 2;
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    Vec turned[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      turned[2 * i] = interleave_low(v[i], v[i + half]);
      turned[2 * i + 1] = interleave_high(v[i], v[i + half]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) v[i] = turned[i];
  }
}

// Lane i of the result joins all lanes of vector i; the vectors are used up.
template <typename Join>
static inline Vec join_across(Vec* v, Join join) {
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      v[i] = join(interleave_low(v[i], v[i + half]), interleave_high(v[i], v[i + half]));
    }
  }
  return v[0];
}

static inline Vec sum_across(Vec* v) {
  return join_across(v, [](Vec a, Vec b) { return a + b; });
}

// Writes a vector for each pixel at to + pixel * step: its values in `channels` <= kLanes planes,
// zeros behind them. Whole vectors of pixels are read and written.
static inline void transpose_planes(const float* planes, int64_t plane, int64_t channels,
                                    int64_t pixels, float* to, int64_t step) {
  for (int64_t p = 0; p < pixels; p += kLanes) {
    Vec v[kLanes] = {};
    if (channels == kLanes) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) v[i] = load<Vec>(planes + i * plane + p);
    } else {
      for (int64_t i = 0; i < channels; ++i) v[i] = load<Vec>(planes + i * plane + p);
    }
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(to + (p + i) * step, v[i]);
  }
}

}  // namespace lmwp::LMWP_ISA
