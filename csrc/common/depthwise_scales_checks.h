// What every compiled depthwise_scales relies on; the public function has said it more kindly.
#pragma once

#include "common/stable.h"

namespace lmwp {

inline void check_depthwise_scales(const char* op, const Tensors& xs, const Tensors& weights,
                                   const Tensors& scale, const Tensors& shift, const Tensors& slope,
                                   int64_t stride, int64_t dilation) {
  const std::size_t branches = xs.size();
  const auto fits = [&](const Tensors& list) { return list.empty() || list.size() == branches; };
  STD_TORCH_CHECK(branches > 0 && weights.size() == branches && fits(scale) &&
                      shift.size() == scale.size() && fits(slope),
                  op, ": expected one entry per branch in every list");
  STD_TORCH_CHECK((stride == 1 || stride == 2) && dilation >= 1, op,
                  ": expected stride 1 or 2 and dilation >= 1, got ", stride, " and ", dilation);
  const int64_t k = weights[0].dim() == 4 ? weights[0].size(3) : 0;
  STD_TORCH_CHECK(k == 1 || k == 3 || k == 5 || k == 7, op,
                  ": weights: expected [C, 1, k, k] with k = 1, 3, 5 or 7");
  for (const torch::stable::Tensor& x : xs) {
    STD_TORCH_CHECK(x.dim() == 4 && x.size(1) > 0 && x.size(2) > 0 && x.size(3) > 0 &&
                        x.scalar_type() == xs[0].scalar_type() && x.device() == xs[0].device(),
                    op, ": xs: expected 4-D tensors of one dtype on one device, not empty");
  }
}

}  // namespace lmwp
