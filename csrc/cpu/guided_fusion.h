// The guided fusion of an encoder and a decoder feature as callers see it, whatever the instruction
// set.
#pragma once

#include "cpu/dtype.h"
#include "cpu/image_kernel.h"
#include "cpu/pointwise_layer.h"

namespace lmwp {

// Tables of branches are [branches, channels], weights have 9 values for each entry.
struct GuidedFusionProblem {
  Dtype dtype;
  int64_t batch;
  int64_t rows, columns;          // of the encoder feature
  int64_t low_rows, low_columns;  // of the decoder feature
  PointwiseLayer encoder, decoder, fuse;
  const float *guide, *guide_bias;  // [channels of the decoder feature], [1]
  const float* gate;                // [batch, channels]
  int64_t branches;
  const int64_t* dilations;
  const float *weights, *scale, *shift;
  ImageFeature from_encoder, from_decoder, out;
  const float* packed;  // what `pack` made of the parameters
  int64_t threads;      // how finely to cut; results do not depend on it
};

#define LMWP_DECLARE_GUIDED_FUSION(isa)                                                     \
  namespace isa {                                                                           \
  const ImageKernel<GuidedFusionProblem>* guided_fusion_kernels(); /* one for each Dtype */ \
  }
LMWP_DECLARE_GUIDED_FUSION(generic)
LMWP_DECLARE_GUIDED_FUSION(sse42)
LMWP_DECLARE_GUIDED_FUSION(avx2)
LMWP_DECLARE_GUIDED_FUSION(avx512)
#undef LMWP_DECLARE_GUIDED_FUSION

}  // namespace lmwp
