#pragma once

#include "common/epilogue.h"
#include "cuda/depthwise_scales_plan.cuh"

namespace lmwp::cuda {

struct Affine {
  float scale, shift, slope;
};

template <typename T, typename Task>
__device__ __forceinline__ Affine load_affine(const Task& task, int64_t channel) {
  return {load_param<T>(task.scale, channel, 1.0f), load_param<T>(task.shift, channel, 0.0f),
          load_param<T>(task.slope, channel, 1.0f)};
}

// acc[i][v] += the taps of input row m that output row i sees; column(v, j) is the input of tap j.
template <int K, int S, int R, int V, typename Column>
__device__ __forceinline__ void accumulate_row(float (&acc)[R][V], const float* weight, int m,
                                               Column column) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int ky = m - S * i;
    if (ky < 0 || ky >= K) continue;
#pragma unroll
    for (int j = 0; j < K; ++j) {
#pragma unroll
      for (int v = 0; v < V; ++v) acc[i][v] += weight[ky * K + j] * column(v, j);
    }
  }
}

// A thread's place in a tile, and the tile's place in its plane.
struct TilePlace {
  int group0, vector0, group, vector;
};

__device__ __forceinline__ TilePlace place_in_tile(const Tiling& tiling, uint32_t tile) {
  const int thread = static_cast<int>(threadIdx.x);
  return {static_cast<int>(tile) / tiling.tiles_x * tiling.groups,
          static_cast<int>(tile) % tiling.tiles_x * tiling.vectors, thread / tiling.vectors,
          thread % tiling.vectors};
}

// Starts copying `rows` x `vectors` of a plane, from row0 and vector0 on, to shared memory; zeros
// where that lies outside of the plane.
template <typename T>
__device__ __forceinline__ void stage_rows(const T* plane, int64_t row_stride, int height,
                                           int row_vectors, int row0, int vector0, int rows,
                                           int vectors, uint4* tile) {
  const int thread = static_cast<int>(threadIdx.x);
  int row = thread / vectors;
  int vector = thread % vectors;
  const int row_step = kThreads / vectors;
  const int vector_step = kThreads % vectors;
  for (int i = thread; i < rows * vectors; i += kThreads) {
    const int y = row0 + row;
    const int column = vector0 + vector;
    const bool valid = y >= 0 && y < height && column >= 0 && column < row_vectors;
    const T* from = valid ? plane + y * row_stride + column * kLanes<T> : plane;
    kl_copy16_async(tile + i, reinterpret_cast<const uint4*>(from), valid);
    row += row_step;
    vector += vector_step;
    if (vector >= vectors) {
      vector -= vectors;
      ++row;
    }
  }
}

// Starts copying what the outputs of a tile see of a plane of x.
template <typename T, int K, int S, int R>
__device__ __forceinline__ void stage_tile(const T* plane, int64_t row_stride, int height,
                                           int width, const Tiling& tiling, const TilePlace& place,
                                           uint4* tile) {
  stage_rows(plane, row_stride, height, width / kLanes<T>, S * R * place.group0 - K / 2,
             S * place.vector0 - kHaloVectors<K>, tile_in_rows<K, S, R>(tiling.groups),
             tile_in_vectors<K, S>(tiling.vectors), tile);
}

// Rows share nothing where a thread has but one output row: a loop then saves registers.
template <int R>
inline constexpr int kUnrolled = R == 1 ? 1 : 64;

// row(m, column) for every row m of the staged tile that a thread's outputs see.
template <typename T, int K, int S, int R, typename Row>
__device__ __forceinline__ void for_tile_rows(const uint4* tile, const Tiling& tiling,
                                              const TilePlace& place, Row row) {
  constexpr int V = kLanes<T>;
  constexpr int kHalo = kHaloVectors<K>;
  constexpr int kFirst = kHalo * V - K / 2;  // first column of a thread's window in its vectors
  constexpr int kWindow = (kFirst + S * (V - 1) + K + V - 1) / V;
  static_assert(kWindow <= S + 2 * kHalo, "a window must stay inside the tile");
  const int in_vectors = tile_in_vectors<K, S>(tiling.vectors);
  const uint4* window_row = tile + S * R * place.group * in_vectors + S * place.vector;
#pragma unroll kUnrolled < R>
  for (int m = 0; m < S * (R - 1) + K; ++m) {
    float window[kWindow * V];
#pragma unroll
    for (int n = 0; n < kWindow; ++n) {
      Lanes<T> lanes;
      lanes.bits = window_row[m * in_vectors + n];
#pragma unroll
      for (int v = 0; v < V; ++v) window[n * V + v] = to_float(lanes.lane[v]);
    }
    row(m, [&](int v, int j) { return window[kFirst + S * v + j]; });
  }
}

// row(m, column) for every row m of a plane of x that R outputs, `dilation` rows apart, see.
template <typename T, int K, int S, int R, typename Row>
__device__ __forceinline__ void for_map_rows(const T* plane, const int64_t (&stride)[4], int height,
                                             int width, int dilation, int out_row, int out_column,
                                             Row row) {
  const int column0 = S * out_column - K / 2 * dilation;
  const int64_t step = dilation * stride[3];
#pragma unroll kUnrolled < R>
  for (int m = 0; m < S * (R - 1) + K; ++m) {
    const int y = S * out_row + (m - K / 2) * dilation;
    const T* at = plane + y * stride[2] + column0 * stride[3];  // steps: registers are few
    float window[K];
#pragma unroll
    for (int j = 0; j < K; ++j) {
      const int column = column0 + j * dilation;
      const bool valid = y >= 0 && y < height && column >= 0 && column < width;
      window[j] = valid ? to_float(*at) : 0.0f;
      at += step;
    }
    row(m, [&](int, int j) { return window[j]; });
  }
}

// The taps of channel `channel`, in reverse where kFlipped.
template <typename T, int K, bool kFlipped>
__device__ __forceinline__ float load_tap(const Param& weight, int64_t channel, int tap) {
  return load_param<T>(weight, channel * K * K + (kFlipped ? K * K - 1 - tap : tap), 0.0f);
}

// One output tile of one plane: 16-byte copies to shared memory, 16-byte stores, dilation 1.
template <typename T, int K, int S, bool kFlipped = false>
__device__ __forceinline__ void conv_tile(const DepthwiseTask& task, uint32_t block, uint4* tile,
                                          float* weight, Affine* affine) {
  constexpr int R = kRows<S>;
  constexpr int V = kLanes<T>;
  const int thread = static_cast<int>(threadIdx.x);

  const Tiling& tiling = task.tiling;
  const uint32_t tiles = tiling.tiles_x * tiling.tiles_y;
  const uint32_t plane = block / tiles;
  const TilePlace place = place_in_tile(tiling, block % tiles);
  const int64_t image = plane / task.channels;
  const int64_t channel = plane % task.channels;
  stage_tile<T, K, S, R>(plane_of<T>(task.in, image, channel), task.in.stride[2], task.height,
                         task.width, tiling, place, tile);
  if (thread < K * K) weight[thread] = load_tap<T, K, kFlipped>(task.weight, channel, thread);
  if (thread == 0) *affine = load_affine<T>(task, channel);
  kl_copy_wait();
  __syncthreads();

  const int vector = place.vector0 + place.vector;
  if (place.group >= tiling.groups || vector >= task.out_width / V) return;
  float acc[R][V] = {};
  for_tile_rows<T, K, S, R>(tile, tiling, place, [&](int m, auto column) {
    accumulate_row<K, S>(acc, weight, m, column);
  });

  const Affine epilogue = *affine;
  const int out_row = R * (place.group0 + place.group);
  T* y = plane_of<T>(task.out, image, channel) + out_row * task.out.stride[2] + vector * V;
#pragma unroll
  for (int i = 0; i < R; ++i) {
    if (out_row + i < task.out_height) {
      Lanes<T> lanes;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        lanes.lane[v] =
            from_float<T>(affine_prelu(acc[i][v], epilogue.scale, epilogue.shift, epilogue.slope));
      }
      kl_store16(reinterpret_cast<uint4*>(y + i * task.out.stride[2]), lanes.bits);
    }
  }
}

// The plane of a direct thread and its place there; inside a plane, columns are neighbours.
struct DirectPlace {
  int64_t image, channel;
  int group, column;
};

// False where the thread is one too many.
__device__ __forceinline__ bool place_in_map(const DepthwiseTask& task, uint32_t block, int columns,
                                             DirectPlace& place) {
  const int64_t item = int64_t{block} * kThreads + threadIdx.x;
  const int64_t plane = item / task.plane_items;
  if (plane >= task.planes) return false;
  uint32_t rest = static_cast<uint32_t>(item - plane * task.plane_items);
  if (task.interleaved) {
    place.image = plane;
    place.channel = rest % task.channels;
    rest /= task.channels;
  } else {
    place.image = plane / task.channels;
    place.channel = plane % task.channels;
  }
  place.column = static_cast<int>(rest % columns);
  place.group = static_cast<int>(rest / columns);
  return true;
}

// The first of the rows, `dilation` apart, of a group.
template <int R>
__device__ __forceinline__ int first_row(int group, int dilation) {
  return group / dilation * R * dilation + group % dilation;
}

// R outputs of one column a thread: any strides, width, alignment and dilation.
template <typename T, int K, int S, bool kFlipped = false>
__device__ __forceinline__ void conv_direct(const DepthwiseTask& task, uint32_t block) {
  constexpr int R = kRows<S>;
  DirectPlace place;
  if (!place_in_map(task, block, task.out_width, place)) return;
  const int out_row = first_row<R>(place.group, task.dilation);

  float weight[K * K];
#pragma unroll
  for (int j = 0; j < K * K; ++j) {
    weight[j] = load_tap<T, K, kFlipped>(task.weight, place.channel, j);
  }
  float acc[R][1] = {};
  for_map_rows<T, K, S, R>(
      plane_of<T>(task.in, place.image, place.channel), task.in.stride, task.height, task.width,
      task.dilation, out_row, place.column,
      [&](int m, auto column) { accumulate_row<K, S>(acc, weight, m, column); });

  const Affine affine = load_affine<T>(task, place.channel);
  T* y = plane_of<T>(task.out, place.image, place.channel) + place.column * task.out.stride[3];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = out_row + i * task.dilation;
    if (row < task.out_height) {
      y[row * task.out.stride[2]] =
          from_float<T>(affine_prelu(acc[i][0], affine.scale, affine.shift, affine.slope));
    }
  }
}

}  // namespace lmwp::cuda
