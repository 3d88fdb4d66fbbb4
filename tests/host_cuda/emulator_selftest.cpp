// Small kernels whose outcome on a GPU is known, sound and faulty, behind plain C functions.
#include "cuda/launch.cuh"

namespace {

// out[i] = sum of the block's values by warp shuffles, then across warps through shared memory.
__global__ void block_sum(const float* in, float* out) {
  KL_SHARED(float, partial, [32]);
  const int thread = static_cast<int>(threadIdx.x);
  const int warps = static_cast<int>(blockDim.x) / 32;
  float value = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int delta = 16; delta > 0; delta /= 2) value += __shfl_down_sync(~0u, value, delta);
  if (thread % 32 == 0) partial[thread / 32] = value;
  __syncthreads();
  if (thread == 0) {
    float sum = 0.0f;
    for (int w = 0; w < warps; ++w) sum += partial[w];
    out[blockIdx.x] = sum;
  }
}

// Six results a lane: every shuffle in segments of 8 lanes, and the votes of the odd lanes.
__global__ void collectives(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int* result = out + 6 * lane;
  result[0] = __shfl_sync(~0u, lane, 3, 8);
  result[1] = __shfl_up_sync(~0u, lane, 1, 8);
  result[2] = __shfl_down_sync(~0u, lane, 1, 8);
  result[3] = __shfl_xor_sync(~0u, lane, 5, 8);
  if (lane % 2) {
    result[4] = static_cast<int>(__ballot_sync(0xaaaaaaaau, lane > 15));
    result[5] = __any_sync(0xaaaaaaaau, lane > 30) + 2 * __all_sync(0xaaaaaaaau, lane > 30);
  }
}

__global__ void unwritten_shared(float* out) {
  KL_SHARED(float, value, [2]);
  KL_DYN_SHARED(float, dynamic);
  out[0] = value[0];
  out[1] = dynamic[0];
}

__global__ void missing_syncwarp(int* out) {
  KL_SHARED(int, value, [64]);
  const unsigned thread = threadIdx.x;
  value[thread] = static_cast<int>(thread);
  out[thread] = value[thread ^ 1];
}

__global__ void return_before_barrier(int*) {
  if (threadIdx.x == 5) return;
  __syncthreads();
}

__global__ void divergent_barrier(int*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void wrong_mask(int*) {
  if (threadIdx.x < 16) __syncwarp();
}

__global__ void forgotten_copy(int*) {
  KL_SHARED(uint4, to, [1]);
  const uint4 from{};
  if (threadIdx.x == 0) kl_copy16_async(to, &from, true);
}

}  // namespace

extern "C" {

void set_order(int order, unsigned seed) {
  host_cuda::machine.order = static_cast<host_cuda::Order>(order);
  host_cuda::machine.random.seed(seed);
}
const char* report() { return host_cuda::machine.report.c_str(); }

int run_block_sum(const float* in, float* out, int blocks, int threads) {
  return kl_launch(block_sum, dim3(blocks), dim3(threads), 0, nullptr, in, out);
}
int run_unwritten_shared(float* out) {
  return kl_launch(unwritten_shared, dim3(1), dim3(1), 4, nullptr, out);
}

#define RUN(kernel) \
  int run_##kernel(int* out) { return kl_launch(kernel, dim3(1), dim3(64), 0, nullptr, out); }
RUN(missing_syncwarp)
RUN(return_before_barrier)
RUN(divergent_barrier)
RUN(wrong_mask)
RUN(forgotten_copy)

int run_collectives(int* out) { return kl_launch(collectives, dim3(1), dim3(32), 0, nullptr, out); }
int run_too_much_shared(int* out) {
  return kl_launch(collectives, dim3(1), dim3(32), 50000, nullptr, out);
}
int allow_shared(int bytes) { return kl_allow_shared(collectives, bytes); }
int round_half(float value) { return __float2half_rn(value).bits; }
int round_bfloat16(float value) { return __float2bfloat16_rn(value).bits; }
}
