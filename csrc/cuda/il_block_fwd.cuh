#pragma once

#include "cuda/tile_conv.cuh"

namespace lmwp::cuda {

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
  return {top, left, bottom - top + 1, right - left + 1, term.rows.in, term.columns.in};
}

// A pixel of planes that lie one behind the other; stepping costs no division.
struct PlaneCursor {
  int plane, row, column;

  __device__ __forceinline__ PlaneCursor(int i, int rows, int columns)
      : plane(i / (rows * columns)), row(i / columns % rows), column(i % columns) {}
  __device__ __forceinline__ void advance(const PlaneCursor& step, int rows, int columns) {
    plane += step.plane;
    row += step.row;
    column += step.column;
    if (column >= columns) {
      column -= columns;
      ++row;
    }
    if (row >= rows) {
      row -= rows;
      ++plane;
    }
  }
};

// Calls work(C) with the channels of a thread as a compile-time constant.
template <int K, typename Work>
__device__ __forceinline__ void with_channels(int channels, Work work) {
  if (channels == 4) {
    work(std::integral_constant<int, 4>{});
  } else if (channels == 8 || most_thread_channels(K) == 8) {
    work(std::integral_constant<int, 8>{});
  } else {
    work(std::integral_constant<int, most_thread_channels(K)>{});
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
    const int rows = staged_rows(region.rows, K), threads = static_cast<int>(blockDim.x);
    const PlaneCursor step(threads, rows, grown.columns);
    float* staged = shared + layout.staged;
    term.with_reader([&](auto read) {
      PlaneCursor at(static_cast<int>(threadIdx.x), rows, grown.columns);
      for (int i = static_cast<int>(threadIdx.x); at.plane < count; i += kInFlight * threads) {
        float value[kInFlight];
        PlaneCursor next = at;
#pragma unroll
        for (int n = 0; n < kInFlight; ++n) {
          value[n] = 0.0f;
          if (next.plane < count && next.row < grown.rows && grown.holds(next.row, next.column)) {
            value[n] = read(term.plane(first + next.plane), grown.row0 + next.row,
                            grown.column0 + next.column);
          }
          next.advance(step, rows, grown.columns);
        }
#pragma unroll
        for (int n = 0; n < kInFlight; ++n) {
          if (i + n * threads < count * rows * grown.columns) staged[i + n * threads] = value[n];
        }
        at = next;
      }
    });
  }

  // sums += the convolution of one input branch, `at_once` output channels at a time.
  __device__ __forceinline__ void add_convolution(const OctaveInput& input,
                                                  const OctaveTerm<T>& term, int at_once, Pass pass,
                                                  const Sums& sums) const {
    const bool ends = pass.last, is_staged = K == 3 || term.entry_pool || !term.keeps_size();
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
      with_channels<K>(at_once,
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
        with_channels<K>(task.thread_channels,
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
