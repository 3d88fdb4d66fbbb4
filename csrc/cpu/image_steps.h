// What kernels that compute an image in steps share.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/denormals.h"
#include "cpu/image_kernel.h"
#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {

template <typename Problem>
static inline int64_t one_item(const Problem&) {
  return 1;
}

template <typename Problem, void run(const Problem&, int64_t, float*, float*, int64_t, int64_t)>
static void flushing(const Problem& p, int64_t image, float* shared, float* own, int64_t begin,
                     int64_t end) {
  const FlushDenormals flush;
  run(p, image, shared, own, begin, end);
}

// Takes pieces of scratch that begin at cache lines; without memory it only counts them.
class Pieces {
 public:
  explicit Pieces(float* memory) : memory_(memory) {}
  float* take(int64_t floats) {
    float* const taken = memory_ ? memory_ + floats_ : nullptr;
    floats_ += align(floats);
    return taken;
  }
  int64_t floats() const { return floats_; }

 private:
  float* const memory_;
  int64_t floats_ = 0;
};

}  // namespace lmwp::LMWP_ISA
