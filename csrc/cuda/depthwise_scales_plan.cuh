#pragma once

#include <algorithm>

#include "cuda/branches.cuh"
#include "cuda/lanes.cuh"

namespace lmwp::cuda {

inline constexpr int kMaxTileVectors = 16;
inline constexpr int64_t kMinTileThreads = 64;  // fewer leave too much of a tile's block idle
// Rows, columns and channels stay int32 with room for the halo; addresses are 64-bit.
inline constexpr int64_t kMaxExtent = int64_t{1} << 26;

// Output rows of one thread, `dilation` apart so that they share input rows.
template <int S>
inline constexpr int kRows = S == 1 ? 4 : 2;

// The map `in` that is read and the map `out` that is written; weight is [C, K, K] and the other
// parameters [C], all contiguous.
struct DepthwiseTensors {
  InMap in;
  OutMap out;
  Param weight, scale, shift, slope;
};

// One branch as the caller gives it: x is [N, C, H, W], whichever map of a call it is, and y the
// map of its outputs, [N, C, ceil(H / S), ceil(W / S)].
struct DepthwiseBranch : DepthwiseTensors {
  int64_t batch, channels, height, width;
};

// Tiles of equal size that cover a map, in vectors and in groups of rows.
struct Tiling {
  int tiles_x, tiles_y, vectors, groups;
};

// One branch as the kernel reads it. A tiled branch stages 16-byte vectors of `in` through shared
// memory. A direct one reads `in` through the L1 cache, neighbouring lanes on neighbouring columns,
// or on neighbouring channels where those are innermost (interleaved) in memory.
struct DepthwiseTask : DepthwiseTensors, BlockRange {
  int channels, height, width, out_height, out_width, dilation;
  bool tiled, interleaved;
  Tiling tiling;
  int64_t planes;        // direct: images, or channels of images
  uint32_t plane_items;  // direct: threads of a plane
};

// Vectors of halo on either side of a tile: whole ones keep every shared access aligned.
template <int K>
inline constexpr int kHaloVectors = K == 1 ? 0 : 1;

template <int K, int S>
__host__ __device__ constexpr int tile_in_vectors(int tile_vectors) {
  return S * tile_vectors + 2 * kHaloVectors<K>;
}

template <int K, int S, int R>
__host__ __device__ constexpr int tile_in_rows(int tile_groups) {
  return S * (tile_groups * R - 1) + K;
}

template <int K, int S, int R>
constexpr int tile_bytes(int tile_vectors, int tile_groups) {
  return static_cast<int>(sizeof(uint4)) * tile_in_vectors<K, S>(tile_vectors) *
         tile_in_rows<K, S, R>(tile_groups);
}

// The largest tile that any map can lead to.
template <int K, int S>
constexpr int max_tile_bytes() {
  int bytes = 0;
  for (int vectors = 1; vectors <= kMaxTileVectors; ++vectors) {
    bytes = std::max(bytes, tile_bytes<K, S, kRows<S>>(vectors, kThreads / vectors));
  }
  return bytes;
}

// Whether every row starts on 16 bytes and is whole vectors long.
template <typename T, typename Data>
bool is_vectorised(const Map<Data>& map, int64_t width) {
  const int64_t* stride = map.stride;
  return reinterpret_cast<uintptr_t>(map.data) % sizeof(uint4) == 0 && stride[3] == 1 &&
         stride[0] % kLanes<T> == 0 && stride[1] % kLanes<T> == 0 && stride[2] % kLanes<T> == 0 &&
         width % kLanes<T> == 0;
}

inline Tiling plan_tiles(int64_t vectors, int64_t groups) {
  Tiling tiling;
  tiling.tiles_x = static_cast<int>(ceil_div(vectors, kMaxTileVectors));
  tiling.vectors = static_cast<int>(ceil_div(vectors, tiling.tiles_x));
  tiling.tiles_y = static_cast<int>(ceil_div(groups, kThreads / tiling.vectors));
  tiling.groups = static_cast<int>(ceil_div(groups, tiling.tiles_y));
  return tiling;
}

// What every plan starts with: sizes and dilation. False where a map exceeds the index range.
template <int S, typename Branch, typename Task>
bool plan_sizes(const Branch& branch, int64_t dilation, Task& task) {
  if (std::max({branch.height, branch.width, branch.channels}) > kMaxExtent) return false;
  task.channels = static_cast<int>(branch.channels);
  task.height = static_cast<int>(branch.height);
  task.width = static_cast<int>(branch.width);
  task.out_height = static_cast<int>(ceil_div(branch.height, S));
  task.out_width = static_cast<int>(ceil_div(branch.width, S));
  // Beyond the map every tap but the centre reads padding, whatever the dilation.
  task.dilation = static_cast<int>(std::min(dilation, std::max(branch.height, branch.width)));
  return true;
}

// Threads of a plane where each computes R rows, `dilation` apart, of one column.
inline int64_t direct_items(int64_t rows, int64_t columns, int64_t dilation, int R) {
  return ceil_div(rows, R * dilation) * dilation * columns;
}

// Deals `items` threads a plane, or tiles, to blocks. False where they exceed the index range.
inline bool plan_blocks(DepthwiseTask& task, int64_t batch, int64_t items) {
  int64_t blocks;
  task.planes = batch * task.channels;
  if (task.tiled) {
    blocks = task.planes * task.tiling.tiles_x * task.tiling.tiles_y;
  } else {
    if (items > UINT32_MAX) return false;
    task.interleaved = task.out.stride[1] == 1 && items * task.channels <= UINT32_MAX;
    if (task.interleaved) {
      items *= task.channels;
      task.planes = batch;
    }
    task.plane_items = static_cast<uint32_t>(items);
    blocks = ceil_div(task.planes * items, kThreads);
  }
  if (blocks > INT32_MAX) return false;
  task.block_count = static_cast<uint32_t>(blocks);
  return true;
}

// The convolution of the map x. False where the branch exceeds the index range.
template <typename T, int K, int S>
bool plan_conv(const DepthwiseBranch& branch, int64_t dilation, DepthwiseTask& task) {
  static_cast<DepthwiseTensors&>(task) = branch;
  if (!plan_sizes<S>(branch, dilation, task)) return false;
  const int64_t vectors = task.out_width / kLanes<T>;
  const int64_t groups = ceil_div(task.out_height, kRows<S>);
  task.tiled = task.dilation == 1 && vectors * groups >= kMinTileThreads &&
               is_vectorised<T>(task.in, task.width) && is_vectorised<T>(task.out, task.out_width);
  if (task.tiled) {
    task.tiling = plan_tiles(vectors, groups);
    task.shared_bytes = tile_bytes<K, S, kRows<S>>(task.tiling.vectors, task.tiling.groups);
  }
  return plan_blocks(task, branch.batch,
                     direct_items(task.out_height, task.out_width, task.dilation, kRows<S>));
}

}  // namespace lmwp::cuda
