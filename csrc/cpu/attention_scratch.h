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
    logits = take(p.channels);
    gate = take(p.channels);
    if (p.size == 0) return;
    maps = take(pools(p) * Frame(p).floats);
    spatial = take(pixels(p));
  }

  int64_t floats() const { return floats_; }

  float* pooled;             // [pools, align(channels)]
  float* before;             // [pools, align(hidden)], before the ReLU
  float* hidden;             // behind it, summed over the pools
  float* logits;             // [channels], what the sigmoid is applied to
  float* gate;               // [channels]
  float* maps = nullptr;     // framed, [pools]
  float* spatial = nullptr;  // the gate of each pixel

 protected:
  float* take(int64_t floats) {
    float* const taken = next_ ? next_ + floats_ : nullptr;
    floats_ += align(floats);
    return taken;
  }

 private:
  float* next_;
  int64_t floats_ = 0;
};

// Besides, what the gradients of an image need.
class GradientScratch : public AttentionScratch {
 public:
  GradientScratch(const AttentionProblem& p, float* memory) : AttentionScratch(p, memory) {
    pixel_at = reinterpret_cast<int64_t*>(take(2 * p.channels));
    gated = reinterpret_cast<double*>(take(2 * p.channels));
    dpooled = take(2 * align(p.channels));
    if (p.size == 0) return;
    channel_at = take(pixels(p));
    slopes = take(pixels(p));
    products = take(pixels(p));
    dsums = take(Frame(p).floats);
    dmean = take(pixels(p));
    dmax = take(pixels(p));
  }

  int64_t* pixel_at;            // of each channel, where its maximum is
  double* gated;                // gradient of the gate of each channel
  float* dpooled;               // [2, align(channels)], of the mean and of the maximum
  float* channel_at = nullptr;  // bits of the channel in which a pixel has its maximum
  float* slopes = nullptr;      // of each pixel, the derivative of its sigmoid
  float* products = nullptr;    // of each pixel, the gradient of its gate
  float* dsums = nullptr;       // framed, of what the spatial sigmoid is applied to
  float* dmean = nullptr;       // of each pixel's mean, a channel's share of it
  float* dmax = nullptr;        // of each pixel's maximum
};

// What the gradients of the parameters need of an image.
class GradientRecord {
 public:
  GradientRecord(const AttentionProblem& p, int64_t image)
      : pooled(p.records + image * floats(p)),
        dlogit(pooled + 2 * align(p.channels)),
        hidden(dlogit + align(p.channels)),
        dhidden(hidden + align(p.hidden)),
        dkernel(dhidden + 2 * align(p.hidden)) {}

  static int64_t floats(const AttentionProblem& p) {
    return 3 * align(p.channels) + 3 * align(p.hidden) + align(pools(p) * p.size * p.size);
  }

  float* pooled;   // [pools, align(channels)]
  float* dlogit;   // of what the channel sigmoid is applied to
  float* hidden;   // behind the ReLU, summed over the pools
  float* dhidden;  // [pools, align(hidden)], before the ReLU
  float* dkernel;
};

}  // namespace lmwp::LMWP_ISA
