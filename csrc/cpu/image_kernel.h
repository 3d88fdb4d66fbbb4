// Kernels that compute an image in steps, as their callers see them.
#pragma once

#include "cpu/feature.h"

namespace lmwp {

// The items of a step are independent, whatever the ranges they are computed in.
template <typename Problem>
struct ImageStep {
  int64_t (*items)(const Problem& problem);
  void (*run)(const Problem& problem, int64_t image, float* shared, float* own, int64_t begin,
              int64_t end);
};

// The steps of an image follow one another. `shared` scratch is that of an image, `own` that of a
// thread; what `pack` makes of the parameters serves all images.
template <typename Problem>
struct ImageKernel {
  int64_t (*packed_floats)(const Problem& problem);
  void (*pack)(const Problem& problem, float* packed);
  int64_t (*shared_floats)(const Problem& problem);
  int64_t (*own_floats)(const Problem& problem);
  const ImageStep<Problem>* steps;  // the last is behind them, without `run`
};

}  // namespace lmwp
