// Runs the kernel of an epilogue's gradients of one instruction set over small problems, each
// tensor in a heap block of exactly its size, and compares with loops in double. Prints nothing and
// returns 0 if all is well. With "fault" as argument the last element of z is missing: a sanitizer
// must stop it.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cpu/epilogue_backward.h"
#include "feature.h"

namespace {

using lmwp::Dtype;

struct Settings {
  Layout layout;
  bool affine, prelu, has_z, has_out = true;
};

bool check(const Shape& shape, const Settings& s, bool fault) {
  const Feature z(shape, {Dtype::float32, s.layout.interleaved}, fault);
  const Feature dy(shape, s.layout, 0), dz(shape, s.layout, 0);
  const auto scale = parameters(shape.channels), shift = parameters(shape.channels);
  const auto slope = parameters(shape.channels);
  std::vector<float> dscale(shape.channels), dshift(shape.channels), dslope(shape.channels);

  lmwp::EpilogueProblem p{};
  set_sizes(p, shape, s.layout);
  if (s.has_z) p.z = z.view;
  p.grad = dy.view;
  if (s.has_out) p.out = dz.view;
  p.scale = s.affine ? scale.data() : nullptr;
  p.shift = s.affine ? shift.data() : nullptr;
  p.slope = s.prelu ? slope.data() : nullptr;
  p.grad_scale = dscale.data();
  p.grad_shift = dshift.data();
  p.grad_slope = dslope.data();
  const auto kernel = lmwp::LMWP_ISA::epilogue_backward_kernel();
  std::unique_ptr<double[]> sums(new double[kernel.sum_doubles(p)]);
  std::unique_ptr<float[]> channel(new float[kernel.channel_floats(p)]);
  p.sums = sums.get();
  p.channel = channel.get();
  kernel.prepare(p);
  // Last first: a unit must not lean on another's order.
  for (int64_t unit = kernel.units(p) - 1; unit >= 0; --unit) kernel.run(p, unit, unit + 1);
  kernel.combine(p);

  const double exact = s.layout.dtype == Dtype::float32   ? 1e-5
                       : s.layout.dtype == Dtype::float16 ? 2e-3
                                                          : 1e-2;
  const double count = static_cast<double>(shape.count() / shape.channels);
  bool right = true;
  const auto expect = [&](const char* what, double got, double truth, double tolerance) {
    if (std::abs(got - truth) <= tolerance * (1 + std::abs(truth))) return;
    if (right) {
      std::fprintf(stderr, "dtype %d interleaved %d: %ldx%ldx%ldx%ld: %s is %g, expected %g\n",
                   static_cast<int>(s.layout.dtype), s.layout.interleaved, shape.batch,
                   shape.channels, shape.rows, shape.columns, what, got, truth);
    }
    right = false;
  };
  for (int64_t c = 0; c < shape.channels; ++c) {
    const double by = s.affine ? scale[c] : 1.0, plus = s.affine ? shift[c] : 0.0;
    const double below = s.prelu ? slope[c] : 1.0;
    double through_scale = 0, through_shift = 0, through_slope = 0;
    bool at_kink = false;
    for_each(shape, c, [&](auto... i) {
      const double u = s.has_z ? by * z.at(i...) + plus : 1.0, g = dy.at(i...);
      const double du = u > 0 ? g : below * g;
      at_kink = at_kink || (s.has_z && std::abs(u) < 1e-5);
      through_scale += s.has_z ? du * z.at(i...) : 0;
      through_shift += du;
      through_slope += u > 0 ? 0 : g * u;
    });
    if (at_kink) continue;  // on which side float32 falls is its own affair
    expect("dscale", dscale[c], through_scale, 1e-5 * std::sqrt(count));
    expect("dshift", dshift[c], through_shift, 1e-5 * std::sqrt(count));
    expect("dslope", dslope[c], through_slope, 1e-5 * std::sqrt(count));
    if (!s.has_out) continue;
    for_each(shape, c, [&](auto... i) {
      const double u = s.has_z ? by * z.at(i...) + plus : 1.0;
      expect("dz", dz.at(i...), by * (u > 0 ? 1 : below) * dy.at(i...), exact);
    });
  }
  return right;
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  int turn = 0;
  for (bool interleaved : {false, true})
    for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16})
      for (int64_t width : {1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 47, 49, 300}) {
        ++turn;
        const int64_t other = 1 + turn % 5;
        // The vectors run along the columns of a planar feature, else along the channels.
        const Shape shape{2 + turn % 2, interleaved ? width : other, 1 + turn % 3,
                          interleaved ? other : width};
        const bool prelu = turn % 3 != 0;
        if (!check(shape, {{dtype, interleaved}, turn % 4 != 0, prelu, true}, fault)) return 1;
        if (!check(shape, {{dtype, interleaved}, true, false, false}, false)) return 1;
        if (!check(shape, {{dtype, interleaved}, false, false, false, false}, false)) return 1;
      }
  // More than one unit of a plane.
  for (bool interleaved : {false, true})
    if (!check({1, 3, 170, 97}, {{Dtype::float32, interleaved}, true, true, true}, fault)) return 1;
  return 0;
}
