#pragma once

#include <cmath>

#include "cuda/channel_spatial_attention_plan.cuh"

namespace lmwp::cuda {

// V neighbours in one access: one element, or 16 bytes.
template <typename T, int V>
__device__ __forceinline__ void load_neighbours(const T* from, float (&value)[V]) {
  if constexpr (V == 1) {
    value[0] = to_float(*from);
  } else {
    static_assert(V == kLanes<T>);
    Lanes<T> lanes;
    lanes.bits = *reinterpret_cast<const uint4*>(from);
#pragma unroll
    for (int v = 0; v < V; ++v) value[v] = to_float(lanes.lane[v]);
  }
}
template <typename T, int V>
__device__ __forceinline__ void store_neighbours(T* to, const float (&value)[V]) {
  if constexpr (V == 1) {
    *to = from_float<T>(value[0]);
  } else {
    static_assert(V == kLanes<T>);
    Lanes<T> lanes;
#pragma unroll
    for (int v = 0; v < V; ++v) lanes.lane[v] = from_float<T>(value[v]);
    kl_store16(reinterpret_cast<uint4*>(to), lanes.bits);
  }
}

__device__ __forceinline__ float sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }

__device__ __forceinline__ float sum_of_warp(float value) {
  for (int step = kWarpLanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

// One block: an image, which stays in shared memory from its load to its store. V elements of it
// are accessed together.
template <typename T, int V>
struct Attention {
  const AttentionLaunch& launch;
  const AttentionLayout layout;
  const T* const from;
  T* const to;
  T* const image;
  float* const gates;
  float* const kernel;
  float* const maps;
  float* const pooled;  // [pools, C], where the maps will be
  float* const hidden;
  const int warp, warps, lane;

  __device__ __forceinline__ Attention(const AttentionLaunch& launch, unsigned char* shared)
      : launch(launch),
        layout(launch, sizeof(T)),
        from(static_cast<const T*>(launch.x) + (launch.image + blockIdx.x) * launch.x_step),
        to(static_cast<T*>(launch.out) + (launch.image + blockIdx.x) * launch.out_step),
        image(reinterpret_cast<T*>(shared + reinterpret_cast<uintptr_t>(from) % sizeof(uint4))),
        gates(reinterpret_cast<float*>(shared + layout.floats)),
        kernel(gates + layout.kernel),
        maps(gates + layout.maps),
        pooled(maps),
        hidden(pooled + launch.pools * launch.channels),
        warp(static_cast<int>(threadIdx.x) / kWarpLanes),
        warps(static_cast<int>(blockDim.x) / kWarpLanes),
        lane(static_cast<int>(threadIdx.x) % kWarpLanes) {}

  // Calls work(i) for all i in [first, last), shared out among the threads.
  template <typename Work>
  __device__ __forceinline__ void share(int first, int last, Work work) const {
    const int threads = static_cast<int>(blockDim.x);
    for (int i = first + static_cast<int>(threadIdx.x); i < last; i += threads) work(i);
  }

  // Calls work(first pixel) for every run of warp_pixels, shared out among the warps.
  template <typename Work>
  __device__ __forceinline__ void for_each_run(Work work) const {
    const int step = warps * launch.warp_pixels;
    for (int pixel = warp * launch.warp_pixels; pixel < launch.pixels; pixel += step) work(pixel);
  }

  // Starts to copy the image: whole vectors, and what is left at both ends.
  __device__ __forceinline__ void start_copy() const {
    const int count = launch.channels * launch.pixels;
    const int beyond = reinterpret_cast<uintptr_t>(from) % sizeof(uint4) / sizeof(T);
    int head = beyond ? kLanes<T> - beyond : 0;
    if (head > count) head = count;
    const int vectors = (count - head) / kLanes<T>;
    share(0, vectors, [&](int i) {
      kl_copy16_async(reinterpret_cast<uint4*>(image + head) + i,
                      reinterpret_cast<const uint4*>(from + head) + i, true);
    });
    share(0, head, [&](int i) { image[i] = from[i]; });
    share(head + vectors * kLanes<T>, count, [&](int i) { image[i] = from[i]; });
  }

  // Zero padded, a sum of convolutions is one by the sum of their kernels around one centre.
  __device__ __forceinline__ void join_kernels() const {
    const int size = launch.size;
    share(0, launch.pools * size * size, [&](int i) {
      const int pool = i / (size * size), row = i / size % size, column = i % size;
      float sum = 0.0f;
      for (int n = 0; n < kMaxSpatialKernels && launch.kernel_size[n]; ++n) {
        const int own = launch.kernel_size[n], margin = (size - own) / 2;
        const int y = row - margin, x = column - margin;
        if (y < 0 || y >= own || x < 0 || x >= own) continue;
        sum += load_param<T>(launch.kernel[n], (pool * own + y) * own + x, 0.0f);
      }
      kernel[i] = sum;
    });
  }

  // A team of lanes for each plane.
  __device__ __forceinline__ void pool_pixels() const {
    const int team = launch.team, planes = kWarpLanes / team, rank = lane % team;
    for (int first = warp * planes; first < launch.channels; first += warps * planes) {
      const int channel = first + lane / team;
      float sum = 0.0f, top = -INFINITY;
      if (channel < launch.channels) {
        const T* plane = image + channel * launch.pixels;
        for (int pixel = rank * V; pixel < launch.pixels; pixel += team * V) {
          float value[V];
          load_neighbours<T, V>(plane + pixel, value);
#pragma unroll
          for (int v = 0; v < V; ++v) {
            sum += value[v];
            top = larger(top, value[v]);
          }
        }
      }
      for (int step = team / 2; step > 0; step /= 2) {
        sum += __shfl_xor_sync(~0u, sum, step);
        top = larger(top, __shfl_xor_sync(~0u, top, step));
      }
      if (rank > 0 || channel >= launch.channels) continue;
      if (launch.mean) pooled[channel] = sum / launch.pixels;
      if (launch.max) pooled[launch.mean * launch.channels + channel] = top;
    }
  }

  // A warp for each unit; the second layer is linear, so its inputs are summed over the pools.
  __device__ __forceinline__ void apply_reduce() const {
    for (int unit = warp; unit < launch.hidden; unit += warps) {
      float total = 0.0f;
      for (int pool = 0; pool < launch.pools; ++pool) {
        const float* values = pooled + pool * launch.channels;
        float sum = 0.0f;
        for (int c = lane; c < launch.channels; c += kWarpLanes) {
          const int64_t at = int64_t{unit} * launch.channels + c;
          sum += load_param<T>(launch.reduce.weight, at, 0.0f) * values[c];
        }
        const float z = sum_of_warp(sum) + load_param<T>(launch.reduce.bias, unit, 0.0f);
        total += z < 0.0f ? 0.0f : z;
      }
      if (lane == 0) hidden[unit] = total;
    }
  }

  // A warp for each channel.
  __device__ __forceinline__ void apply_expand() const {
    for (int channel = warp; channel < launch.channels; channel += warps) {
      float sum = 0.0f;
      for (int unit = lane; unit < launch.hidden; unit += kWarpLanes) {
        const int64_t at = int64_t{channel} * launch.hidden + unit;
        sum += load_param<T>(launch.expand.weight, at, 0.0f) * hidden[unit];
      }
      const float bias = load_param<T>(launch.expand.bias, channel, 0.0f);
      const float logit = sum_of_warp(sum) + launch.pools * bias;
      if (lane == 0) gates[channel] = sigmoid(logit);
    }
  }

  __device__ __forceinline__ void gate_channels() const {
    if (launch.hidden == 0) {
      share(0, launch.channels, [&](int channel) { gates[channel] = 1.0f; });
      return;
    }
    pool_pixels();
    __syncthreads();
    apply_reduce();
    __syncthreads();
    apply_expand();
  }

  // Calls work(channel, V gated values) for this lane's share of the channels of V pixels.
  template <typename Work>
  __device__ __forceinline__ void for_each_channel(int pixel, int lanes, Work work) const {
    if (pixel >= launch.pixels) return;
#pragma unroll 4
    for (int channel = lane / lanes; channel < launch.channels; channel += kWarpLanes / lanes) {
      float value[V];
      load_neighbours<T, V>(image + channel * launch.pixels + pixel, value);
#pragma unroll
      for (int v = 0; v < V; ++v) value[v] *= gates[channel];
      work(channel, value);
    }
  }

  // Where the window around a pixel begins in a frame; the pixel itself is radius() rows below and
  // columns to the right.
  __device__ __forceinline__ int window(int pixel) const {
    return pixel / launch.width * launch.pitch() + pixel % launch.width;
  }

  __device__ __forceinline__ void clear_frames() const {
    const int frame = launch.frame(), pitch = launch.pitch(), radius = launch.radius();
    share(0, launch.pools * frame, [&](int i) {
      const int at = i % frame - radius;  // a first row would begin at 0
      const int row = at / pitch - radius, column = at % pitch;
      const bool inside = at >= 0 && row >= 0 && row < launch.height && column < launch.width;
      if (!inside) maps[i] = 0.0f;
    });
  }

  // Mean and maximum over the gated channels of every pixel.
  __device__ __forceinline__ void pool_channels() const {
    const int lanes = launch.warp_pixels / V;
    const int centre = launch.radius() * (launch.pitch() + 1);
    for_each_run([&](int first) {
      const int pixel = first + lane % lanes * V;
      float sum[V] = {}, top[V];
#pragma unroll
      for (int v = 0; v < V; ++v) top[v] = -INFINITY;
      for_each_channel(pixel, lanes, [&](int, const float (&value)[V]) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          sum[v] += value[v];
          top[v] = larger(top[v], value[v]);
        }
      });
      for (int step = lanes; step < kWarpLanes; step *= 2) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          sum[v] += __shfl_xor_sync(~0u, sum[v], step);
          top[v] = larger(top[v], __shfl_xor_sync(~0u, top[v], step));
        }
      }
      if (lane >= lanes || pixel >= launch.pixels) return;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        float* const map = maps + centre + window(pixel + v);
        if (launch.mean) map[0] = sum[v] / launch.channels;
        if (launch.max) map[launch.mean * launch.frame()] = top[v];
      }
    });
  }

  // This lane's share, by rows of the kernels, of the convolution at a pixel.
  template <int K>
  __device__ __forceinline__ float convolve(int pixel, int sharer, int sharers) const {
    const float* const corner = maps + window(pixel);
    float sum = 0.0f;
    for (int row = sharer; row < launch.pools * K; row += sharers) {
      const float* values = corner + row / K * launch.frame() + row % K * launch.pitch();
#pragma unroll
      for (int j = 0; j < K; ++j) sum += kernel[row * K + j] * values[j];
    }
    return sum;
  }

  // The gate of pixel `first` + lane % warp_pixels.
  __device__ __forceinline__ float gate_pixel(int first) const {
    const int pixel = first + lane % launch.warp_pixels;
    const int sharer = lane / launch.warp_pixels, sharers = kWarpLanes / launch.warp_pixels;
    float sum = 0.0f;
    if (pixel < launch.pixels) {
      if (launch.size == 3) sum = convolve<3>(pixel, sharer, sharers);
      if (launch.size == 5) sum = convolve<5>(pixel, sharer, sharers);
      if (launch.size == 7) sum = convolve<7>(pixel, sharer, sharers);
    }
    for (int step = launch.warp_pixels; step < kWarpLanes; step *= 2) {
      sum += __shfl_xor_sync(~0u, sum, step);
    }
    return sigmoid(sum);
  }

  __device__ __forceinline__ void apply_gates() const {
    const int lanes = launch.warp_pixels / V;
    for_each_run([&](int first) {
      const float own = launch.size ? gate_pixel(first) : 1.0f;
      float gate[V];
#pragma unroll
      for (int v = 0; v < V; ++v) gate[v] = __shfl_sync(~0u, own, lane % lanes * V + v);
      const int pixel = first + lane % lanes * V;
      for_each_channel(pixel, lanes, [&](int channel, float (&value)[V]) {
#pragma unroll
        for (int v = 0; v < V; ++v) value[v] *= gate[v];
        store_neighbours<T, V>(to + channel * launch.pixels + pixel, value);
      });
    });
  }

  __device__ __forceinline__ void run() const {
    start_copy();
    join_kernels();
    kl_copy_wait();
    __syncthreads();  // the image is there
    gate_channels();
    __syncthreads();  // so are the gates
    if (launch.size) {
      clear_frames();
      pool_channels();
      __syncthreads();  // and the maps
    }
    apply_gates();
  }
};

// Both gates of some images; a block reads its image from memory once.
template <typename T, int V>
__global__ void __launch_bounds__(kMaxAttentionThreads)
    channel_spatial_attention_fwd_kernel(__grid_constant__ const AttentionLaunch launch) {
  KL_DYN_SHARED(unsigned char, shared);
  Attention<T, V>(launch, shared).run();
}

// All images in one launch, or in one for as many as a grid has blocks for. cudaErrorInvalidValue:
// an image does not fit into the shared memory of a block.
template <typename T>
cudaError_t channel_spatial_attention_fwd(const AttentionCall& call, AttentionGpu gpu,
                                          cudaStream_t stream) {
  AttentionPlan plan{};
  if (!plan_attention<T>(call, gpu, plan)) return cudaErrorInvalidValue;
  const auto kernel = plan.vectorised ? channel_spatial_attention_fwd_kernel<T, kLanes<T>>
                                      : channel_spatial_attention_fwd_kernel<T, 1>;
  cudaError_t status = kl_allow_shared(kernel, gpu.shared_bytes);
  for (int64_t image = 0; image < call.batch && status == cudaSuccess; image += INT32_MAX) {
    plan.launch.image = image;
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(INT32_MAX, call.batch - image));
    status =
        kl_launch(kernel, dim3(blocks), dim3(plan.threads), plan.shared_bytes, stream, plan.launch);
  }
  return status;
}

}  // namespace lmwp::cuda
