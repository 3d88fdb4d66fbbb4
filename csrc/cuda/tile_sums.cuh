#pragma once

#include "common/epilogue.h"
#include "cuda/il_block_plan.cuh"

namespace lmwp::cuda {

// A rectangle of a map, which it may leave.
struct Region {
  int row0, column0, rows, columns;
  int height, width;  // of the map

  __device__ __forceinline__ bool holds(int row, int column) const {
    row += row0;
    column += column0;
    return row >= 0 && row < height && column >= 0 && column < width;
  }
  __device__ __forceinline__ Region grown(int pixels) const {
    return {row0 - pixels,        column0 - pixels, rows + 2 * pixels,
            columns + 2 * pixels, height,           width};
  }
};

// kThreadRows pixels of a region, one below the other.
struct Spot {
  int row, column;
};

// Calls work(channel group, spot) for all spots of all groups, shared out among the threads; those
// that follow each other have neighbouring columns.
template <typename Work>
__device__ __forceinline__ void for_each_spot(const Region& region, int groups, Work work) {
  const int spots = quotient_up(region.rows, kThreadRows) * region.columns;
  const int threads = static_cast<int>(blockDim.x);
  for (int i = static_cast<int>(threadIdx.x); i < groups * spots; i += threads) {
    const int spot = i % spots;
    work(i / spots, Spot{spot / region.columns * kThreadRows, spot % region.columns});
  }
}

__device__ __forceinline__ int clamp_to(int i, int size) {
  return i < 0 ? 0 : i < size ? i : size - 1;
}

// The constants of one channel, in shared memory.
struct Constants {
  const float* of_channel;

  __device__ __forceinline__ const float* depthwise(int stage) const {
    return of_channel + 9 * stage;
  }
  __device__ __forceinline__ float epilogue(int layer, float z) const {
    const float* affine = of_channel + 9 * (kLayers - 1) + 3 * layer;
    return affine_prelu(z, affine[0], affine[1], affine[2]);
  }
};

template <typename T>
__device__ __forceinline__ float load_constant(const IlBlockTask& task, int64_t channel, int i) {
  constexpr int kTaps = 9 * (kLayers - 1);
  if (i < kTaps) return load_param<T>(task.depthwise[i / 9], channel * 9 + i % 9, 0.0f);
  const int layer = (i - kTaps) / 3;
  switch ((i - kTaps) % 3) {
    case 0:
      return load_param<T>(task.scale[layer], channel, 1.0f);
    case 1:
      return load_param<T>(task.shift[layer], channel, 0.0f);
    default:
      return load_param<T>(task.slope[layer], channel, 1.0f);
  }
}

// Sums of `channels` planes over a region, in shared memory, with room for whole spots.
struct Sums {
  float* data;  // [channels, rows(), region.columns]
  Region region;
  int channels;

  __device__ __forceinline__ float* at(int channel, int row, int column) const {
    return data + (channel * rows() + row) * region.columns + column;
  }
  __device__ __forceinline__ int rows() const { return round_up(region.rows, kThreadRows); }

  // Calls access(value in shared memory, i, r) for the C channels from `first` on of one spot.
  template <int C, typename Access>
  __device__ __forceinline__ void visit(int first, Spot spot, Access access) const {
#pragma unroll
    for (int i = 0; i < C; ++i) {
      if (first + i >= channels) break;
      float* sum = at(first + i, spot.row, spot.column);
#pragma unroll
      for (int r = 0; r < kThreadRows; ++r) access(sum[r * region.columns], i, r);
    }
  }
};

// How a pass over sums begins and ends: from zero, and with the epilogue of the octave convolution.
struct Pass {
  bool first, last;
  const float* constants;

  template <int C>
  __device__ __forceinline__ void begin(const Sums& sums, int channel, Spot spot,
                                        float (&acc)[C][kThreadRows]) const {
#pragma unroll
    for (int i = 0; i < C; ++i) {
#pragma unroll
      for (int r = 0; r < kThreadRows; ++r) acc[i][r] = 0.0f;
    }
    if (first) return;
    sums.visit<C>(channel, spot, [&](float& sum, int i, int r) { acc[i][r] = sum; });
  }

  template <int C>
  __device__ __forceinline__ void end(const Sums& sums, int channel, Spot spot,
                                      const float (&acc)[C][kThreadRows]) const {
    if (!last) {
      sums.visit<C>(channel, spot, [&](float& sum, int i, int r) { sum = acc[i][r]; });
      return;
    }
    // Beyond the map lie the zeros that the depthwise convolutions are padded with.
    sums.visit<C>(channel, spot, [&](float& sum, int i, int r) {
      const Constants channel_constants{constants + (channel + i) * kConstants};
      const bool inside = sums.region.holds(spot.row + r, spot.column);
      sum = inside ? channel_constants.epilogue(0, acc[i][r]) : 0.0f;
    });
  }
};

}  // namespace lmwp::cuda
