#pragma once

#include <algorithm>

#include "cuda/branches.cuh"
#include "cuda/lanes.cuh"

namespace lmwp::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kSparseWarps = kThreads / kWarp;
inline constexpr int64_t kBlocksToFill = 16;  // of a multiprocessor, before blocks get more work

// A 1 x 1 convolution by a weight in blocks of `rows` x `columns`, see lmwp_ops' layout.py. Pixels
// of a plane lie in a row; steps are from one image and one channel to the next.
struct SparseConvCall {
  const void* x;
  void* y;
  int64_t x_step[2], y_step[2];
  int64_t batch, pixels;
  int inputs, outputs;              // channels of all groups
  int group_inputs, group_outputs;  // and of one
  const int32_t* offset;            // [slabs * rows of blocks + 1]
  const int32_t* column;            // [blocks]
  int blocks, slabs;
  int rows, columns;  // of a block
  Param values, bias, scale, shift, slope;
};

// How a call is divided: a block of threads has a tile of pixels of an image, and each of its warps
// `steps` rows of blocks, one after the other.
struct SparseConvLaunch {
  SparseConvCall call;
  int64_t tiles;
  uint32_t groups;  // of rows of blocks
  int block_rows, steps;
};

// Pixels of a warp.
template <typename T>
inline constexpr int kTilePixels = kWarp * kLanes<T>;

// Whether every plane starts on 16 bytes and is whole vectors long.
template <typename T>
bool moves_in_vectors(const SparseConvCall& call) {
  bool whole = call.pixels % kLanes<T> == 0;
  for (const int64_t step : {call.x_step[0], call.x_step[1], call.y_step[0], call.y_step[1]}) {
    whole = whole && step % kLanes<T> == 0;
  }
  const auto at = reinterpret_cast<uintptr_t>(call.x) | reinterpret_cast<uintptr_t>(call.y);
  return whole && at % sizeof(uint4) == 0;
}

// The blocks of threads that a call takes. Warps that have several rows of blocks read the pixels
// they share from the L1 cache, so they get as many as leave enough blocks for the GPU.
template <typename T>
int64_t plan_sparse_conv(const SparseConvCall& call, int multiprocessors,
                         SparseConvLaunch& launch) {
  launch.call = call;
  launch.tiles = ceil_div(call.pixels, kTilePixels<T>);
  launch.block_rows = static_cast<int>(ceil_div(call.outputs, call.rows));
  const int64_t tiles = call.batch * launch.tiles;
  const int64_t most = ceil_div(launch.block_rows, kSparseWarps);
  const int64_t wanted = ceil_div(kBlocksToFill * multiprocessors, std::max<int64_t>(tiles, 1));
  const int64_t groups = std::clamp<int64_t>(wanted, 1, most);
  launch.steps = static_cast<int>(ceil_div(most, groups));
  launch.groups = static_cast<uint32_t>(ceil_div(most, launch.steps));
  return tiles * launch.groups;
}

}  // namespace lmwp::cuda
