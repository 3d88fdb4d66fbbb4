// The torch ops of multi-scale convolutions that others are made of.
#pragma once

#include "cpu/multiscale_arguments.h"

namespace lmwp {

Tensors goctconv2d(const Tensors& xs, const torch::stable::Tensor& weight, const Tensors& scale,
                   const Tensors& shift, const Tensors& slope, const Counts& in_channels,
                   const Counts& out_channels, bool entry_pool, bool cross_scale,
                   bool bilinear_down);

Tensors dilated_bank(const Tensors& xs, const Tensors& weights, const Tensors& scale,
                     const Tensors& shift, const Tensors& slope, const Counts& dilations,
                     const Counts& counts);

}  // namespace lmwp
