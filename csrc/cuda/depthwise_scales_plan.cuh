#pragma once

#include <algorithm>

#include "cuda/lanes.cuh"

namespace lmwp::cuda {

inline constexpr int kThreads = 128;
inline constexpr int kMaxBranches = 8;
inline constexpr int kMaxTileVectors = 16;
inline constexpr int64_t kMinTileThreads = 64;  // fewer leave too much of a tile's block idle
// Rows, columns and channels stay int32 with room for the halo; addresses are 64-bit.
inline constexpr int64_t kMaxExtent = int64_t{1} << 26;

// Output rows of one thread, `dilation` apart so that they share input rows.
template <int S>
inline constexpr int kRows = S == 1 ? 4 : 2;

inline constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// x is [N, C, H, W] and y [N, C, ceil(H / S), ceil(W / S)] of any strides, in elements; weight is
// [C, K, K] and the other parameters [C], all contiguous.
struct DepthwiseTensors {
  const void* x;
  void* y;
  int64_t x_stride[4], y_stride[4];
  Param weight, scale, shift, slope;
};

// One branch as the caller gives it.
struct DepthwiseBranch : DepthwiseTensors {
  int64_t batch, channels, height, width;
};

// One branch as the kernel reads it. A tiled branch stages 16-byte vectors of x through shared
// memory. A direct one reads x through the L1 cache, neighbouring lanes on neighbouring columns,
// or on neighbouring channels where those are innermost (interleaved) in memory.
struct DepthwiseTask : DepthwiseTensors {
  uint32_t first_block, block_count;
  int channels, height, width, out_height, out_width, dilation;
  bool tiled, interleaved;
  int tiles_x, tiles_y, tile_vectors, tile_groups;  // tiled: vectors and row groups of a tile
  int64_t planes;                                   // direct: images, or channels of images
  uint32_t plane_items;                             // direct: threads of a plane
};

struct DepthwiseTasks {
  DepthwiseTask task[kMaxBranches];
  int count;
};

// Vectors of halo on either side of a tile: whole ones keep every shared access aligned.
template <int K>
inline constexpr int kHaloVectors = K == 1 ? 0 : 1;

template <int K, int S>
__host__ __device__ constexpr int tile_in_vectors(int tile_vectors) {
  return S * tile_vectors + 2 * kHaloVectors<K>;
}

template <int K, int S>
__host__ __device__ constexpr int tile_in_rows(int tile_groups) {
  return S * (tile_groups * kRows<S> - 1) + K;
}

template <int K, int S>
constexpr int tile_bytes(int tile_vectors, int tile_groups) {
  return static_cast<int>(sizeof(uint4)) * tile_in_vectors<K, S>(tile_vectors) *
         tile_in_rows<K, S>(tile_groups);
}

// The largest tile that any map can lead to.
template <int K, int S>
constexpr int max_tile_bytes() {
  int bytes = 0;
  for (int vectors = 1; vectors <= kMaxTileVectors; ++vectors) {
    bytes = std::max(bytes, tile_bytes<K, S>(vectors, kThreads / vectors));
  }
  return bytes;
}

// Whether every row starts on 16 bytes and is whole vectors long.
template <typename T>
bool is_vectorised(const void* data, const int64_t* stride, int64_t width) {
  return reinterpret_cast<uintptr_t>(data) % sizeof(uint4) == 0 && stride[3] == 1 &&
         stride[0] % kLanes<T> == 0 && stride[1] % kLanes<T> == 0 && stride[2] % kLanes<T> == 0 &&
         width % kLanes<T> == 0;
}

// Cuts a map into tiles of equal size; returns their number.
template <typename T>
int64_t plan_tiles(DepthwiseTask& task, int64_t vectors, int64_t groups) {
  task.tiles_x = static_cast<int>(ceil_div(vectors, kMaxTileVectors));
  task.tile_vectors = static_cast<int>(ceil_div(vectors, task.tiles_x));
  task.tiles_y = static_cast<int>(ceil_div(groups, kThreads / task.tile_vectors));
  task.tile_groups = static_cast<int>(ceil_div(groups, task.tiles_y));
  return int64_t{task.tiles_x} * task.tiles_y;
}

// False where the branch exceeds the index range.
template <typename T, int S>
bool plan_branch(const DepthwiseBranch& branch, int64_t dilation, DepthwiseTask& task) {
  if (std::max({branch.height, branch.width, branch.channels}) > kMaxExtent) return false;
  static_cast<DepthwiseTensors&>(task) = branch;
  task.channels = static_cast<int>(branch.channels);
  task.height = static_cast<int>(branch.height);
  task.width = static_cast<int>(branch.width);
  task.out_height = static_cast<int>(ceil_div(branch.height, S));
  task.out_width = static_cast<int>(ceil_div(branch.width, S));
  // Beyond the map every tap but the centre reads padding, whatever the dilation.
  task.dilation = static_cast<int>(std::min(dilation, std::max(branch.height, branch.width)));

  const int64_t vectors = task.out_width / kLanes<T>;
  const int64_t groups = ceil_div(task.out_height, kRows<S>);
  task.tiled = task.dilation == 1 && vectors * groups >= kMinTileThreads &&
               is_vectorised<T>(task.x, task.x_stride, task.width) &&
               is_vectorised<T>(task.y, task.y_stride, task.out_width);
  task.planes = branch.batch * branch.channels;
  int64_t blocks;
  if (task.tiled) {
    blocks = task.planes * plan_tiles<T>(task, vectors, groups);
  } else {
    const int64_t step = int64_t{kRows<S>} * task.dilation;
    int64_t items = ceil_div(task.out_height, step) * task.dilation * task.out_width;
    if (items > UINT32_MAX) return false;
    task.interleaved = task.y_stride[1] == 1 && items * branch.channels <= UINT32_MAX;
    if (task.interleaved) {
      items *= branch.channels;
      task.planes = branch.batch;
    }
    task.plane_items = static_cast<uint32_t>(items);
    blocks = ceil_div(task.planes * items, kThreads);
  }
  if (blocks > INT32_MAX) return false;
  task.block_count = static_cast<uint32_t>(blocks);
  return true;
}

}  // namespace lmwp::cuda
