// The inner loop of weight gradients: sums of products of float32 planes over their pixels.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {

// Planes on either side whose sums stay in registers: 25 of 32, or 9 of 16.
constexpr int64_t kProductTile = kLanes == 16 ? 5 : 3;

// Planes of one side and a window of them; pitch counts floats from row to row. Behind a row a
// whole vector can be read.
struct ProductSide {
  const float* first;
  int64_t plane, pitch;

  ProductSide at(int64_t offset) const { return {first + offset, plane, pitch}; }
};

// Sums, a vector each, lie at sums + (a * sum_row + b * sum_step) * kLanes.
struct ProductSums {
  float* sums;
  int64_t row, step;
};

// Adds the products of A planes with B planes over rows x width pixels, lane by lane.
template <int A, int B>
static void add_products(const ProductSide& a, const ProductSide& b, int64_t rows, int64_t width,
                         const ProductSums& to) {
  Vec sum[A][B];
#pragma GCC unroll 8
  for (int i = 0; i < A; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < B; ++j) {
      sum[i][j] = load<Vec>(to.sums + (i * to.row + j * to.step) * kLanes);
    }
  }
  const int64_t whole = width / kLanes * kLanes;
  for (int64_t r = 0; r < rows; ++r) {
    const float *from_a = a.first + r * a.pitch, *from_b = b.first + r * b.pitch;
    for (int64_t c = 0; c < whole; c += kLanes) {
      Vec y[B];
#pragma GCC unroll 8
      for (int j = 0; j < B; ++j) y[j] = load<Vec>(from_b + j * b.plane + c);
#pragma GCC unroll 8
      for (int i = 0; i < A; ++i) {
        const Vec x = load<Vec>(from_a + i * a.plane + c);
#pragma GCC unroll 8
        for (int j = 0; j < B; ++j) sum[i][j] += x * y[j];
      }
    }
    if (whole == width) continue;
    Vec y[B];
#pragma GCC unroll 8
    for (int j = 0; j < B; ++j)
      y[j] = keep_first(load<Vec>(from_b + j * b.plane + whole), width - whole);
#pragma GCC unroll 8
    for (int i = 0; i < A; ++i) {
      const Vec x = keep_first(load<Vec>(from_a + i * a.plane + whole), width - whole);
#pragma GCC unroll 8
      for (int j = 0; j < B; ++j) sum[i][j] += x * y[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < A; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < B; ++j) {
      store(to.sums + (i * to.row + j * to.step) * kLanes, sum[i][j]);
    }
  }
}

using ProductFunction = void (*)(const ProductSide&, const ProductSide&, int64_t, int64_t,
                                 const ProductSums&);

// add_products of `a` and `b` planes, 1 to kProductTile each.
template <int A = kProductTile, int B = kProductTile>
static ProductFunction product_function(int64_t a, int64_t b) {
  if constexpr (A > 1) {
    if (a < A) return product_function<A - 1, B>(a, b);
  }
  if constexpr (B > 1) {
    if (b < B) return product_function<A, B - 1>(a, b);
  }
  return add_products<A, B>;
}

}  // namespace lmwp::LMWP_ISA
