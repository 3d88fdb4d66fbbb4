// Maps whose channels lie side by side, a vector of them at a time: depthwise rows and resizing.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/pointwise.h"
#include "cpu/resample.h"

namespace lmwp::LMWP_ISA {

constexpr int kTaps = 9;
constexpr int kColumns = kLanes == 16 ? 12 : 8;  // whose sums are in registers
constexpr int64_t kStrip = 24;                   // columns

constexpr int64_t kLines = 2;  // of a cache, that a pixel may have without being spaced

// Floats from pixel to pixel: of large ones an odd number of vectors, so that the same vector of
// many pixels does not fall onto a few sets of a cache.
static inline int64_t spaced_pixel(int64_t channels) {
  const int64_t vectors = ceil_div(channels, kLanes);
  return (vectors * kLanes > kLines * kAlign ? vectors | 1 : vectors) * kLanes;
}

// Rows of pixels with zeros on both sides: those on the left of a row are those on the right of the
// row before it.
struct PixelMap {
  int64_t rows, columns, channels, border;
  float* first = nullptr;
  float* zeros = nullptr;  // a row of nothing else, for those above and below

  int64_t pixel() const { return spaced_pixel(channels); }
  int64_t pitch() const { return (columns + border) * pixel(); }
  int64_t zero_floats() const { return (columns + 2 * border) * pixel(); }
  int64_t floats() const { return border * pixel() + rows * pitch() + zero_floats(); }

  void place(float* memory) {
    first = memory + border * pixel();
    zeros = first + rows * pitch() + border * pixel();
  }
  float* own(int64_t r) const { return first + r * pitch(); }
  const float* row(int64_t r) const { return r < 0 || r >= rows ? zeros : own(r); }
  PixelTarget target(int64_t r) const { return {own(r), columns, pixel(), pitch()}; }

  // What surrounds rows [begin, end).
  void clear_borders(int64_t begin, int64_t end) const {
    if (begin == 0) {
      clear(first - border * pixel(), border * pixel());
      clear(zeros - border * pixel(), zero_floats());
    }
    for (int64_t r = begin; r < end; ++r) clear(own(r) + columns * pixel(), border * pixel());
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

// The next pixel. The compiler must not know that, or it holds a pointer to each of many pixels and
// runs out of registers.
template <typename T>
static inline T* step(T* from, int64_t pixel) {
  from += pixel;
  __asm__("" : "+r"(from));
  return from;
}

// Three rows around an output row, from its first column on, of one vector of channels.
struct RowsAround {
  const float* row[3];
  int64_t pixel, reach;  // floats from column to column, and from tap to tap
};

// Adds 3 x 3 products to the sums of a few columns. Those that taps share are loaded once where the
// dilation is known.
template <int columns, int dilation>
static inline void add_products(const RowsAround& rows, int64_t column, const Vec* taps, Vec* sum) {
#pragma GCC unroll 3
  for (int i = 0; i < 3; ++i) {
    const float* from = rows.row[i] + (column - dilation) * rows.pixel;
#pragma GCC unroll 16
    for (int c = -dilation; c < columns + dilation; ++c, from = step(from, rows.pixel)) {
      if constexpr (dilation == 0) {
        sum[c] += taps[3 * i] * load<Vec>(from - rows.reach);
        sum[c] += taps[3 * i + 1] * load<Vec>(from);
        sum[c] += taps[3 * i + 2] * load<Vec>(from + rows.reach);
      } else {
        const Vec v = load<Vec>(from);
        if (c + dilation < columns) sum[c + dilation] += taps[3 * i] * v;
        if (c >= 0 && c < columns) sum[c] += taps[3 * i + 1] * v;
        if (c >= dilation) sum[c - dilation] += taps[3 * i + 2] * v;
      }
    }
  }
}

// One vector of channels of a branch, for columns [column, end) of row r: adds to `start` or,
// without one, to what is there.
template <int dilation>
static void depthwise_strip(const PixelMap& map, int64_t r, int64_t column, int64_t end,
                            const MapBranch& branch, int64_t channel, const Vec* start, float* to,
                            int64_t to_pixel) {
  const int64_t dilated = effective_reach(branch.dilation, map.rows, map.columns);
  RowsAround rows{{}, map.pixel(), dilated * map.pixel()};
  for (int i = 0; i < 3; ++i) rows.row[i] = map.row(r + (i - 1) * dilated) + channel;
  Vec taps[kTaps];
  for (int i = 0; i < kTaps; ++i) taps[i] = load<Vec>(branch.taps + i * map.channels + channel);
  const auto while_fitting = [&]<int columns>() {
    for (; column + columns <= end; column += columns) {
      float* at = to + column * to_pixel;
      Vec sum[columns];
#pragma GCC unroll 16
      for (int c = 0; c < columns; ++c, at = step(at, to_pixel)) {
        sum[c] = start ? *start : load<Vec>(at);
      }
      add_products<columns, dilation>(rows, column, taps, sum);
      at = to + column * to_pixel;
#pragma GCC unroll 16
      for (int c = 0; c < columns; ++c, at = step(at, to_pixel)) store(at, sum[c]);
    }
  };
  while_fitting.template operator()<kColumns>();
  while_fitting.template operator()<kColumns / 2>();
  while_fitting.template operator()<kColumns / 4>();
  while_fitting.template operator()<1>();
}

// A vector of channels of rows [begin, end), which go to rows without borders: `start` and the sum
// of the branches. What a strip of columns reads stays in a first-level cache.
static inline void depthwise_rows(const PixelMap& map, int64_t begin, int64_t end,
                                  const MapBranch* branches, int64_t count, int64_t channel,
                                  Vec start, float* to, int64_t to_pixel) {
  const int64_t pitch = map.columns * to_pixel;
  if (count == 0) {
    for (int64_t i = 0; i < (end - begin) * map.columns; ++i) store(to + i * to_pixel, start);
  }
  for (int64_t strip = 0; strip < map.columns; strip += kStrip) {
    const int64_t stop = min(map.columns, strip + kStrip);
    for (int64_t r = begin; r < end; ++r) {
      float* const row = to + (r - begin) * pitch;
      for (int64_t b = 0; b < count; ++b) {
        const MapBranch& branch = branches[b];
        const int64_t dilated = effective_reach(branch.dilation, map.rows, map.columns);
        const auto run = dilated == 1   ? depthwise_strip<1>
                         : dilated == 2 ? depthwise_strip<2>
                                        : depthwise_strip<0>;
        run(map, r, strip, stop, branch, channel, b == 0 ? &start : nullptr, row, to_pixel);
      }
    }
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
  void add(const float* from, int64_t channels, float* to, int64_t to_pixel) const {
    for (int64_t c = 0; c < columns_; ++c, to += to_pixel) {
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
