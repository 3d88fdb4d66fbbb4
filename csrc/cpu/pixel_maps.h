// Maps whose channels lie side by side, a vector of them at a time: depthwise rows and resizing.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/pointwise.h"
#include "cpu/resample.h"

namespace lmwp::LMWP_ISA {

constexpr int kTaps = 9;
constexpr int kColumnsAtOnce = 4;  // whose sums do not wait for each other

// Rows of pixels with zeros on both sides: those on the left of a row are those on the right of the
// row before it.
struct PixelMap {
  int64_t rows, columns, channels, border;
  float* first = nullptr;
  float* zeros = nullptr;  // a row of nothing else, for those above and below

  int64_t pitch() const { return (columns + border) * channels; }
  int64_t zero_floats() const { return (columns + 2 * border) * channels; }
  int64_t floats() const { return border * channels + rows * pitch() + zero_floats(); }

  void place(float* memory) {
    first = memory + border * channels;
    zeros = first + rows * pitch() + border * channels;
  }
  float* own(int64_t r) const { return first + r * pitch(); }
  const float* row(int64_t r) const { return r < 0 || r >= rows ? zeros : own(r); }
  PixelTarget target(int64_t r) const { return {own(r), columns, channels, pitch()}; }

  // What surrounds rows [begin, end).
  void clear_borders(int64_t begin, int64_t end) const {
    if (begin == 0) {
      clear(first - border * channels, border * channels);
      clear(zeros - border * channels, zero_floats());
    }
    for (int64_t r = begin; r < end; ++r) clear(own(r) + columns * channels, border * channels);
  }
};

// A depthwise branch of a map: from the map's extent on, every tap but the centre reads zeros.
struct MapBranch {
  const float* taps;  // [9, channels]
  int64_t dilation;
};
constexpr int64_t kBranchFloats = sizeof(MapBranch) / sizeof(float);

static inline int64_t effective_reach(int64_t dilation, int64_t rows, int64_t columns) {
  return min(dilation, max(rows, columns));
}

// One vector of channels of row r: `start` and the sum of the branches, or what is there already
// and the sum.
template <int count>
static inline void depthwise_pixels(const PixelMap& map, int64_t r, const MapBranch* branches,
                                    int64_t channel, const Vec* start, float* to) {
  const float* from[count][3];
  int64_t reach[count];
  Vec taps[count][kTaps];
#pragma GCC unroll 2
  for (int b = 0; b < count; ++b) {
    const int64_t dilation = effective_reach(branches[b].dilation, map.rows, map.columns);
    reach[b] = dilation * map.channels;
    for (int i = 0; i < 3; ++i) from[b][i] = map.row(r + (i - 1) * dilation) + channel;
#pragma GCC unroll 9
    for (int i = 0; i < kTaps; ++i) {
      taps[b][i] = load<Vec>(branches[b].taps + i * map.channels + channel);
    }
  }
  const auto at_once = [&]<int columns>(int64_t first) {
    Vec sum[columns];
#pragma GCC unroll 4
    for (int c = 0; c < columns; ++c) {
      sum[c] = start ? *start : load<Vec>(to + first + c * map.channels);
    }
#pragma GCC unroll 2
    for (int b = 0; b < count; ++b) {
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
#pragma GCC unroll 4
        for (int c = 0; c < columns; ++c) {
          const float* const at = from[b][i] + first + c * map.channels;
          sum[c] += taps[b][3 * i] * load<Vec>(at - reach[b]);
          sum[c] += taps[b][3 * i + 1] * load<Vec>(at);
          sum[c] += taps[b][3 * i + 2] * load<Vec>(at + reach[b]);
        }
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < columns; ++c) store(to + first + c * map.channels, sum[c]);
  };
  const int64_t end = map.columns * map.channels, step = kColumnsAtOnce * map.channels;
  int64_t at = 0;
  for (; at + step <= end; at += step) at_once.template operator()<kColumnsAtOnce>(at);
  for (; at < end; at += map.channels) at_once.template operator()<1>(at);
}

// The same for any number of branches.
static inline void depthwise_row(const PixelMap& map, int64_t r, const MapBranch* branches,
                                 int64_t count, int64_t channel, Vec start, float* to) {
  const Vec* from = &start;
  if (count == 0) {
    for (int64_t c = 0; c < map.columns; ++c) store(to + c * map.channels, start);
  }
  if (count % 2) {
    depthwise_pixels<1>(map, r, branches, channel, from, to);
    from = nullptr;
  }
  for (int64_t b = count % 2; b < count; b += 2) {
    depthwise_pixels<2>(map, r, branches + b, channel, from, to);
    from = nullptr;
  }
}

// Resizes a row of pixels, a vector of channels at a time.
class PixelResizer {
 public:
  static int64_t scratch_floats(int64_t columns) { return 2 * align(columns); }

  PixelResizer(int64_t columns, float* scratch)
      : columns_(columns),
        low_(reinterpret_cast<int32_t*>(scratch)),
        fraction_(scratch + align(columns)) {}

  // Fills the tables in scratch, which resizers of the same axis and scratch share.
  void prepare(const Axis& axis) const {
    for (int64_t c = 0; c < columns_; ++c) {
      low_[c] = static_cast<int32_t>(axis.low(c));
      fraction_[c] = axis.fraction(c);
    }
  }

  // What pixel c becomes, of pixels with so many channels; behind the last, `from` has it again.
  Vec at(const float* from, int64_t channels, int64_t c) const {
    const float* const low = from + low_[c] * channels;
    const Vec a = load<Vec>(low), b = load<Vec>(low + channels);
    return a + fraction_[c] * (b - a);
  }

  // Adds it to every pixel of `to`.
  void add(const float* from, int64_t channels, float* to) const {
    for (int64_t c = 0; c < columns_; ++c, to += channels) {
      store(to, load<Vec>(to) + at(from, channels, c));
    }
  }

 private:
  const int64_t columns_;
  int32_t* const low_;
  float* const fraction_;
};

// Row r of a resize along the rows, of so many floats, and the last `pixel` of them once more.
template <typename RowOf>
static inline void mix_between(const Axis& axis, int64_t r, RowOf&& row_of, int64_t count,
                               int64_t pixel, float* to) {
  const int64_t low = axis.low(r);
  mix_rows(row_of(low), row_of(min(low + 1, axis.in - 1)), axis.fraction(r), count, to);
  __builtin_memcpy(to + count, to + count - pixel, pixel * sizeof(float));
}

}  // namespace lmwp::LMWP_ISA
