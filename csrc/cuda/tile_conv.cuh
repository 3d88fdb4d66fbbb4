#pragma once

#include "cuda/tile_sums.cuh"

namespace lmwp::cuda {

// acc[i][r] += weight[i] * pixel[r].
template <int C>
__device__ __forceinline__ void multiply(const float* weight, const float (&pixel)[kThreadRows],
                                         float (&acc)[C][kThreadRows]) {
#pragma unroll
  for (int i = 0; i < C; i += 4) {
    Lanes<float> lanes;
    lanes.bits = *reinterpret_cast<const uint4*>(weight + i);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int r = 0; r < kThreadRows; ++r) acc[i + n][r] += lanes.lane[n] * pixel[r];
    }
  }
}

// Some input channels of a term, ready to be convolved by weights in shared memory,
// [channels, K, K, pitch]. Their pixels lie there, too, [channels, staged_pixels]; only a 1 x 1
// convolution, which reads each of them once, takes them from the input if it can.
template <typename T>
struct Chunk {
  const T* x;
  int64_t channel_stride, row_stride, column_stride;
  const float* staged;  // null: take them from x
  int channels;
  const float* weight;
  int pitch;
};

template <typename T, int C>
__device__ __forceinline__ void convolve_input(const Chunk<T>& chunk, const float* weight,
                                               const Region& region, Spot spot,
                                               float (&acc)[C][kThreadRows]) {
  const T* from[kThreadRows];
  const T* column =
      chunk.x + clamp_to(region.column0 + spot.column, region.width) * chunk.column_stride;
#pragma unroll
  for (int r = 0; r < kThreadRows; ++r) {
    from[r] = column + clamp_to(region.row0 + spot.row + r, region.height) * chunk.row_stride;
  }
#pragma unroll 2
  for (int c = 0; c < chunk.channels; ++c) {
    float pixel[kThreadRows];
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) pixel[r] = to_float(from[r][c * chunk.channel_stride]);
    multiply<C>(weight + c * chunk.pitch, pixel, acc);
  }
}

template <typename T, int K, int C>
__device__ __forceinline__ void convolve_staged(const Chunk<T>& chunk, const float* weight,
                                                const Region& region, Spot spot,
                                                float (&acc)[C][kThreadRows]) {
  const int columns = region.columns + K - 1;
  const int plane = staged_pixels(region.rows, region.columns, K);
  const float* from = chunk.staged + spot.row * columns + spot.column;
  for (int c = 0; c < chunk.channels; ++c, from += plane, weight += K * K * chunk.pitch) {
#pragma unroll
    for (int j = 0; j < K; ++j) {
      float window[kThreadRows + K - 1];
#pragma unroll
      for (int r = 0; r < kThreadRows + K - 1; ++r) window[r] = from[r * columns + j];
#pragma unroll
      for (int i = 0; i < K; ++i) {
        float pixel[kThreadRows];
#pragma unroll
        for (int r = 0; r < kThreadRows; ++r) pixel[r] = window[r + i];
        multiply<C>(weight + (i * K + j) * chunk.pitch, pixel, acc);
      }
    }
  }
}

// sums += the convolution of a chunk, C channels at a time.
template <typename T, int K, int C>
__device__ __forceinline__ void convolve(const Chunk<T>& chunk, const Pass& pass,
                                         const Sums& sums) {
  for_each_spot(sums.region, quotient_up(sums.channels, C), [&](int group, Spot spot) {
    float acc[C][kThreadRows];
    pass.begin<C>(sums, group * C, spot, acc);
    const float* weight = chunk.weight + group * C;
    if (K == 1 && chunk.staged == nullptr) {
      convolve_input<T, C>(chunk, weight, sums.region, spot, acc);
    } else {
      convolve_staged<T, K, C>(chunk, weight, sums.region, spot, acc);
    }
    pass.end<C>(sums, group * C, spot, acc);
  });
}

// sums += `coarse`, resized.
template <int C>
__device__ __forceinline__ void widen(const Sums& coarse, const Pass& pass, const Sums& sums) {
  const Axis rows{coarse.region.height, sums.region.height};
  const Axis columns{coarse.region.width, sums.region.width};
  for_each_spot(sums.region, 1, [&](int, Spot spot) {
    const int column = clamp_to(sums.region.column0 + spot.column, sums.region.width);
    const int left = columns.low(column) - coarse.region.column0;
    const int right = columns.high(column) - coarse.region.column0;
    const float across = columns.fraction(column);
    float acc[C][kThreadRows];
    pass.begin<C>(sums, 0, spot, acc);
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
      const int row = clamp_to(sums.region.row0 + spot.row + r, sums.region.height);
      const int top = rows.low(row) - coarse.region.row0;
      const int bottom = rows.high(row) - coarse.region.row0;
      const float down = rows.fraction(row);
#pragma unroll
      for (int c = 0; c < C; ++c) {
        if (c < sums.channels) {
          acc[c][r] +=
              mix(mix(*coarse.at(c, top, left), *coarse.at(c, top, right), across),
                  mix(*coarse.at(c, bottom, left), *coarse.at(c, bottom, right), across), down);
        }
      }
    }
    pass.end<C>(sums, 0, spot, acc);
  });
}

// A depthwise 3 x 3 convolution and its epilogue over a region, from sums of the region grown by 1.
// Calls put(channel, row, column, value).
template <typename Put>
__device__ __forceinline__ void depthwise_stage(int stage, const Sums& from, const float* constants,
                                                const Region& region, Put put) {
  for_each_spot(region, from.channels, [&](int channel, Spot spot) {
    const Constants channel_constants{constants + channel * kConstants};
    const float* weight = channel_constants.depthwise(stage);
    float acc[kThreadRows] = {};
#pragma unroll
    for (int m = 0; m < kThreadRows + 2; ++m) {
      const float* row = from.at(channel, clamp_to(spot.row + m, from.region.rows), spot.column);
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        const float value = row[j];
#pragma unroll
        for (int r = 0; r < kThreadRows; ++r) {
          if (m - r >= 0 && m - r < 3) acc[r] += weight[3 * (m - r) + j] * value;
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kThreadRows; ++r) {
      if (spot.row + r < region.rows) {
        put(channel, spot.row + r, spot.column, channel_constants.epilogue(stage + 1, acc[r]));
      }
    }
  });
}

}  // namespace lmwp::cuda
