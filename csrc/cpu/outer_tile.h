// The inner loop of weight gradients: sums over pixels of outer products.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/conv_tile.h"

namespace lmwp::LMWP_ISA {

// A window of pixels. Each row of the sums has a plane that it reads one number of for a pixel,
// `pitch` floats from row to row of the window; the pixels' vectors follow each other.
struct OuterWindow {
  const float* const* planes;
  int64_t offset, pitch;  // `offset` from where the planes point to the first pixel
  const float* vectors;   // of the first pixel
  int64_t step;           // floats of vectors in a row of the map
  int64_t rows, width;
};

// sums[i * sum_row ...] += plane i x vectors, summed over the pixels of the window.
template <int R, int V>
static void add_outer(const OuterWindow& window, float* sums, int64_t sum_row) {
  Vec sum[R][V] = {};
  for (int64_t r = 0; r < window.rows; ++r) {
    const float* plane[R];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) plane[i] = window.planes[i] + window.offset + r * window.pitch;
    const float* vectors = window.vectors + r * window.step;
    for (int64_t c = 0; c < window.width; ++c, vectors += V * kLanes) {
      Vec y[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) y[v] = load<Vec>(vectors + v * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) {
        const Vec x = broadcast<Vec>(plane[i][c]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[i][v] += x * y[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* const to = sums + i * sum_row + v * kLanes;
      store(to, load<Vec>(to) + sum[i][v]);
    }
  }
}

using OuterFunction = void (*)(const OuterWindow&, float*, int64_t);

// add_outer of `rows` planes, 1 to kTileChannels, and `vectors`, 1 to kTileVectors.
template <int R = kTileChannels, int V = kTileVectors>
static OuterFunction outer_function(int64_t rows, int64_t vectors) {
  if constexpr (R > 1) {
    if (rows < R) return outer_function<R - 1, V>(rows, vectors);
  }
  if constexpr (V > 1) {
    if (vectors < V) return outer_function<R, V - 1>(rows, vectors);
  }
  return add_outer<R, V>;
}

}  // namespace lmwp::LMWP_ISA
