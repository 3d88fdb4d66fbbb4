// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/vec.h"

namespace lmwp::LMWP_ISA {

// A sum per lane in float64, which is what makes sums of millions of elements exact enough; the
// conversions hide behind the memory.
class LaneSums {
 public:
  void add(Vec v) {
    low_ += low_doubles(v);
    high_ += high_doubles(v);
  }

  // Adds a - b, without rounding, and its square to `squares`.
  void add_difference(Vec a, Vec b, LaneSums& squares) {
    const VecDouble low = low_doubles(a) - low_doubles(b);
    const VecDouble high = high_doubles(a) - high_doubles(b);
    low_ += low;
    high_ += high;
    squares.low_ += low * low;
    squares.high_ += high * high;
  }

  void add_products(Vec a, Vec b) {
    low_ += low_doubles(a) * low_doubles(b);
    high_ += high_doubles(a) * high_doubles(b);
  }

  double lane(int64_t i) const {
    double values[kLanes];
    store_to(values);
    return values[i];
  }

  double total() const {
    double values[kLanes];
    store_to(values);
    for (int half = kLanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) values[i] += values[i + half];
    }
    return values[0];
  }

 private:
  void store_to(double* values) const {
    store(values, low_);
    store(values + kLanes / 2, high_);
  }

  VecDouble low_ = {}, high_ = {};
};

}  // namespace lmwp::LMWP_ISA
