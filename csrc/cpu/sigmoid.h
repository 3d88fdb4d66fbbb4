// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/vec.h"

namespace lmwp::LMWP_ISA {

// 1 / (1 + exp(-z)) to a few roundings; NaN stays NaN.
static inline Vec sigmoid(Vec z) {
  constexpr float kLimit = 88.0f;  // whose exponential float32 just holds
  Vec x = -z;
  x = x > kLimit ? broadcast<Vec>(kLimit) : x;
  x = x < -kLimit ? broadcast<Vec>(-kLimit) : x;
  // exp(x) = 2^n exp(r) with |r| at most log(2) / 2; adding 1.5 * 2^23 rounds to a whole number.
  constexpr float kRounder = 12582912.0f;
  const Vec shifted = x * 1.44269504f + kRounder;
  const Vec n = shifted - kRounder;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  const Vec power = (Vec)(((VecBits)shifted + 127) << 23);
  Vec exponential = broadcast<Vec>(1.0f / 5040);
  exponential = exponential * r + 1.0f / 720;
  exponential = exponential * r + 1.0f / 120;
  exponential = exponential * r + 1.0f / 24;
  exponential = exponential * r + 1.0f / 6;
  exponential = exponential * r + 0.5f;
  exponential = exponential * r + 1.0f;
  exponential = exponential * r + 1.0f;
  return 1.0f / (1.0f + power * exponential);
}

// Its derivative; exact to a few roundings where 1 - sigmoid(z) is not.
static inline Vec sigmoid_slope(Vec z) { return sigmoid(z) * sigmoid(-z); }

}  // namespace lmwp::LMWP_ISA
