// The inner loop of dense convolutions over float32 rows.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "common/epilogue.h"
#include "cpu/multiscale_conv.h"
#include "cpu/resample.h"
#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {

// Channels and vectors of sums that stay in registers: 24 of 32, or 12 of 16.
constexpr int64_t kTileChannels = kLanes == 16 ? 8 : 4;
constexpr int64_t kTileVectors = 3;

// What a tile of output channels sums up: element k of the sum of channel t is
// weight[k * channels + t] * source[k][row * pitch + column].
struct TileSources {
  const float* const* source;
  int64_t count, pitch;
  const float* weight;
  int64_t first;  // row of the sources where the tile begins
};

// Planes of the output's width, one for each channel of the tile, that are resized to its height
// when they are added. Row 0 of a plane is row `first` of the coarser map.
struct TileAddend {
  const float* plane;
  int64_t stride, pitch, first;
  Axis axis;
};

// Where the sums of a tile go, and what is done to them on the way.
struct TileTarget {
  const TileAddend* addends;
  int64_t addend_count;
  const float *scale, *shift, *slope;  // per channel of the tile
  float* out;
  int64_t stride, pitch;  // from channel to channel and from row to row of `out`
};

// The two rows that an addend is mixed from.
struct MixedRows {
  const float *low, *next;
  int64_t stride;
  float fraction;
};

template <int T, int V>
static inline void conv_vectors(const TileSources& sources, const MixedRows* mixed,
                                const TileTarget& target, int64_t source_row, int64_t column,
                                float* out) {
  Vec sum[T][V] = {};
  for (int64_t i = 0; i < target.addend_count; ++i) {
    const Vec next_part = broadcast<Vec>(mixed[i].fraction), low_part = 1.0f - next_part;
    const int64_t stride = mixed[i].stride;
    const float *low = mixed[i].low + column, *next = mixed[i].next + column;
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        sum[t][v] += low_part * load<Vec>(low + t * stride + v * kLanes) +
                     next_part * load<Vec>(next + t * stride + v * kLanes);
      }
    }
  }
  const float* weight = sources.weight;
  const int64_t at = source_row + column;
  for (int64_t k = 0; k < sources.count; ++k, weight += T) {
    const float* from = sources.source[k] + at;
    Vec x[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) x[v] = load<Vec>(from + v * kLanes);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const Vec w = broadcast<Vec>(weight[t]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[t][v] += w * x[v];
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const Vec scale = broadcast<Vec>(target.scale[t]), shift = broadcast<Vec>(target.shift[t]);
    const Vec slope = broadcast<Vec>(target.slope[t]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      store(out + t * target.stride + column + v * kLanes,
            affine_prelu(sum[t][v], scale, shift, slope));
    }
  }
}

// The pixels that a tile computes: columns [first, last) of the rows [begin, begin + rows).
struct TileWindow {
  int64_t begin, rows, first, last;
};

// Of the `left` last vectors before column `last`, as evenly as can be: sums of a single one wait
// for each other.
static inline int64_t vectors_at_once(int64_t left, int64_t last) {
  static_assert(kTileVectors == 3);
  const int64_t count = left == 4 ? 2 : min(left, kTileVectors);
  return count > 1 && count * kLanes > last ? count - 1 : count;
}

// A window of T channels. The last vectors of a row move back to end at `last`; only where that is
// less than a vector from the row's start is a whole one read and written all the same.
template <int T>
static void conv_tile(const TileSources& sources, const TileTarget& target,
                      const TileWindow& window) {
  MixedRows mixed[kMostTerms];
  const int64_t vectors = ceil_div(window.last - window.first, kLanes);
  for (int64_t r = 0; r < window.rows; ++r) {
    for (int64_t i = 0; i < target.addend_count; ++i) {
      const TileAddend& addend = target.addends[i];
      const int64_t low = addend.axis.low(window.begin + r);
      const float fraction = addend.axis.fraction(window.begin + r);
      const int64_t next = fraction > 0 ? min(low + 1, addend.axis.in - 1) : low;
      mixed[i] = {addend.plane + (low - addend.first) * addend.pitch,
                  addend.plane + (next - addend.first) * addend.pitch, addend.stride, fraction};
    }
    float* const out = target.out + r * target.pitch;
    const int64_t row = (sources.first + r) * sources.pitch;
    for (int64_t done = 0; done < vectors;) {
      const int64_t count = vectors_at_once(vectors - done, window.last);
      const int64_t column = done + count == vectors ? max(0, window.last - count * kLanes)
                                                     : window.first + done * kLanes;
      if (count == 3) {
        conv_vectors<T, 3>(sources, mixed, target, row, column, out);
      } else if (count == 2) {
        conv_vectors<T, 2>(sources, mixed, target, row, column, out);
      } else {
        conv_vectors<T, 1>(sources, mixed, target, row, column, out);
      }
      done += count;
    }
  }
}

using TileFunction = void (*)(const TileSources&, const TileTarget&, const TileWindow&);

// conv_tile of `channels` channels, 1 to kTileChannels.
template <int T = kTileChannels>
static TileFunction tile_function(int64_t channels) {
  if constexpr (T > 1) {
    if (channels < T) return tile_function<T - 1>(channels);
  }
  return conv_tile<T>;
}

}  // namespace lmwp::LMWP_ISA
