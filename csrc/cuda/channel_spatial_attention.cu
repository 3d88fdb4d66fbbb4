// lmwp_ops::channel_spatial_attention_cuda. Only torch's stable ABI is used.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "cuda/channel_spatial_attention_fwd.cuh"
#include "cuda/torch_arguments.h"

namespace lmwp::cuda {
namespace {

using torch::stable::Tensor;

constexpr const char* kOp = "channel_spatial_attention_cuda";

// Whether images are contiguous, wherever each of them is.
bool has_dense_images(const Tensor& x) {
  const auto steps = [&](int dim, int64_t step) {
    return x.size(dim) == 1 || x.stride(dim) == step;
  };
  return steps(3, 1) && steps(2, x.size(3)) && steps(1, x.size(2) * x.size(3));
}

Linear layer(const Tensors& parameters, const Tensor& x, int64_t inputs, int64_t outputs,
             Tensors& keep) {
  STD_TORCH_CHECK(parameters.size() <= 2, kOp, ": expected a weight, or a weight and a bias");
  Linear found;
  found.weight = parameter(kOp, parameters, 0, x, inputs * outputs, keep);
  if (parameters.size() > 1) found.bias = parameter(kOp, parameters, 1, x, outputs, keep);
  return found;
}

void set_layers(AttentionCall& call, const Tensor& x, const Tensors& reduce, const Tensors& expand,
                Tensors& keep) {
  if (reduce.empty()) return;
  STD_TORCH_CHECK(reduce[0].dim() == 2 && reduce[0].size(0) > 0, kOp,
                  ": reduce: expected a weight with at least one row");
  call.hidden = reduce[0].size(0);
  call.reduce = layer(reduce, x, call.channels, call.hidden, keep);
  call.expand = layer(expand, x, call.hidden, call.channels, keep);
}

void set_kernels(AttentionCall& call, const Tensor& x, const Tensors& spatial, Tensors& keep) {
  for (std::size_t i = 0; i < spatial.size(); ++i) {
    STD_TORCH_CHECK(spatial[i].dim() == 3, kOp, ": spatial: expected 3-D kernels");
    const int64_t size = spatial[i].size(2);
    STD_TORCH_CHECK(size == 3 || size == 5 || size == 7, kOp, ": spatial: expected size 3, 5 or 7");
    call.kernel_size[i] = static_cast<int>(size);
    call.kernel[i] = parameter(kOp, spatial, i, x, (call.mean + call.max) * size * size, keep);
  }
}

int attribute(cudaDeviceAttr which, int32_t device) {
  int value = 0;
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

Tensor channel_spatial_attention(const Tensor& given, const Tensors& reduce, const Tensors& expand,
                                 const Tensors& spatial, bool mean, bool max) {
  STD_TORCH_CHECK(given.dim() == 4 && given.is_cuda() && given.size(1) > 0 && given.size(2) > 0 &&
                      given.size(3) > 0,
                  kOp, ": x: expected a 4-D CUDA tensor with channels and pixels");
  STD_TORCH_CHECK((mean || max) && reduce.empty() == expand.empty() &&
                      !(reduce.empty() && spatial.empty()) && spatial.size() <= kMaxSpatialKernels,
                  kOp, ": expected a pool, both layers or none, a gate and at most 3 kernels");
  const int32_t device = given.get_device();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const Tensor x = has_dense_images(given) ? given : torch::stable::contiguous(given);
  Tensor out = empty_dense(x);
  Tensors keep;
  AttentionCall call{};
  call.x = x.const_data_ptr();
  call.out = out.mutable_data_ptr();
  call.x_step = x.stride(0);
  call.out_step = out.stride(0);
  call.batch = x.size(0);
  call.channels = x.size(1);
  call.height = x.size(2);
  call.width = x.size(3);
  call.mean = mean;
  call.max = max;
  set_layers(call, x, reduce, expand, keep);
  set_kernels(call, x, spatial, keep);
  const AttentionGpu gpu{attribute(cudaDevAttrMultiProcessorCount, device),
                         attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device)};
  const cudaStream_t stream = current_stream(device);
  STD_CUDA_CHECK(for_dtype(kOp, x, [&](auto zero) {
    return channel_spatial_attention_fwd<decltype(zero)>(call, gpu, stream);
  }));
  if (!is_interleaved(given)) return out;
  Tensor interleaved = empty_like_layout(given, given.size(1), given.size(2), given.size(3));
  torch::stable::copy_(interleaved, out);
  return interleaved;
}

}  // namespace
}  // namespace lmwp::cuda

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CUDA, m) {
  m.impl("channel_spatial_attention_cuda", TORCH_BOX(&lmwp::cuda::channel_spatial_attention));
}
