#pragma once

#include "common/epilogue.h"
#include "cuda/sparse_conv2d_plan.cuh"

namespace lmwp::cuda {

// What a warp keeps of some entries, columns of its row of blocks: the channel that each reads and
// its values.
template <int R>
struct SparseStage {
  int channel[kWarp];
  alignas(16) float value[kWarp][R];
};

// The pixels of one lane: a vector of them, or, where planes are not made of vectors, single ones
// a warp apart.
template <typename T, bool kVectors>
struct LanePixels {
  int64_t first, end;

  __device__ __forceinline__ LanePixels(int64_t tile, int lane, int64_t pixels)
      : first(tile * kTilePixels<T> + lane * (kVectors ? kLanes<T> : 1)), end(pixels) {}

  __device__ __forceinline__ Lanes<T> load(const T* plane) const {
    Lanes<T> pixels;
    if constexpr (kVectors) {
      if (first < end) pixels.bits = *reinterpret_cast<const uint4*>(plane + first);
    } else {
#pragma unroll
      for (int i = 0; i < kLanes<T>; ++i) {
        if (first + i * kWarp < end) pixels.lane[i] = plane[first + i * kWarp];
      }
    }
    return pixels;
  }

  __device__ __forceinline__ void store(T* plane, const Lanes<T>& pixels) const {
    if constexpr (kVectors) {
      if (first < end) kl_store16(reinterpret_cast<uint4*>(plane + first), pixels.bits);
    } else {
#pragma unroll
      for (int i = 0; i < kLanes<T>; ++i) {
        if (first + i * kWarp < end) plane[first + i * kWarp] = pixels.lane[i];
      }
    }
  }
};

// One row of blocks on the pixels of a warp.
template <typename T, int R, bool kVectors>
struct SparseRow {
  static constexpr int kInFlight = 4;  // entries whose pixels are read at once

  const SparseConvCall& call;
  const LanePixels<T, kVectors> pixels;
  const T* const x;  // of the image
  const int block_row, lane;
  SparseStage<R>& stage;
  float sum[R][kLanes<T>];

  // Entries from `first` on. A channel that is none of the map's reads the first one.
  __device__ __forceinline__ void stage_entries(int64_t first, int count) const {
    const int input = block_row * R / call.group_outputs * call.group_inputs;
    if (lane < count) {
      const int64_t entry = first + lane;
      const int64_t channel =
          input + int64_t{call.column[entry / call.columns]} * call.columns + entry % call.columns;
      const bool exists = channel >= 0 && channel < call.inputs;
      stage.channel[lane] = exists ? static_cast<int>(channel) : 0;
    }
    for (int i = lane; i < count * R; i += kWarp) {
      stage.value[i / R][i % R] = load_param<T>(call.values, first * R + i, 0.0f);
    }
  }

  __device__ __forceinline__ void add_entries(int count) {
    for (int k = 0; k < count; k += kInFlight) {
      Lanes<T> read[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        if (k + i < count) read[i] = pixels.load(x + stage.channel[k + i] * call.x_step[1]);
      }
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        if (k + i < count) add_products(stage.value[k + i], read[i]);
      }
    }
  }

  __device__ __forceinline__ void add_products(const float (&value)[R], const Lanes<T>& read) {
#pragma unroll
    for (int p = 0; p < kLanes<T>; ++p) {
      const float pixel = to_float(read.lane[p]);
#pragma unroll
      for (int r = 0; r < R; ++r) sum[r][p] += value[r] * pixel;
    }
  }

  __device__ __forceinline__ void add_slab(int slab, int block_rows) {
    const int32_t* offset = call.offset + int64_t{slab} * block_rows + block_row;
    const int begin = offset[0] < 0 ? 0 : offset[0];
    const int end = offset[1] > call.blocks ? call.blocks : offset[1];
    const int64_t last = int64_t{end} * call.columns;
    for (int64_t first = int64_t{begin} * call.columns; first < last; first += kWarp) {
      const int count = last - first < kWarp ? static_cast<int>(last - first) : kWarp;
      __syncwarp();  // every lane has done with what was staged before
      stage_entries(first, count);
      __syncwarp();
      add_entries(count);
    }
  }

  __device__ __forceinline__ void store(T* y) const {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int64_t output = int64_t{block_row} * R + r;
      if (output >= call.outputs) break;
      const float bias = load_param<T>(call.bias, output, 0.0f);
      const float scale = load_param<T>(call.scale, output, 1.0f);
      const float shift = load_param<T>(call.shift, output, 0.0f);
      const float slope = load_param<T>(call.slope, output, 1.0f);
      Lanes<T> result;
#pragma unroll
      for (int p = 0; p < kLanes<T>; ++p) {
        result.lane[p] = from_float<T>(affine_prelu(sum[r][p] + bias, scale, shift, slope));
      }
      pixels.store(y + output * call.y_step[1], result);
    }
  }
};

// y = PReLU(scale * (weight x + bias) + shift); blocks of the weight have R rows.
template <typename T, int R, bool kVectors>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    sparse_conv2d_fwd_kernel(__grid_constant__ const SparseConvLaunch launch) {
  KL_SHARED(SparseStage<R>, stages, [kSparseWarps]);
  const SparseConvCall& call = launch.call;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t at = blockIdx.x / launch.groups, image = at / launch.tiles;
  const LanePixels<T, kVectors> pixels(at % launch.tiles, lane, call.pixels);
  const int first = static_cast<int>(blockIdx.x % launch.groups) * launch.steps;
  for (int step = first; step < first + launch.steps; ++step) {
    const int block_row = step * kSparseWarps + warp;
    if (block_row >= launch.block_rows) break;
    SparseRow<T, R, kVectors> row{
        call,      pixels, static_cast<const T*>(call.x) + image * call.x_step[0],
        block_row, lane,   stages[warp],
        {}};
    for (int slab = 0; slab < call.slabs; ++slab) row.add_slab(slab, launch.block_rows);
    row.store(static_cast<T*>(call.y) + image * call.y_step[0]);
  }
}

template <typename T, int R>
cudaError_t launch_sparse_conv2d(const SparseConvCall& call, int multiprocessors,
                                 cudaStream_t stream) {
  SparseConvLaunch launch{};
  const int64_t blocks = plan_sparse_conv<T>(call, multiprocessors, launch);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  const auto kernel = moves_in_vectors<T>(call) ? sparse_conv2d_fwd_kernel<T, R, true>
                                                : sparse_conv2d_fwd_kernel<T, R, false>;
  return kl_launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, launch);
}

// The convolution in one launch. cudaErrorInvalidValue: blocks of other than 1, 4 or (in float32)
// 16 rows, or more pixels than a grid has blocks for.
template <typename T>
cudaError_t sparse_conv2d_fwd(const SparseConvCall& call, int multiprocessors,
                              cudaStream_t stream) {
  if (call.rows == 1) return launch_sparse_conv2d<T, 1>(call, multiprocessors, stream);
  if (call.rows == 4) return launch_sparse_conv2d<T, 4>(call, multiprocessors, stream);
  if constexpr (sizeof(T) == 4) {
    if (call.rows == 16) return launch_sparse_conv2d<T, 16>(call, multiprocessors, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace lmwp::cuda
