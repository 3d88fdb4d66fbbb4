// The inner loop of depthwise convolutions over float32 rows in scratch.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "common/epilogue.h"
#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {

constexpr int kRows = 4;           // output rows that share input rows
constexpr int64_t kNarrowest = 4;  // lanes of the narrowest vectors

struct Channel {
  const float* weight;
  float scale, shift, slope;
};

// Columns [0, width) of T output rows, in steps of `lanes`. rows[r] are the input rows they share,
// dilation apart. The last step moves back to end at `width`, or stays where `width` is below
// `lanes`, and then writes whole vectors beyond it.
template <int K, int S, int T, int lanes>
static void depthwise_rows(const float* const* rows, const int64_t* tap, const Channel& channel,
                           int64_t width, float* const* out) {
  using V = FloatVec<lanes>;
  constexpr int kShared = S * (T - 1) + K;
  // Local copies: the stores below could otherwise alias them.
  const float* row[kShared];
  for (int r = 0; r < kShared; ++r) row[r] = rows[r];
  int64_t column[K];
  for (int j = 0; j < K; ++j) column[j] = tap[j];
  V weight[K][K];
  for (int i = 0; i < K; ++i) {
    for (int j = 0; j < K; ++j) weight[i][j] = broadcast<V>(channel.weight[i * K + j]);
  }
  const V scale = broadcast<V>(channel.scale);
  const V shift = broadcast<V>(channel.shift);
  const V slope = broadcast<V>(channel.slope);
  float* to[T];
  for (int t = 0; t < T; ++t) to[t] = out[t];

  for (int64_t begin = 0; begin < width; begin += lanes) {
    const int64_t c = max(0, min(begin, width - lanes));
    V sum[T] = {};
#pragma GCC unroll 8
    for (int j = 0; j < K; ++j) {
#pragma GCC unroll 16
      for (int r = 0; r < kShared; ++r) {
        const V x = load<V>(row[r] + column[j] + c);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          if (r >= S * t && r < S * t + K) sum[t] += weight[r - S * t][j] * x;
        }
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) store(to[t] + c, affine_prelu(sum[t], scale, shift, slope));
  }
}

// The same for 3 x 3 taps one column apart over rows that begin at a cache line and whose column -1
// is theirs to read: all loads are aligned, as those that straddle cache lines cost twice.
template <int T>
static void depthwise_aligned_rows(const float* const* rows, const Channel& channel, int64_t width,
                                   float* const* out) {
  static constexpr int64_t taps[3] = {-1, 0, 1};
  const float* row[T + 2];
  for (int r = 0; r < T + 2; ++r) row[r] = rows[r];
  float* to[T];
  for (int t = 0; t < T; ++t) to[t] = out[t];
  Vec weight[3][3];
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) weight[i][j] = broadcast<Vec>(channel.weight[3 * i + j]);
  }
  const Vec scale = broadcast<Vec>(channel.scale), shift = broadcast<Vec>(channel.shift);
  const Vec slope = broadcast<Vec>(channel.slope);
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) {
    Vec sum[T] = {};
#pragma GCC unroll 16
    for (int r = 0; r < T + 2; ++r) {
      const Vec here = load<Vec>(row[r] + c);
      const Vec left = one_before(load<Vec>(row[r] + c - kLanes), here);
      const Vec right = one_after(here, load<Vec>(row[r] + c + kLanes));
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        if (r < t || r >= t + 3) continue;
        sum[t] += weight[r - t][0] * left;
        sum[t] += weight[r - t][1] * here;
        sum[t] += weight[r - t][2] * right;
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) store(to[t] + c, affine_prelu(sum[t], scale, shift, slope));
  }
  if (c == width) return;
  c = width - kLanes;
  for (int r = 0; r < T + 2; ++r) row[r] += c;
  for (int t = 0; t < T; ++t) to[t] += c;
  depthwise_rows<3, 1, T, kLanes>(row, taps, channel, kLanes, to);
}

using RowsFunction = void (*)(const float* const*, const int64_t*, const Channel&, int64_t,
                              float* const*);

// The widest vectors that fit into `width` columns, else the narrowest.
template <int T, int lanes = kLanes>
static RowsFunction rows_function(int kernel, int64_t row_step, int64_t width) {
  if constexpr (lanes > kNarrowest) {
    if (width < lanes) return rows_function<T, lanes / 2>(kernel, row_step, width);
  }
  switch (kernel) {
    case 1:
      return row_step == 1 ? depthwise_rows<1, 1, T, lanes> : depthwise_rows<1, 2, T, lanes>;
    case 3:
      return row_step == 1 ? depthwise_rows<3, 1, T, lanes> : depthwise_rows<3, 2, T, lanes>;
    case 5:
      return row_step == 1 ? depthwise_rows<5, 1, T, lanes> : depthwise_rows<5, 2, T, lanes>;
    default:
      return row_step == 1 ? depthwise_rows<7, 1, T, lanes> : depthwise_rows<7, 2, T, lanes>;
  }
}

}  // namespace lmwp::LMWP_ISA
