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

// Columns 4 c + j of a row, for kLanes c, as part[j].
static inline void split_into_4(const float* from, Vec part[4]) {
  const Vec a = load<Vec>(from), b = load<Vec>(from + kLanes);
  const Vec d = load<Vec>(from + 2 * kLanes), e = load<Vec>(from + 3 * kLanes);
  const Vec even[2] = {even_lanes(a, b), even_lanes(d, e)};
  const Vec odd[2] = {odd_lanes(a, b), odd_lanes(d, e)};
  part[0] = even_lanes(even[0], even[1]);
  part[1] = even_lanes(odd[0], odd[1]);
  part[2] = odd_lanes(even[0], even[1]);
  part[3] = odd_lanes(odd[0], odd[1]);
}

static inline void join_4(const Vec part[4], float* to) {
  const Vec even[2] = {interleave_low(part[0], part[2]), interleave_high(part[0], part[2])};
  const Vec odd[2] = {interleave_low(part[1], part[3]), interleave_high(part[1], part[3])};
  for (int half = 0; half < 2; ++half) {
    store(to + 2 * half * kLanes, interleave_low(even[half], odd[half]));
    store(to + (2 * half + 1) * kLanes, interleave_high(even[half], odd[half]));
  }
}

// One row of windows of 4 columns: keeps the largest pixels so far and where they lie. Row 0 of a
// window begins at place 0 and forgets what was there.
static inline void find_largest_of_4(const float* row, int64_t columns, int place, float* largest,
                                     int32_t* where) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    Vec pixel[4];
    split_into_4(row + 4 * c, pixel);
    Vec most = place == 0 ? pixel[0] : load<Vec>(largest + c);
    VecInt at = place == 0 ? VecInt{} : load<VecInt>(where + c);
    for (int j = place == 0; j < 4; ++j) {
      const VecInt better = ~(pixel[j] <= most) & (most == most);
      most = (Vec)(better ? (VecInt)pixel[j] : (VecInt)most);
      at = better ? VecInt{} + (place + j) : at;
    }
    store(largest + c, most);
    store(where + c, at);
  }
}

// The same row of windows with the gradients whose pixel lies in it, zeros elsewhere.
static inline void place_in_4(const float* gradients, const int32_t* where, int64_t columns,
                              int place, float* to) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const VecInt gradient = load<VecInt>(gradients + c), at = load<VecInt>(where + c);
    Vec pixel[4];
    for (int j = 0; j < 4; ++j) pixel[j] = (Vec)(gradient & (at == place + j));
    join_4(pixel, to + 4 * c);
  }
}

// Where the pixels of one side come from in a bilinear resize without aligned corners.
struct Axis {
  int64_t in, out;

  bool doubles() const { return out == 2 * in; }
  bool quadruples() const { return out == 4 * in; }

  float position(int64_t i) const {
    const float middle = static_cast<float>(i) + 0.5f;
    const float at = doubles()      ? middle * 0.5f - 0.5f
                     : quadruples() ? middle * 0.25f - 0.5f
                                    : middle * static_cast<float>(in) / out - 0.5f;
    return at > 0 ? at : 0;
  }
  // The pixel at or before position(i), and the weight of the one after it.
  int64_t low(int64_t i) const { return min(static_cast<int64_t>(position(i)), in - 1); }
  float fraction(int64_t i) const { return position(i) - static_cast<float>(low(i)); }

  // The first i with low(i) >= pixel, or `out`. What pixel p gives weight to are the i from
  // first_from(p - 1) to before first_from(p + 1).
  int64_t first_from(int64_t pixel) const {
    if (pixel <= 0) return 0;
    if (doubles()) return min(2 * pixel + 1, out);
    if (quadruples()) return min(4 * pixel + 2, out);
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

// to = the sum of weights[i] * rows[i], on top of what is there if `adds`.
template <int count>
static inline void sum_rows(const float* const* rows, const float* weights, int64_t columns,
                            bool adds, float* to) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    Vec sum = adds ? load<Vec>(to + c) : Vec{};
    for (int i = 0; i < count; ++i) sum += weights[i] * load<Vec>(rows[i] + c);
    store(to + c, sum);
  }
}

// Brings gradients of resized rows back to row `pixel`: the sum of the rows that it gave weight to.
// row_of(r, i) is row r, which may use buffer i, below 4.
template <typename RowOf>
static inline void gather_rows(const Axis& axis, int64_t pixel, int64_t columns, RowOf&& row_of,
                               float* to) {
  const int64_t first = axis.first_from(pixel - 1), end = axis.first_from(pixel + 1);
  for (int64_t r = first; r < end || r == first; r += 4) {
    const float* rows[4];
    float weights[4];
    const int64_t count = min(4, end - r);
    for (int64_t i = 0; i < count; ++i) {
      rows[i] = row_of(r + i, static_cast<int>(i));
      weights[i] = axis.weight(r + i, pixel);
    }
    const bool adds = r > first;
    if (count == 4) {
      sum_rows<4>(rows, weights, columns, adds, to);
    } else if (count == 3) {
      sum_rows<3>(rows, weights, columns, adds, to);
    } else if (count == 2) {
      sum_rows<2>(rows, weights, columns, adds, to);
    } else if (count == 1) {
      sum_rows<1>(rows, weights, columns, adds, to);
    } else {
      sum_rows<0>(rows, weights, columns, adds, to);
    }
  }
}

static inline void clear(float* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) from[i] = 0;
}

// Resizes rows of axis.in columns to axis.out. A row must have room for two columns on its left
// and four vectors on its right; some of them are overwritten.
class ColumnResizer {
 public:
  static int64_t scratch_floats(const Axis& axis) { return 2 * (align(axis.out) + kAlign); }

  ColumnResizer(const Axis& axis, float* scratch)
      : axis_(axis),
        low_(reinterpret_cast<int32_t*>(scratch)),
        fraction_(scratch + align(axis.out) + kAlign) {}

  // Fills the tables in scratch, which resizers of the same axis and scratch share.
  void prepare() const {
    if (axis_.doubles() || axis_.quadruples()) return;
    for (int64_t c = 0; c < axis_.out; ++c) {
      low_[c] = static_cast<int32_t>(axis_.low(c));
      fraction_[c] = axis_.fraction(c);
    }
  }

  void operator()(float* row, float* to) const {
    row[axis_.in] = row[axis_.in - 1];
    if (axis_.doubles()) return twice(row, to);
    if (axis_.quadruples()) return four_times(row, to);
    const int32_t* low = low_;
    const float* fraction = fraction_;
    for (int64_t c = 0; c < axis_.out; ++c) {
      to[c] = (1 - fraction[c]) * row[low[c]] + fraction[c] * row[low[c] + 1];
    }
  }

  // Brings gradients of rows of axis.out columns back to axis.in.
  void adjoint(float* row, float* to) const {
    if (axis_.doubles()) return twice_adjoint(row, to);
    if (axis_.quadruples()) return four_times_adjoint(row, to);
    clear(to, axis_.in);
    for (int64_t c = 0; c < axis_.out; ++c) {
      const int64_t low = low_[c], next = min(low + 1, axis_.in - 1);
      to[low] += (1 - fraction_[c]) * row[c];
      to[next] += fraction_[c] * row[c];
    }
  }

 private:
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

  void four_times(float* row, float* to) const {
    row[-1] = row[0];
    for (int64_t c = 0; c < axis_.in; c += kLanes) {
      const Vec x = load<Vec>(row + c), before = load<Vec>(row + c - 1) - x;
      const Vec after = load<Vec>(row + c + 1) - x;
      const Vec a = x + before * 0.375f, b = x + before * 0.125f;
      const Vec d = x + after * 0.125f, e = x + after * 0.375f;
      const Vec part[4] = {a, b, d, e};
      join_4(part, to + 4 * c);
    }
  }

  void four_times_adjoint(float* row, float* to) const {
    row[-1] = row[0];
    row[-2] = row[1];
    row[axis_.out] = row[axis_.out - 1];
    row[axis_.out + 1] = row[axis_.out - 2];
    for (int64_t c = 0; c < axis_.in; c += kLanes) {
      Vec a[4], b[4];
      split_into_4(row + 4 * c - 2, a);
      split_into_4(row + 4 * c + 2, b);
      store(to + c, (a[0] + b[3]) * 0.125f + (a[1] + b[2]) * 0.375f + (a[2] + b[1]) * 0.625f +
                        (a[3] + b[0]) * 0.875f);
    }
  }

  const Axis axis_;
  int32_t* const low_;
  float* const fraction_;
};

}  // namespace lmwp::LMWP_ISA
