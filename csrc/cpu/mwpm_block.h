// The multi-scale weight pruning module of LMWP-Net as callers see it, whatever the instruction
// set.
#pragma once

#include "cpu/dtype.h"
#include "cpu/image_kernel.h"
#include "cpu/pointwise_layer.h"

namespace lmwp {

// The layers that give each channel's share of every branch: of `channels` and `hidden` values.
struct PruningGate {
  int64_t hidden;
  const float *reduce, *reduce_bias, *slope;  // [hidden, channels], then [hidden]
  const float *expand, *expand_bias;  // [branches * channels, hidden], [branches * channels]
  const float* threshold;             // [channels]; a share that is not above it is pruned
};

// Tables of branches are [branches, channels], weights have 9 values for each entry.
struct MwpmProblem {
  Dtype dtype;
  int64_t batch, rows, columns;
  PointwiseLayer expand, project;  // their width between them is that of the branches
  PruningGate gate;
  int64_t branches;
  const int64_t *octaves, *dilations;
  const float *weights, *scale, *shift;
  ImageFeature x, out;
  const float* packed;  // what `pack` made of the layers
  int64_t threads;      // how finely to cut; results do not depend on it
};

#define LMWP_DECLARE_MWPM(isa)                                                   \
  namespace isa {                                                                \
  const ImageKernel<MwpmProblem>* mwpm_block_kernels(); /* one for each Dtype */ \
  }
LMWP_DECLARE_MWPM(generic)
LMWP_DECLARE_MWPM(sse42)
LMWP_DECLARE_MWPM(avx2)
LMWP_DECLARE_MWPM(avx512)
#undef LMWP_DECLARE_MWPM

}  // namespace lmwp
