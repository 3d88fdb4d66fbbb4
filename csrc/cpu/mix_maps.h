// Maps of one channel at several octaves in scratch, and what the multi-scale mixes do with them.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/multiscale_mix.h"
#include "cpu/resample.h"

namespace lmwp::LMWP_ISA {

constexpr int64_t kOctaves = 16;  // 0 to 15
constexpr int64_t kBand = 8;      // rows that are computed together
constexpr int kTaps = 9;

// Rows with zeros on both sides, `stride` floats apart: those on the left of a row are those on the
// right of the row before it.
struct Map {
  float* first;
  const float* zeros;  // a row of nothing else, for those above and below
  int64_t rows, columns, stride;

  float* own(int64_t r) const { return first + r * stride; }
  const float* row(int64_t r) const { return r < 0 || r >= rows ? zeros : own(r); }
  void clear_right(int64_t r) const { clear(own(r) + columns, stride - columns); }
};

// What all planes of a problem have in common.
class Geometry {
 public:
  explicit Geometry(const MixProblem& p) : p_(p), widest_(1), top_(0) {
    for (int64_t k = 0; k < p.branches; ++k) {
      widest_ = max(widest_, p.dilations[k]);
      top_ = max(top_, p.octaves[k]);
    }
  }

  int64_t top() const { return top_; }
  int64_t rows(int64_t octave) const { return ceil_div(p_.rows, int64_t{1} << octave); }
  int64_t columns(int64_t octave) const { return ceil_div(p_.columns, int64_t{1} << octave); }
  int64_t stride(int64_t octave) const { return align(columns(octave) + reach(octave)); }
  bool uses(int64_t octave) const {
    for (int64_t k = 0; k < p_.branches; ++k) {
      if (p_.octaves[k] == octave) return true;
    }
    return false;
  }

  int64_t zero_floats() const { return align(reach(0)) + stride(0) + kSlack; }
  float* take_zeros(Arena& arena) const { return arena.take(zero_floats()) + align(reach(0)); }

  // `spare` rows below are room that may be overwritten.
  int64_t map_floats(int64_t octave, int64_t spare = 0) const {
    return align(reach(octave)) + (rows(octave) + spare) * stride(octave) + kSlack;
  }
  Map take_map(Arena& arena, const float* zeros, int64_t octave, int64_t spare = 0) const {
    float* const first = arena.take(map_floats(octave, spare)) + align(reach(octave));
    return {first, zeros, rows(octave), columns(octave), stride(octave)};
  }

  // Rows of full width, with the room that a ColumnResizer needs.
  int64_t wide_stride() const { return align(p_.columns + 1) + kSlack; }
  int64_t wide_floats(int64_t rows) const { return kAlign + rows * wide_stride(); }
  float* take_wide(Arena& arena, int64_t rows) const {
    return arena.take(wide_floats(rows)) + kAlign;
  }

 private:
  static constexpr int64_t kSlack = 5 * kAlign;  // beyond a row, for whole vectors

  int64_t reach(int64_t octave) const { return min(widest_, columns(octave)); }

  const MixProblem& p_;
  int64_t widest_, top_;
};

// Bilinear resizing between the size of an octave and that of u, by tables that live in scratch.
class Resizer {
 public:
  static int64_t scratch_floats(const MixProblem& p) {
    return ColumnResizer::scratch_floats({0, p.columns}) + 2 * align(p.rows);
  }

  Resizer(const MixProblem& p, const Geometry& geometry, int64_t octave, float* tables)
      : columns({geometry.columns(octave), p.columns}, tables + 2 * align(p.rows)),
        rows_{geometry.rows(octave), p.rows},
        low_(reinterpret_cast<int32_t*>(tables)),
        fraction_(tables + align(p.rows)) {}

  void prepare() const {
    columns.prepare();
    for (int64_t r = 0; r < rows_.out; ++r) {
      low_[r] = static_cast<int32_t>(rows_.low(r));
      fraction_[r] = rows_.fraction(r);
    }
  }

  // Row r of the wider map lies between these two, by a fraction.
  int64_t low(int64_t r) const { return low_[r]; }
  int64_t next(int64_t r) const { return min(low(r) + 1, rows_.in - 1); }
  float fraction(int64_t r) const { return fraction_[r]; }

  const ColumnResizer columns;

 private:
  const Axis rows_;
  int32_t* const low_;
  float* const fraction_;
};

// Calls run(T{}) for the element type T of a problem.
template <typename Run>
static inline void with_element(Dtype dtype, Run&& run) {
  switch (dtype) {
    case Dtype::float32:
      return run(float{});
    case Dtype::float16:
      return run(Half{});
    case Dtype::bfloat16:
      return run(BFloat16{});
  }
}

template <typename T>
static inline T* plane_of(const MixFeature& feature, int64_t image, int64_t channel) {
  return static_cast<T*>(feature.data) + image * feature.image + channel * feature.channel;
}

template <typename T>
static inline void read_plane(const MixProblem& p, const MixFeature& feature, int64_t image,
                              int64_t channel, const Map& to) {
  const T* const plane = plane_of<T>(feature, image, channel);
  const T* const end = plane + (p.rows - 1) * feature.row + p.columns;
  for (int64_t r = 0; r < p.rows; ++r) {
    read_row(plane + r * feature.row, 1, p.columns, end, to.own(r));
  }
}

// Quarters of the sums of 2 x 2 pixels, with zeros beyond the last.
static inline void halve(const Map& from, const Map& to) {
  for (int64_t r = 0; r < to.rows; ++r) {
    mean_2x2(from.row(2 * r), from.row(2 * r + 1), to.columns, to.own(r));
    to.clear_right(r);
  }
}

// The factor between a mean over what is there of the last window of a side and one with zeros.
static inline float last_window(int64_t size, int64_t count, int64_t octave) {
  const int64_t window = int64_t{1} << octave;
  return static_cast<float>(window) / static_cast<float>(size - (count - 1) * window);
}

// Multiplies the values of windows that reach beyond u.
static inline void correct_last(const MixProblem& p, int64_t octave, const Map& map) {
  const float down = last_window(p.rows, map.rows, octave);
  const float right = last_window(p.columns, map.columns, octave);
  if (right != 1) {
    for (int64_t r = 0; r < map.rows; ++r) map.own(r)[map.columns - 1] *= right;
  }
  if (down != 1) {
    float* const row = map.own(map.rows - 1);
    for (int64_t c = 0; c < map.columns; ++c) row[c] *= down;
  }
}

// Adds what 3 x 3 taps, `reach` columns apart, give of T + 2 rows to T rows of `out`; whole
// vectors.
template <int T>
static inline void add_taps(const float* const* rows, int64_t reach, const float* taps,
                            int64_t columns, float* const* out) {
  const float* row[T + 2];
  for (int r = 0; r < T + 2; ++r) row[r] = rows[r];
  float* to[T];
  for (int t = 0; t < T; ++t) to[t] = out[t];
  Vec weight[kTaps];
  for (int i = 0; i < kTaps; ++i) weight[i] = broadcast<Vec>(taps[i]);
  for (int64_t c = 0; c < columns; c += kLanes) {
    Vec sum[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sum[t] = load<Vec>(to[t] + c);
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
#pragma GCC unroll 6
      for (int r = 0; r < T + 2; ++r) {
        const Vec x = load<Vec>(row[r] + (j - 1) * reach + c);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          if (r >= t && r < t + 3) sum[t] += weight[3 * (r - t) + j] * x;
        }
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) store(to[t] + c, sum[t]);
  }
}

// Calls four(row) for each row of a band, `step` from which lie three more that share its input,
// or one(row) where rows are too far apart.
template <typename Four, typename One>
static inline void for_each_group(int64_t valid, int64_t step, Four&& four, One&& one) {
  if (kBand % (4 * step) != 0) {
    for (int64_t i = 0; i < valid; ++i) one(i);
    return;
  }
  for (int64_t i = 0; i < valid; i = i % step == step - 1 ? i + 3 * step + 1 : i + 1) four(i);
}

// Adds a dilated convolution of the map to `valid` rows from `first` on. There are kBand rows in
// the band, of which the others are overwritten.
static inline void add_convolution(const Map& x, int64_t first, int64_t valid, int64_t dilation,
                                   const float* taps, float* band, int64_t stride) {
  const int64_t step = min(dilation, x.rows), reach = min(dilation, x.columns);
  const float* rows[6];
  float* out[4];
  const auto gather = [&](int64_t i, int count) {
    for (int r = 0; r < count + 2; ++r) rows[r] = x.row(first + i + (r - 1) * step);
    for (int t = 0; t < count; ++t) out[t] = band + (i + t * step) * stride;
  };
  for_each_group(
      valid, step,
      [&](int64_t i) {
        gather(i, 4);
        add_taps<4>(rows, reach, taps, x.columns, out);
      },
      [&](int64_t i) {
        gather(i, 1);
        add_taps<1>(rows, reach, taps, x.columns, out);
      });
}

static inline void fill_rows(float* rows, int64_t count, int64_t stride, int64_t columns,
                             float value) {
  const Vec v = broadcast<Vec>(value);
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t c = 0; c < columns; c += kLanes) store(rows + r * stride + c, v);
  }
}

// out += (1 - fraction) a + fraction b
static inline void add_between(const float* a, const float* b, float fraction, int64_t columns,
                               float* out) {
  const Vec wa = broadcast<Vec>(1 - fraction), wb = broadcast<Vec>(fraction);
  for (int64_t c = 0; c < columns; c += kLanes) {
    store(out + c, load<Vec>(out + c) + wa * load<Vec>(a + c) + wb * load<Vec>(b + c));
  }
}

// Where the values of branch k lie in a table, and its share of a plane.
static inline int64_t entry(const MixProblem& p, int64_t k, int64_t channel) {
  return k * p.channels + channel;
}
static inline int64_t share_entry(const MixProblem& p, int64_t image, int64_t k, int64_t channel) {
  return (image * p.branches + k) * p.channels + channel;
}

static inline float share_of(const MixProblem& p, int64_t image, int64_t k, int64_t channel) {
  return p.mix[share_entry(p, image, k, channel)];
}

// Calls body(first row, rows) for the bands of a map.
template <typename Body>
static inline void for_each_band(const Map& map, Body&& body) {
  for (int64_t first = 0; first < map.rows; first += kBand) {
    body(first, min(kBand, map.rows - first));
  }
}

// Brings a plane of u into maps[0] and pools it up to the octave `highest`.
template <typename T>
static inline void read_pooled(const MixProblem& p, int64_t image, int64_t channel, int64_t highest,
                               const Map* maps) {
  read_plane<T>(p, p.u, image, channel, maps[0]);
  for (int64_t octave = 1; octave <= highest; ++octave) halve(maps[octave - 1], maps[octave]);
  for (int64_t octave = 1; octave <= highest; ++octave) correct_last(p, octave, maps[octave]);
}

static inline double lane_total(VecDouble v) {
  double total = 0;
  for (int lane = 0; lane < kLanes / 2; ++lane) total += v[lane];
  return total;
}

}  // namespace lmwp::LMWP_ISA
