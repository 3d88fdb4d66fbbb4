// Batch norm in training mode with PReLU: statistics and result forward, sums and gradient of x
// backward, each in one pass over memory.
//
// A vector holds columns of one channel where the feature is planar, and channels of one pixel
// where it is interleaved; the arithmetic is the same, in float32, and sums are float64.
#include "cpu/bn_prelu_gap.h"

#include "common/epilogue.h"
#include "cpu/denormals.h"
#include "cpu/lane_sums.h"
#include "cpu/moments.h"
#include "cpu/rows.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kBandElements = 32768;  // of an interleaved unit
constexpr int kSums = 3;                  // kept for every channel of a unit

int64_t band_rows(const NormProblem& p) {
  return p.interleaved ? max(1, kBandElements / (p.columns * p.channels)) : max(1, p.rows);
}

int64_t bands(const NormProblem& p) { return ceil_div(p.rows, band_rows(p)); }

int64_t units(const NormProblem& p) { return p.batch * (p.interleaved ? bands(p) : p.channels); }

int64_t sum_doubles(const NormProblem& p) { return kSums * p.batch * bands(p) * p.channels; }

double* unit_sums(const NormProblem& p, int64_t image, int64_t band, int64_t channel) {
  const int64_t slot =
      p.interleaved ? (image * bands(p) + band) * p.channels + channel : channel * p.batch + image;
  return p.sums + kSums * slot;
}

// What `apply` needs of each channel, an array of each.
struct ChannelValues {
  explicit ChannelValues(const NormProblem& p)
      : centre(p.channel),
        scale(centre + align(p.channels)),
        shift(scale + align(p.channels)),
        slope(shift + align(p.channels)),
        by_x(slope + align(p.channels)),
        constant(by_x + align(p.channels)) {}

  float *centre, *scale, *shift, *slope;  // y = PReLU(scale * (x - centre) + shift)
  float *by_x, *constant;                 // dx = scale * du + by_x * (x - centre) + constant
};

int64_t channel_floats(const NormProblem& p) { return 6 * align(p.channels); }

void clear(const NormProblem& p) {
  __builtin_memset(p.channel, 0, channel_floats(p) * sizeof(float));
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
T* at(const NormFeature& feature, const Run& run) {
  return static_cast<T*>(feature.data) + run.image * feature.image + run.channel * feature.channel +
         run.row * feature.row + run.column * feature.column;
}

template <bool interleaved>
int64_t vector_step(const NormFeature& feature) {
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
void walk(const NormProblem& p, int64_t unit, Pass pass) {
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

// Moments of x, of its distances from its first elements so that large means cancel nothing.
template <typename T, bool interleaved>
class MomentsPass {
 public:
  explicit MomentsPass(const NormProblem& p) : p_(p) {}

  void begin(int64_t) {
    count_ = 0;
    sum_ = squares_ = {};
  }

  template <bool whole>
  void run(const Run& run) {
    const T* x = at<const T>(p_.x, run);
    const int64_t step = vector_step<interleaved>(p_.x);
    if (count_ == 0) {
      const Vec first = get<whole>(x, run.lanes);
      shift_ = interleaved ? first : broadcast<Vec>(first[0]);
    }
    // Lanes that are not valid hold the shift and so add nothing.
    const Vec rest = whole ? Vec{} : shift_ - keep_first(shift_, run.lanes);
    LaneSums sum = sum_, squares = squares_;
    for (int64_t i = 0; i < run.vectors; ++i) {
      const Vec v = get<whole>(x + i * step, run.lanes) + rest;
      sum.add_difference(v, shift_, squares);
    }
    sum_ = sum;
    squares_ = squares;
    count_ += run.vectors * (interleaved ? 1 : run.lanes);
  }

  void end(int64_t image, int64_t band, int64_t channel, int64_t channels) {
    const double count = static_cast<double>(count_);
    for (int64_t i = 0; i < channels; ++i) {
      const double sum = channel_sum<interleaved>(sum_, i);
      double* const sums = unit_sums(p_, image, band, channel + i);
      sums[0] = count;
      sums[1] = shift_[i] + sum / count;
      sums[2] = channel_sum<interleaved>(squares_, i) - sum * (sum / count);
    }
  }

 private:
  const NormProblem& p_;
  int64_t count_;
  Vec shift_;
  LaneSums sum_, squares_;
};

// u = scale * (x - centre) + shift, and the slope of the PReLU behind it.
template <bool interleaved>
struct Normalization {
  void load(const ChannelValues& values, int64_t channel) {
    centre = of_channel<interleaved>(values.centre, channel);
    scale = of_channel<interleaved>(values.scale, channel);
    shift = of_channel<interleaved>(values.shift, channel);
    slope = of_channel<interleaved>(values.slope, channel);
  }

  Vec centre, scale, shift, slope;
};

// y, and the sums of it.
template <typename T, bool interleaved>
class NormalizePass {
 public:
  explicit NormalizePass(const NormProblem& p) : p_(p) {}

  void begin(int64_t channel) {
    norm_.load(ChannelValues(p_), channel);
    sum_ = {};
  }

  template <bool whole>
  void run(const Run& run) {
    const T* x = at<const T>(p_.x, run);
    T* y = at<T>(p_.out, run);
    const int64_t x_step = vector_step<interleaved>(p_.x);
    const int64_t y_step = vector_step<interleaved>(p_.out);
    LaneSums sum = sum_;
    for (int64_t i = 0; i < run.vectors; ++i) {
      const Vec centred = get<whole>(x + i * x_step, run.lanes) - norm_.centre;
      const Vec v = affine_prelu(centred, norm_.scale, norm_.shift, norm_.slope);
      put<whole>(v, y + i * y_step, run.lanes);
      sum.add(whole ? v : keep_first(v, run.lanes));
    }
    sum_ = sum;
  }

  void end(int64_t image, int64_t band, int64_t channel, int64_t channels) {
    for (int64_t i = 0; i < channels; ++i) {
      unit_sums(p_, image, band, channel + i)[0] = channel_sum<interleaved>(sum_, i);
    }
  }

 private:
  const NormProblem& p_;
  Normalization<interleaved> norm_;
  LaneSums sum_;
};

// Sums of du, of du * (x - centre), and of dy * u where u is not positive; du is the gradient of u.
template <typename T, bool interleaved>
class GradientSumsPass {
 public:
  explicit GradientSumsPass(const NormProblem& p) : p_(p) {}

  void begin(int64_t channel) {
    norm_.load(ChannelValues(p_), channel);
    du_ = product_ = slope_ = {};
  }

  template <bool whole>
  void run(const Run& run) {
    const T* x = at<const T>(p_.x, run);
    const T* dy = at<const T>(p_.grad, run);
    const int64_t x_step = vector_step<interleaved>(p_.x);
    const int64_t dy_step = vector_step<interleaved>(p_.grad);
    LaneSums sum_du = du_, sum_product = product_, sum_slope = slope_;
    for (int64_t i = 0; i < run.vectors; ++i) {
      const Vec centred = get<whole>(x + i * x_step, run.lanes) - norm_.centre;
      const Vec g = get<whole>(dy + i * dy_step, run.lanes);
      const Vec u = norm_.scale * centred + norm_.shift;
      const Vec du = u > 0.0f ? g : norm_.slope * g;
      sum_du.add(du);
      sum_product.add_products(du, centred);
      sum_slope.add(u > 0.0f ? Vec{} : g * u);
    }
    du_ = sum_du;
    product_ = sum_product;
    slope_ = sum_slope;
  }

  void end(int64_t image, int64_t band, int64_t channel, int64_t channels) {
    for (int64_t i = 0; i < channels; ++i) {
      double* const sums = unit_sums(p_, image, band, channel + i);
      sums[0] = channel_sum<interleaved>(du_, i);
      sums[1] = channel_sum<interleaved>(product_, i);
      sums[2] = channel_sum<interleaved>(slope_, i);
    }
  }

 private:
  const NormProblem& p_;
  Normalization<interleaved> norm_;
  LaneSums du_, product_, slope_;
};

template <typename T, bool interleaved>
class InputGradientPass {
 public:
  explicit InputGradientPass(const NormProblem& p) : p_(p) {}

  void begin(int64_t channel) {
    const ChannelValues values(p_);
    norm_.load(values, channel);
    by_x_ = of_channel<interleaved>(values.by_x, channel);
    constant_ = of_channel<interleaved>(values.constant, channel);
  }

  template <bool whole>
  void run(const Run& run) {
    const T* x = at<const T>(p_.x, run);
    const T* dy = at<const T>(p_.grad, run);
    T* dx = at<T>(p_.out, run);
    const int64_t x_step = vector_step<interleaved>(p_.x);
    const int64_t dy_step = vector_step<interleaved>(p_.grad);
    const int64_t dx_step = vector_step<interleaved>(p_.out);
    for (int64_t i = 0; i < run.vectors; ++i) {
      const Vec centred = get<whole>(x + i * x_step, run.lanes) - norm_.centre;
      const Vec g = get<whole>(dy + i * dy_step, run.lanes);
      const Vec u = norm_.scale * centred + norm_.shift;
      const Vec du = u > 0.0f ? g : norm_.slope * g;
      put<whole>(norm_.scale * du + (by_x_ * centred + constant_), dx + i * dx_step, run.lanes);
    }
  }

  void end(int64_t, int64_t, int64_t, int64_t) {}

 private:
  const NormProblem& p_;
  Normalization<interleaved> norm_;
  Vec by_x_, constant_;
};

template <template <typename, bool> typename Pass, bool interleaved>
void run_units(const NormProblem& p, int64_t begin, int64_t end) {
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

template <template <typename, bool> typename Pass>
void run(const NormProblem& p, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  if (p.interleaved) {
    run_units<Pass, true>(p, begin, end);
  } else {
    run_units<Pass, false>(p, begin, end);
  }
}

void combine_moments(const NormProblem& p, int64_t first_channel, int64_t end) {
  const ChannelValues values(p);
  for (int64_t c = first_channel; c < end; ++c) {
    Moments whole;
    for (int64_t image = 0; image < p.batch; ++image) {
      for (int64_t band = 0; band < bands(p); ++band) {
        const double* sums = unit_sums(p, image, band, c);
        whole.merge({sums[0], sums[1], sums[2]});
      }
    }
    const double var = whole.count > 0 ? whole.squares / whole.count : 0;
    const double scale = p.weight[c] / __builtin_sqrt(var + p.eps);
    p.batch_mean[c] = static_cast<float>(whole.mean);
    p.batch_var[c] = static_cast<float>(var);
    values.centre[c] = p.batch_mean[c];
    values.scale[c] = static_cast<float>(scale);
    // What the mean loses as float32 is not lost to y.
    values.shift[c] = static_cast<float>(p.bias[c] - (whole.mean - p.batch_mean[c]) * scale);
    values.slope[c] = p.slope ? p.slope[c] : 1.0f;
  }
}

void write_means(const NormProblem& p) {
  for (int64_t image = 0; image < p.batch; ++image) {
    for (int64_t c = 0; c < p.channels; ++c) {
      double sum = 0;
      for (int64_t band = 0; band < bands(p); ++band) sum += unit_sums(p, image, band, c)[0];
      const double mean = sum / static_cast<double>(p.rows * p.columns);
      p.means[image * p.channels + c] = static_cast<float>(mean);
    }
  }
}

double rstd(const NormProblem& p, int64_t c) {
  return 1 / __builtin_sqrt(static_cast<double>(p.batch_var[c]) + p.eps);
}

void prepare_gradients(const NormProblem& p) {
  clear(p);
  const ChannelValues values(p);
  for (int64_t c = 0; c < p.channels; ++c) {
    values.centre[c] = p.batch_mean[c];
    values.scale[c] = static_cast<float>(p.weight[c] * rstd(p, c));
    values.shift[c] = p.bias[c];
    values.slope[c] = p.slope ? p.slope[c] : 1.0f;
  }
}

// With dw = rstd * sum du (x - mean) and db = sum du over M elements of a channel,
// dx = weight rstd (du - db / M - (x - mean) rstd dw / M).
void combine_gradients(const NormProblem& p, int64_t first_channel, int64_t end) {
  const ChannelValues values(p);
  const double count = static_cast<double>(max(1, p.batch * p.rows * p.columns));
  for (int64_t c = first_channel; c < end; ++c) {
    double total[kSums] = {};
    for (int64_t image = 0; image < p.batch; ++image) {
      for (int64_t band = 0; band < bands(p); ++band) {
        const double* sums = unit_sums(p, image, band, c);
        for (int s = 0; s < kSums; ++s) total[s] += sums[s];
      }
    }
    const double r = rstd(p, c), scale = p.weight[c] * r;
    p.grad_weight[c] = static_cast<float>(total[1] * r);
    p.grad_bias[c] = static_cast<float>(total[0]);
    p.grad_slope[c] = static_cast<float>(total[2]);
    values.by_x[c] = static_cast<float>(-scale * r * r * total[1] / count);
    values.constant[c] = static_cast<float>(-scale * total[0] / count);
  }
}

void finish_gradients(const NormProblem&) {}

}  // namespace

NormPasses bn_prelu_gap_forward() {
  return {units,           sum_doubles,        channel_floats, clear, run<MomentsPass>,
          combine_moments, run<NormalizePass>, write_means};
}

NormPasses bn_prelu_gap_backward() {
  return {units,
          sum_doubles,
          channel_floats,
          prepare_gradients,
          run<GradientSumsPass>,
          combine_gradients,
          run<InputGradientPass>,
          finish_gradients};
}

}  // namespace lmwp::LMWP_ISA
