// The CPU kernel of sparse_conv2d, for its gradient.
#pragma once

#include <string>

#include "cpu/torch_arguments.h"

namespace lmwp {

torch::stable::Tensor sparse_conv2d(
    const torch::stable::Tensor& x, const torch::stable::Tensor& values, const Tensors& indices,
    const Tensors& bias, const Tensors& scale, const Tensors& shift, const Tensors& slope,
    const std::string& format, const std::vector<int64_t>& shape, const std::vector<int64_t>& block,
    const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
    const std::vector<int64_t>& dilation, int64_t groups);

}  // namespace lmwp
