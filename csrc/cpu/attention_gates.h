// The steps to both gates of one image: pools, layers, maps and their convolution.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/attention_scratch.h"
#include "cpu/denormals.h"
#include "cpu/flat_vectors.h"
#include "cpu/lane_sums.h"
#include "cpu/sigmoid.h"

namespace lmwp::LMWP_ISA {

constexpr int64_t kChunk = 1024;         // pixels whose maps stay in L1
constexpr int64_t kChannelsSummed = 16;  // by one of the partial sums of a pixel

template <typename T>
static inline T* plane(const ImageFeature& feature, int64_t image, int64_t channel) {
  return static_cast<T*>(feature.data) + image * feature.image + channel * feature.channel;
}

static inline Vec lowest() { return broadcast<Vec>(-__builtin_inff()); }

// The sum of a few vectors.
template <int count>
static inline Vec sum_of(const Vec* v) {
  if constexpr (count == 1) return v[0];
  return sum_of<count / 2>(v) + sum_of<count / 2>(v + count / 2);
}

// Mean and maximum of a plane.
template <typename T>
static inline void pool_plane(const T* x, int64_t pixels, float* mean, float* maximum) {
  LaneSums sum;
  Vec tops[4] = {lowest(), lowest(), lowest(), lowest()};
  for_vectors<4>(pixels, [&]<int vectors, Part part>(int64_t i, int64_t lanes) {
    Vec values[vectors];
    for (int v = 0; v < vectors; ++v) {
      values[v] = get<part>(x + i + v * kLanes, lanes);
      tops[v] = larger(tops[v], only_new<part>(values[v], lanes, lowest()));
    }
    sum.add(only_new<part>(sum_of<vectors>(values), lanes));
  });
  *mean = static_cast<float>(sum.total() / static_cast<double>(pixels));
  *maximum = largest_lane(larger(larger(tops[0], tops[1]), larger(tops[2], tops[3])));
}

template <typename T>
static inline void pool_pixels(const AttentionProblem& p, int64_t image, float* memory,
                               int64_t begin, int64_t end) {
  const AttentionScratch s(p, memory);
  if (p.hidden == 0) return;
  for (int64_t c = begin; c < end; ++c) {
    float unused;
    float* const mean = p.mean ? s.pooled + c : &unused;
    float* const maximum = p.max ? s.pooled + p.mean * align(p.channels) + c : &unused;
    pool_plane(plane<const T>(p.x, image, c), pixels(p), mean, maximum);
  }
}

// In float64: what is lost here, the logits of all channels lose several times over.
static inline float product(const float* a, const float* b, int64_t count) {
  LaneSums sums;
  for_vectors<1>(count, [&]<int, Part part>(int64_t i, int64_t lanes) {
    sums.add_products(only_new<part>(get<part>(a + i, lanes), lanes), get<part>(b + i, lanes));
  });
  return static_cast<float>(sums.total());
}

static inline void compute_hidden(const AttentionProblem& p, const AttentionScratch& s) {
  for (int64_t j = 0; j < p.hidden; ++j) {
    s.hidden[j] = 0;
    for (int64_t pool = 0; pool < pools(p); ++pool) {
      const float* const values = s.pooled + pool * align(p.channels);
      float z = product(p.reduce + j * p.channels, values, p.channels);
      if (p.reduce_bias) z += p.reduce_bias[j];
      s.before[pool * align(p.hidden) + j] = z;
      s.hidden[j] += z < 0 ? 0 : z;
    }
  }
}

// The second layer is linear: it is applied once to the sum over the pools.
static inline void compute_gate(const AttentionProblem& p, const AttentionScratch& s) {
  const float biases = static_cast<float>(pools(p));
  for (int64_t c = 0; c < p.channels; c += kLanes) {
    const int64_t lanes = min(kLanes, p.channels - c);
    float sums[kLanes] = {};
    for (int64_t j = 0; j < p.hidden; ++j) {
      for (int64_t i = 0; i < lanes; ++i) {
        sums[i] += s.hidden[j] * p.expand[(c + i) * p.hidden + j];
      }
    }
    for (int64_t i = 0; i < lanes && p.expand_bias; ++i) sums[i] += biases * p.expand_bias[c + i];
    store(s.logits + c, load<Vec>(sums));
    store(s.gate + c, sigmoid(load<Vec>(sums)));
  }
}

// The gate of every channel, ones where there is none; and frames of zeros for the maps.
static inline void gate_channels(const AttentionProblem& p, int64_t, float* memory, int64_t,
                                 int64_t) {
  const AttentionScratch s(p, memory);
  if (p.hidden > 0) {
    compute_hidden(p, s);
    compute_gate(p, s);
  } else {
    for (int64_t c = 0; c < p.channels; ++c) s.gate[c] = 1;
  }
  if (p.size > 0) __builtin_memset(s.maps, 0, pools(p) * Frame(p).floats * sizeof(float));
}

// Copies pixels [begin, begin + count) of a map into its frame.
static inline void enframe(const AttentionProblem& p, const float* from, int64_t begin,
                           int64_t count, float* framed) {
  const Frame frame(p);
  for (int64_t done = 0; done < count;) {
    const int64_t row = (begin + done) / p.columns, column = (begin + done) % p.columns;
    const int64_t run = min(p.columns - column, count - done);
    float* const to = framed + (row + frame.radius) * frame.pitch + frame.radius + column;
    __builtin_memcpy(to, from + done, run * sizeof(float));
    done += run;
  }
}

// Mean and maximum over the gated channels of the pixels of rows.
template <typename T>
static inline void pool_channels(const AttentionProblem& p, int64_t image, float* memory,
                                 int64_t first_row, int64_t end_row) {
  if (p.size == 0) return;
  const AttentionScratch s(p, memory);
  const float share = 1.0f / static_cast<float>(p.channels);
  for (int64_t first = first_row * p.columns; first < end_row * p.columns; first += kChunk) {
    const int64_t count = min(kChunk, end_row * p.columns - first);
    const T* const x = plane<const T>(p.x, image, 0) + first;
    float means[kChunk], maxima[kChunk];
    for_vectors<4>(count, [&]<int vectors, Part part>(int64_t i, int64_t lanes) {
      Vec sum[vectors] = {}, top[vectors];
      for (Vec& t : top) t = lowest();
      for (int64_t group = 0; group < p.channels; group += kChannelsSummed) {
        Vec partial[vectors] = {};
        for (int64_t c = group; c < min(p.channels, group + kChannelsSummed); ++c) {
          for (int v = 0; v < vectors; ++v) {
            const Vec e = s.gate[c] * get<part>(x + c * p.x.channel + i + v * kLanes, lanes);
            partial[v] += e;
            top[v] = larger(top[v], e);
          }
        }
        for (int v = 0; v < vectors; ++v) sum[v] += partial[v];
      }
      for (int v = 0; v < vectors; ++v) {
        put<part>(sum[v] * share, means + i + v * kLanes, lanes);
        put<part>(top[v], maxima + i + v * kLanes, lanes);
      }
    });
    if (p.mean) enframe(p, means, first, count, s.maps);
    if (p.max) enframe(p, maxima, first, count, s.maps + p.mean * Frame(p).floats);
  }
}

// Adds k x k products around each pixel of a vector in each of a few rows; `framed` points to the
// first of them in the first frame row.
template <int k>
static inline void add_products(const float* framed, int64_t pitch, const float* kernel,
                                Vec* sums) {
#pragma GCC unroll 16
  for (int row = 0; row < kConvolvedRows + k - 1; ++row) {
#pragma GCC unroll 8
    for (int dx = 0; dx < k; ++dx) {
      const Vec v = load<Vec>(framed + row * pitch + dx);
#pragma GCC unroll 4
      for (int i = 0; i < kConvolvedRows; ++i) {
        if (row >= i && row < i + k) sums[i] += kernel[(row - i) * k + dx] * v;
      }
    }
  }
}

// The sum over framed maps of their convolutions, each by a kernel [k, k], for the pixels of rows;
// calls use(pixel, lanes, sums) for each vector.
template <typename Use>
static inline void convolve(const AttentionProblem& p, const float* maps, int64_t count,
                            const float* kernels, int64_t first_row, int64_t end_row, Use use) {
  const Frame frame(p);
  for (int64_t row = first_row; row < end_row; row += kConvolvedRows) {
    for (int64_t column = 0; column < p.columns; column += kLanes) {
      Vec sums[kConvolvedRows] = {};
      for (int64_t map = 0; map < count; ++map) {
        const float* const at = maps + map * frame.floats + row * frame.pitch + column;
        const float* const kernel = kernels + map * p.size * p.size;
        if (p.size == 3) add_products<3>(at, frame.pitch, kernel, sums);
        if (p.size == 5) add_products<5>(at, frame.pitch, kernel, sums);
        if (p.size == 7) add_products<7>(at, frame.pitch, kernel, sums);
      }
      for (int64_t i = 0; i < min(kConvolvedRows, end_row - row); ++i) {
        use((row + i) * p.columns + column, min(kLanes, p.columns - column), sums[i]);
      }
    }
  }
}

// Stores a whole vector or the first lanes of one.
static inline void store_lanes(Vec v, float* to, int64_t lanes) {
  if (lanes == kLanes) {
    store(to, v);
  } else {
    narrow_partial(v, to, lanes);
  }
}

// The spatial gate of rows; calls use(pixel, lanes, sums) with what its sigmoid is applied to.
template <typename Use>
static inline void gate_pixels(const AttentionProblem& p, const AttentionScratch& s,
                               int64_t first_row, int64_t end_row, Use use) {
  convolve(p, s.maps, pools(p), p.kernel, first_row, end_row,
           [&](int64_t pixel, int64_t lanes, Vec sums) {
             store_lanes(sigmoid(sums), s.spatial + pixel, lanes);
             use(pixel, lanes, sums);
           });
}

static inline int64_t one_item(const AttentionProblem&) { return 1; }
static inline int64_t channel_items(const AttentionProblem& p) { return p.channels; }
static inline int64_t row_items(const AttentionProblem& p) { return p.rows; }

using RunOfStep = void (*)(const AttentionProblem&, int64_t, float*, int64_t, int64_t);

template <RunOfStep run>
static inline void flushing(const AttentionProblem& p, int64_t image, float* memory, int64_t begin,
                            int64_t end) {
  const FlushDenormals flush;
  run(p, image, memory, begin, end);
}

}  // namespace lmwp::LMWP_ISA
