// Depthwise branches of one feature at several octaves, mixed by weights of every image and
// channel.
//
// A plane, a channel of an image, stays in cache from its first step to its last. Branches of an
// octave are summed there, weight and affine folded into the taps, and resized as one; the sum at
// full size is made in bands of rows. With a norm, a first pass over the planes of a channel takes
// the statistics.
#include "cpu/multiscale_mix.h"

#include "cpu/denormals.h"
#include "cpu/mix_maps.h"
#include "cpu/moments.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kMomentFloats = sizeof(Moments) / sizeof(float);

int64_t scratch_floats(const MixProblem& p) {
  const Geometry geometry(p);
  int64_t floats = kAlign + geometry.zero_floats() + geometry.wide_floats(kBand);
  for (int64_t octave = 0; octave <= geometry.top(); ++octave) {
    floats += geometry.map_floats(octave);
    if (octave > 0 && geometry.uses(octave)) {
      floats += geometry.wide_floats(geometry.rows(octave)) + Resizer::scratch_floats(p);
    }
  }
  // Of a channel: scale, shift and moments of every branch, and the means of every image.
  return floats + 2 * align(p.branches) + align(kMomentFloats * p.branches) +
         align(2 * p.batch * p.branches);
}

// The mean and the squared distances from it of `rows` rows.
Moments moments_of(const float* rows, int64_t count, int64_t stride, int64_t columns) {
  const auto total = [&](auto&& value) {
    VecDouble sum{};
    for (int64_t r = 0; r < count; ++r) {
      Vec of_row{};
      for (int64_t c = 0; c < columns; c += kLanes) {
        const Vec v = value(load<Vec>(rows + r * stride + c));
        of_row += c + kLanes <= columns ? v : keep_first(v, columns - c);
      }
      sum += low_doubles(of_row) + high_doubles(of_row);
    }
    return lane_total(sum);
  };
  const double elements = static_cast<double>(count * columns);
  // A float near the mean will do as centre: what it lacks is put right.
  const Vec centre = broadcast<Vec>(static_cast<float>(total([](Vec v) { return v; }) / elements));
  const double rest = total([&](Vec v) { return v - centre; }) / elements;
  const double squares = total([&](Vec v) { return (v - centre) * (v - centre); });
  return {elements, centre[0] + rest, squares - rest * rest * elements};
}

template <typename T>
class Mixer {
 public:
  Mixer(const MixProblem& p, float* scratch) : p_(p), geometry_(p) {
    __builtin_memset(scratch, 0, scratch_floats(p) * sizeof(float));
    Arena arena(scratch);
    const float* const zeros = geometry_.take_zeros(arena);
    band_ = geometry_.take_wide(arena, kBand);
    for (int64_t octave = 0; octave <= geometry_.top(); ++octave) {
      maps_[octave] = geometry_.take_map(arena, zeros, octave);
      if (octave == 0 || !geometry_.uses(octave)) continue;
      wide_[octave] = geometry_.take_wide(arena, geometry_.rows(octave));
      tables_[octave] = arena.take(Resizer::scratch_floats(p));
      resizer(octave).prepare();
    }
    scale_ = arena.take(align(p.branches));
    shift_ = arena.take(align(p.branches));
    image_means_ = reinterpret_cast<double*>(arena.take(align(2 * p.batch * p.branches)));
    moments_ = reinterpret_cast<Moments*>(arena.take(align(kMomentFloats * p.branches)));
  }

  void use_affine(int64_t channel) {
    for (int64_t k = 0; k < p_.branches; ++k) {
      scale_[k] = p_.scale[entry(p_, k, channel)];
      shift_[k] = p_.shift[entry(p_, k, channel)];
    }
  }

  // The affine of the norm of a channel, from the statistics of all its planes.
  void use_norm(int64_t channel) {
    for (int64_t k = 0; k < p_.branches; ++k) moments_[k] = {};
    for (int64_t image = 0; image < p_.batch; ++image) {
      read_pooled<T>(p_, image, channel, geometry_.top(), maps_);
      for (int64_t k = 0; k < p_.branches; ++k) {
        const Moments of_plane = measure(k, channel);
        image_means_[image * p_.branches + k] = of_plane.mean;
        moments_[k].merge(of_plane);
      }
    }
    for (int64_t k = 0; k < p_.branches; ++k) {
      const Moments& whole = moments_[k];
      const double var = whole.count > 0 ? whole.squares / whole.count : 0;
      const int64_t at = entry(p_, k, channel);
      const double scale = p_.scale[at] / __builtin_sqrt(var + p_.eps);
      p_.batch_mean[at] = static_cast<float>(whole.mean);
      p_.batch_var[at] = static_cast<float>(var);
      scale_[k] = static_cast<float>(scale);
      shift_[k] = static_cast<float>(p_.shift[at] - whole.mean * scale);
      for (int64_t image = 0; image < p_.batch; ++image) {
        const double distance = image_means_[image * p_.branches + k] - whole.mean;
        p_.means[share_entry(p_, image, k, channel)] =
            static_cast<float>(distance * scale + p_.shift[at]);
      }
    }
  }

  void mix(int64_t image, int64_t channel) {
    bool live[kOctaves] = {};
    int64_t highest = -1;
    for (int64_t k = 0; k < p_.branches; ++k) {
      if (share_of(p_, image, k, channel) == 0) continue;
      live[p_.octaves[k]] = true;
      highest = max(highest, p_.octaves[k]);
    }
    if (highest >= 0) read_pooled<T>(p_, image, channel, highest, maps_);
    for (int64_t octave = 1; octave <= highest; ++octave) {
      if (live[octave]) widen(image, channel, octave);
    }
    T* const out = plane_of<T>(p_.out, image, channel);
    for_each_band(maps_[0], [&](int64_t first, int64_t valid) {
      sum_branches(image, channel, 0, first, valid);
      for (int64_t octave = 1; octave <= highest; ++octave) {
        if (live[octave]) add_octave(octave, first, valid);
      }
      for (int64_t r = 0; r < valid; ++r) {
        write_row(band_row(r), p_.columns, out + (first + r) * p_.out.row, 1);
      }
    });
  }

 private:
  Resizer resizer(int64_t octave) const { return {p_, geometry_, octave, tables_[octave]}; }
  float* band_row(int64_t r) const { return band_ + r * geometry_.wide_stride(); }

  void convolve(int64_t k, const float* taps, int64_t first, int64_t valid) const {
    add_convolution(maps_[p_.octaves[k]], first, valid, p_.dilations[k], taps, band_,
                    geometry_.wide_stride());
  }

  // Moments of branch k before its norm, of the plane that was pooled last.
  Moments measure(int64_t k, int64_t channel) const {
    const int64_t columns = maps_[p_.octaves[k]].columns, stride = geometry_.wide_stride();
    Moments whole;
    for_each_band(maps_[p_.octaves[k]], [&](int64_t first, int64_t valid) {
      fill_rows(band_, valid, stride, columns, 0);
      convolve(k, p_.weights + entry(p_, k, channel) * kTaps, first, valid);
      whole.merge(moments_of(band_, valid, stride, columns));
    });
    return whole;
  }

  // The band becomes the weighted sum of the branches of an octave.
  void sum_branches(int64_t image, int64_t channel, int64_t octave, int64_t first,
                    int64_t valid) const {
    const auto for_each_live = [&](auto&& body) {
      for (int64_t k = 0; k < p_.branches; ++k) {
        const float weight = share_of(p_, image, k, channel);
        if (p_.octaves[k] == octave && weight != 0) body(k, weight);
      }
    };
    float shift = 0;
    for_each_live([&](int64_t k, float weight) { shift += weight * shift_[k]; });
    fill_rows(band_, valid, geometry_.wide_stride(), maps_[octave].columns, shift);
    for_each_live([&](int64_t k, float weight) {
      float taps[kTaps];
      const float* const given = p_.weights + entry(p_, k, channel) * kTaps;
      for (int i = 0; i < kTaps; ++i) taps[i] = weight * scale_[k] * given[i];
      convolve(k, taps, first, valid);
    });
  }

  // The weighted sum of the branches of an octave in rows of full width.
  void widen(int64_t image, int64_t channel, int64_t octave) const {
    const Resizer to_width = resizer(octave);
    for_each_band(maps_[octave], [&](int64_t first, int64_t valid) {
      sum_branches(image, channel, octave, first, valid);
      for (int64_t r = 0; r < valid; ++r) {
        to_width.columns(band_row(r), wide_row(octave, first + r));
      }
    });
  }

  void add_octave(int64_t octave, int64_t first, int64_t valid) const {
    const Resizer rows = resizer(octave);
    for (int64_t r = 0; r < valid; ++r) {
      add_between(wide_row(octave, rows.low(first + r)), wide_row(octave, rows.next(first + r)),
                  rows.fraction(first + r), p_.columns, band_row(r));
    }
  }

  float* wide_row(int64_t octave, int64_t r) const {
    return wide_[octave] + r * geometry_.wide_stride();
  }

  const MixProblem& p_;
  const Geometry geometry_;
  Map maps_[kOctaves];
  float *wide_[kOctaves], *tables_[kOctaves];
  float *band_, *scale_, *shift_;
  double* image_means_;  // of every branch
  Moments* moments_;
};

int64_t planes(const MixProblem& p) { return p.batch * p.channels; }
int64_t channels(const MixProblem& p) { return p.channels; }

void mix_planes(const MixProblem& p, int64_t begin, int64_t end, float* scratch) {
  const FlushDenormals flush;
  with_element(p.dtype, [&](auto element) {
    Mixer<decltype(element)> mixer(p, scratch);
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t channel = plane % p.channels;
      mixer.use_affine(channel);
      mixer.mix(plane / p.channels, channel);
    }
  });
}

void norm_and_mix_channels(const MixProblem& p, int64_t begin, int64_t end, float* scratch) {
  const FlushDenormals flush;
  with_element(p.dtype, [&](auto element) {
    Mixer<decltype(element)> mixer(p, scratch);
    for (int64_t channel = begin; channel < end; ++channel) {
      mixer.use_norm(channel);
      for (int64_t image = 0; image < p.batch; ++image) mixer.mix(image, channel);
    }
  });
}

}  // namespace

MixKernel multiscale_mix_kernel() { return {planes, scratch_floats, mix_planes}; }

MixKernel multiscale_norm_mix_kernel() { return {channels, scratch_floats, norm_and_mix_channels}; }

}  // namespace lmwp::LMWP_ISA
