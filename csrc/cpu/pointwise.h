// 1 x 1 convolutions from planes, or from pixels, to pixels whose channels lie side by side.
//
// Weights are packed into panels of two vectors of output channels; a tile of pixels keeps its sums
// in registers while it meets a panel. Compiled once per instruction set: every name lives in the
// namespace of that set.
#pragma once

#include "cpu/pointwise_layer.h"
#include "cpu/rows.h"
#include "cpu/transpose.h"

namespace lmwp::LMWP_ISA {

constexpr int kTilePixels = kLanes == 16 ? 12 : 6;  // of two vectors each: 24 or 12 sums
constexpr int kPanelVectors = 2;
constexpr int64_t kPanelChannels = kPanelVectors * kLanes;

// Floats of a pixel with so many channels.
static inline int64_t padded(int64_t channels) { return ceil_div(channels, kLanes) * kLanes; }

static inline Vec load_first(const float* from, int64_t count) {
  return count >= kLanes ? load<Vec>(from) : widen_partial(from, count);
}

// A square of a matrix [rows, columns] whose rows are `pitch` apart; zeros beyond its borders.
static inline void load_square(const float* from, int64_t pitch, int64_t rows, int64_t columns,
                               Vec* v) {
#pragma GCC unroll 16
  for (int64_t i = 0; i < kLanes; ++i) {
    v[i] = i < rows ? load_first(from + i * pitch, columns) : Vec{};
  }
}

// The products of a few rows of a matrix, `pitch` apart, with a vector of `columns` elements.
static inline Vec products(const float* matrix, int64_t pitch, int64_t rows, int64_t columns,
                           const float* vector) {
  Vec sums[kLanes] = {};
  for (int64_t k = 0; k < columns; k += kLanes) {
    const Vec v = load_first(vector + k, columns - k);
    for (int64_t i = 0; i < rows; ++i) {
      sums[i] += load_first(matrix + i * pitch + k, columns - k) * v;
    }
  }
  return sum_across(sums);
}

// Values of a few output channels of a layer, `missing` where it has none.
static inline Vec of_channels(const float* values, int64_t first, int64_t count, float missing) {
  return values ? load_first(values + first, count) : broadcast<Vec>(missing);
}

// A layer as tiles read it: weights times scale as [panel, input, channel of the panel], then the
// shifts and the slopes.
static inline int64_t packed_floats(const PointwiseLayer& layer) {
  return (layer.in + 2) * padded(layer.out);
}

static inline void pack(const PointwiseLayer& layer, float* packed) {
  const int64_t in = layer.in, out = padded(layer.out);
  for (int64_t c = 0; c < out; c += kLanes) {
    const int64_t panel = c / kPanelChannels * kPanelChannels, rows = min(kLanes, layer.out - c);
    const int64_t width = min(kPanelChannels, out - panel);
    float* const to = packed + panel * in + c - panel;
    const Vec scale = of_channels(layer.scale, c, rows, 1);
    for (int64_t k = 0; k < in; k += kLanes) {
      Vec v[kLanes];
      load_square(layer.weight + c * in + k, in, rows, in - k, v);
      transpose(v);
      for (int64_t i = 0; i < min(kLanes, in - k); ++i) store(to + (k + i) * width, v[i] * scale);
    }
    store(packed + in * out + c, of_channels(layer.shift, c, rows, 0));
    store(packed + (in + 1) * out + c, of_channels(layer.slope, c, rows, 1));
  }
}

// What a layer reads: element k of a pixel lies `stride` after element k - 1 in planes, whose
// pixels are next to each other; else the pixels are `stride` apart.
struct PixelSource {
  const float* first;
  int64_t stride;
  bool planar;
};

// Where pixels go, in rows. Pixels `added_pitch` apart may be added before the activation, which
// may have other slopes than the layer's.
struct PixelTarget {
  float* first;
  int64_t columns, pitch, row_pitch;
  const float* added = nullptr;
  int64_t added_pitch = 0;
  const float* slopes = nullptr;
};

// P pixels of V vectors of channels.
template <int P, int V, bool planar>
static void pointwise_tile(const PixelSource& source, int64_t inputs, const float* weight,
                           const float* shift, const float* slope, const float* added,
                           int64_t added_pitch, float* const* to) {
  Vec sum[P][V];
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      sum[p][v] = load<Vec>(shift + v * kLanes);
      if (added) sum[p][v] += load<Vec>(added + p * added_pitch + v * kLanes);
    }
  }
  const float* from = source.first;
  const int64_t stride = source.stride;
  for (int64_t k = 0; k < inputs; ++k) {
    Vec w[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) w[v] = load<Vec>(weight + v * kLanes);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      const Vec x = broadcast<Vec>(planar ? from[p] : from[p * stride]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[p][v] += x * w[v];
    }
    weight += V * kLanes;
    from += planar ? stride : 1;
  }
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    const Vec a = load<Vec>(slope + v * kLanes);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      store(to[p] + v * kLanes, sum[p][v] < 0.0f ? a * sum[p][v] : sum[p][v]);
    }
  }
}

using PointwiseTile = void (*)(const PixelSource&, int64_t, const float*, const float*,
                               const float*, const float*, int64_t, float* const*);

// pointwise_tile of `pixels`, 1 to kTilePixels.
template <int V, bool planar, int P = kTilePixels>
static PointwiseTile pointwise_tile_of(int64_t pixels) {
  if constexpr (P > 1) {
    if (pixels < P) return pointwise_tile_of<V, planar, P - 1>(pixels);
  }
  return pointwise_tile<P, V, planar>;
}

// The layer on `pixels` from the first of the source to the first of the target.
template <bool planar>
static void apply_as(const PointwiseLayer& layer, const float* packed, const PixelSource& source,
                     int64_t pixels, const PixelTarget& target) {
  const int64_t out = padded(layer.out);
  const float* const shifts = packed + layer.in * out;
  const int64_t tiles = ceil_div(pixels, kTilePixels);
  const int64_t share = pixels / tiles, larger_ones = pixels % tiles;
  for (int64_t panel = 0; panel < out; panel += kPanelChannels) {
    const bool whole = panel + kPanelChannels <= out;
    const auto tile_of =
        whole ? pointwise_tile_of<kPanelVectors, planar> : pointwise_tile_of<1, planar>;
    const PointwiseTile one_more = larger_ones ? tile_of(share + 1) : nullptr;
    const PointwiseTile plain = tile_of(share);
    const float* const weight = packed + panel * layer.in;
    const float* const shift = shifts + panel;
    const float* const slope = (target.slopes ? target.slopes : shifts + out) + panel;
    const float* added = target.added ? target.added + panel : nullptr;
    int64_t row = 0, column = 0;
    PixelSource at = source;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t count = share + (t < larger_ones);
      float* to[kTilePixels];
      for (int64_t p = 0; p < count; ++p) {
        to[p] = target.first + row * target.row_pitch + column * target.pitch + panel;
        if (++column == target.columns) {
          column = 0;
          ++row;
        }
      }
      (t < larger_ones ? one_more : plain)(at, layer.in, weight, shift, slope, added,
                                           target.added_pitch, to);
      if (added) added += count * target.added_pitch;
      at.first += count * (planar ? 1 : source.stride);
    }
  }
}

static inline void apply(const PointwiseLayer& layer, const float* packed,
                         const PixelSource& source, int64_t pixels, const PixelTarget& target) {
  (source.planar ? apply_as<true> : apply_as<false>)(layer, packed, source, pixels, target);
}

}  // namespace lmwp::LMWP_ISA
