// The passes over a feature whose channels lie side by side.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/attention_gates.h"
#include "cpu/transpose.h"

namespace lmwp::LMWP_ISA {

constexpr int64_t kPixelsSummed = 256;  // by one of the partial sums of a channel
constexpr int64_t kChains = 4;          // of sums, so that they do not wait for each other

template <typename T>
static inline T* pixel(const ImageFeature& feature, int64_t image, int64_t i) {
  return static_cast<T*>(feature.data) + image * feature.image + i * feature.pixel;
}

// Mean and maximum of channels [begin, end).
template <typename T>
static inline void pool_side_by_side(const AttentionProblem& p, int64_t image, float* memory,
                                     int64_t begin, int64_t end) {
  const AttentionScratch s(p, memory);
  if (p.hidden == 0) return;
  for_vectors<1>(end - begin, [&]<int, Part part>(int64_t i, int64_t lanes) {
    const int64_t c = begin + i;
    LaneSums sum;
    Vec tops[kChains];
    for (Vec& top : tops) top = lowest();
    for (int64_t first = 0; first < pixels(p); first += kPixelsSummed) {
      Vec sums[kChains] = {};
      const int64_t last = min(pixels(p), first + kPixelsSummed);
      const T* x = pixel<const T>(p.x, image, first) + c;
      for (int64_t at = first; at < last; at += kChains) {
        for (int64_t k = 0; k < min(kChains, last - at); ++k, x += p.x.pixel) {
          const Vec v = get<part>(x, lanes);
          sums[k] += v;
          tops[k] = larger(tops[k], v);
        }
      }
      sum.add((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
    const Vec top = larger(larger(tops[0], tops[1]), larger(tops[2], tops[3]));
    const int64_t count = min(kLanes, end - c);
    for (int64_t j = 0; j < count && p.mean; ++j) {
      s.pooled[c + j] = static_cast<float>(sum.lane(j) / static_cast<double>(pixels(p)));
    }
    if (p.max) put<part>(top, s.pooled + p.mean * align(p.channels) + c, lanes);
  });
}

// Mean and maximum over the gated channels of `count` <= kLanes pixels.
template <typename T>
static inline void pool_vector(const AttentionProblem& p, const float* gate, const T* x,
                               int64_t count, Vec* mean, Vec* maximum) {
  Vec sums[kLanes] = {}, tops[kLanes] = {};
  for (int64_t i = 0; i < count; ++i, x += p.x.pixel) {
    Vec sum{}, top = lowest();
    for_vectors<1>(p.channels, [&]<int, Part part>(int64_t c, int64_t lanes) {
      const Vec e = get<part>(gate + c, lanes) * get<part>(x + c, lanes);
      sum += only_new<part>(e, lanes);
      top = larger(top, only_new<part>(e, lanes, lowest()));
    });
    sums[i] = sum;
    tops[i] = top;
  }
  *mean = sum_across(sums) * (1.0f / static_cast<float>(p.channels));
  *maximum = join_across(tops, [](Vec a, Vec b) { return larger(a, b); });
}

// The same of the pixels of rows, to the maps.
template <typename T>
static inline void pool_across(const AttentionProblem& p, int64_t image, float* memory,
                               int64_t first_row, int64_t end_row) {
  if (p.size == 0) return;
  const AttentionScratch s(p, memory);
  for (int64_t first = first_row * p.columns; first < end_row * p.columns; first += kChunk) {
    const int64_t count = min(kChunk, end_row * p.columns - first);
    float means[kChunk], maxima[kChunk];
    for (int64_t i = 0; i < count; i += kLanes) {
      const int64_t lanes = min(kLanes, count - i);
      Vec mean, maximum;
      pool_vector(p, s.gate, pixel<const T>(p.x, image, first + i), lanes, &mean, &maximum);
      store_lanes(mean, means + i, lanes);
      store_lanes(maximum, maxima + i, lanes);
    }
    if (p.mean) enframe(p, means, first, count, s.maps);
    if (p.max) enframe(p, maxima, first, count, s.maps + p.mean * Frame(p).floats);
  }
}

// The product of rows with both gates.
template <typename T>
static inline void multiply_pixels(const AttentionProblem& p, int64_t image, float* memory,
                                   int64_t first_row, int64_t end_row) {
  const AttentionScratch s(p, memory);
  for (int64_t i = first_row * p.columns; i < end_row * p.columns; ++i) {
    const T* const x = pixel<const T>(p.x, image, i);
    T* const out = pixel<T>(p.out, image, i);
    const Vec b = broadcast<Vec>(p.size > 0 ? s.spatial[i] : 1.0f);
    for_vectors<1>(p.channels, [&]<int, Part part>(int64_t c, int64_t lanes) {
      put<part>(get<part>(s.gate + c, lanes) * get<part>(x + c, lanes) * b, out + c, lanes);
    });
  }
}

}  // namespace lmwp::LMWP_ISA
