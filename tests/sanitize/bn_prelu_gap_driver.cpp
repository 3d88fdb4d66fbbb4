// Runs the batch norm kernels of one instruction set over small problems, forward and backward,
// each tensor in a heap block of exactly its size, and compares with loops in double. Prints
// nothing and returns 0 if all is well. With "fault" as argument the last element of an input is
// missing: a sanitizer must stop it.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cpu/bn_prelu_gap.h"
#include "feature.h"

namespace {

using lmwp::Dtype;

struct Settings {
  Dtype dtype;
  bool interleaved, prelu;
};

void run(const lmwp::NormPasses& passes, lmwp::NormProblem& p) {
  std::unique_ptr<double[]> sums(new double[passes.sum_doubles(p)]);
  std::unique_ptr<float[]> channel(new float[passes.channel_floats(p)]);
  p.sums = sums.get();
  p.channel = channel.get();
  passes.prepare(p);
  // Last first: a unit must not lean on another's order.
  for (int64_t unit = passes.units(p) - 1; unit >= 0; --unit) passes.reduce(p, unit, unit + 1);
  passes.combine(p, 0, p.channels);
  for (int64_t unit = passes.units(p) - 1; unit >= 0; --unit) passes.apply(p, unit, unit + 1);
  passes.finish(p);
}

bool check(const Shape& shape, const Settings& s, bool fault) {
  const Layout layout{s.dtype, s.interleaved};
  const Feature x(shape, layout, fault), y(shape, layout, 0);
  const Feature dy(shape, layout, 0), dx(shape, layout, 0);
  const auto weight = parameters(shape.channels), bias = parameters(shape.channels);
  const auto slope = parameters(shape.channels);
  std::vector<float> mean(shape.channels), var(shape.channels);
  std::vector<float> means(shape.batch * shape.channels);
  std::vector<float> dweight(shape.channels), dbias(shape.channels), dslope(shape.channels);

  lmwp::NormProblem p{};
  set_sizes(p, shape, layout);
  p.eps = 1e-3;
  p.x = x.view;
  p.out = y.view;
  p.weight = weight.data();
  p.bias = bias.data();
  p.slope = s.prelu ? slope.data() : nullptr;
  p.batch_mean = mean.data();
  p.batch_var = var.data();
  p.means = means.data();
  run(lmwp::LMWP_ISA::bn_prelu_gap_forward(), p);
  p.grad = dy.view;
  p.out = dx.view;
  p.grad_weight = dweight.data();
  p.grad_bias = dbias.data();
  p.grad_slope = dslope.data();
  run(lmwp::LMWP_ISA::bn_prelu_gap_backward(), p);

  const double exact = s.dtype == Dtype::float32 ? 1e-4 : s.dtype == Dtype::float16 ? 1e-2 : 6e-2;
  const double count = static_cast<double>(shape.count() / shape.channels);
  bool right = true;
  const auto expect = [&](const char* what, double got, double truth, double tolerance) {
    if (std::abs(got - truth) <= tolerance * (1 + std::abs(truth))) return;
    if (right) {
      std::fprintf(stderr, "dtype %d interleaved %d: %ldx%ldx%ldx%ld: %s is %g, expected %g\n",
                   static_cast<int>(s.dtype), s.interleaved, shape.batch, shape.channels,
                   shape.rows, shape.columns, what, got, truth);
    }
    right = false;
  };
  for (int64_t c = 0; c < shape.channels; ++c) {
    double sum = 0, squares = 0;
    for_each(shape, c, [&](auto... i) { sum += x.at(i...); });
    const double m = sum / count;
    for_each(shape, c, [&](auto... i) { squares += (x.at(i...) - m) * (x.at(i...) - m); });
    const double r = 1 / std::sqrt(squares / count + p.eps), below = s.prelu ? slope[c] : 1.0;
    expect("mean", mean[c], m, 1e-5);
    expect("var", var[c], squares / count, 1e-5);
    const auto u = [&](auto... i) { return (x.at(i...) - m) * r * weight[c] + bias[c]; };
    std::vector<double> sample(shape.batch);
    double du = 0, product = 0, through_slope = 0;
    bool at_kink = false;
    for_each(shape, c, [&](int64_t n, auto... i) {
      const double z = u(n, i...), g = dy.at(n, i...);
      const double out = z > 0 ? z : below * z;
      expect("y", y.at(n, i...), out, exact);
      sample[n] += out;
      du += z > 0 ? g : below * g;
      product += (z > 0 ? g : below * g) * (x.at(n, i...) - m) * r;
      through_slope += z > 0 ? 0 : g * z;
      at_kink = at_kink || std::abs(z) < 1e-5;
    });
    for (int64_t n = 0; n < shape.batch; ++n) {
      const double pixels = static_cast<double>(shape.rows * shape.columns);
      expect("means", means[n * shape.channels + c], sample[n] / pixels, 1e-4);
    }
    if (at_kink) continue;  // on which side float32 falls is its own affair
    expect("dweight", dweight[c], product, 1e-4 * std::sqrt(count));
    expect("dbias", dbias[c], du, 1e-4 * std::sqrt(count));
    expect("dslope", dslope[c], through_slope, 1e-4 * std::sqrt(count));
    for_each(shape, c, [&](auto... i) {
      const double g = u(i...) > 0 ? dy.at(i...) : below * dy.at(i...);
      const double through = du / count + (x.at(i...) - m) * r * product / count;
      expect("dx", dx.at(i...), weight[c] * r * (g - through),
             exact * (1 + std::abs(weight[c] * r)));
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
      for (int64_t width : {1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 47, 49}) {
        ++turn;
        const int64_t other = 1 + turn % 5;
        // The vectors run along the columns of a planar feature, else along the channels.
        const Shape shape{2 + turn % 2, interleaved ? width : other, 1 + turn % 3,
                          interleaved ? other : width};
        if (!check(shape, {dtype, interleaved, turn % 4 != 0}, fault)) return 1;
      }
  // More than one unit of a plane.
  for (bool interleaved : {false, true})
    if (!check({1, 3, 170, 97}, {Dtype::float32, interleaved, true}, fault)) return 1;
  return 0;
}
