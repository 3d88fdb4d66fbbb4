#pragma once

// The only doors from a kernel to the device: launch, shared memory and asynchronous copies.
// A host emulation takes this header's place when LMWP_HOST_CUDA is defined.
#if defined(LMWP_HOST_CUDA)

#include "host_cuda.h"

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

// KL_SHARED(float, weights, [9]) declares a static shared array.
#define KL_SHARED(T, name, dims) __shared__ T name dims

// KL_DYN_SHARED(float, tile) names the launch's dynamic shared memory.
#define KL_DYN_SHARED(T, name)                                \
  extern __shared__ __align__(16) unsigned char kl_dynamic[]; \
  T* name = reinterpret_cast<T*>(kl_dynamic)

template <typename... Params, typename... Args>
cudaError_t kl_launch(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t smem,
                      cudaStream_t stream, const Args&... args) {
  kernel<<<grid, block, smem, stream>>>(args...);
  return cudaGetLastError();
}

// Lets later launches of a kernel have up to `bytes` of dynamic shared memory: more than 48 KB must
// be asked for. An error where the GPU has less. Another thread may be about to launch the kernel
// and need more: ask for all that there is.
template <typename... Params>
cudaError_t kl_allow_shared(void (*kernel)(Params...), std::size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

// Starts copying 16 bytes to shared memory, or zeros when not valid; `from` is then not read.
__device__ __forceinline__ void kl_copy16_async(uint4* to, const uint4* from, bool valid) {
  __pipeline_memcpy_async(to, from, sizeof(uint4), valid ? 0 : sizeof(uint4));
}

// Waits for this thread's copies; other threads see them after the next barrier.
__device__ __forceinline__ void kl_copy_wait() {
  __pipeline_commit();
  __pipeline_wait_prior(0);
}

// One 16-byte store, which the compiler may not take apart.
__device__ __forceinline__ void kl_store16(uint4* to, uint4 value) { __stwb(to, value); }

#endif
