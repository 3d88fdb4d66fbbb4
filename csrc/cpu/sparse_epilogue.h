// What becomes of the sums of an output channel of a convolution by a pruned weight.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "common/epilogue.h"
#include "cpu/sparse_conv2d.h"
#include "cpu/vec.h"

namespace lmwp::LMWP_ISA {

struct ChannelEpilogue {
  ChannelEpilogue() = default;
  ChannelEpilogue(const SparseConvProblem& p, int64_t channel)
      : scale(p.scale ? p.scale[channel] : 1.0f),
        shift(p.shift ? p.shift[channel] : 0.0f),
        slope(p.slope ? p.slope[channel] : 1.0f),
        plain(!p.scale && !p.shift && !p.slope) {}

  // Sums of few products cost no more than this, so that nothing is done where there is nothing.
  template <int V>
  void finish(Vec (&sum)[V]) const {
    if (plain) return;
    const Vec a = broadcast<Vec>(scale), b = broadcast<Vec>(shift), c = broadcast<Vec>(slope);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[v] = affine_prelu(sum[v], a, b, c);
  }

  float scale, shift, slope;
  bool plain;  // 1, 0 and 1
};

}  // namespace lmwp::LMWP_ISA
