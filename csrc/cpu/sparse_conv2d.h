// Convolution by a pruned weight as its callers see it, whatever the instruction set.
#pragma once

#include <stdint.h>

#include "cpu/dtype.h"

namespace lmwp {

// The part of an input channel, counted within a group, that a tile reads: its pixel (i, j) is the
// input's at (row + (first + i) * step, column + ... ), with `first` the tile's first output row.
struct SparsePlane {
  int64_t channel, row, column;
};

// How many floats behind a pixel each column of the weight reads. Where that is column * spacing,
// which is found faster than in a list, `spacing` is not 0.
struct SparseSource {
  const int32_t* of;
  int64_t spacing;
};

// Output channels that read the same pixels. The sum of channel output[t] at a pixel is that over k
// of weight[k * column_step + t * output_step] times what lies source.of[column[k]] floats behind
// the pixel in the planes.
struct SparseRows {
  const int32_t* output;
  int64_t count, column_step, output_step;
  const float* weight;
  const int32_t* column;
  int64_t column_count;
};

// Output channels that each read pixels of their own, in slabs of the columns that are added up
// one after the other: what channel c reads of slab s is column and weight from
// offset[s * channels + c] on, up to the next offset.
struct SparseSingles {
  const int32_t* offset;
  const int32_t* column;
  const float* weight;
  int64_t channels, slabs;
};

// Tiles of rows x columns output pixels. A plane of a tile has `halo` more rows, and `pitch` floats
// from row to row; `floats` from plane to plane.
struct SparseTiling {
  int64_t rows, columns, halo, pitch, floats;
};

// From an output pixel to one of the input.
struct SparseShift {
  int64_t row, column;
};

constexpr int64_t kMostRowTaps = 64;

// Strides of tensors count elements. scale, shift and slope have one entry per output channel, or
// are null.
struct SparseConvProblem {
  Dtype dtype;
  const void* x;  // [batch, ., height, width]
  void* y;        // [batch, ., out_height, out_width]
  int64_t batch, height, width, out_height, out_width;
  int64_t x_stride[4], y_stride[4];
  int64_t step[2];  // of the convolution
  const SparsePlane* planes;
  int64_t plane_count;
  SparseSource source;    // of each column of the weight, in planes
  SparseSource in_place;  // the same in x; nothing where its pixels have to be copied
  int64_t groups, group_channels, group_outputs;
  SparseTiling tiling;
  SparseSingles singles;        // or, where it has no offsets,
  const SparseRows* rows;       // and
  const int64_t* first_row;     // of each group, and behind the last one their number
  int64_t splits;               // tasks that share the rows of a group
  const SparseShift* row_taps;  // of each column of a depthwise weight without steps, or null
  const float *scale, *shift, *slope;
};

// A problem is cut into independent tasks; a thread runs ranges of them with scratch of its own.
struct SparseConvKernel {
  int64_t (*task_count)(const SparseConvProblem& problem);
  int64_t (*scratch_floats)(const SparseConvProblem& problem);
  void (*run)(const SparseConvProblem& problem, int64_t begin, int64_t end, float* scratch);
};

// The gradient of the weights of a convolution, which lie among `values`, from that of its results,
// whose strides are those of y. A problem needs no y, no epilogue and no splits.
struct SparseValuesProblem {
  SparseConvProblem conv;
  const void* dy;
  const float* values;
  int64_t value_count;
};

// Tasks add to partial sums of all values, zeros at first, which are to be added up.
struct SparseValuesKernel {
  int64_t (*task_count)(const SparseValuesProblem& problem);
  int64_t (*partial_floats)(const SparseValuesProblem& problem);
  int64_t (*scratch_floats)(const SparseValuesProblem& problem);
  void (*run)(const SparseValuesProblem& problem, int64_t begin, int64_t end, float* partials,
              float* scratch);
};

#define LMWP_DECLARE_SPARSE(isa)             \
  namespace isa {                            \
  SparseConvKernel sparse_conv2d_kernel();   \
  SparseValuesKernel sparse_values_kernel(); \
  }
LMWP_DECLARE_SPARSE(generic)
LMWP_DECLARE_SPARSE(sse42)
LMWP_DECLARE_SPARSE(avx2)
LMWP_DECLARE_SPARSE(avx512)
#undef LMWP_DECLARE_SPARSE

}  // namespace lmwp
