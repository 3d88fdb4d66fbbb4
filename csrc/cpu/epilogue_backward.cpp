// Gradients of the affine + PReLU epilogue in one pass: with u = scale * z + shift,
// du = dy where u is positive, else slope * dy, and dz = scale * du; the gradients of scale, shift
// and slope sum du * z, du, and dy * u where u is not positive.
//
// Sums are float64 over float32 ones of kRun vectors, which spares most of the conversions.
#include "cpu/epilogue_backward.h"

#include "cpu/channel_walk.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kRun = 16;

// The parameters with what stands for absent ones, an array of each.
struct ChannelValues {
  explicit ChannelValues(const EpilogueProblem& p)
      : scale(p.channel), shift(scale + align(p.channels)), slope(shift + align(p.channels)) {}

  float *scale, *shift, *slope;
};

int64_t channel_floats(const EpilogueProblem& p) { return 3 * align(p.channels); }

void prepare(const EpilogueProblem& p) {
  __builtin_memset(p.channel, 0, channel_floats(p) * sizeof(float));
  const ChannelValues values(p);
  for (int64_t c = 0; c < p.channels; ++c) {
    values.scale[c] = p.scale ? p.scale[c] : 1.0f;
    values.shift[c] = p.shift ? p.shift[c] : 0.0f;
    values.slope[c] = p.slope ? p.slope[c] : 1.0f;
  }
}

template <typename T, bool interleaved>
class GradientPass {
 public:
  explicit GradientPass(const EpilogueProblem& p) : p_(p) {}

  void begin(int64_t channel) {
    const ChannelValues values(p_);
    scale_ = of_channel<interleaved>(values.scale, channel);
    shift_ = of_channel<interleaved>(values.shift, channel);
    slope_ = of_channel<interleaved>(values.slope, channel);
    by_scale_ = by_shift_ = by_slope_ = {};
  }

  template <bool whole>
  void run(const Run& run) {
    if (p_.z.data) {
      pass<whole, true>(run);
    } else {
      pass<whole, false>(run);
    }
  }

  void end(int64_t image, int64_t band, int64_t channel, int64_t channels) {
    for (int64_t i = 0; i < channels; ++i) {
      double* const sums = unit_sums(p_, image, band, channel + i);
      sums[0] = channel_sum<interleaved>(by_scale_, i);
      sums[1] = channel_sum<interleaved>(by_shift_, i);
      sums[2] = channel_sum<interleaved>(by_slope_, i);
    }
  }

 private:
  // Lanes that are not valid hold zeros, and dy there adds nothing to any sum.
  template <bool whole, bool has_z>
  void pass(const Run& run) {
    const float* z = has_z ? at<const float>(p_.z, run) : nullptr;
    const T* dy = at<const T>(p_.grad, run);
    T* const dz = p_.out.data ? at<T>(p_.out, run) : nullptr;
    const int64_t z_step = vector_step<interleaved>(p_.z);
    const int64_t dy_step = vector_step<interleaved>(p_.grad);
    const int64_t dz_step = vector_step<interleaved>(p_.out);
    for (int64_t first = 0; first < run.vectors; first += kRun) {
      const int64_t end = min(run.vectors, first + kRun);
      Vec by_scale = {}, by_shift = {}, by_slope = {};
      for (int64_t i = first; i < end; ++i) {
        const Vec g = get<whole>(dy + i * dy_step, run.lanes);
        Vec du = g;
        if constexpr (has_z) {
          const Vec v = get<whole>(z + i * z_step, run.lanes);
          const Vec u = scale_ * v + shift_;
          du = u > 0.0f ? g : slope_ * g;
          by_scale += du * v;
          by_slope += u > 0.0f ? Vec{} : g * u;
        }
        by_shift += du;
        if (dz) put<whole>(scale_ * du, dz + i * dz_step, run.lanes);
      }
      by_scale_.add(by_scale);
      by_shift_.add(by_shift);
      by_slope_.add(by_slope);
    }
  }

  const EpilogueProblem& p_;
  Vec scale_, shift_, slope_;
  LaneSums by_scale_, by_shift_, by_slope_;
};

void combine(const EpilogueProblem& p) {
  for (int64_t c = 0; c < p.channels; ++c) {
    double total[kSums] = {};
    add_unit_sums(p, c, total);
    p.grad_scale[c] = static_cast<float>(total[0]);
    p.grad_shift[c] = static_cast<float>(total[1]);
    p.grad_slope[c] = static_cast<float>(total[2]);
  }
}

}  // namespace

EpilogueBackwardKernel epilogue_backward_kernel() {
  return {units, sum_doubles, channel_floats, prepare, run<GradientPass>, combine};
}

}  // namespace lmwp::LMWP_ISA
