// The inner loop of convolutions by a pruned weight, over float32 planes.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/rows.h"
#include "cpu/sparse_epilogue.h"

namespace lmwp::LMWP_ISA {

// Sums that stay in registers, of 32 or 16, and the most channels and vectors they may be of.
constexpr int kSparseSums = kLanes == 16 ? 24 : 12;
constexpr int kSparseChannels = kLanes == 16 ? 8 : 4;
constexpr int kSparseVectors = 8;

// Vectors of pixels whose sums for `channels` channels stay in registers.
constexpr int sparse_vectors(int channels) {
  return kSparseSums / channels < kSparseVectors ? kSparseSums / channels : kSparseVectors;
}

// Where the first pixel is, and from there on what each column of the weight reads.
struct SparsePixels {
  const float* first;
  const int32_t* source;
};

// Stores V vectors, of which only the first `count` elements are wanted where they are fewer.
template <int V>
static inline void store_pixels(const Vec (&values)[V], float* to, int64_t count) {
  const int64_t whole = count / kLanes;
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    if (v < whole) {
      store(to + v * kLanes, values[v]);
    } else if (v == whole && count > whole * kLanes) {
      narrow_partial(values[v], to + v * kLanes, count - whole * kLanes);
    }
  }
}

// The epilogue of each channel of a tile, where its results are stored, and how many pixels of them
// are.
struct SparseTarget {
  ChannelEpilogue epilogue[kSparseChannels];
  float* out[kSparseChannels];
  int64_t pixels;
};

// T channels of `rows` from the one on that `weight` begins with.
template <int T, int V>
static inline void sparse_vectors_of(const SparsePixels& pixels, const SparseRows& rows,
                                     const float* weight, const SparseTarget& target,
                                     int64_t pixel) {
  Vec sum[T][V] = {};
  const float* const first = pixels.first + pixel;
  for (int64_t k = 0; k < rows.column_count; ++k, weight += rows.column_step) {
    const float* const from = first + pixels.source[rows.column[k]];
    Vec x[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) x[v] = load<Vec>(from + v * kLanes);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const Vec w = broadcast<Vec>(weight[t * rows.output_step]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[t][v] += w * x[v];
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    target.epilogue[t].finish(sum[t]);
    store_pixels<V>(sum[t], target.out[t] + pixel, target.pixels - pixel);
  }
}

template <int T, int V>
static inline void sparse_rest(const SparsePixels& pixels, const SparseRows& rows,
                               const float* weight, const SparseTarget& target, int64_t pixel,
                               int64_t vectors) {
  if constexpr (V > 1) {
    if (vectors < V) return sparse_rest<T, V - 1>(pixels, rows, weight, target, pixel, vectors);
  }
  sparse_vectors_of<T, V>(pixels, rows, weight, target, pixel);
}

// `vectors` whole vectors of pixels of T channels.
template <int T>
static void sparse_tile(const SparsePixels& pixels, const SparseRows& rows, const float* weight,
                        const SparseTarget& target, int64_t vectors) {
  constexpr int V = sparse_vectors(T);
  int64_t done = 0;
  for (; vectors - done >= V; done += V) {
    sparse_vectors_of<T, V>(pixels, rows, weight, target, done * kLanes);
  }
  if (done < vectors) {
    sparse_rest<T, V>(pixels, rows, weight, target, done * kLanes, vectors - done);
  }
}

using SparseTileFunction = void (*)(const SparsePixels&, const SparseRows&, const float*,
                                    const SparseTarget&, int64_t);

// sparse_tile of `channels` channels, 1 to kSparseChannels.
template <int T = kSparseChannels>
static SparseTileFunction sparse_tile_function(int64_t channels) {
  if constexpr (T > 1) {
    if (channels < T) return sparse_tile_function<T - 1>(channels);
  }
  return sparse_tile<T>;
}

// What a slab of the columns adds to the sums of `count` channels from `channel` on, over a panel
// of pixels; the last slab finishes them.
struct SparseSlab {
  const int32_t* offset;  // where each channel's columns and weights begin, and the last ones end
  const int32_t* column;
  const float* weight;
  int64_t channel, count;
  bool is_first, is_last;
  int64_t fetched;   // columns whose next panel is fetched, one with each channel
  bool fetches_out;  // the next panel of each channel's results, too
  float* sums;       // of each channel, `sum_stride` apart
  int64_t sum_stride;
  float* out;              // where results are stored, `stride` apart; null: where the sums are
  int64_t stride, pixels;  // of each channel this many pixels are stored in the end
  const SparseConvProblem* problem;  // for its epilogue
};

// Where a column of the weight reads: in planes that lie evenly, which is found faster than from a
// list, or anywhere.
struct EvenPlanes {
  int64_t floats;
  int64_t operator()(int64_t column) const { return column * floats; }
};
struct ListedPlanes {
  const int32_t* source;
  int64_t operator()(int64_t column) const { return source[column]; }
};

// Asks for V vectors before they are needed, to be written or to be read.
template <int V, bool written>
static inline void fetch(const float* first) {
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) __builtin_prefetch(first + v * kLanes, written);
}

// V vectors of every channel, whose pixels begin at `first` in the first plane.
template <int V, typename Planes>
static void sparse_singles(const float* first, const Planes& planes, const SparseSlab& slab) {
  for (int64_t r = 0; r < slab.count; ++r) {
    if (r < slab.fetched) fetch<V, false>(first + planes(r) + V * kLanes);
    if (slab.fetches_out) fetch<V, true>(slab.out + r * slab.stride + V * kLanes);
    float* const sums = slab.sums + r * slab.sum_stride;
    Vec sum[V] = {};
    if (!slab.is_first) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[v] = load<Vec>(sums + v * kLanes);
    }
    for (int64_t k = slab.offset[r]; k < slab.offset[r + 1]; ++k) {
      const float* const from = first + planes(slab.column[k]);
      const Vec w = broadcast<Vec>(slab.weight[k]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[v] += w * load<Vec>(from + v * kLanes);
    }
    float* out = sums;
    if (slab.is_last) {
      ChannelEpilogue(*slab.problem, slab.channel + r).finish(sum);
      if (slab.out) out = slab.out + r * slab.stride;
    }
    store_pixels<V>(sum, out, slab.is_last ? slab.pixels : V * kLanes);
  }
}

template <typename Planes>
using SparseSinglesFunction = void (*)(const float*, const Planes&, const SparseSlab&);

// sparse_singles of `vectors` vectors, 1 to kSparseVectors.
template <typename Planes, int V = kSparseVectors>
static SparseSinglesFunction<Planes> sparse_singles_function(int64_t vectors) {
  if constexpr (V > 1) {
    if (vectors < V) return sparse_singles_function<Planes, V - 1>(vectors);
  }
  return sparse_singles<V, Planes>;
}

}  // namespace lmwp::LMWP_ISA
