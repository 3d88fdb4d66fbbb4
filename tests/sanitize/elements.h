// Elements of every type for the drivers: drawn, written and read without the code under test.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>

#include "cpu/dtype.h"

inline std::mt19937 random_bits(0);

// Values with few mantissa bits, so that every dtype holds them exactly.
inline double coarse() {
  return std::round(std::uniform_real_distribution<double>(-64, 64)(random_bits)) / 32;
}

inline size_t size_of(lmwp::Dtype dtype) { return dtype == lmwp::Dtype::float32 ? 4 : 2; }

inline void put(char* data, int64_t i, double value, lmwp::Dtype dtype) {
  const float f = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (dtype == lmwp::Dtype::float32) {
    std::memcpy(data + 4 * i, &f, 4);
    return;
  }
  uint16_t half = static_cast<uint16_t>(bits >> 16);  // bfloat16
  if (dtype == lmwp::Dtype::float16) {
    const uint32_t magnitude = bits & 0x7fffffff;
    half = static_cast<uint16_t>((bits >> 16) & 0x8000);
    if (magnitude != 0) half |= static_cast<uint16_t>((magnitude - (112u << 23)) >> 13);
  }
  std::memcpy(data + 2 * i, &half, 2);
}

inline double get(const char* data, int64_t i, lmwp::Dtype dtype) {
  float f;
  if (dtype == lmwp::Dtype::float32) {
    std::memcpy(&f, data + 4 * i, 4);
    return f;
  }
  uint16_t half;
  std::memcpy(&half, data + 2 * i, 2);
  if (dtype == lmwp::Dtype::bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    std::memcpy(&f, &bits, 4);
    return f;
  }
  const int exponent = half >> 10 & 31, mantissa = half & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(mantissa, -24)
                           : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                            : std::ldexp(1024 + mantissa, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}
