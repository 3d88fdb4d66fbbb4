#pragma once

#include <algorithm>
#include <type_traits>

#include "cuda/octave_term.cuh"

namespace lmwp::cuda {

inline constexpr int kMaxScales = 8;
inline constexpr int kLayers = 3;          // the octave convolution and two depthwise ones
inline constexpr int kHalo = 2;            // pixels around a tile that the depthwise ones reach
inline constexpr int kThreadRows = 4;      // pixels of a thread, one below the other
inline constexpr int kCoarseChannels = 4;  // of a thread, in a term of a coarser scale
inline constexpr int kMinBlockThreads = 128, kMaxBlockThreads = 256;
inline constexpr int kBlocksEach = 2;  // of a multiprocessor, before tiles are cut finer
inline constexpr int kMaxTileColumns = 32;
// Input channels whose weights, or weights and pixels, are staged together.
inline constexpr int kMaxWeightChunk = 64, kMaxPixelChunk = 8;
inline constexpr int kInFlight = 4;  // staged pixels that a thread waits for together
inline constexpr int kSharedFloats = (48 << 10) / sizeof(float);
inline constexpr int kConstants = 9 * (kLayers - 1) + 3 * kLayers;  // of one channel
inline constexpr int kMaxSide = 1 << 20;  // beyond, positions of a resize are not exact to a pixel

__host__ __device__ constexpr int round_up(int a, int b) { return quotient_up(a, b) * b; }

// One output branch: scale, shift and slope of every layer, [channels], the depthwise weights,
// [channels, 3, 3], all contiguous.
struct OctaveOutput {
  void* y;  // [N, channels, height, width] of any strides, in elements
  int64_t stride[4];
  Param scale[kLayers], shift[kLayers], slope[kLayers], depthwise[kLayers - 1];
  int channels, height, width;
  int branch;  // as OctaveInput::scale
  int row;     // of the first channel in the weight
};

// A call; present branches only, finest first.
struct IlBlockCall {
  OctaveInput input[kMaxScales];
  OctaveOutput output[kMaxScales];
  int input_count, output_count;
  Param weight;  // [sum of output channels, columns, kernel, kernel], contiguous
  int columns;
  int kernel;  // 1 or 3
  int64_t batch;
  bool entry_pool;     // every input is first averaged 2 x 2
  bool cross_scale;    // otherwise outputs see only the input of their own scale
  bool bilinear_down;  // otherwise finer inputs are pooled by maxima and sizes halve per scale
};

// How one output is cut. A block computes a tile of `group_channels` channels; each of its threads
// computes all of them, padded to 4, 8 or 12, for kThreadRows pixels of the octave convolution.
struct IlBlockTask : OctaveOutput {
  uint32_t first_block;
  int tiles_x, tiles_y, tile_rows, tile_columns;
  int groups, group_channels, thread_channels;
  int first_input, last_input;
  int chunk;          // input channels staged together
  int coarse_pixels;  // room for one channel of a coarser term's result

  __host__ __device__ int conv_rows() const { return tile_rows + 2 * kHalo; }
  __host__ __device__ int conv_columns() const { return tile_columns + 2 * kHalo; }
  int conv_items() const { return quotient_up(conv_rows(), kThreadRows) * conv_columns(); }
  int64_t blocks() const { return int64_t{tiles_x} * tiles_y * groups; }
};

// What the kernel takes: the blocks of all outputs, from one image on.
struct IlBlockLaunch {
  OctaveInput input[kMaxScales];
  IlBlockTask task[kMaxScales];
  int task_count;
  uint32_t image_blocks;  // of one image
  int64_t image;          // the first one
  Param weight;
  int columns;
  bool entry_pool, bilinear_down;
};
static_assert(sizeof(IlBlockLaunch) <= 4096, "kernel parameters have 4 KB");

// Rows of a tile and most channels of a thread.
struct Cut {
  int rows, channels;
};

inline constexpr int kTileRows[] = {12, 8, 4};

// Channels of a thread whose sums and pixels fit into its registers.
__host__ __device__ constexpr int most_thread_channels(int kernel) { return kernel == 1 ? 12 : 8; }

// Instructions of a thread per input channel: products, loads of weights, and what its pixels cost
// to load, or to stage and to load.
constexpr int thread_cost(int channels, int kernel) {
  const int products = kThreadRows * channels, weights = channels / 4;
  return kernel * kernel * (products + weights) + (kernel == 1 ? 2 * kThreadRows : 120);
}

// The most channels of a thread with which an output of `width` channels costs least.
inline int best_thread_channels(int width, int kernel) {
  const auto cost = [&](int most) {
    const int groups = quotient_up(width, most);
    return groups * thread_cost(round_up(quotient_up(width, groups), 4), kernel);
  };
  int best = most_thread_channels(kernel);
  for (const int channels : {8, 4}) best = cost(channels) < cost(best) ? channels : best;
  return best;
}

// Pixels of a coarser input, on one side, that `pixels` neighbours of an output are mixed from.
inline int reached(int pixels, int in, int out) {
  const int64_t span = int64_t{pixels - 1} * in / out + 4;
  return static_cast<int>(std::min<int64_t>(span, in));
}

// Rows and floats of one staged input channel of a K x K convolution over `rows` x `columns`
// pixels.
__host__ __device__ inline int staged_rows(int rows, int kernel) {
  return round_up(rows, kThreadRows) + kernel - 1;
}
__host__ __device__ inline int staged_pixels(int rows, int columns, int kernel) {
  return staged_rows(rows, kernel) * (columns + kernel - 1);
}

// Where a block keeps what in shared memory, as offsets in floats.
struct SharedLayout {
  int constants, sums, coarse, staged, end;
  // Behind the weights, which start at 0. The first depthwise stage's result replaces what the
  // coarser terms and the staged pixels needed.
  __host__ __device__ SharedLayout(const IlBlockTask& task, int kernel) {
    const int channels = task.group_channels;
    constants = task.chunk * kernel * kernel * task.thread_channels;
    sums = constants + channels * kConstants;
    coarse = sums + channels * task.conv_rows() * task.conv_columns();
    staged = coarse + channels * task.coarse_pixels;
    end = coarse + channels * round_up(task.conv_rows() - kHalo, kThreadRows) *
                       (task.conv_columns() - kHalo);
  }
};

// False where a block would need more shared memory than there is.
inline bool plan_task(const IlBlockCall& call, const OctaveOutput& output, Cut cut,
                      IlBlockTask& task, int& shared_floats) {
  static_cast<OctaveOutput&>(task) = output;
  task.tiles_x = quotient_up(output.width, kMaxTileColumns);
  task.tile_columns = quotient_up(output.width, task.tiles_x);
  task.tiles_y = quotient_up(output.height, cut.rows);
  task.tile_rows = round_up(quotient_up(output.height, task.tiles_y), kThreadRows);
  task.groups = quotient_up(output.channels, cut.channels);
  task.group_channels = quotient_up(output.channels, task.groups);
  task.thread_channels = round_up(task.group_channels, 4);

  task.first_input = call.input_count;
  task.last_input = -1;
  task.coarse_pixels = 0;
  int most_channels = 0, staged = 0;
  for (int i = 0; i < call.input_count; ++i) {
    const OctaveInput& input = call.input[i];
    if (!call.cross_scale && input.scale != output.branch) continue;
    task.first_input = std::min(task.first_input, i);
    task.last_input = i;
    most_channels = std::max(most_channels, input.channels);
    int rows = task.conv_rows(), columns = task.conv_columns();
    if (input.scale > output.branch) {
      rows = reached(rows, input.height, output.height);
      columns = reached(columns, input.width, output.width);
      task.coarse_pixels = std::max(task.coarse_pixels, round_up(rows, kThreadRows) * columns);
    }
    if (call.kernel == 3 || call.entry_pool || input.scale < output.branch) {
      staged = std::max(staged, staged_pixels(rows, columns, call.kernel));
    }
  }
  task.chunk = std::min(most_channels, staged ? kMaxPixelChunk : kMaxWeightChunk);
  for (; task.chunk > 0; --task.chunk) {
    const SharedLayout layout(task, call.kernel);
    shared_floats = std::max(layout.end, layout.staged + task.chunk * staged);
    if (shared_floats <= kSharedFloats) return true;
  }
  return false;
}

struct IlBlockPlan {
  IlBlockLaunch launch;
  int threads, shared_bytes;
};

inline bool plan_cut(const IlBlockCall& call, int rows, int most_channels, IlBlockPlan& plan) {
  int64_t blocks = 0;
  plan.shared_bytes = 0;
  plan.threads = kMinBlockThreads;
  plan.launch.task_count = call.output_count;
  for (int j = 0; j < call.output_count; ++j) {
    const int best = best_thread_channels(call.output[j].channels, call.kernel);
    const int channels = std::min(most_channels, best);
    IlBlockTask& task = plan.launch.task[j];
    int floats = 0;
    if (!plan_task(call, call.output[j], {rows, channels}, task, floats)) return false;
    task.first_block = static_cast<uint32_t>(blocks);
    blocks += task.blocks();
    if (blocks > INT32_MAX) return false;
    plan.threads =
        std::max(plan.threads, std::min(round_up(task.conv_items(), 32), kMaxBlockThreads));
    plan.shared_bytes = std::max(plan.shared_bytes, floats * static_cast<int>(sizeof(float)));
  }
  plan.launch.image_blocks = static_cast<uint32_t>(blocks);
  return true;
}

// The coarsest cut that gives `wanted_blocks`, else the finest. False where none fits into shared
// memory, which happens only where a coarser branch is much larger than half a finer one.
inline bool plan_il_block(const IlBlockCall& call, int64_t wanted_blocks, IlBlockPlan& plan) {
  std::copy_n(call.input, call.input_count, plan.launch.input);
  plan.launch.weight = call.weight;
  plan.launch.columns = call.columns;
  plan.launch.entry_pool = call.entry_pool;
  plan.launch.bilinear_down = call.bilinear_down;
  for (const int rows : kTileRows) {
    if (plan_cut(call, rows, most_thread_channels(call.kernel), plan) &&
        plan.launch.image_blocks * call.batch >= wanted_blocks) {
      return true;
    }
  }
  return plan_cut(call, kTileRows[2], 4, plan);
}

}  // namespace lmwp::cuda
