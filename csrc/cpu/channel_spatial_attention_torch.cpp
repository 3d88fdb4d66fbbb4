// The CPU kernels of channel_spatial_attention and of its backward as torch ops.
#include <algorithm>
#include <tuple>

#include "cpu/channel_spatial_attention.h"
#include "cpu/feature_torch.h"

namespace lmwp {
namespace {

using torch::stable::Tensor;
using Kinds = std::tuple<Tensors, Tensors, Tensors, Tensors>;

constexpr const char* kOp = "channel_spatial_attention_cpp";
constexpr int64_t kGrainElements = 32768;  // that are worth a thread

void run(const AttentionPasses& passes, const AttentionProblem& p) {
  const int64_t elements = p.channels * p.rows * p.columns;  // of an image
  const int64_t floats = passes.scratch_floats(p);
  const int64_t threads = torch::stable::get_num_threads();
  if (p.batch % threads == 0 || p.batch > 4 * threads || elements < kGrainElements) {
    const int64_t grain = kGrainElements / elements + 1;
    torch::stable::parallel_for(0, p.batch, grain, [&](int64_t begin, int64_t end) {
      float* const scratch = thread_scratch(floats);
      for (int64_t image = begin; image < end; ++image) passes.whole(p, image, scratch);
    });
    return;
  }
  float* const scratch = thread_scratch(floats);
  for (int64_t image = 0; image < p.batch; ++image) {
    for (const AttentionStep* step = passes.steps; step->run; ++step) {
      const int64_t items = step->items(p);
      const int64_t grain = kGrainElements * items / elements + 1;
      torch::stable::parallel_for(0, items, grain, [&](int64_t begin, int64_t end) {
        step->run(p, image, scratch, begin, end);
      });
    }
  }
}

// x itself where its planes are dense, else a contiguous copy.
Tensor planar(const Tensor& x) {
  const bool dense = !is_interleaved(x) && (x.size(3) == 1 || x.stride(3) == 1) &&
                     (x.size(2) == 1 || x.stride(2) == x.size(3));
  return dense ? x : torch::stable::contiguous(x);
}

// Zero padded, a sum of convolutions is one by the sum of kernels around the same centre.
std::vector<float> joined(const Tensors& spatial, int64_t pools, int64_t size, const Tensor& x) {
  std::vector<float> sum(pools * size * size, 0.0f);
  for (const Tensor& kernel : spatial) {
    Tensors keep;
    const int64_t k = kernel.size(2), margin = (size - k) / 2;
    const float* values = parameter(kOp, kernel, {pools, k, k}, x, keep);
    for (int64_t pool = 0; pool < pools; ++pool) {
      for (int64_t i = 0; i < k * k; ++i) {
        sum[(pool * size + margin + i / k) * size + margin + i % k] += values[pool * k * k + i];
      }
    }
  }
  return sum;
}

int64_t largest_size(const Tensors& spatial) {
  int64_t size = 0;
  for (const Tensor& kernel : spatial) {
    STD_TORCH_CHECK(kernel.dim() == 3, kOp, ": spatial: expected 3-D kernels");
    const int64_t k = kernel.size(2);
    STD_TORCH_CHECK(k == 3 || k == 5 || k == 7, kOp, ": spatial: expected sizes 3, 5 or 7");
    size = std::max(size, k);
  }
  return size;
}

AttentionProblem problem_of(const Tensor& x, const Tensors& reduce, const Tensors& expand,
                            const Tensors& spatial, bool mean, bool max, Tensors& keep) {
  STD_TORCH_CHECK(x.dim() == 4 && x.is_cpu() && x.size(1) > 0 && x.size(2) > 0 && x.size(3) > 0,
                  kOp, ": x: expected a 4-D CPU tensor with channels and pixels");
  STD_TORCH_CHECK((mean || max) && reduce.empty() == expand.empty() &&
                      !(reduce.empty() && spatial.empty()) && spatial.size() <= 3,
                  kOp, ": expected a pool, both layers or none, a gate and at most 3 kernels");
  AttentionProblem p{};
  p.dtype = dtype_of(kOp, x);
  p.mean = mean;
  p.max = max;
  p.batch = x.size(0);
  p.channels = x.size(1);
  p.rows = x.size(2);
  p.columns = x.size(3);
  p.size = largest_size(spatial);
  if (reduce.empty()) return p;
  STD_TORCH_CHECK(
      reduce[0].dim() == 2 && reduce[0].size(0) > 0 && reduce.size() <= 2 && expand.size() <= 2,
      kOp, ": reduce, expand: expected a weight, or a weight and a bias");
  p.hidden = reduce[0].size(0);
  p.reduce = parameter(kOp, reduce[0], {p.hidden, p.channels}, x, keep);
  p.expand = parameter(kOp, expand[0], {p.channels, p.hidden}, x, keep);
  if (reduce.size() > 1) p.reduce_bias = parameter(kOp, reduce[1], {p.hidden}, x, keep);
  if (expand.size() > 1) p.expand_bias = parameter(kOp, expand[1], {p.channels}, x, keep);
  return p;
}

Tensor forward(const Tensor& x, const Tensors& reduce, const Tensors& expand,
               const Tensors& spatial, bool mean, bool max) {
  static const AttentionPasses* const passes = LMWP_BEST_KERNEL(channel_spatial_attention_forward);
  Tensors keep;
  AttentionProblem p = problem_of(x, reduce, expand, spatial, mean, max, keep);
  const std::vector<float> kernel = joined(spatial, mean + max, p.size, x);
  p.kernel = kernel.data();
  const Tensor dense = regular(x);
  const Tensor out = empty_output(dense, p.channels, p.rows, p.columns);
  p.x = feature_of(dense);
  p.out = feature_of(out);
  run(passes[static_cast<int>(p.dtype)], p);
  return in_layout_of(x, out);
}

// A gradient in float32, as a tensor like its parameter.
Tensor gradient_of(const Tensor& parameter, const float* values) {
  Tensor gradient = empty_floats(sizes_of(parameter));
  std::copy_n(values, gradient.numel(), floats(gradient));
  return with_dtype_of(parameter, gradient);
}

Tensors gradients_of(const Tensors& layer, const std::vector<float>& weight,
                     const std::vector<float>& bias) {
  Tensors gradients;
  if (!layer.empty()) gradients.push_back(gradient_of(layer[0], weight.data()));
  if (layer.size() > 1) gradients.push_back(gradient_of(layer[1], bias.data()));
  return gradients;
}

// Of each kernel, from that of their sum.
Tensors split(const Tensors& spatial, const std::vector<float>& sum, int64_t pools, int64_t size) {
  Tensors gradients;
  for (const Tensor& kernel : spatial) {
    const int64_t k = kernel.size(2), margin = (size - k) / 2;
    std::vector<float> values(pools * k * k);
    for (int64_t i = 0; i < pools * k * k; ++i) {
      const int64_t pool = i / (k * k), row = i / k % k;
      values[i] = sum[(pool * size + margin + row) * size + margin + i % k];
    }
    gradients.push_back(gradient_of(kernel, values.data()));
  }
  return gradients;
}

Kinds backward(const Tensor& grad, const Tensor& x, const Tensors& reduce, const Tensors& expand,
               const Tensors& spatial, bool mean, bool max, const std::vector<bool>& wanted) {
  static const AttentionGradientPasses* const of_dtypes =
      LMWP_BEST_KERNEL(channel_spatial_attention_backward);
  Tensors keep;
  AttentionProblem p = problem_of(x, reduce, expand, spatial, mean, max, keep);
  bool fits = grad.dim() == 4 && grad.is_cpu() && grad.scalar_type() == x.scalar_type();
  for (int d = 0; d < 4; ++d) fits = fits && grad.size(d) == x.size(d);
  STD_TORCH_CHECK(fits && wanted.size() == 4, kOp, ": expected a gradient like x, and 4 flags");
  const AttentionGradientPasses& passes = of_dtypes[static_cast<int>(p.dtype)];
  const int64_t pools = mean + max;
  const std::vector<float> kernel = joined(spatial, pools, p.size, x);
  const Tensor dense = planar(x), dense_grad = planar(grad);
  p.kernel = kernel.data();
  p.x = feature_of(dense);
  p.grad = feature_of(dense_grad);
  Tensors grad_x;
  if (wanted[0]) {
    grad_x.push_back(empty_output(dense, p.channels, p.rows, p.columns));
    p.out = feature_of(grad_x[0]);
  }
  std::vector<float> records(p.batch * passes.record_floats(p));
  std::vector<float> grad_reduce(p.hidden * p.channels), grad_reduce_bias(p.hidden);
  std::vector<float> grad_expand(p.channels * p.hidden), grad_expand_bias(p.channels);
  std::vector<float> grad_kernel(kernel.size());
  p.records = records.data();
  p.grad_reduce = grad_reduce.data();
  p.grad_reduce_bias = grad_reduce_bias.data();
  p.grad_expand = grad_expand.data();
  p.grad_expand_bias = grad_expand_bias.data();
  p.grad_kernel = grad_kernel.data();
  run(passes.images, p);
  passes.combine(p);
  Kinds kinds;
  if (wanted[0]) std::get<0>(kinds) = {in_layout_of(x, grad_x[0])};
  if (wanted[1]) std::get<1>(kinds) = gradients_of(reduce, grad_reduce, grad_reduce_bias);
  if (wanted[2]) std::get<2>(kinds) = gradients_of(expand, grad_expand, grad_expand_bias);
  if (wanted[3]) std::get<3>(kinds) = split(spatial, grad_kernel, pools, p.size);
  return kinds;
}

}  // namespace
}  // namespace lmwp

STABLE_TORCH_LIBRARY_IMPL(lmwp_ops, CPU, m) {
  m.impl("channel_spatial_attention_cpp", TORCH_BOX(&lmwp::forward));
  m.impl("channel_spatial_attention_backward_cpp", TORCH_BOX(&lmwp::backward));
}
