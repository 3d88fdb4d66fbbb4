// The inner loop of the gradient of a pruned weight: sums of products of float32 planes.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include <array>
#include <utility>

#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {

// Planes of the gradient whose products stay in registers, and with so many the planes of the
// input: 16 sums of 32, or 8 of 16.
constexpr int64_t kProductRows = kLanes == 16 ? 4 : 2;
constexpr int64_t product_columns(int64_t rows) { return rows == 1 ? 8 : 4; }
constexpr int64_t kMostProducts = 16;

// Stores, for each of A planes after the other, its products with B planes over `vectors` vectors,
// summed lane by lane.
template <int A, int B>
static void plane_products(const float* const* a, const float* const* b, int64_t vectors,
                           Vec* sums) {
  const float *from_a[A], *from_b[B];
  __builtin_memcpy(from_a, a, sizeof(from_a));
  __builtin_memcpy(from_b, b, sizeof(from_b));
  Vec sum[A][B] = {};
  for (int64_t i = 0; i < vectors * kLanes; i += kLanes) {
    Vec x[A];
#pragma GCC unroll 4
    for (int r = 0; r < A; ++r) x[r] = load<Vec>(from_a[r] + i);
#pragma GCC unroll 8
    for (int c = 0; c < B; ++c) {
      const Vec y = load<Vec>(from_b[c] + i);
#pragma GCC unroll 4
      for (int r = 0; r < A; ++r) sum[r][c] += x[r] * y;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < A; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < B; ++c) sums[r * B + c] = sum[r][c];
  }
}

using PlaneProducts = void (*)(const float* const*, const float* const*, int64_t, Vec*);

template <int A, int... B>
static constexpr auto plane_products_of(std::integer_sequence<int, B...>) {
  return std::array<PlaneProducts, 8>{plane_products<A, B + 1>...};
}

// plane_products of A planes and 1 to product_columns(A).
template <int A>
static constexpr std::array<PlaneProducts, 8> kPlaneProducts =
    plane_products_of<A>(std::make_integer_sequence<int, product_columns(A)>());

static inline PlaneProducts plane_products_function(int64_t rows, int64_t columns) {
  if (rows == 1) return kPlaneProducts<1>[columns - 1];
  if (kProductRows == 2 || rows == 2) return kPlaneProducts<2>[columns - 1];
  return (rows == 3 ? kPlaneProducts<3> : kPlaneProducts<4>)[columns - 1];
}

// How many of those left to take next, of at most `most`: the last two takes are even.
static inline int64_t next_take(int64_t left, int64_t most) {
  if (left <= most) return left;
  return left < 2 * most ? (left + 1) / 2 : most;
}

// Adds vectors up over their lanes, many at a time, to where each belongs.
class LaneTotals {
 public:
  explicit LaneTotals(float* to) : to_(to) {}

  // Room for vectors, of which `add` takes the first to places `at`, `at` + `step` and so on.
  Vec* room() { return waiting_ + count_; }
  void add(int64_t vectors, int64_t at, int64_t step) {
    for (int64_t i = 0; i < vectors; ++i) place_[count_ + i] = at + i * step;
    count_ += vectors;
  }

  // Keeps room for kMostProducts more.
  void make_room() {
    while (count_ >= kLanes) {
      count_ -= kLanes;
      finish(kLanes);
    }
  }

  void finish() {
    make_room();
    for (int64_t i = count_; i < kLanes; ++i) waiting_[i] = Vec{};
    const int64_t left = count_;
    count_ = 0;
    finish(left);
  }

 private:
  // Lane i of the result is the sum of the lanes of vector i.
  void finish(int64_t wanted) {
    Vec* const v = waiting_ + count_;
#pragma GCC unroll 4
    for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) {
        v[i] = interleave_low(v[i], v[i + half]) + interleave_high(v[i], v[i + half]);
      }
    }
    float totals[kLanes];
    store(totals, v[0]);
    for (int64_t i = 0; i < wanted; ++i) to_[place_[count_ + i]] += totals[i];
  }

  float* const to_;
  int64_t count_ = 0;
  Vec waiting_[kLanes + kMostProducts];
  int64_t place_[kLanes + kMostProducts];
};

}  // namespace lmwp::LMWP_ISA
