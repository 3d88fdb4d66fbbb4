// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/vec.h"

namespace lmwp::LMWP_ISA {

// exp(x) to a few roundings, of -88 below that and of 88 above; NaN stays NaN.
static inline Vec exponential(Vec x) {
  constexpr float kLimit = 88.0f;  // whose exponential float32 just holds
  x = x > kLimit ? broadcast<Vec>(kLimit) : x;
  x = x < -kLimit ? broadcast<Vec>(-kLimit) : x;
  // exp(x) = 2^n exp(r) with |r| at most log(2) / 2; adding 1.5 * 2^23 rounds to a whole number.
  constexpr float kRounder = 12582912.0f;
  const Vec shifted = x * 1.44269504f + kRounder;
  const Vec n = shifted - kRounder;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  const Vec power = (Vec)(((VecBits)shifted + 127) << 23);
  Vec of_rest = broadcast<Vec>(1.0f / 5040);
  of_rest = of_rest * r + 1.0f / 720;
  of_rest = of_rest * r + 1.0f / 120;
  of_rest = of_rest * r + 1.0f / 24;
  of_rest = of_rest * r + 1.0f / 6;
  of_rest = of_rest * r + 0.5f;
  of_rest = of_rest * r + 1.0f;
  of_rest = of_rest * r + 1.0f;
  return power * of_rest;
}

// 1 / (1 + exp(-z)) to a few roundings; NaN stays NaN.
static inline Vec sigmoid(Vec z) { return 1.0f / (1.0f + exponential(-z)); }

// Its derivative; exact to a few roundings where 1 - sigmoid(z) is not.
static inline Vec sigmoid_slope(Vec z) { return sigmoid(z) * sigmoid(-z); }

}  // namespace lmwp::LMWP_ISA
