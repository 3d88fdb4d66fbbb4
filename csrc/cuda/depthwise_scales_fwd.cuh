#pragma once

#include "common/epilogue.h"
#include "cuda/depthwise_scales_plan.cuh"

namespace lmwp::cuda {

struct Affine {
  float scale, shift, slope;
};

template <typename T>
__device__ __forceinline__ Affine load_affine(const DepthwiseTask& task, int64_t channel) {
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

// One output tile of one plane: 16-byte copies to shared memory, 16-byte stores, dilation 1.
template <typename T, int K, int S>
__device__ __forceinline__ void depthwise_tile(const DepthwiseTask& task, uint32_t block,
                                               uint4* tile, float* weight, Affine* affine) {
  constexpr int R = kRows<S>;
  constexpr int V = kLanes<T>;
  constexpr int kHalo = kHaloVectors<K>;
  constexpr int kFirst = kHalo * V - K / 2;  // first column of a thread's window in its vectors
  constexpr int kWindow = (kFirst + S * (V - 1) + K + V - 1) / V;
  static_assert(kWindow <= S + 2 * kHalo, "a window must stay inside the tile");
  const int thread = static_cast<int>(threadIdx.x);

  const uint32_t tiles = task.tiles_x * task.tiles_y;
  const uint32_t plane = block / tiles;
  const int tile_y = static_cast<int>(block % tiles) / task.tiles_x;
  const int tile_x = static_cast<int>(block % tiles) % task.tiles_x;
  const int64_t image = plane / task.channels;
  const int64_t channel = plane % task.channels;
  const int group0 = tile_y * task.tile_groups;
  const int vector0 = tile_x * task.tile_vectors;

  const int in_vectors = tile_in_vectors<K, S>(task.tile_vectors);
  const int in_rows = tile_in_rows<K, S>(task.tile_groups);
  const int row_vectors = task.width / V;
  const T* x =
      static_cast<const T*>(task.x) + image * task.x_stride[0] + channel * task.x_stride[1];
  {
    int row = thread / in_vectors;
    int vector = thread % in_vectors;
    const int row_step = kThreads / in_vectors;
    const int vector_step = kThreads % in_vectors;
    for (int i = thread; i < in_rows * in_vectors; i += kThreads) {
      const int y = S * R * group0 - K / 2 + row;
      const int column = S * vector0 - kHalo + vector;
      const bool valid = y >= 0 && y < task.height && column >= 0 && column < row_vectors;
      const T* from = valid ? x + y * task.x_stride[2] + column * V : x;
      kl_copy16_async(tile + i, reinterpret_cast<const uint4*>(from), valid);
      row += row_step;
      vector += vector_step;
      if (vector >= in_vectors) {
        vector -= in_vectors;
        ++row;
      }
    }
  }
  if (thread < K * K) {
    weight[thread] = load_param<T>(task.weight, channel * K * K + thread, 0.0f);
  }
  if (thread == 0) *affine = load_affine<T>(task, channel);
  kl_copy_wait();
  __syncthreads();

  const int tx = thread % task.tile_vectors;
  const int ty = thread / task.tile_vectors;
  if (ty >= task.tile_groups || vector0 + tx >= task.out_width / V) return;

  float acc[R][V] = {};
  const uint4* window_row = tile + S * R * ty * in_vectors + S * tx;
#pragma unroll
  for (int m = 0; m < S * (R - 1) + K; ++m) {
    float window[kWindow * V];
#pragma unroll
    for (int n = 0; n < kWindow; ++n) {
      Lanes<T> lanes;
      lanes.bits = window_row[m * in_vectors + n];
#pragma unroll
      for (int v = 0; v < V; ++v) window[n * V + v] = to_float(lanes.lane[v]);
    }
    accumulate_row<K, S>(acc, weight, m, [&](int v, int j) { return window[kFirst + S * v + j]; });
  }

  const Affine epilogue = *affine;
  const int out_row = R * (group0 + ty);
  T* y = static_cast<T*>(task.y) + image * task.y_stride[0] + channel * task.y_stride[1] +
         out_row * task.y_stride[2] + (vector0 + tx) * V;
#pragma unroll
  for (int i = 0; i < R; ++i) {
    if (out_row + i < task.out_height) {
      Lanes<T> lanes;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        lanes.lane[v] =
            from_float<T>(affine_prelu(acc[i][v], epilogue.scale, epilogue.shift, epilogue.slope));
      }
      kl_store16(reinterpret_cast<uint4*>(y + i * task.y_stride[2]), lanes.bits);
    }
  }
}

// R outputs of one column a thread: any strides, width, alignment and dilation.
template <typename T, int K, int S>
__device__ __forceinline__ void depthwise_direct(const DepthwiseTask& task, uint32_t block) {
  constexpr int R = kRows<S>;
  const int64_t item = int64_t{block} * kThreads + threadIdx.x;
  const int64_t plane = item / task.plane_items;
  if (plane >= task.planes) return;
  uint32_t rest = static_cast<uint32_t>(item - plane * task.plane_items);
  int64_t image, channel;
  if (task.interleaved) {
    image = plane;
    channel = rest % task.channels;
    rest /= task.channels;
  } else {
    image = plane / task.channels;
    channel = plane % task.channels;
  }
  const int out_column = static_cast<int>(rest % task.out_width);
  const int group = static_cast<int>(rest / task.out_width);
  const int dilation = task.dilation;
  const int out_row = group / dilation * R * dilation + group % dilation;

  float weight[K * K];
#pragma unroll
  for (int j = 0; j < K * K; ++j) {
    weight[j] = load_param<T>(task.weight, channel * K * K + j, 0.0f);
  }

  float acc[R][1] = {};
  const T* x =
      static_cast<const T*>(task.x) + image * task.x_stride[0] + channel * task.x_stride[1];
  const int column0 = S * out_column - K / 2 * dilation;
#pragma unroll
  for (int m = 0; m < S * (R - 1) + K; ++m) {
    const int row = S * out_row + (m - K / 2) * dilation;
    float window[K];
#pragma unroll
    for (int j = 0; j < K; ++j) {
      const int column = column0 + j * dilation;
      const bool valid = row >= 0 && row < task.height && column >= 0 && column < task.width;
      window[j] = valid ? to_float(x[row * task.x_stride[2] + column * task.x_stride[3]]) : 0.0f;
    }
    accumulate_row<K, S>(acc, weight, m, [&](int, int j) { return window[j]; });
  }

  const Affine affine = load_affine<T>(task, channel);
  T* y = static_cast<T*>(task.y) + image * task.y_stride[0] + channel * task.y_stride[1] +
         out_column * task.y_stride[3];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = out_row + i * dilation;
    if (row < task.out_height) {
      y[row * task.y_stride[2]] =
          from_float<T>(affine_prelu(acc[i][0], affine.scale, affine.shift, affine.slope));
    }
  }
}

// y = PReLU(scale * conv(x) + shift) for every branch; a block serves one branch.
template <typename T, int K, int S>
__global__ void __launch_bounds__(kThreads)
    depthwise_scales_fwd_kernel(__grid_constant__ const DepthwiseTasks tasks) {
  KL_DYN_SHARED(uint4, tile);
  KL_SHARED(float, weight, [K * K]);
  KL_SHARED(Affine, affine, [1]);
  int branch = 0;
  while (branch + 1 < tasks.count && blockIdx.x >= tasks.task[branch + 1].first_block) ++branch;
  const DepthwiseTask& task = tasks.task[branch];
  const uint32_t block = blockIdx.x - task.first_block;
  if (task.tiled) {
    depthwise_tile<T, K, S>(task, block, tile, weight, affine);
  } else {
    depthwise_direct<T, K, S>(task, block);
  }
}

template <typename T, int K, int S>
cudaError_t launch_depthwise_scales(const DepthwiseBranch* branches, int count, int64_t dilation,
                                    cudaStream_t stream) {
  static_assert(max_tile_bytes<K, S>() + sizeof(float) * K * K + sizeof(Affine) <= 48 << 10,
                "a block has 48 KB of shared memory");
  DepthwiseTasks tasks{};
  int64_t blocks = 0;
  int shared = 0;
  const auto flush = [&] {
    if (blocks == 0) return cudaSuccess;
    const cudaError_t status =
        kl_launch(depthwise_scales_fwd_kernel<T, K, S>, dim3(static_cast<unsigned>(blocks)),
                  dim3(kThreads), shared, stream, tasks);
    tasks.count = 0;
    blocks = 0;
    shared = 0;
    return status;
  };
  for (int b = 0; b < count; ++b) {
    DepthwiseTask task{};
    if (!plan_branch<T, S>(branches[b], dilation, task)) return cudaErrorInvalidValue;
    if (task.block_count == 0) continue;
    if (tasks.count == kMaxBranches || blocks + task.block_count > INT32_MAX) {
      if (const cudaError_t status = flush(); status != cudaSuccess) return status;
    }
    task.first_block = static_cast<uint32_t>(blocks);
    blocks += task.block_count;
    if (task.tiled) {
      shared = std::max(shared, tile_bytes<K, S>(task.tile_vectors, task.tile_groups));
    }
    tasks.task[tasks.count++] = task;
  }
  return flush();
}

template <typename T, int K>
cudaError_t launch_depthwise_scales(const DepthwiseBranch* branches, int count, int stride,
                                    int64_t dilation, cudaStream_t stream) {
  return stride == 1 ? launch_depthwise_scales<T, K, 1>(branches, count, dilation, stream)
                     : launch_depthwise_scales<T, K, 2>(branches, count, dilation, stream);
}

// All branches in one launch for every kMaxBranches of them. kernel is 1, 3, 5 or 7, stride 1 or
// 2, padding dilation * (kernel / 2). cudaErrorInvalidValue: a map beyond the index range.
template <typename T>
cudaError_t depthwise_scales_fwd(const DepthwiseBranch* branches, int count, int kernel, int stride,
                                 int64_t dilation, cudaStream_t stream) {
  switch (kernel) {
    case 1:
      return launch_depthwise_scales<T, 1>(branches, count, stride, dilation, stream);
    case 3:
      return launch_depthwise_scales<T, 3>(branches, count, stride, dilation, stream);
    case 5:
      return launch_depthwise_scales<T, 5>(branches, count, stride, dilation, stream);
    case 7:
      return launch_depthwise_scales<T, 7>(branches, count, stride, dilation, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace lmwp::cuda
