// Passes over all elements of a feature, channel by channel or vector of channels by vector, that
// leave sums behind for each.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/channel_problem.h"
#include "cpu/denormals.h"
#include "cpu/lane_sums.h"
#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {

constexpr int64_t kBandElements = 32768;  // of an interleaved unit
constexpr int kSums = 3;                  // kept for every channel of a unit

static inline int64_t band_rows(const ChannelProblem& p) {
  return p.interleaved ? max(1, kBandElements / (p.columns * p.channels)) : max(1, p.rows);
}

static inline int64_t bands(const ChannelProblem& p) { return ceil_div(p.rows, band_rows(p)); }

static inline int64_t units(const ChannelProblem& p) {
  return p.batch * (p.interleaved ? bands(p) : p.channels);
}

static inline int64_t sum_doubles(const ChannelProblem& p) {
  return kSums * p.batch * bands(p) * p.channels;
}

static inline double* unit_sums(const ChannelProblem& p, int64_t image, int64_t band,
                                int64_t channel) {
  const int64_t slot =
      p.interleaved ? (image * bands(p) + band) * p.channels + channel : channel * p.batch + image;
  return p.sums + kSums * slot;
}

// Adds what all units summed up for a channel, in a fixed order.
static inline void add_unit_sums(const ChannelProblem& p, int64_t channel, double* total) {
  for (int64_t image = 0; image < p.batch; ++image) {
    for (int64_t band = 0; band < bands(p); ++band) {
      const double* sums = unit_sums(p, image, band, channel);
      for (int s = 0; s < kSums; ++s) total[s] += sums[s];
    }
  }
}

// Of lane i where lanes are channels, else of all lanes together.
template <bool interleaved>
double channel_sum(const LaneSums& sums, int64_t i) {
  return interleaved ? sums.lane(i) : sums.total();
}

// Where a run of vectors lies: `lanes` valid lanes in each, from one pixel of a channel on.
struct Run {
  int64_t image, channel, row, column, vectors, lanes;
};

template <typename T>
T* at(const ChannelFeature& feature, const Run& run) {
  return static_cast<T*>(feature.data) + run.image * feature.image + run.channel * feature.channel +
         run.row * feature.row + run.column * feature.column;
}

template <bool interleaved>
int64_t vector_step(const ChannelFeature& feature) {
  return interleaved ? feature.column : kLanes;
}

template <bool whole, typename T>
Vec get(const T* from, int64_t lanes) {
  return whole ? widen(from) : widen_partial(from, lanes);
}

template <bool whole, typename T>
void put(Vec v, T* to, int64_t lanes) {
  if (whole) {
    narrow(v, to);
  } else {
    narrow_partial(v, to, lanes);
  }
}

// The value of a channel in every lane, or those of the channels in the lanes.
template <bool interleaved>
Vec of_channel(const float* values, int64_t channel) {
  return interleaved ? load<Vec>(values + channel) : broadcast<Vec>(values[channel]);
}

// Calls pass.begin, pass.run for all its elements and pass.end, for each channel or vector of
// channels of a unit.
template <bool interleaved, typename Pass>
void walk(const ChannelProblem& p, int64_t unit, Pass pass) {
  const auto visit = [&pass](const Run& run) {
    if (run.vectors == 0) return;
    if (run.lanes == kLanes) {
      pass.template run<true>(run);
    } else {
      pass.template run<false>(run);
    }
  };
  if constexpr (interleaved) {
    const int64_t image = unit / bands(p), band = unit % bands(p);
    const int64_t first = band * band_rows(p), end = min(p.rows, first + band_rows(p));
    for (int64_t c = 0; c < p.channels; c += kLanes) {
      const int64_t lanes = min(kLanes, p.channels - c);
      pass.begin(c);
      for (int64_t row = first; row < end; ++row) visit({image, c, row, 0, p.columns, lanes});
      pass.end(image, band, c, lanes);
    }
  } else {
    const int64_t c = unit / p.batch, image = unit % p.batch;
    const int64_t whole = p.columns / kLanes, rest = p.columns % kLanes;
    pass.begin(c);
    for (int64_t row = 0; row < p.rows; ++row) {
      visit({image, c, row, 0, whole, kLanes});
      if (rest > 0) visit({image, c, row, whole * kLanes, 1, rest});
    }
    pass.end(image, 0, c, 1);
  }
}

template <template <typename, bool> typename Pass, bool interleaved, typename Problem>
void run_units(const Problem& p, int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    switch (p.dtype) {
      case Dtype::float32:
        walk<interleaved>(p, unit, Pass<float, interleaved>(p));
        break;
      case Dtype::float16:
        walk<interleaved>(p, unit, Pass<Half, interleaved>(p));
        break;
      case Dtype::bfloat16:
        walk<interleaved>(p, unit, Pass<BFloat16, interleaved>(p));
        break;
    }
  }
}

// Of units [begin, end).
template <template <typename, bool> typename Pass, typename Problem>
void run(const Problem& p, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  if (p.interleaved) {
    run_units<Pass, true>(p, begin, end);
  } else {
    run_units<Pass, false>(p, begin, end);
  }
}

}  // namespace lmwp::LMWP_ISA
