// Pooling and bilinear resizing of float32 rows.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {

// Whole vectors are read and written beyond the columns asked for.

// 2 x 2 means of two rows: `columns` of them.
static inline void mean_2x2(const float* top, const float* bottom, int64_t columns, float* to) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Vec a = load<Vec>(top + 2 * c) + load<Vec>(bottom + 2 * c);
    const Vec b = load<Vec>(top + 2 * c + kLanes) + load<Vec>(bottom + 2 * c + kLanes);
    store(to + c, (even_lanes(a, b) + odd_lanes(a, b)) * 0.25f);
  }
}

static inline void larger_of_rows(const float* a, const float* b, int64_t columns, float* to) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    store(to + c, larger(load<Vec>(a + c), load<Vec>(b + c)));
  }
}

// The largest of 2 x 2 pixels of two rows: `columns` of them.
static inline void larger_2x2(const float* top, const float* bottom, int64_t columns, float* to) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Vec a = larger(load<Vec>(top + 2 * c), load<Vec>(bottom + 2 * c));
    const Vec b = larger(load<Vec>(top + 2 * c + kLanes), load<Vec>(bottom + 2 * c + kLanes));
    store(to + c, larger(even_lanes(a, b), odd_lanes(a, b)));
  }
}

// The larger of each pair of columns: `columns` of them. `from` may be `to`.
static inline void larger_of_columns(const float* from, int64_t columns, float* to) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Vec a = load<Vec>(from + 2 * c), b = load<Vec>(from + 2 * c + kLanes);
    store(to + c, larger(even_lanes(a, b), odd_lanes(a, b)));
  }
}

// Gives the gradient of each 2 x 2 maximum of two rows to the first pixel that has it, or to the
// first NaN, and zero to the others.
static inline void route_2x2(const float* top, const float* bottom, const float* gradients,
                             int64_t columns, float* to_top, float* to_bottom) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Vec a = load<Vec>(top + 2 * c), b = load<Vec>(top + 2 * c + kLanes);
    const Vec d = load<Vec>(bottom + 2 * c), e = load<Vec>(bottom + 2 * c + kLanes);
    const Vec pixel[4] = {even_lanes(a, b), odd_lanes(a, b), even_lanes(d, e), odd_lanes(d, e)};
    const Vec most = larger(larger(pixel[0], pixel[1]), larger(pixel[2], pixel[3]));
    const VecInt gradient = (VecInt)load<Vec>(gradients + c);
    VecInt left = ~VecInt{};
    Vec routed[4];
    for (int i = 0; i < 4; ++i) {
      const VecInt here = left & ((pixel[i] == most) | (pixel[i] != pixel[i]));
      routed[i] = (Vec)(gradient & here);
      left &= ~here;
    }
    store(to_top + 2 * c, interleave_low(routed[0], routed[1]));
    store(to_top + 2 * c + kLanes, interleave_high(routed[0], routed[1]));
    store(to_bottom + 2 * c, interleave_low(routed[2], routed[3]));
    store(to_bottom + 2 * c + kLanes, interleave_high(routed[2], routed[3]));
  }
}

// Where the pixels of one side come from in a bilinear resize without aligned corners.
struct Axis {
  int64_t in, out;

  float position(int64_t i) const {
    const float at = (static_cast<float>(i) + 0.5f) * static_cast<float>(in) / out - 0.5f;
    return at > 0 ? at : 0;
  }
  // The pixel at or before position(i), and the weight of the one after it.
  int64_t low(int64_t i) const { return min(static_cast<int64_t>(position(i)), in - 1); }
  float fraction(int64_t i) const { return position(i) - static_cast<float>(low(i)); }

  // The first i with low(i) >= pixel, or `out`. What pixel p gives weight to are the i from
  // first_from(p - 1) to before first_from(p + 1).
  int64_t first_from(int64_t pixel) const {
    int64_t begin = 0, end = out;
    while (begin < end) {
      const int64_t middle = (begin + end) / 2;
      if (low(middle) < pixel) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin;
  }
  // The weight of `pixel` in position(i).
  float weight(int64_t i, int64_t pixel) const {
    const int64_t at = low(i);
    const float of_next = fraction(i);
    return (at == pixel ? 1 - of_next : 0) + (min(at + 1, in - 1) == pixel ? of_next : 0);
  }
};

static inline void mix_rows(const float* a, const float* b, float fraction, int64_t columns,
                            float* to) {
  const Vec wa = broadcast<Vec>(1 - fraction), wb = broadcast<Vec>(fraction);
  for (int64_t c = 0; c < columns; c += kLanes) {
    store(to + c, wa * load<Vec>(a + c) + wb * load<Vec>(b + c));
  }
}

static inline void add_row(const float* from, float weight, int64_t columns, float* to) {
  const Vec w = broadcast<Vec>(weight);
  for (int64_t c = 0; c < columns; c += kLanes)
    store(to + c, load<Vec>(to + c) + w * load<Vec>(from + c));
}

static inline void clear(float* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) from[i] = 0;
}

// Resizes rows of axis.in columns to axis.out. A row must have room for one column on its left
// and a vector on its right, which are overwritten.
class ColumnResizer {
 public:
  static int64_t scratch_floats(const Axis& axis) { return 2 * (align(axis.out) + kAlign); }

  ColumnResizer(const Axis& axis, float* scratch)
      : axis_(axis),
        low_(reinterpret_cast<int32_t*>(scratch)),
        fraction_(scratch + align(axis.out) + kAlign) {}

  // Fills the tables in scratch, which resizers of the same axis and scratch share.
  void prepare() const {
    if (doubles()) return;
    for (int64_t c = 0; c < axis_.out; ++c) {
      low_[c] = static_cast<int32_t>(axis_.low(c));
      fraction_[c] = axis_.fraction(c);
    }
  }

  void operator()(float* row, float* to) const {
    row[axis_.in] = row[axis_.in - 1];
    if (doubles()) return twice(row, to);
    const int32_t* low = low_;
    const float* fraction = fraction_;
    for (int64_t c = 0; c < axis_.out; ++c) {
      to[c] = (1 - fraction[c]) * row[low[c]] + fraction[c] * row[low[c] + 1];
    }
  }

  // Brings gradients of rows of axis.out columns back to axis.in.
  void adjoint(float* row, float* to) const {
    if (doubles()) return twice_adjoint(row, to);
    clear(to, axis_.in);
    for (int64_t c = 0; c < axis_.out; ++c) {
      const int64_t low = low_[c], next = min(low + 1, axis_.in - 1);
      to[low] += (1 - fraction_[c]) * row[c];
      to[next] += fraction_[c] * row[c];
    }
  }

 private:
  bool doubles() const { return axis_.out == 2 * axis_.in; }

  void twice_adjoint(float* row, float* to) const {
    row[-1] = row[0];
    row[axis_.out] = row[axis_.out - 1];
    for (int64_t c = 0; c < axis_.in; c += kLanes) {
      const float *before = row + 2 * c - 1, *after = row + 2 * c + 1;
      const Vec a = load<Vec>(before), b = load<Vec>(before + kLanes);
      const Vec d = load<Vec>(after), e = load<Vec>(after + kLanes);
      store(to + c, (even_lanes(a, b) + odd_lanes(d, e)) * 0.25f +
                        (odd_lanes(a, b) + even_lanes(d, e)) * 0.75f);
    }
  }

  void twice(float* row, float* to) const {
    row[-1] = row[0];
    for (int64_t c = 0; c < axis_.in; c += kLanes) {
      const Vec x = load<Vec>(row + c) * 0.75f;
      const Vec even = x + load<Vec>(row + c - 1) * 0.25f, odd = x + load<Vec>(row + c + 1) * 0.25f;
      store(to + 2 * c, interleave_low(even, odd));
      store(to + 2 * c + kLanes, interleave_high(even, odd));
    }
  }

  const Axis axis_;
  int32_t* const low_;
  float* const fraction_;
};

}  // namespace lmwp::LMWP_ISA
