// Gradients of the multi-scale mixes, channel by channel, as the derivation in the README of each
// has them. The gradient of the result is brought to the size of every octave once; its products
// with what each tap read give all parameters, and taps in reverse order the gradient of u.
#include "cpu/denormals.h"
#include "cpu/mix_maps.h"
#include "cpu/multiscale_mix.h"

namespace lmwp::LMWP_ISA {
namespace {

bool has_norm(const MixProblem& p) { return p.batch_mean != nullptr; }

// What a channel sums over its planes, of one branch.
struct BranchSums {
  double weights[kTaps], scale, shift;
};

constexpr int64_t kSumFloats = sizeof(BranchSums) / sizeof(float);

int64_t scratch_floats(const MixProblem& p) {
  const Geometry geometry(p);
  int64_t floats = kAlign + geometry.zero_floats() + geometry.wide_floats(kBand);
  for (int64_t octave = 0; octave <= geometry.top(); ++octave) {
    floats += geometry.map_floats(octave) + geometry.map_floats(octave, kBand);
    if (octave > 0 && !geometry.uses(octave)) continue;
    floats += geometry.map_floats(octave) * (has_norm(p) ? 2 : 1);
    if (octave > 0) floats += Resizer::scratch_floats(p);
  }
  if (geometry.top() > 0) floats += geometry.wide_floats(geometry.rows(1));
  return floats + align(kSumFloats * p.branches);
}

// Adds to sums[tap], a vector each, T rows of gradients times what the tap read of T + 2 rows. The
// gradients are zero beyond their columns.
template <int T>
void add_products(const float* const* rows, int64_t reach, const float* const* grads,
                  int64_t columns, Vec* sums) {
  const float *row[T + 2], *grad[T];
  for (int r = 0; r < T + 2; ++r) row[r] = rows[r];
  for (int t = 0; t < T; ++t) grad[t] = grads[t];
  Vec sum[kTaps];
  for (int i = 0; i < kTaps; ++i) sum[i] = sums[i];
  for (int64_t c = 0; c < columns; c += kLanes) {
    Vec g[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) g[t] = load<Vec>(grad[t] + c);
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
#pragma GCC unroll 6
      for (int r = 0; r < T + 2; ++r) {
        const Vec x = load<Vec>(row[r] + (j - 1) * reach + c);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          if (r >= t && r < t + 3) sum[3 * (r - t) + j] += x * g[t];
        }
      }
    }
  }
  for (int i = 0; i < kTaps; ++i) sums[i] = sum[i];
}

// For each tap the sum of gradients times what it read.
void correlate(const Map& x, const Map& gradients, int64_t dilation, double* products) {
  const int64_t step = min(dilation, x.rows), reach = min(dilation, x.columns);
  VecDouble total[kTaps] = {};
  for_each_band(x, [&](int64_t first, int64_t valid) {
    const float *rows[6], *grads[4];
    Vec sums[kTaps] = {};
    const auto gather = [&](int64_t i, int count) {
      for (int r = 0; r < count + 2; ++r) rows[r] = x.row(first + i + (r - 1) * step);
      for (int t = 0; t < count; ++t) grads[t] = gradients.row(first + i + t * step);
    };
    for_each_group(
        valid, step,
        [&](int64_t i) {
          gather(i, 4);
          add_products<4>(rows, reach, grads, x.columns, sums);
        },
        [&](int64_t i) {
          gather(i, 1);
          add_products<1>(rows, reach, grads, x.columns, sums);
        });
    for (int i = 0; i < kTaps; ++i) total[i] += low_doubles(sums[i]) + high_doubles(sums[i]);
  });
  for (int i = 0; i < kTaps; ++i) products[i] = lane_total(total[i]);
}

double total_of(const Map& map) {
  VecDouble total{};
  for (int64_t r = 0; r < map.rows; ++r) {
    Vec sum{};
    for (int64_t c = 0; c < map.columns; c += kLanes) sum += load<Vec>(map.own(r) + c);
    total += low_doubles(sum) + high_doubles(sum);
  }
  return lane_total(total);
}

// Adds the gradients of quarters of sums to those of their 2 x 2 pixels.
void add_doubled(const Map& from, const Map& to) {
  for (int64_t r = 0; r < to.rows; ++r) {
    const float* const row = from.own(r / 2);
    float* const out = to.own(r);
    for (int64_t c = 0; c < to.columns; c += 2 * kLanes) {
      const Vec x = load<Vec>(row + c / 2) * 0.25f;
      store(out + c, load<Vec>(out + c) + interleave_low(x, x));
      if (c + kLanes >= to.columns) break;
      store(out + c + kLanes, load<Vec>(out + c + kLanes) + interleave_high(x, x));
    }
  }
}

template <typename T>
class Differentiator {
 public:
  Differentiator(const MixProblem& p, float* scratch) : p_(p), geometry_(p) {
    __builtin_memset(scratch, 0, scratch_floats(p) * sizeof(float));
    Arena arena(scratch);
    const float* const zeros = geometry_.take_zeros(arena);
    band_ = geometry_.take_wide(arena, kBand);
    for (int64_t octave = 0; octave <= geometry_.top(); ++octave) {
      u_[octave] = geometry_.take_map(arena, zeros, octave);
      du_[octave] = geometry_.take_map(arena, zeros, octave, kBand);
      if (octave > 0 && !geometry_.uses(octave)) continue;
      grad_[octave] = geometry_.take_map(arena, zeros, octave);
      if (has_norm(p)) dz_[octave] = geometry_.take_map(arena, zeros, octave);
      if (octave == 0) continue;
      tables_[octave] = arena.take(Resizer::scratch_floats(p));
      resizer(octave).prepare();
    }
    if (geometry_.top() > 0) wide_ = geometry_.take_wide(arena, geometry_.rows(1));
    sums_ = reinterpret_cast<BranchSums*>(arena.take(align(kSumFloats * p.branches)));
  }

  void mix(int64_t channel) {
    clear_sums();
    for (int64_t image = 0; image < p_.batch; ++image) mix_plane(image, channel);
    write_sums(channel);
  }

  void norm_mix(int64_t channel) {
    clear_sums();
    for (int64_t image = 0; image < p_.batch; ++image) {
      bring_everything(image, channel);
      for_each_branch([&](int64_t k) { sum_normalised(image, k, channel); });
    }
    if (p_.out.data || p_.grad_weights) {
      for (int64_t image = 0; image < p_.batch; ++image) {
        if (p_.batch > 1) bring_everything(image, channel);
        clear_du(geometry_.top());
        for_each_branch([&](int64_t k) { pass_norm(image, k, channel); });
        if (p_.out.data) write_du(image, channel, geometry_.top());
      }
    }
    write_sums(channel);
  }

 private:
  Resizer resizer(int64_t octave) const { return {p_, geometry_, octave, tables_[octave]}; }
  float* band_row(int64_t r) const { return band_ + r * geometry_.wide_stride(); }
  float* wide_row(int64_t r) const { return wide_ + r * geometry_.wide_stride(); }
  const float* weights(int64_t k, int64_t channel) const {
    return p_.weights + entry(p_, k, channel) * kTaps;
  }

  // Branches octave by octave.
  template <typename Body>
  void for_each_branch(Body&& body) const {
    for (int64_t octave = 0; octave <= geometry_.top(); ++octave) {
      for (int64_t k = 0; k < p_.branches; ++k) {
        if (p_.octaves[k] == octave) body(k);
      }
    }
  }

  void clear_sums() {
    for (int64_t k = 0; k < p_.branches; ++k) sums_[k] = {};
  }

  void write_sums(int64_t channel) const {
    for (int64_t k = 0; k < p_.branches; ++k) {
      const int64_t at = entry(p_, k, channel);
      const BranchSums& sums = sums_[k];
      if (p_.grad_scale) p_.grad_scale[at] = static_cast<float>(sums.scale);
      if (p_.grad_shift) p_.grad_shift[at] = static_cast<float>(sums.shift);
      if (!p_.grad_weights) continue;
      for (int i = 0; i < kTaps; ++i) {
        p_.grad_weights[at * kTaps + i] = static_cast<float>(sums.weights[i]);
      }
    }
  }

  // The gradient of the result, of a plane, at the size of an octave above 0.
  void shrink_gradient(int64_t octave) {
    const Resizer from_full = resizer(octave);
    const Map& small = grad_[octave];
    for (int64_t r = 0; r < small.rows; ++r) clear(wide_row(r), geometry_.wide_stride());
    for (int64_t r = 0; r < p_.rows; ++r) {
      const float* const row = grad_[0].own(r);
      const float of_next = from_full.fraction(r), of_low = 1 - of_next;
      sum_rows<1>(&row, &of_low, p_.columns, true, wide_row(from_full.low(r)));
      sum_rows<1>(&row, &of_next, p_.columns, true, wide_row(from_full.next(r)));
    }
    for (int64_t r = 0; r < small.rows; ++r) {
      from_full.columns.adjoint(wide_row(r), small.own(r));
      small.clear_right(r);
    }
    grad_total_[octave] = total_of(small);
  }

  void read_gradient(int64_t image, int64_t channel) {
    read_plane<T>(p_, p_.grad, image, channel, grad_[0]);
    grad_total_[0] = total_of(grad_[0]);
  }

  void bring_everything(int64_t image, int64_t channel) {
    read_pooled<T>(p_, image, channel, geometry_.top(), u_);
    read_gradient(image, channel);
    for (int64_t octave = 1; octave <= geometry_.top(); ++octave) {
      if (geometry_.uses(octave)) shrink_gradient(octave);
    }
  }

  void mix_plane(int64_t image, int64_t channel) {
    const bool sums = p_.grad_weights || p_.grad_mix || p_.grad_scale || p_.grad_shift;
    bool needed[kOctaves] = {};
    int64_t highest = -1, highest_live = 0;
    for (int64_t k = 0; k < p_.branches; ++k) {
      const bool live = share_of(p_, image, k, channel) != 0;
      if (live) highest_live = max(highest_live, p_.octaves[k]);
      if (!live && !p_.grad_mix) continue;
      needed[p_.octaves[k]] = true;
      highest = max(highest, p_.octaves[k]);
    }
    if (highest >= 0) {
      if (sums) read_pooled<T>(p_, image, channel, highest, u_);
      read_gradient(image, channel);
    }
    for (int64_t octave = 1; octave <= highest; ++octave) {
      if (needed[octave]) shrink_gradient(octave);
    }
    if (sums) for_each_branch([&](int64_t k) { sum_products(image, k, channel); });
    if (!p_.out.data) return;
    clear_du(highest_live);
    for_each_branch([&](int64_t k) {
      const float share = share_of(p_, image, k, channel);
      if (share == 0) return;
      const float factor = share * p_.scale[entry(p_, k, channel)];
      add_transposed(k, channel, grad_[p_.octaves[k]], factor);
    });
    write_du(image, channel, highest_live);
  }

  // With D the products of the gradient with what each tap read, the sum of the gradient times z is
  // the sum of w D.
  void sum_products(int64_t image, int64_t k, int64_t channel) const {
    const float share = share_of(p_, image, k, channel);
    if (share == 0 && !p_.grad_mix) return;
    const int64_t octave = p_.octaves[k], at = entry(p_, k, channel);
    double products[kTaps], with_z = 0;
    correlate(u_[octave], grad_[octave], p_.dilations[k], products);
    for (int i = 0; i < kTaps; ++i) with_z += weights(k, channel)[i] * products[i];
    const double scale = p_.scale[at];
    if (p_.grad_mix) {
      p_.grad_mix[share_entry(p_, image, k, channel)] =
          static_cast<float>(scale * with_z + p_.shift[at] * grad_total_[octave]);
    }
    if (share == 0) return;
    BranchSums& sums = sums_[k];
    for (int i = 0; i < kTaps; ++i) sums.weights[i] += share * scale * products[i];
    sums.scale += share * with_z;
    sums.shift += share * grad_total_[octave];
  }

  double rstd(int64_t at) const { return 1 / __builtin_sqrt(p_.batch_var[at] + p_.eps); }

  // A band of z less its mean.
  void centre(int64_t k, int64_t channel, int64_t first, int64_t valid) const {
    const Map& map = u_[p_.octaves[k]];
    const int64_t stride = geometry_.wide_stride();
    fill_rows(band_, valid, stride, map.columns, -p_.batch_mean[entry(p_, k, channel)]);
    add_convolution(map, first, valid, p_.dilations[k], weights(k, channel), band_, stride);
  }

  void sum_normalised(int64_t image, int64_t k, int64_t channel) const {
    const int64_t octave = p_.octaves[k], at = entry(p_, k, channel);
    const Map& grad = grad_[octave];
    VecDouble total{};
    for_each_band(grad, [&](int64_t first, int64_t valid) {
      centre(k, channel, first, valid);
      for (int64_t r = 0; r < valid; ++r) {
        Vec sum{};
        for (int64_t c = 0; c < grad.columns; c += kLanes) {
          sum += load<Vec>(grad.own(first + r) + c) * load<Vec>(band_row(r) + c);
        }
        total += low_doubles(sum) + high_doubles(sum);
      }
    });
    const double with_normalised = lane_total(total) * rstd(at),
                 share = share_of(p_, image, k, channel);
    if (p_.grad_mix) {
      p_.grad_mix[share_entry(p_, image, k, channel)] =
          static_cast<float>(p_.scale[at] * with_normalised + p_.shift[at] * grad_total_[octave]);
    }
    sums_[k].scale += share * with_normalised;
    sums_[k].shift += share * grad_total_[octave];
  }

  // With dgamma and dbeta summed over M values, dz = gamma r (dy - dbeta / M - x dgamma / M), where
  // x = (z - mean) r. The map holds it without its factor, whose rounding then cancels nothing.
  void pass_norm(int64_t image, int64_t k, int64_t channel) const {
    const int64_t octave = p_.octaves[k], at = entry(p_, k, channel);
    const Map &grad = grad_[octave], &dz = dz_[octave];
    const double scale = p_.scale[at] * rstd(at);
    const double count = static_cast<double>(p_.batch * grad.rows * grad.columns);
    const auto factor = [](double value) { return broadcast<Vec>(static_cast<float>(value)); };
    const Vec by_grad = factor(share_of(p_, image, k, channel));
    const Vec by_z = factor(-rstd(at) * sums_[k].scale / count);
    const Vec constant = factor(-sums_[k].shift / count);
    for_each_band(grad, [&](int64_t first, int64_t valid) {
      centre(k, channel, first, valid);
      for (int64_t r = 0; r < valid; ++r) {
        const float *const g = grad.own(first + r), *const z = band_row(r);
        float* const to = dz.own(first + r);
        for (int64_t c = 0; c < grad.columns; c += kLanes) {
          store(to + c, by_grad * load<Vec>(g + c) + (by_z * load<Vec>(z + c) + constant));
        }
        dz.clear_right(first + r);
      }
    });
    if (p_.grad_weights) {
      double products[kTaps];
      correlate(u_[octave], dz, p_.dilations[k], products);
      for (int i = 0; i < kTaps; ++i) sums_[k].weights[i] += scale * products[i];
    }
    if (p_.out.data) add_transposed(k, channel, dz, static_cast<float>(scale));
  }

  void clear_du(int64_t highest) const {
    for (int64_t octave = 0; octave <= highest; ++octave) {
      const Map& map = du_[octave];
      __builtin_memset(map.first, 0, map.rows * map.stride * sizeof(float));
    }
  }

  // Adds a gradient of z times `factor` to that of the pooled map of branch k.
  void add_transposed(int64_t k, int64_t channel, const Map& dz, float factor) const {
    float taps[kTaps];
    for (int i = 0; i < kTaps; ++i) taps[i] = factor * weights(k, channel)[kTaps - 1 - i];
    const Map& to = du_[p_.octaves[k]];
    for_each_band(dz, [&](int64_t first, int64_t valid) {
      add_convolution(dz, first, valid, p_.dilations[k], taps, to.own(first), to.stride);
    });
  }

  // Brings the gradients of all octaves down to that of u.
  void write_du(int64_t image, int64_t channel, int64_t highest) const {
    for (int64_t octave = 1; octave <= highest; ++octave) correct_last(p_, octave, du_[octave]);
    for (int64_t octave = highest; octave > 0; --octave) add_doubled(du_[octave], du_[octave - 1]);
    T* const out = plane_of<T>(p_.out, image, channel);
    for (int64_t r = 0; r < p_.rows; ++r) {
      write_row(du_[0].own(r), p_.columns, out + r * p_.out.row, 1);
    }
  }

  const MixProblem& p_;
  const Geometry geometry_;
  Map u_[kOctaves], du_[kOctaves], grad_[kOctaves], dz_[kOctaves];
  double grad_total_[kOctaves];
  float *tables_[kOctaves], *band_, *wide_;
  BranchSums* sums_;
};

int64_t channels(const MixProblem& p) { return p.channels; }

void run(const MixProblem& p, int64_t begin, int64_t end, float* scratch) {
  const FlushDenormals flush;
  with_element(p.dtype, [&](auto element) {
    Differentiator<decltype(element)> differentiator(p, scratch);
    for (int64_t channel = begin; channel < end; ++channel) {
      if (has_norm(p)) {
        differentiator.norm_mix(channel);
      } else {
        differentiator.mix(channel);
      }
    }
  });
}

}  // namespace

MixKernel multiscale_mix_backward_kernel() { return {channels, scratch_floats, run}; }

}  // namespace lmwp::LMWP_ISA
