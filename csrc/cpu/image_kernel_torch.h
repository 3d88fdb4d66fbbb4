// What the torch ops whose kernels compute an image in steps share.
#pragma once

#include <optional>

#include "cpu/feature_torch.h"
#include "cpu/image_kernel.h"
#include "cpu/pointwise_layer.h"

namespace lmwp {

// Pooled memory that is given back.
class PooledFloats {
 public:
  explicit PooledFloats(int64_t floats)
      : bytes_(static_cast<std::size_t>(floats) * sizeof(float)), data_(take_memory(bytes_)) {}
  ~PooledFloats() { give_memory(data_, bytes_); }
  PooledFloats(const PooledFloats&) = delete;
  PooledFloats& operator=(const PooledFloats&) = delete;

  float* data() const { return static_cast<float*>(data_); }

 private:
  const std::size_t bytes_;
  void* const data_;
};

// Packs the parameters unless they are. Whole images are divided among the threads where there are
// enough of them, else steps are.
template <typename Problem>
void run_images(const ImageKernel<Problem>& kernel, Problem& p) {
  if (p.batch == 0) return;
  std::optional<PooledFloats> packed;
  if (p.packed == nullptr) {
    packed.emplace(kernel.packed_floats(p));
    kernel.pack(p, packed->data());
    p.packed = packed->data();
  }
  constexpr int64_t kLine = 16;  // floats
  const int64_t own_floats = (kernel.own_floats(p) + kLine - 1) / kLine * kLine;
  const int64_t shared_floats = kernel.shared_floats(p);
  if (p.batch % p.threads == 0 || p.batch > 4 * p.threads) {
    torch::stable::parallel_for(0, p.batch, 1, [&](int64_t begin, int64_t end) {
      // One piece for every op of the thread: what the last one left in cache is written again.
      float* const own = thread_scratch(own_floats + shared_floats);
      for (int64_t image = begin; image < end; ++image) {
        for (const ImageStep<Problem>* step = kernel.steps; step->run; ++step) {
          step->run(p, image, own + own_floats, own, 0, step->items(p));
        }
      }
    });
    return;
  }
  const PooledFloats shared(shared_floats);
  for (int64_t image = 0; image < p.batch; ++image) {
    for (const ImageStep<Problem>* step = kernel.steps; step->run; ++step) {
      torch::stable::parallel_for(0, step->items(p), 1, [&](int64_t begin, int64_t end) {
        step->run(p, image, shared.data(), thread_scratch(own_floats), begin, end);
      });
    }
  }
}

// A list of a layer's weight [out, in, 1, 1], scale, shift and, where it has one, slope.
inline PointwiseLayer layer_of(const char* op, const Tensors& given, std::size_t count,
                               const torch::stable::Tensor& x, Tensors& keep) {
  STD_TORCH_CHECK(
      given.size() == count && given[0].dim() == 4 && given[0].size(0) > 0 && given[0].size(1) > 0,
      op, ": expected ", count, " tensors of a layer");
  const int64_t out = given[0].size(0), in = given[0].size(1);
  PointwiseLayer layer{in,
                       out,
                       parameter(op, given[0], {out, in, 1, 1}, x, keep),
                       parameter(op, given[1], {out}, x, keep),
                       parameter(op, given[2], {out}, x, keep),
                       nullptr};
  if (count > 3) layer.slope = parameter(op, given[3], {out}, x, keep);
  return layer;
}

}  // namespace lmwp
