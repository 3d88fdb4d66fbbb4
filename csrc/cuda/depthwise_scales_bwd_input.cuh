#pragma once

#include "cuda/depthwise_scales_conv.cuh"

namespace lmwp::cuda {

// Stride 1: dx is the convolution of dz by the flipped kernel. Stride 2: row h of dx takes dz row
// (h + pad - i * dilation) / 2 for the taps i that make it whole. A thread computes rows 2r and
// 2r + 1 from dz rows around r; with an odd dilation tap i serves one of them, the one whose parity
// is that of K / 2 - i, with an even one every tap serves row 2r. Columns likewise.
template <int K>
__host__ __device__ constexpr int tap_parity(int tap) {
  return (K / 2 - tap) & 1;
}

// Rows of dz from row r to the one that a tap takes at dilation 1, and the range of that.
template <int K>
__host__ __device__ constexpr int tap_offset(int tap) {
  return (tap_parity<K>(tap) + K / 2 - tap) / 2;
}
template <int K>
inline constexpr int kRowsAbove = -tap_offset<K>(K - 1);
template <int K>
inline constexpr int kRowsBelow = tap_offset<K>(0);

template <int K>
constexpr int gather_tile_bytes(int vectors, int rows) {
  return static_cast<int>(sizeof(uint4)) *
         (vectors + 2 * kHaloVectors<K>)*(rows + kRowsAbove<K> + kRowsBelow<K>);
}

// Stride 2, dilation 1: two rows of two vectors of dx for each vector of dz.
template <typename T, int K>
__device__ __forceinline__ void gather_tile(const DepthwiseTask& task, uint32_t block, uint4* tile,
                                            float* weight, float* scale) {
  constexpr int V = kLanes<T>;
  constexpr int kHalo = kHaloVectors<K>;
  const int thread = static_cast<int>(threadIdx.x);

  const Tiling& tiling = task.tiling;
  const uint32_t tiles = tiling.tiles_x * tiling.tiles_y;
  const uint32_t plane = block / tiles;
  const TilePlace place = place_in_tile(tiling, block % tiles);
  const int64_t image = plane / task.channels;
  const int64_t channel = plane % task.channels;
  const int in_vectors = tiling.vectors + 2 * kHalo;
  stage_rows(plane_of<T>(task.in, image, channel), task.in.stride[2], task.out_height,
             task.out_width / V, place.group0 - kRowsAbove<K>, place.vector0 - kHalo,
             tiling.groups + kRowsAbove<K> + kRowsBelow<K>, in_vectors, tile);
  if (thread < K * K) weight[thread] = load_tap<T, K, false>(task.weight, channel, thread);
  if (thread == 0) *scale = load_param<T>(task.scale, channel, 1.0f);
  kl_copy_wait();
  __syncthreads();

  const int row = place.group0 + place.group;
  const int vector = place.vector0 + place.vector;
  if (place.group >= tiling.groups || row >= task.out_height || vector >= task.out_width / V) {
    return;
  }
  float acc[2][2 * V] = {};
  const uint4* window_row = tile + place.group * in_vectors + place.vector;
#pragma unroll
  for (int m = 0; m <= kRowsAbove<K> + kRowsBelow<K>; ++m) {
    float window[(1 + 2 * kHalo) * V];
#pragma unroll
    for (int n = 0; n < 1 + 2 * kHalo; ++n) {
      Lanes<T> lanes;
      lanes.bits = window_row[m * in_vectors + n];
#pragma unroll
      for (int v = 0; v < V; ++v) window[n * V + v] = to_float(lanes.lane[v]);
    }
#pragma unroll
    for (int i = 0; i < K; ++i) {
      if (tap_offset<K>(i) != m - kRowsAbove<K>) continue;
#pragma unroll
      for (int j = 0; j < K; ++j) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          acc[tap_parity<K>(i)][2 * v + tap_parity<K>(j)] +=
              weight[i * K + j] * window[kHalo * V + v + tap_offset<K>(j)];
        }
      }
    }
  }

  T* dx = plane_of<T>(task.out, image, channel) + 2 * row * task.out.stride[2] + 2 * vector * V;
#pragma unroll
  for (int a = 0; a < 2; ++a) {
    if (2 * row + a >= task.height) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Lanes<T> lanes;
#pragma unroll
      for (int v = 0; v < V; ++v) lanes.lane[v] = from_float<T>(*scale * acc[a][half * V + v]);
      kl_store16(reinterpret_cast<uint4*>(dx + a * task.out.stride[2]) + half, lanes.bits);
    }
  }
}

// Stride 2, any dilation and layout: the 2 x 2 pixels of dx at one pixel of dz.
template <typename T, int K>
__device__ __forceinline__ void gather_direct(const DepthwiseTask& task, uint32_t block) {
  DirectPlace place;
  if (!place_in_map(task, block, task.out_width, place)) return;
  const int dilation = task.dilation;
  const int odd = dilation & 1;
  const T* dz = plane_of<T>(task.in, place.image, place.channel);
  float acc[2][2] = {};
#pragma unroll
  for (int i = 0; i < K; ++i) {
    const int row = place.group + ((tap_parity<K>(i) & odd) + dilation * (K / 2 - i)) / 2;
#pragma unroll
    for (int j = 0; j < K; ++j) {
      const int column = place.column + ((tap_parity<K>(j) & odd) + dilation * (K / 2 - j)) / 2;
      if (row >= 0 && row < task.out_height && column >= 0 && column < task.out_width) {
        acc[tap_parity<K>(i)][tap_parity<K>(j)] +=
            load_tap<T, K, false>(task.weight, place.channel, i * K + j) *
            to_float(dz[row * task.in.stride[2] + column * task.in.stride[3]]);
      }
    }
  }
  if (!odd) {
    acc[0][0] += acc[0][1] + (acc[1][0] + acc[1][1]);
    acc[0][1] = acc[1][0] = acc[1][1] = 0.0f;
  }
  const float scale = load_param<T>(task.scale, place.channel, 1.0f);
  T* dx = plane_of<T>(task.out, place.image, place.channel);
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int row = 2 * place.group + a;
      const int column = 2 * place.column + b;
      if (row < task.height && column < task.width) {
        dx[row * task.out.stride[2] + column * task.out.stride[3]] =
            from_float<T>(scale * acc[a][b]);
      }
    }
  }
}

// dx = scale * the transposed convolution of dz for every branch; a block serves one branch.
template <typename T, int K, int S>
__global__ void __launch_bounds__(kThreads)
    depthwise_scales_bwd_input_kernel(__grid_constant__ const Tasks<DepthwiseTask> tasks) {
  KL_DYN_SHARED(uint4, tile);
  KL_SHARED(float, weight, [K * K]);
  KL_SHARED(Affine, affine, [1]);
  const DepthwiseTask& task = task_of_block(tasks);
  const uint32_t block = blockIdx.x - task.first_block;
  if constexpr (S == 1) {
    if (task.tiled) {
      conv_tile<T, K, 1, true>(task, block, tile, weight, affine);
    } else {
      conv_direct<T, K, 1, true>(task, block);
    }
  } else {
    if (task.tiled) {
      gather_tile<T, K>(task, block, tile, weight, &affine->scale);
    } else {
      gather_direct<T, K>(task, block);
    }
  }
}

// The gradient at stride 2. False where the branch exceeds the index range.
template <typename T, int K>
bool plan_gather(const DepthwiseBranch& branch, int64_t dilation, DepthwiseTask& task) {
  static_cast<DepthwiseTensors&>(task) = branch;
  if (!plan_sizes<2>(branch, dilation, task)) return false;
  const int64_t vectors = task.out_width / kLanes<T>;
  task.tiled = task.dilation == 1 && vectors * task.out_height >= kMinTileThreads &&
               is_vectorised<T>(task.in, task.out_width) &&
               is_vectorised<T>(task.out, task.width) && task.width == 2 * task.out_width;
  if (task.tiled) {
    task.tiling = plan_tiles(vectors, task.out_height);
    task.shared_bytes = gather_tile_bytes<K>(task.tiling.vectors, task.tiling.groups);
  }
  return plan_blocks(task, branch.batch, int64_t{task.out_height} * task.out_width);
}

template <typename T, int K, int S>
bool plan_bwd_input(const DepthwiseBranch& branch, int64_t dilation, DepthwiseTask& task) {
  if constexpr (S == 1) {
    return plan_conv<T, K, 1>(branch, dilation, task);
  } else {
    return plan_gather<T, K>(branch, dilation, task);
  }
}

template <typename T, int K, int S>
cudaError_t launch_depthwise_scales_bwd_input(const DepthwiseBranch* branches, int count,
                                              int64_t dilation, cudaStream_t stream) {
  static_assert(std::max(max_tile_bytes<K, 1>(), gather_tile_bytes<K>(1, kThreads)) +
                        sizeof(float) * K * K + sizeof(Affine) <=
                    48 << 10,
                "a block has 48 KB of shared memory");
  std::vector<DepthwiseTask> tasks(count);
  for (int b = 0; b < count; ++b) {
    if (!plan_bwd_input<T, K, S>(branches[b], dilation, tasks[b])) return cudaErrorInvalidValue;
  }
  return launch_branches(depthwise_scales_bwd_input_kernel<T, K, S>, tasks, stream);
}

// The gradients of xs, all branches in one launch for every kMaxBranches of them: `in` is dz, or dy
// where dz = scale * dy, `out` is dx; height and width are those of x. shift and slope are absent.
// Limits and errors are those of depthwise_scales_fwd.
template <typename T, typename Sizes = KernelSizes>
cudaError_t depthwise_scales_bwd_input(const DepthwiseBranch* branches, int count, int kernel,
                                       int stride, int64_t dilation, cudaStream_t stream) {
  return for_kernel_and_stride(Sizes{}, kernel, stride, [&](auto k, auto s) {
    return launch_depthwise_scales_bwd_input<T, k(), s()>(branches, count, dilation, stream);
  });
}

}  // namespace lmwp::cuda
