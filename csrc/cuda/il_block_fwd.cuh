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
  __device__ __forceinline__ int pixels() const { return rows * columns; }
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

// The term of one input branch in one output.
template <typename T>
__device__ __forceinline__ OctaveTerm<T> make_term(const IlBlockLaunch& launch,
                                                   const IlBlockTask& task,
                                                   const OctaveInput& input, int64_t image) {
  OctaveTerm<T> term;
  term.x = static_cast<const T*>(input.x) + image * input.stride[0];
  term.channel_stride = input.stride[1];
  term.row_stride = input.stride[2];
  term.column_stride = input.stride[3];
  term.entry_pool = launch.entry_pool;
  term.steps = task.branch - input.scale;
  term.resample = term.steps == 0        ? Resample::kNone
                  : term.steps < 0       ? Resample::kBilinearUp
                  : launch.bilinear_down ? Resample::kBilinearDown
                                         : Resample::kMaxPool;
  const bool is_coarse = term.resample == Resample::kBilinearUp;
  term.height = is_coarse ? input.height : task.height;
  term.width = is_coarse ? input.width : task.width;
  term.rows = {input.height, task.height};
  term.columns = {input.width, task.width};
  return term;
}

// The pixels of a coarser term that the pixels of `fine` within its map are mixed from.
template <typename T>
__device__ __forceinline__ Region coarse_region(const OctaveTerm<T>& term, const Region& fine) {
  const int top = term.rows.low(clamp_to(fine.row0, fine.height));
  const int bottom = term.rows.high(clamp_to(fine.row0 + fine.rows - 1, fine.height));
  const int left = term.columns.low(clamp_to(fine.column0, fine.width));
  const int right = term.columns.high(clamp_to(fine.column0 + fine.columns - 1, fine.width));
  return {top, left, bottom - top + 1, right - left + 1, term.height, term.width};
}

// Calls work(C) with the channels of a thread as a compile-time constant.
template <typename Work>
__device__ __forceinline__ void with_channels(int channels, Work work) {
  if (channels == 4) {
    work(std::integral_constant<int, 4>{});
  } else if (channels == 8) {
    work(std::integral_constant<int, 8>{});
  } else {
    work(std::integral_constant<int, kMostThreadChannels>{});
  }
}

// One block: some channels of a tile of one output.
template <typename T, int K>
struct IlBlock {
  const IlBlockLaunch& launch;
  const IlBlockTask& task;
  float* const shared;
  const SharedLayout layout;
  int64_t image;
  int first_channel, channels;
  Region tile;

  __device__ __forceinline__ IlBlock(const IlBlockLaunch& launch, const IlBlockTask& task,
                                     float* shared)
      : launch(launch), task(task), shared(shared), layout(task, K) {
    const uint32_t block = blockIdx.x % launch.image_blocks - task.first_block;
    const int at = static_cast<int>(block) / task.groups;
    image = launch.image + blockIdx.x / launch.image_blocks;
    first_channel = static_cast<int>(block) % task.groups * task.group_channels;
    channels = task.channels - first_channel;
    if (channels > task.group_channels) channels = task.group_channels;
    tile = {at / task.tiles_x * task.tile_rows,
            at % task.tiles_x * task.tile_columns,
            task.tile_rows,
            task.tile_columns,
            task.height,
            task.width};
  }

  __device__ __forceinline__ void load_constants() const {
    float* constants = shared + layout.constants;
    for (int i = static_cast<int>(threadIdx.x); i < channels * kConstants; i += blockDim.x) {
      constants[i] = load_constant<T>(task, first_channel + i / kConstants, i % kConstants);
    }
  }

  // The weights of some input channels, from `column` on, as `multiply` reads them.
  __device__ __forceinline__ void stage_weights(int64_t column, int count) const {
    const int taps = count * K * K;
    const int64_t pitch = int64_t{launch.columns} * K * K;
    const int64_t from = (task.row + first_channel) * pitch + column * K * K;
    for (int i = static_cast<int>(threadIdx.x); i < taps * task.thread_channels; i += blockDim.x) {
      const int channel = i / taps, tap = i % taps;
      shared[tap * task.thread_channels + channel] =
          channel < channels ? load_param<T>(launch.weight, from + channel * pitch + tap, 0.0f)
                             : 0.0f;
    }
  }

  // The pixels of some channels of a term over a region grown by K / 2, zero beyond the map.
  __device__ __forceinline__ void stage_pixels(const OctaveTerm<T>& term, int first, int count,
                                               const Region& region) const {
    const Region grown = region.grown(K / 2);
    const int plane = staged_pixels(region.rows, region.columns, K);
    float* staged = shared + layout.staged;
    for (int i = static_cast<int>(threadIdx.x); i < count * plane; i += blockDim.x) {
      const int row = i % plane / grown.columns, column = i % plane % grown.columns;
      const bool valid = row < grown.rows && grown.holds(row, column);
      staged[i] = valid ? term(first + i / plane, grown.row0 + row, grown.column0 + column) : 0.0f;
    }
  }

  // sums += the convolution of one input branch, `at_once` output channels at a time.
  __device__ __forceinline__ void add_convolution(const OctaveInput& input,
                                                  const OctaveTerm<T>& term, int at_once, Pass pass,
                                                  const Sums& sums) const {
    const bool ends = pass.last, is_staged = K == 3 || !term.is_plain();
    for (int first = 0; first < input.channels; first += task.chunk) {
      const int rest = input.channels - first;
      const int count = rest < task.chunk ? rest : task.chunk;
      __syncthreads();  // everyone has done with what was staged before
      stage_weights(input.column + first, count);
      if (is_staged) stage_pixels(term, first, count, sums.region);
      __syncthreads();
      pass.last = ends && count == rest;
      const Chunk<T> chunk{term.x + first * term.channel_stride,
                           term.channel_stride,
                           term.row_stride,
                           term.column_stride,
                           is_staged ? shared + layout.staged : nullptr,
                           count,
                           shared,
                           task.thread_channels};
      with_channels(at_once,
                    [&](auto c) { convolve<T, K, decltype(c)::value>(chunk, pass, sums); });
      pass.first = false;
    }
  }

  // The octave convolution and its epilogue. Every thread keeps to its own pixels of `conv`.
  __device__ __forceinline__ void add_terms(const Sums& conv) const {
    const float* constants = shared + layout.constants;
    for (int i = task.last_input; i >= task.first_input; --i) {  // coarser ones first
      const OctaveTerm<T> term = make_term<T>(launch, task, launch.input[i], image);
      Pass pass{i == task.last_input, i == task.first_input, constants};
      Sums sums = conv;
      int at_once = task.thread_channels;
      const bool is_coarse = term.resample == Resample::kBilinearUp;
      if (is_coarse) {
        sums.data = shared + layout.coarse;
        sums.region = coarse_region(term, conv.region);
        at_once = kCoarseChannels;
      }
      add_convolution(launch.input[i], term, at_once,
                      {is_coarse || pass.first, !is_coarse && pass.last, constants}, sums);
      if (is_coarse) {
        __syncthreads();
        with_channels(task.thread_channels,
                      [&](auto c) { widen<decltype(c)::value>(sums, pass, conv); });
      }
    }
  }

  __device__ __forceinline__ void run() const {
    load_constants();
    const Sums conv{shared + layout.sums, tile.grown(kHalo), channels};
    add_terms(conv);
    __syncthreads();
    const float* constants = shared + layout.constants;
    const Sums first{shared + layout.coarse, tile.grown(1), channels};
    depthwise_stage(0, conv, constants, first.region, [&](int c, int row, int column, float value) {
      *first.at(c, row, column) = first.region.holds(row, column) ? value : 0.0f;
    });
    __syncthreads();
    T* y = static_cast<T*>(task.y) + image * task.stride[0] + first_channel * task.stride[1] +
           tile.row0 * task.stride[2] + tile.column0 * task.stride[3];
    depthwise_stage(1, first, constants, tile, [&](int c, int row, int column, float value) {
      if (!tile.holds(row, column)) return;
      y[c * task.stride[1] + row * task.stride[2] + column * task.stride[3]] = from_float<T>(value);
    });
  }
};

// An octave convolution and two depthwise 3 x 3 ones, each with its epilogue, for every output
// branch of some images. A block computes a tile; what lies between the layers stays in shared
// memory, and the pixels that neighbouring tiles both need there are computed by both.
template <typename T, int K>
__global__ void __launch_bounds__(kMaxBlockThreads, 2)
    il_block_fwd_kernel(__grid_constant__ const IlBlockLaunch launch) {
  KL_DYN_SHARED(float, shared);
  const uint32_t block = blockIdx.x % launch.image_blocks;
  int j = 0;
  while (j + 1 < launch.task_count && block >= launch.task[j + 1].first_block) ++j;
  IlBlock<T, K>(launch, launch.task[j], shared).run();
}

// All outputs in one launch, of as many images as a grid has blocks for. A multiprocessor is kept
// busy by `kBlocksEach` blocks. cudaErrorInvalidValue: no tile fits into shared memory.
template <typename T>
cudaError_t il_block_fwd(const IlBlockCall& call, int multiprocessors, cudaStream_t stream) {
  IlBlockPlan plan{};
  if (call.batch == 0) return cudaSuccess;
  if (!plan_il_block(call, int64_t{kBlocksEach} * multiprocessors, plan)) {
    return cudaErrorInvalidValue;
  }
  const auto kernel = call.kernel == 1 ? il_block_fwd_kernel<T, 1> : il_block_fwd_kernel<T, 3>;
  const int64_t most_images = std::max<int64_t>(1, INT32_MAX / plan.launch.image_blocks);
  for (int64_t image = 0; image < call.batch; image += most_images) {
    plan.launch.image = image;
    const int64_t images = std::min(most_images, call.batch - image);
    const auto blocks = static_cast<unsigned>(images * plan.launch.image_blocks);
    const cudaError_t status =
        kl_launch(kernel, dim3(blocks), dim3(plan.threads), plan.shared_bytes, stream, plan.launch);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

}  // namespace lmwp::cuda
