// Batch norm in training mode with PReLU: statistics and result forward, sums and gradient of x
// backward, each in one pass over memory.
//
// A vector holds columns of one channel where the feature is planar, and channels of one pixel
// where it is interleaved; the arithmetic is the same, in float32, and sums are float64.
#include "cpu/bn_prelu_gap.h"

#include "common/epilogue.h"
#include "cpu/channel_walk.h"
#include "cpu/moments.h"

namespace lmwp::LMWP_ISA {
namespace {

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
    add_unit_sums(p, c, total);
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
