#pragma once

#include <bit>

#include "cuda/depthwise_scales_conv.cuh"

namespace lmwp::cuda {

inline constexpr int kWarps = kThreads / 32;
inline constexpr int64_t kTargetBlocks = 2048;  // a few for every place on a large GPU
inline constexpr int64_t kMaxParts = 512;       // of one channel, so that adding them stays cheap

// One branch of the second half of the backward pass, as the caller gives it. Sizes are those of x;
// dy and dz are [N, C, ceil(H / S), ceil(W / S)]. The data of dz, and of every gradient, is null
// where it is not wanted.
struct DepthwiseGradTensors {
  InMap x, dy;
  OutMap dz;
  Param weight, scale, shift, slope;
  OutParam grad_weight, grad_scale, grad_shift, grad_slope;

  __host__ __device__ bool wants_weight() const { return grad_weight.data != nullptr; }
  __host__ __device__ bool wants_epilogue() const {
    return grad_scale.data != nullptr || grad_shift.data != nullptr || grad_slope.data != nullptr;
  }
  __host__ __device__ bool wants_sums() const { return wants_weight() || wants_epilogue(); }
  // Whether z, the convolution, is needed.
  __host__ __device__ bool needs_z() const {
    return slope.data != nullptr || grad_scale.data != nullptr;
  }
};
struct DepthwiseGradBranch : DepthwiseGradTensors {
  int64_t batch, channels, height, width;
};

// The sums of a channel: K * K of the weight, then those of scale, shift and slope. Each thread
// keeps its own in a column of shared memory, sums[kThreads * n], since registers are too few.
template <int K>
inline constexpr int kSums = K * K + 3;

// Dynamic shared memory in floats: all sums, then the weights of a block, then the tile.
template <int K>
__host__ __device__ constexpr int weight_floats(int lanes) {
  return (lanes * K * K + 3) / 4 * 4;
}
template <int K>
constexpr int fixed_bytes(int lanes) {
  return static_cast<int>(sizeof(float)) * (kThreads * kSums<K> + weight_floats<K>(lanes));
}
inline constexpr int kMaxSharedBytes = 48 << 10;

// Output rows of one thread: fewer than forward where rows of sums take many registers.
template <int K, int S>
inline constexpr int kGradRows = K > 3 ? 1 : kRows<S>;

// Rows of taps that R output rows are adding to at a time.
template <int S, int R>
inline constexpr int kLiveRows = S * (R - 1) + 1;

// A branch as the kernel reads it. A block serves `lanes` neighbouring channels, one where a row is
// contiguous, and one part of their pixels: `steps` sweeps of its threads over tiles, or over
// columns of R rows. Its sums are partials[part][channel][kSums].
struct DepthwiseGradTask : DepthwiseGradTensors, BlockRange {
  int channels, height, width, out_height, out_width, dilation;
  bool tiled;
  Tiling tiling;
  int lanes;
  int sweeps, steps, parts;  // sweeps over all pixels of a channel, those of a block, and blocks
  int64_t batch;
  uint32_t plane_items;  // direct: columns of R rows in a plane
  float* partials;
};

// dz of one output; adds to the sums of scale, shift and slope.
__device__ __forceinline__ float backward_epilogue(float z, float dy, const Affine& affine,
                                                   float (&sums)[3]) {
  const float u = affine.scale * z + affine.shift;
  const bool positive = u > 0.0f;
  const float du = positive ? dy : affine.slope * dy;
  sums[0] += du * z;
  sums[1] += du;
  sums[2] += positive ? 0.0f : dy * u;
  return affine.scale * du;
}

template <int K>
__device__ __forceinline__ void add_epilogue_sums(float* sums, const float (&epilogue_sums)[3]) {
#pragma unroll
  for (int n = 0; n < 3; ++n) sums[kThreads * (K * K + n)] += epilogue_sums[n];
}

// Adds dz of every output row i times the input in row m that each tap reads for it. A row of taps
// stays in `live` until it has seen all outputs, then goes to the thread's sums.
template <int K, int S, int R, int V, typename Column>
__device__ __forceinline__ void correlate_row(float (&live)[kLiveRows<S, R>][K], float* sums,
                                              const float (&dz)[R][V], int m, Column column) {
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int ky = m - S * i;
    if (ky < 0 || ky >= K) continue;
#pragma unroll
    for (int j = 0; j < K; ++j) {
#pragma unroll
      for (int v = 0; v < V; ++v) live[ky % kLiveRows<S, R>][j] += dz[i][v] * column(v, j);
    }
  }
  const int complete = m - S * (R - 1);
  if (complete < 0) return;
#pragma unroll
  for (int j = 0; j < K; ++j) {
    float& sum = live[complete % kLiveRows<S, R>][j];
    sums[kThreads * (complete * K + j)] += sum;
    sum = 0.0f;
  }
}

// Sweeps of tiles, staged as in the forward pass.
template <typename T, int K, int S>
__device__ __forceinline__ void sum_tiles(const DepthwiseGradTask& task, int64_t channel, int part,
                                          uint4* tile, const float* weight, float* sums) {
  constexpr int R = kGradRows<K, S>;
  constexpr int V = kLanes<T>;
  const Tiling& tiling = task.tiling;
  const int tiles = tiling.tiles_x * tiling.tiles_y;
  const int limit = (part + 1) * task.steps;
  const int end = limit < task.sweeps ? limit : task.sweeps;
#pragma unroll 1
  for (int sweep = part * task.steps; sweep < end; ++sweep) {
    const int64_t image = sweep / tiles;
    const TilePlace place = place_in_tile(tiling, sweep % tiles);
    __syncthreads();
    stage_tile<T, K, S, R>(plane_of<T>(task.x, image, channel), task.x.stride[2], task.height,
                           task.width, tiling, place, tile);
    kl_copy_wait();
    __syncthreads();

    const int vector = place.vector0 + place.vector;
    if (place.group >= tiling.groups || vector >= task.out_width / V) continue;
    float dz[R][V] = {};
    if (task.needs_z()) {
      for_tile_rows<T, K, S, R>(tile, tiling, place, [&](int m, auto column) {
        accumulate_row<K, S>(dz, weight, m, column);
      });
    }
    const Affine affine = load_affine<T>(task, channel);
    float epilogue_sums[3] = {};
    const int row = R * (place.group0 + place.group);
    const T* from = plane_of<T>(task.dy, image, channel) + row * task.dy.stride[2] + vector * V;
    T* to = plane_of<T>(task.dz, image, channel) + row * task.dz.stride[2] + vector * V;
#pragma unroll
    for (int i = 0; i < R; ++i) {
      Lanes<T> lanes;
      const bool inside = row + i < task.out_height;
      if (inside) lanes.bits = *reinterpret_cast<const uint4*>(from + i * task.dy.stride[2]);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const float dy = to_float(lanes.lane[v]);
        dz[i][v] = inside ? backward_epilogue(dz[i][v], dy, affine, epilogue_sums) : 0.0f;
        lanes.lane[v] = from_float<T>(dz[i][v]);
      }
      if (inside && task.dz.data != nullptr) {
        kl_store16(reinterpret_cast<uint4*>(to + i * task.dz.stride[2]), lanes.bits);
      }
    }
    add_epilogue_sums<K>(sums, epilogue_sums);
    if (task.wants_weight()) {
      float live[kLiveRows<S, R>][K] = {};
      for_tile_rows<T, K, S, R>(tile, tiling, place, [&](int m, auto column) {
        correlate_row<K, S>(live, sums, dz, m, column);
      });
    }
  }
}

// Sweeps of columns of R rows: any strides, width, alignment and dilation.
template <typename T, int K, int S>
__device__ __forceinline__ void sum_columns(const DepthwiseGradTask& task, int64_t channel,
                                            int part, const float* weight, float* sums) {
  constexpr int R = kGradRows<K, S>;
  const int slots = kThreads / task.lanes;
  const int64_t first = int64_t{part} * task.steps * slots;
  const int64_t limit = first + int64_t{task.steps} * slots;
  const int64_t items = task.batch * task.plane_items;
  const int64_t end = limit < items ? limit : items;
  int64_t item = first + threadIdx.x / task.lanes;
#pragma unroll 1
  for (; item < end; item += slots) {
    const int64_t image = item / task.plane_items;
    const uint32_t rest = static_cast<uint32_t>(item - image * task.plane_items);
    const int column = static_cast<int>(rest % task.out_width);
    const int row0 = first_row<R>(static_cast<int>(rest / task.out_width), task.dilation);
    const T* x = plane_of<T>(task.x, image, channel);
    float dz[R][1] = {};
    if (task.needs_z()) {
      for_map_rows<T, K, S, R>(
          x, task.x.stride, task.height, task.width, task.dilation, row0, column,
          [&](int m, auto window) { accumulate_row<K, S>(dz, weight, m, window); });
    }
    const Affine affine = load_affine<T>(task, channel);
    float epilogue_sums[3] = {};
    const T* from = plane_of<T>(task.dy, image, channel) + column * task.dy.stride[3];
    T* to = plane_of<T>(task.dz, image, channel) + column * task.dz.stride[3];
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int row = row0 + i * task.dilation;
      const bool inside = row < task.out_height;
      const float dy = inside ? to_float(from[row * task.dy.stride[2]]) : 0.0f;
      dz[i][0] = inside ? backward_epilogue(dz[i][0], dy, affine, epilogue_sums) : 0.0f;
      if (inside && task.dz.data != nullptr) to[row * task.dz.stride[2]] = from_float<T>(dz[i][0]);
    }
    add_epilogue_sums<K>(sums, epilogue_sums);
    if (task.wants_weight()) {
      float live[kLiveRows<S, R>][K] = {};
      for_map_rows<T, K, S, R>(
          x, task.x.stride, task.height, task.width, task.dilation, row0, column,
          [&](int m, auto window) { correlate_row<K, S>(live, sums, dz, m, window); });
    }
  }
}

// Adds up the sums of all threads of a channel in a fixed order and writes the part; a warp takes
// every kWarps-th of them.
template <int K>
__device__ __forceinline__ void write_part(const DepthwiseGradTask& task, int channel0, int part,
                                           const float* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first = task.wants_weight() ? 0 : K * K;
  const int last = task.wants_epilogue() ? kSums<K> : K * K;
  for (int n = first + warp; n < last; n += kWarps) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += sums[kThreads * n + 32 * w + lane];
    for (int step = 16; step >= task.lanes; step /= 2) sum += __shfl_down_sync(~0u, sum, step);
    const int channel = channel0 + lane;
    if (lane < task.lanes && channel < task.channels) {
      task.partials[(int64_t{part} * task.channels + channel) * kSums<K> + n] = sum;
    }
  }
}

// dz, and the partial sums of the parameters' gradients; a block serves one branch.
template <typename T, int K, int S>
__global__ void __launch_bounds__(kThreads, kMinBlocks)
    depthwise_scales_bwd_weight_kernel(__grid_constant__ const Tasks<DepthwiseGradTask> tasks) {
  KL_DYN_SHARED(float, shared);
  const DepthwiseGradTask& task = task_of_block(tasks);
  const int thread = static_cast<int>(threadIdx.x);
  const int block = static_cast<int>(blockIdx.x - task.first_block);
  const int part = block % task.parts;
  const int channel0 = block / task.parts * task.lanes;
  float* const weights = shared + kThreads * kSums<K>;
  float* const sums = shared + thread;
  for (int i = thread; i < task.lanes * K * K; i += kThreads) {
    const int64_t tap = int64_t{channel0} * K * K + i;
    weights[i] =
        tap < int64_t{task.channels} * K * K ? load_param<T>(task.weight, tap, 0.0f) : 0.0f;
  }
#pragma unroll
  for (int n = 0; n < kSums<K>; ++n) sums[kThreads * n] = 0.0f;
  __syncthreads();
  const int lane = thread % task.lanes;
  const int64_t channel = channel0 + lane;
  if (channel < task.channels) {
    const float* weight = weights + lane * K * K;
    if (task.tiled) {
      uint4* tile = reinterpret_cast<uint4*>(weights + weight_floats<K>(1));
      sum_tiles<T, K, S>(task, channel, part, tile, weight, sums);
    } else {
      sum_columns<T, K, S>(task, channel, part, weight, sums);
    }
  }
  if (!task.wants_sums()) return;
  __syncthreads();
  write_part<K>(task, channel0, part, shared);
}

// The last sum: eight values a block, sixteen threads each, over the parts of every channel.
inline constexpr int kSumValues = 8;
inline constexpr int kSumSlices = kThreads / kSumValues;

struct DepthwiseSumTask : BlockRange {
  const float* partials;
  int parts, channels, taps;
  OutParam grad_weight, grad_scale, grad_shift, grad_slope;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    depthwise_scales_bwd_sum_kernel(__grid_constant__ const Tasks<DepthwiseSumTask> tasks) {
  KL_SHARED(float, of_slice, [kThreads]);
  const DepthwiseSumTask& task = task_of_block(tasks);
  const int thread = static_cast<int>(threadIdx.x);
  const int values = task.taps + 3;
  const int64_t count = int64_t{task.channels} * values;
  const int64_t at = int64_t{blockIdx.x - task.first_block} * kSumValues + thread % kSumValues;
  const int64_t channel = at / values;
  const int value = static_cast<int>(at % values);
  const OutParam& grad = value < task.taps        ? task.grad_weight
                         : value == task.taps     ? task.grad_scale
                         : value == task.taps + 1 ? task.grad_shift
                                                  : task.grad_slope;
  const bool wanted = at < count && grad.data != nullptr;
  float sum = 0.0f;
  if (wanted) {
    for (int part = thread / kSumValues; part < task.parts; part += kSumSlices) {
      sum += task.partials[part * count + at];
    }
  }
  of_slice[thread] = sum;
  __syncthreads();
  if (!wanted || thread >= kSumValues) return;
  for (int slice = 1; slice < kSumSlices; ++slice) sum += of_slice[slice * kSumValues + thread];
  store_param<T>(grad, value < task.taps ? channel * task.taps + value : channel, sum);
}

// Everything of a task but the division into parts. False: beyond the index range.
template <typename T, int K, int S>
bool plan_sweeps(const DepthwiseGradBranch& branch, int64_t dilation, DepthwiseGradTask& task) {
  constexpr int R = kGradRows<K, S>;
  static_cast<DepthwiseGradTensors&>(task) = branch;
  if (!plan_sizes<S>(branch, dilation, task)) return false;
  task.batch = branch.batch;
  task.lanes = 1;
  const int64_t vectors = task.out_width / kLanes<T>;
  const int64_t groups = ceil_div(task.out_height, R);
  int64_t sweeps;
  if (task.dilation == 1 && vectors * groups >= kMinTileThreads &&
      is_vectorised<T>(task.x, task.width) && is_vectorised<T>(task.dy, task.out_width) &&
      (task.dz.data == nullptr || is_vectorised<T>(task.dz, task.out_width))) {
    task.tiling = plan_tiles(vectors, groups);
    task.shared_bytes =
        fixed_bytes<K>(1) + tile_bytes<K, S, R>(task.tiling.vectors, task.tiling.groups);
    task.tiled = task.shared_bytes <= kMaxSharedBytes;
  }
  if (task.tiled) {
    sweeps = task.batch * task.tiling.tiles_x * task.tiling.tiles_y;
  } else {
    const int64_t items = direct_items(task.out_height, task.out_width, task.dilation, R);
    if (items > UINT32_MAX) return false;
    task.plane_items = static_cast<uint32_t>(items);
    if (task.x.stride[1] == 1) {
      task.lanes = static_cast<int>(std::bit_ceil(std::min(32u, unsigned(task.channels))));
    }
    task.shared_bytes = fixed_bytes<K>(task.lanes);
    sweeps = ceil_div(task.batch * items * task.lanes, kThreads);
  }
  if (sweeps > INT32_MAX / 2) return false;
  task.sweeps = static_cast<int>(sweeps);
  return true;
}

// Tasks of all branches. False: beyond the index range.
template <typename T, int K, int S>
bool plan_gradients(const std::vector<DepthwiseGradBranch>& branches, int64_t dilation,
                    std::vector<DepthwiseGradTask>& tasks) {
  tasks.assign(branches.size(), DepthwiseGradTask{});
  int64_t sweeps = 0;
  for (std::size_t b = 0; b < branches.size(); ++b) {
    DepthwiseGradTask& task = tasks[b];
    if (!plan_sweeps<T, K, S>(branches[b], dilation, task)) return false;
    sweeps += task.sweeps * ceil_div(task.channels, task.lanes);
  }
  const int64_t steps = std::max(int64_t{1}, ceil_div(sweeps, kTargetBlocks));
  for (DepthwiseGradTask& task : tasks) {
    task.steps = static_cast<int>(
        std::max(std::min(steps, int64_t{task.sweeps}), ceil_div(task.sweeps, kMaxParts)));
    task.parts = static_cast<int>(ceil_div(task.sweeps, std::max(task.steps, 1)));
    const int64_t blocks = task.parts * ceil_div(task.channels, task.lanes);
    if (blocks > INT32_MAX) return false;
    task.block_count = static_cast<uint32_t>(blocks);
  }
  return true;
}

// The partial sums of a task, in floats.
template <int K>
int64_t partial_floats(const DepthwiseGradTask& task) {
  return task.wants_sums() ? int64_t{task.parts} * task.channels * kSums<K> : 0;
}

template <typename T, int K, int S>
cudaError_t launch_depthwise_scales_bwd_weight(const std::vector<DepthwiseGradBranch>& branches,
                                               int64_t dilation, float* scratch,
                                               cudaStream_t stream) {
  static_assert(fixed_bytes<K>(32) <= kMaxSharedBytes);
  std::vector<DepthwiseGradTask> tasks;
  if (!plan_gradients<T, K, S>(branches, dilation, tasks)) return cudaErrorInvalidValue;
  std::vector<DepthwiseSumTask> last;
  for (DepthwiseGradTask& task : tasks) {
    if (!task.wants_sums()) continue;
    task.partials = scratch;
    scratch += partial_floats<K>(task);
    const int64_t blocks = ceil_div(int64_t{task.channels} * kSums<K>, kSumValues);
    last.push_back({{0, static_cast<uint32_t>(blocks), 0},
                    task.partials,
                    task.parts,
                    task.channels,
                    K * K,
                    task.grad_weight,
                    task.grad_scale,
                    task.grad_shift,
                    task.grad_slope});
  }
  const cudaError_t status =
      launch_branches(depthwise_scales_bwd_weight_kernel<T, K, S>, tasks, stream);
  if (status != cudaSuccess) return status;
  return launch_branches(depthwise_scales_bwd_sum_kernel<T>, last, stream);
}

// Floats of scratch memory that depthwise_scales_bwd_weight needs; -1 where it would fail.
template <typename T, typename Sizes = KernelSizes>
int64_t depthwise_scales_bwd_weight_scratch(const std::vector<DepthwiseGradBranch>& branches,
                                            int kernel, int stride, int64_t dilation) {
  int64_t floats = -1;
  for_kernel_and_stride(Sizes{}, kernel, stride, [&](auto k, auto s) {
    std::vector<DepthwiseGradTask> tasks;
    if (!plan_gradients<T, k(), s()>(branches, dilation, tasks)) return cudaErrorInvalidValue;
    floats = 0;
    for (const DepthwiseGradTask& task : tasks) floats += partial_floats<k()>(task);
    return cudaSuccess;
  });
  return floats;
}

// dz and the gradients of the parameters that are wanted, all branches in one launch, then the last
// sums in another, for every kMaxBranches of them. Limits and errors are those of
// depthwise_scales_fwd.
template <typename T, typename Sizes = KernelSizes>
cudaError_t depthwise_scales_bwd_weight(const std::vector<DepthwiseGradBranch>& branches,
                                        int kernel, int stride, int64_t dilation, float* scratch,
                                        cudaStream_t stream) {
  return for_kernel_and_stride(Sizes{}, kernel, stride, [&](auto k, auto s) {
    return launch_depthwise_scales_bwd_weight<T, k(), s()>(branches, dilation, scratch, stream);
  });
}

}  // namespace lmwp::cuda
