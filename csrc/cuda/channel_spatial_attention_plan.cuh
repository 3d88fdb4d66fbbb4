#pragma once

#include <algorithm>

#include "cuda/lanes.cuh"

namespace lmwp::cuda {

inline constexpr int kWarpLanes = 32;
inline constexpr int kMinAttentionThreads = 128, kMaxAttentionThreads = 1024;
inline constexpr int kThreadElements = 32;  // of x, where an image has enough for all threads
inline constexpr int kThreadBytes = 224;    // of shared memory, where registers must suffice, too
inline constexpr int kTeamSteps = 4;        // at least, of a team of lanes over a plane
inline constexpr int kLeastRunBytes = 32;   // that a warp writes side by side
inline constexpr int kRunOverhead = 4;      // of a warp's pixels, in channels
inline constexpr int kMaxSpatialKernels = 3;
inline constexpr int64_t kMaxImageBytes = 1 << 20;  // far beyond any shared memory

// A linear layer: weight [out, in], bias [out].
struct Linear {
  Param weight, bias;
};

// Images of x and out are contiguous [C, H, W].
struct AttentionTensors {
  const void* x;
  void* out;
  int64_t x_step, out_step;  // from image to image, in elements
  Linear reduce, expand;
  Param kernel[kMaxSpatialKernels];     // [pools, size, size]
  int kernel_size[kMaxSpatialKernels];  // 0: there is none
  bool mean, max;
};

// A call; hidden is 0 where there is no channel gate.
struct AttentionCall : AttentionTensors {
  int64_t batch, channels, height, width, hidden;
};

// Multiprocessors of a GPU, and the shared memory that a block can have.
struct AttentionGpu {
  int multiprocessors, shared_bytes;
};

// What the kernel takes.
struct AttentionLaunch : AttentionTensors {
  int64_t image;  // of the first block
  int channels, height, width, pixels, hidden, pools;
  int size;         // of the largest kernel; 0: no spatial gate
  int team;         // lanes that pool a plane together
  int warp_pixels;  // that a warp gates together: 8, 16 or 32

  // Maps over the pixels lie in frames of zeros. A row's frame on the right is that of the next
  // one on the left.
  __host__ __device__ int radius() const { return size / 2; }
  __host__ __device__ int pitch() const { return width + radius(); }
  __host__ __device__ int frame() const {
    return size ? (height + 2 * radius()) * pitch() + radius() : 0;
  }
};

// Where a block keeps what in shared memory: the image first, as far from 16 bytes as in memory,
// then, in floats, the gates of channels, the sum of the kernels, and the maps of pools over
// channels in the place of the pools over pixels and the hidden units.
struct AttentionLayout {
  int floats;  // in bytes
  int kernel, maps, end;

  __host__ __device__ AttentionLayout(const AttentionLaunch& launch, int element_bytes) {
    const int vector = sizeof(uint4), channels = launch.channels;
    const int image = channels * launch.pixels * element_bytes;
    const int pooled = launch.hidden ? launch.pools * channels + launch.hidden : 0;
    const int framed = launch.pools * launch.frame();
    floats = quotient_up(image, vector) * vector + vector;
    kernel = channels;
    maps = kernel + launch.pools * launch.size * launch.size;
    end = maps + (pooled > framed ? pooled : framed);
  }
  int bytes() const { return floats + end * static_cast<int>(sizeof(float)); }
};

// Lanes for a plane of so many accesses: many planes at a time where they are small.
inline int plan_team(int accesses) {
  int lanes = 1;
  while (lanes < kWarpLanes && accesses >= 2 * lanes * kTeamSteps) lanes *= 2;
  return lanes;
}

// Pixels that a warp gates together: the number with which the busiest warp has least to do,
// counted in channels. With fewer pixels its lanes share the channels, and the rows of the kernels,
// of each.
inline int plan_warp_pixels(const AttentionLaunch& launch, int vector, int warps,
                            int element_bytes) {
  const auto cost = [&](int each) {
    const int runs = quotient_up(launch.pixels, each);
    const int channels = quotient_up(launch.channels * (each / vector), kWarpLanes);
    const int rows = quotient_up(launch.pools * launch.size * each, kWarpLanes);
    return quotient_up(runs, warps) * (channels + rows + kRunOverhead);
  };
  int best = kWarpLanes;
  for (int each = best / 2; each * element_bytes >= kLeastRunBytes; each /= 2) {
    if (cost(each) < cost(best)) best = each;
  }
  return best;
}

struct AttentionPlan {
  AttentionLaunch launch;
  bool vectorised;  // planes are whole 16-byte vectors, aligned
  int threads, shared_bytes;
};

// Threads of a block. Where more images wait than there are multiprocessors, as many blocks must
// fit into the 64 K registers of one, 64 for a thread, as fit into its shared memory.
inline int plan_threads(const AttentionLaunch& launch, int shared_bytes, bool crowded) {
  const int most = crowded ? shared_bytes / kThreadBytes : kMaxAttentionThreads;
  const int threads = std::min(launch.channels * launch.pixels / kThreadElements, most);
  return std::clamp(threads / kWarpLanes * kWarpLanes, kMinAttentionThreads, kMaxAttentionThreads);
}

// False where an image does not fit into shared memory.
template <typename T>
bool plan_attention(const AttentionCall& call, AttentionGpu gpu, AttentionPlan& plan) {
  // One after the other: no product overflows.
  if (std::max({call.channels, call.height, call.width, call.hidden}) > kMaxImageBytes ||
      call.height * call.width > kMaxImageBytes ||
      call.height * call.width * call.channels * int64_t{sizeof(T)} > kMaxImageBytes) {
    return false;
  }
  AttentionLaunch& launch = plan.launch;
  static_cast<AttentionTensors&>(launch) = call;
  launch.channels = static_cast<int>(call.channels);
  launch.height = static_cast<int>(call.height);
  launch.width = static_cast<int>(call.width);
  launch.hidden = static_cast<int>(call.hidden);
  launch.pixels = launch.height * launch.width;
  launch.pools = call.mean + call.max;
  launch.size = *std::max_element(call.kernel_size, call.kernel_size + kMaxSpatialKernels);

  const auto is_aligned = [](const void* data, int64_t step) {
    return reinterpret_cast<uintptr_t>(data) % sizeof(uint4) == 0 && step % kLanes<T> == 0;
  };
  plan.vectorised = launch.pixels % kLanes<T> == 0 && is_aligned(call.x, call.x_step) &&
                    is_aligned(call.out, call.out_step);
  const int vector = plan.vectorised ? kLanes<T> : 1;
  plan.shared_bytes = AttentionLayout(launch, sizeof(T)).bytes();
  plan.threads = plan_threads(launch, plan.shared_bytes, call.batch > gpu.multiprocessors);
  launch.team = plan_team(launch.pixels / vector);
  // Whatever the batch, sums keep their order.
  const int warps = plan_threads(launch, plan.shared_bytes, false) / kWarpLanes;
  launch.warp_pixels = plan_warp_pixels(launch, vector, warps, sizeof(T));
  return plan.shared_bytes <= gpu.shared_bytes;
}

}  // namespace lmwp::cuda
