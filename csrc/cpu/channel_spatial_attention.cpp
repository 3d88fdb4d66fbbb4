// A channel gate, then a spatial gate: x is read for the pools of its pixels, for those of its
// gated channels, and for the product. The latter two follow each other in bands of rows that
// stay in cache.
#include "cpu/channel_spatial_attention.h"

#include "cpu/attention_gates.h"
#include "cpu/attention_pixels.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kBandBytes = 1 << 19;

int64_t scratch_floats(const AttentionProblem& p) { return AttentionScratch(p, nullptr).floats(); }

// The product of rows with both gates.
template <typename T>
void multiply_planes(const AttentionProblem& p, int64_t image, float* memory, int64_t first_row,
                     int64_t end_row) {
  const AttentionScratch s(p, memory);
  for (int64_t first = first_row * p.columns; first < end_row * p.columns; first += kChunk) {
    const int64_t count = min(kChunk, end_row * p.columns - first);
    for (int64_t c = 0; c < p.channels; ++c) {
      const T* const x = plane<const T>(p.x, image, c) + first;
      T* const out = plane<T>(p.out, image, c) + first;
      const Vec gate = broadcast<Vec>(s.gate[c]);
      for_vectors<4>(count, [&]<int vectors, Part part>(int64_t i, int64_t lanes) {
        for (int64_t at = i; at < i + vectors * kLanes; at += kLanes) {
          const Vec e = gate * get<part>(x + at, lanes);
          const Vec b =
              p.size > 0 ? get<part>(s.spatial + first + at, lanes) : broadcast<Vec>(1.0f);
          put<part>(e * b, out + at, lanes);
        }
      });
    }
  }
}

// The passes, whichever way the channels lie.
template <typename T>
void pool_over_pixels(const AttentionProblem& p, int64_t image, float* memory, int64_t begin,
                      int64_t end) {
  (p.x.pixel ? pool_side_by_side<T> : pool_pixels<T>)(p, image, memory, begin, end);
}

template <typename T>
void pool_over_channels(const AttentionProblem& p, int64_t image, float* memory, int64_t begin,
                        int64_t end) {
  (p.x.pixel ? pool_across<T> : pool_channels<T>)(p, image, memory, begin, end);
}

template <typename T>
void apply_gates(const AttentionProblem& p, int64_t image, float* memory, int64_t begin,
                 int64_t end) {
  const AttentionScratch s(p, memory);
  if (p.size > 0) gate_pixels(p, s, begin, end, [](int64_t, int64_t, Vec) {});
  (p.x.pixel ? multiply_pixels<T> : multiply_planes<T>)(p, image, memory, begin, end);
}

template <typename T>
void whole(const AttentionProblem& p, int64_t image, float* memory) {
  const FlushDenormals flush;
  pool_over_pixels<T>(p, image, memory, 0, p.channels);
  gate_channels(p, image, memory, 0, 1);
  const int64_t row_bytes = p.channels * p.columns * static_cast<int64_t>(sizeof(T));
  const int64_t band = ceil_div(max(1, kBandBytes / row_bytes), kConvolvedRows) * kConvolvedRows;
  int64_t pooled = 0;
  for (int64_t row = 0; row < p.rows; row += band) {
    const int64_t end = min(p.rows, row + band), needed = min(p.rows, end + p.size / 2);
    pool_over_channels<T>(p, image, memory, pooled, needed);
    pooled = needed;
    apply_gates<T>(p, image, memory, row, end);
  }
}

template <typename T>
constexpr AttentionStep kSteps[] = {{channel_items, flushing<pool_over_pixels<T>>},
                                    {one_item, flushing<gate_channels>},
                                    {row_items, flushing<pool_over_channels<T>>},
                                    {row_items, flushing<apply_gates<T>>},
                                    {}};

template <typename T>
constexpr AttentionPasses kPasses = {scratch_floats, whole<T>, kSteps<T>};

}  // namespace

const AttentionPasses* channel_spatial_attention_forward() {
  static constexpr AttentionPasses passes[] = {kPasses<float>, kPasses<Half>, kPasses<BFloat16>};
  return passes;
}

}  // namespace lmwp::LMWP_ISA
