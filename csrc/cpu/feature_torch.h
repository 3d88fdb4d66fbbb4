// Tensors as features of planes or of pixels.
#pragma once

#include "cpu/feature.h"
#include "cpu/torch_arguments.h"

namespace lmwp {

// From pixel to pixel of a row, or of a column where rows have one pixel.
inline int64_t pixel_stride(const torch::stable::Tensor& x) {
  return x.size(3) > 1 ? x.stride(3) : x.stride(2);
}

// Whether its planes, or its pixels with their channels, follow each other.
inline bool is_regular(const torch::stable::Tensor& x) {
  if (x.size(2) * x.size(3) == 1) return true;
  return (x.size(2) == 1 || x.stride(2) == pixel_stride(x) * x.size(3)) &&
         (is_interleaved(x) || pixel_stride(x) == 1);
}

inline torch::stable::Tensor regular(const torch::stable::Tensor& x) {
  return is_regular(x) ? x : torch::stable::contiguous(x);
}

inline ImageFeature feature_of(const torch::stable::Tensor& x) {
  return {const_cast<void*>(x.const_data_ptr()), x.stride(0), x.stride(1),
          is_interleaved(x) ? pixel_stride(x) : 0};
}

// `found` in the layout of x.
inline torch::stable::Tensor in_layout_of(const torch::stable::Tensor& x,
                                          const torch::stable::Tensor& found) {
  if (!is_interleaved(x) || is_interleaved(found)) return found;
  torch::stable::Tensor copy = empty_output(x, found.size(1), found.size(2), found.size(3));
  torch::stable::copy_(copy, found);
  return copy;
}

}  // namespace lmwp
