// Depthwise convolution by kept taps that reads float32 rows where they are.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/rows.h"
#include "cpu/sparse_epilogue.h"

namespace lmwp::LMWP_ISA {

constexpr int kTapRows = 8;  // output rows that share a tap's weight and offset

// Whether a problem is one of this kind. Narrower maps are quicker in planes.
static inline bool reads_rows(const SparseConvProblem& p) {
  return p.row_taps && p.singles.offset && p.dtype == Dtype::float32 && p.x_stride[3] == 1 &&
         p.y_stride[3] == 1 && min(p.width, p.out_width) >= kLanes;
}

// A kept tap: how far from an output pixel it reads, also in floats.
struct RowTap {
  int64_t floats;
  SparseShift shift;
  float weight;
};

// Lanes of a vector of which the first is column `column`, of a row of `width`.
static inline VecInt lanes_inside(int64_t column, int64_t width) {
  static const int32_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const VecInt at = load<VecInt>(lane) + static_cast<int32_t>(column);
  return (at >= 0) & (at < static_cast<int32_t>(width));
}

// One plane of the input and the taps on it.
struct TappedPlane {
  const float* x;
  int64_t height, width, pitch;  // pitch from row to row
  const RowTap* taps;
  int64_t count;
};

// A vector of V output rows from (row, column) on, all of whose taps read rows of the plane; at its
// sides what they read is not the plane's.
template <int V>
static void inner_rows(const TappedPlane& plane, int64_t row, int64_t column, bool at_side,
                       const ChannelEpilogue& epilogue, float* out, int64_t out_pitch) {
  Vec sum[V] = {};
  const float* const first = plane.x + row * plane.pitch + column;
  const int64_t pitch = plane.pitch;
  for (int64_t t = 0; t < plane.count; ++t) {
    const RowTap& tap = plane.taps[t];
    const float* const from = first + tap.floats;
    const Vec weight = broadcast<Vec>(tap.weight);
    if (at_side) {
      const VecInt inside = lanes_inside(column + tap.shift.column, plane.width);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        sum[v] += weight * (Vec)(load<VecInt>(from + v * pitch) & inside);
      }
    } else {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[v] += weight * load<Vec>(from + v * pitch);
    }
  }
  epilogue.finish(sum);
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) store(out + v * out_pitch, sum[v]);
}

using InnerRows = void (*)(const TappedPlane&, int64_t, int64_t, bool, const ChannelEpilogue&,
                           float*, int64_t);

// inner_rows of 1 to kTapRows rows.
template <int V = kTapRows>
static InnerRows inner_rows_function(int64_t rows) {
  if constexpr (V > 1) {
    if (rows < V) return inner_rows_function<V - 1>(rows);
  }
  return inner_rows<V>;
}

// Runs tasks: bands of output rows of one channel.
class DepthwiseRunner {
 public:
  explicit DepthwiseRunner(const SparseConvProblem& problem)
      : p_(problem), plane_{nullptr, p_.height, p_.width, p_.x_stride[2], taps_, 0} {}

  static int64_t band_count(const SparseConvProblem& p) {
    const int64_t tiles = ceil_div(p.out_height, p.tiling.rows) * p.splits;
    return min(ceil_div(p.out_height, kTapRows), tiles);
  }

  static int64_t task_count(const SparseConvProblem& p) {
    return p.batch * p.singles.channels * band_count(p);
  }

  void run(int64_t task) {
    const int64_t bands = band_count(p_), band = task % bands, plane = task / bands;
    const int64_t image = plane / p_.singles.channels, channel = plane % p_.singles.channels;
    const int64_t input = channel / (p_.singles.channels / p_.groups);
    out_ = static_cast<float*>(p_.y) + image * p_.y_stride[0] + channel * p_.y_stride[1];
    before_ = image * p_.x_stride[0] + input * p_.x_stride[1];
    behind_ = (p_.batch - 1) * p_.x_stride[0] + (p_.groups - 1) * p_.x_stride[1] +
              (p_.height - 1) * p_.x_stride[2] + p_.width - before_;
    plane_.x = static_cast<const float*>(p_.x) + before_;
    find_taps(channel);
    epilogue_ = ChannelEpilogue(p_, channel);
    compute(band * p_.out_height / bands, (band + 1) * p_.out_height / bands);
  }

 private:
  void find_taps(int64_t channel) {
    lowest_ = highest_ = {0, 0};
    plane_.count = 0;
    for (int64_t k = p_.singles.offset[channel]; k < p_.singles.offset[channel + 1]; ++k) {
      const SparseShift& shift = p_.row_taps[p_.singles.column[k]];
      lowest_ = {min(lowest_.row, shift.row), min(lowest_.column, shift.column)};
      highest_ = {max(highest_.row, shift.row), max(highest_.column, shift.column)};
      taps_[plane_.count++] = {shift.row * p_.x_stride[2] + shift.column, shift,
                               p_.singles.weight[k]};
    }
  }

  // Whether every tap of a row reads a row of the plane, and nothing before or behind the tensor.
  bool is_inner(int64_t row) const {
    const int64_t top = row + lowest_.row, bottom = row + highest_.row;
    return top >= 0 && bottom < p_.height && top * plane_.pitch + lowest_.column >= -before_ &&
           bottom * plane_.pitch + p_.out_width + highest_.column <= behind_;
  }

  // Output rows [begin, end).
  void compute(int64_t begin, int64_t end) const {
    int64_t row = begin;
    for (; row < end && !is_inner(row); ++row) outer_row(row);
    int64_t inner_end = end;
    while (inner_end > row && !is_inner(inner_end - 1)) --inner_end;
    for_each_even_tile(inner_end - row, kTapRows,
                       [&](int64_t first, int64_t rows) { inner_block(row + first, rows); });
    for (row = inner_end; row < end; ++row) outer_row(row);
  }

  void inner_block(int64_t row, int64_t rows) const {
    const InnerRows function = inner_rows_function(rows);
    for (int64_t begin = 0; begin < p_.out_width; begin += kLanes) {
      const int64_t column = min(begin, p_.out_width - kLanes);
      const bool at_side =
          column + lowest_.column < 0 || column + highest_.column + kLanes > p_.width;
      function(plane_, row, column, at_side, epilogue_, output(row) + column, p_.y_stride[2]);
    }
  }

  // A row some of whose taps read outside of the plane.
  void outer_row(int64_t row) const {
    for (int64_t begin = 0; begin < p_.out_width; begin += kLanes) {
      const int64_t column = min(begin, p_.out_width - kLanes);
      Vec sum[1] = {};
      for (int64_t t = 0; t < plane_.count; ++t) {
        const RowTap& tap = taps_[t];
        const int64_t h = row + tap.shift.row, w = column + tap.shift.column;
        if (h < 0 || h >= p_.height) continue;
        sum[0] += broadcast<Vec>(tap.weight) * read(h, w);
      }
      epilogue_.finish(sum);
      store(output(row) + column, sum[0]);
    }
  }

  // Columns from w on of a row of the plane, zeros beside it.
  Vec read(int64_t h, int64_t w) const {
    const int64_t at = h * plane_.pitch + w;
    if (at >= -before_ && at + kLanes <= behind_) {
      return (Vec)(load<VecInt>(plane_.x + at) & lanes_inside(w, p_.width));
    }
    float values[kLanes] = {};
    const int64_t begin = max(0, -w), end = min(kLanes, p_.width - w);
    if (begin < end) copy_partial<4>(values + begin, plane_.x + at + begin, end - begin);
    return load<Vec>(values);
  }

  float* output(int64_t row) const { return out_ + row * p_.y_stride[2]; }

  const SparseConvProblem& p_;
  RowTap taps_[kMostRowTaps];
  SparseShift lowest_, highest_;
  TappedPlane plane_;
  int64_t before_, behind_;  // floats of the tensor before and from the first of the plane
  ChannelEpilogue epilogue_;
  float* out_;
};

}  // namespace lmwp::LMWP_ISA
