// What is known of one image on the way to its gates.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/channel_spatial_attention.h"
#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {

constexpr int64_t kConvolvedRows = 4;  // at a time

static inline int64_t pools(const AttentionProblem& p) { return p.mean + p.max; }
static inline int64_t pixels(const AttentionProblem& p) { return p.rows * p.columns; }

// A map with zeros around it, wide enough for whole vectors beyond its last column.
struct Frame {
  explicit Frame(const AttentionProblem& p)
      : radius(p.size / 2),
        pitch(align(p.columns) + kAlign),
        floats((p.rows + 2 * radius + kConvolvedRows - 1) * pitch) {}

  int64_t radius, pitch, floats;
};

class AttentionScratch {
 public:
  AttentionScratch(const AttentionProblem& p, float* memory) : next_(memory) {
    pooled = take(pools(p) * align(p.channels));
    before = take(pools(p) * align(p.hidden));
    hidden = take(p.hidden);
    gate = take(p.channels);
    if (p.size == 0) return;
    maps = take(pools(p) * Frame(p).floats);
    spatial = take(pixels(p));
  }

  int64_t floats() const { return floats_; }

  float* pooled;             // [pools, align(channels)]
  float* before;             // [pools, align(hidden)], before the ReLU
  float* hidden;             // behind it, summed over the pools
  float* gate;               // [channels]
  float* maps = nullptr;     // framed, [pools]
  float* spatial = nullptr;  // the gate of each pixel

 private:
  float* take(int64_t floats) {
    float* const taken = next_ ? next_ + floats_ : nullptr;
    floats_ += align(floats);
    return taken;
  }

  float* next_;
  int64_t floats_ = 0;
};

}  // namespace lmwp::LMWP_ISA
