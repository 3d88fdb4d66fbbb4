// The gradients of an epilogue, for the ops that have one.
#pragma once

#include <tuple>

#include "cpu/torch_arguments.h"

namespace lmwp {

using FiveKinds = std::tuple<Tensors, Tensors, Tensors, Tensors, Tensors>;

// What is wanted of xs, weights, scale, shift and slope, and of a bias that the sums hold.
struct Wanted {
  bool xs, weights, scale, shift, slope, bias = false;

  Wanted(const char* op, const std::vector<bool>& flags) {
    STD_TORCH_CHECK(flags.size() == 5, op, ": wanted: expected 5 flags");
    xs = flags[0];
    weights = flags[1];
    scale = flags[2];
    shift = flags[3];
    slope = flags[4];
  }
};

// The gradients of `sums`, which the epilogue was applied to, and those wanted of its parameters.
struct EpilogueGradients {
  Tensors sums, scale, shift, slope, bias;
};

// `sums` in float32, overwritten where they can be; none where nothing depends on them.
EpilogueGradients epilogue_backward(const char* op, const Tensors& grads, const Tensors& sums,
                                    const Tensors& scale, const Tensors& shift,
                                    const Tensors& slope, const Wanted& wanted);

// The gradients, float32, of biases whose results have these.
Tensors bias_gradients(const char* op, const Tensors& grads);

// epilogue_backward with `convolve(xs, weights)` for the sums of float32 branches; it is called
// only where a gradient depends on them.
template <typename Weights, typename Convolve>
EpilogueGradients epilogue_backward(const char* op, const Tensors& grads, const Tensors& xs,
                                    const Weights& weights, const Tensors& scale,
                                    const Tensors& shift, const Tensors& slope,
                                    const Wanted& wanted, Convolve&& convolve) {
  if (scale.empty() && slope.empty()) {
    return {grads, {}, {}, {}, wanted.bias ? bias_gradients(op, grads) : Tensors{}};
  }
  Tensors sums;
  if (!slope.empty() || wanted.scale) sums = convolve(in_float32(xs), in_float32(weights));
  return epilogue_backward(op, grads, sums, scale, shift, slope, wanted);
}

}  // namespace lmwp
