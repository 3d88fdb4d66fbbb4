// Runs the attention kernels of one instruction set over small problems, forward and backward, each
// tensor in a heap block of exactly its size, and compares with loops in double. Prints nothing and
// returns 0 if all is well. With "fault" as argument the last element of x is missing: a sanitizer
// must stop it.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/channel_spatial_attention.h"

namespace {

using lmwp::Dtype;

struct Shape {
  int64_t batch, channels, rows, columns;
  int64_t pixels() const { return rows * columns; }
  int64_t count() const { return batch * channels * pixels(); }
};

struct Options {
  Dtype dtype;
  bool mean, max;
  int64_t hidden, size;
  int64_t pools() const { return mean + max; }
};

std::mt19937 random_bits(0);

// Values with few mantissa bits, so that every dtype holds them exactly.
double coarse() {
  return std::round(std::uniform_real_distribution<double>(-64, 64)(random_bits)) / 32;
}

size_t size_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }

// A feature in a block of its own, of float32 or bfloat16, of planes or of pixels whose channels
// lie side by side.
class Feature {
 public:
  Feature(const Shape& shape, Dtype dtype, int64_t missing, bool side_by_side = false)
      : shape_(shape),
        dtype_(dtype),
        side_by_side_(side_by_side),
        data_(new char[(shape.count() - missing) * size_of(dtype)]) {
    for (int64_t i = 0; i < shape.count() - missing; ++i) {
      const float value = static_cast<float>(coarse());
      const char* const bytes = reinterpret_cast<const char*>(&value);
      const size_t size = size_of(dtype);
      std::memcpy(data_.get() + size * i, bytes + 4 - size, size);
    }
    view = {data_.get(), shape.channels * shape.pixels(), side_by_side ? 1 : shape.pixels(),
            side_by_side ? shape.channels : 0};
  }

  double at(int64_t n, int64_t c, int64_t pixel) const {
    float value = 0;
    const size_t size = size_of(dtype_);
    const int64_t i = n * shape_.channels * shape_.pixels() +
                      (side_by_side_ ? pixel * shape_.channels + c : c * shape_.pixels() + pixel);
    std::memcpy(reinterpret_cast<char*>(&value) + 4 - size, data_.get() + size * i, size);
    return value;
  }

  lmwp::ImageFeature view;

 private:
  const Shape shape_;
  const Dtype dtype_;
  const bool side_by_side_;
  std::unique_ptr<char[]> data_;
};

std::unique_ptr<float[]> parameters(int64_t count, double scale) {
  std::unique_ptr<float[]> values(new float[count]);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(scale * coarse());
  return values;
}

using Doubles = std::vector<double>;

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

// The loss sum(grad * out) and all gradients of it, by loops over one image after the other.
struct Truth {
  Truth(const Shape& s, const Options& o, const lmwp::AttentionProblem& p, const Feature& x,
        const Feature& grad)
      : out(s.count()),
        dx(s.count()),
        dreduce(o.hidden * s.channels),
        dreduce_bias(o.hidden),
        dexpand(s.channels * o.hidden),
        dexpand_bias(s.channels),
        dkernel(o.pools() * o.size * o.size) {
    for (int64_t n = 0; n < s.batch; ++n) image(s, o, p, x, grad, n);
  }

  Doubles out, dx, dreduce, dreduce_bias, dexpand, dexpand_bias, dkernel;

 private:
  void image(const Shape& s, const Options& o, const lmwp::AttentionProblem& p, const Feature& x,
             const Feature& grad, int64_t n) {
    const int64_t C = s.channels, P = s.pixels(), h = o.hidden, k = o.size, r = k / 2;
    const int64_t max_pool = o.mean;
    Doubles v(2 * C), before(2 * h), a(C, 1.0), da(C), q(2 * P), b(P, 1.0), ds(P), dq(2 * P);
    std::vector<int64_t> pixel_at(C), channel_at(P);
    for (int64_t c = 0; c < C; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < P; ++i) {
        sum += x.at(n, c, i);
        if (x.at(n, c, i) > x.at(n, c, pixel_at[c])) pixel_at[c] = i;
      }
      if (o.mean) v[c] = sum / static_cast<double>(P);
      if (o.max) v[max_pool * C + c] = x.at(n, c, pixel_at[c]);
    }
    for (int64_t j = 0; j < o.pools() * h; ++j) {
      before[j] = p.reduce_bias[j % h];
      for (int64_t c = 0; c < C; ++c) {
        before[j] += p.reduce[j % h * C + c] * v[j / h * C + c];
      }
    }
    for (int64_t c = 0; c < C && h > 0; ++c) {
      double z = static_cast<double>(o.pools()) * p.expand_bias[c];
      for (int64_t j = 0; j < o.pools() * h; ++j) {
        z += p.expand[c * h + j % h] * std::max(0.0, before[j]);
      }
      a[c] = sigmoid(z);
    }
    for (int64_t i = 0; i < P && k > 0; ++i) {
      double sum = 0;
      for (int64_t c = 0; c < C; ++c) {
        sum += a[c] * x.at(n, c, i);
        const int64_t best = channel_at[i];
        if (a[c] * x.at(n, c, i) > a[best] * x.at(n, best, i)) channel_at[i] = c;
      }
      if (o.mean) q[i] = sum / static_cast<double>(C);
      if (o.max) q[max_pool * P + i] = a[channel_at[i]] * x.at(n, channel_at[i], i);
    }
    const auto taps = [&](auto use) {
      for (int64_t i = 0; i < P; ++i) {
        for (int64_t t = 0; t < o.pools() * k * k; ++t) {
          const int64_t row = i / s.columns + t / k % k - r, column = i % s.columns + t % k - r;
          if (row < 0 || row >= s.rows || column < 0 || column >= s.columns) continue;
          use(i, t, t / (k * k) * P + row * s.columns + column);
        }
      }
    };
    if (k > 0) {
      Doubles z(P);
      taps([&](int64_t i, int64_t t, int64_t from) { z[i] += p.kernel[t] * q[from]; });
      for (int64_t i = 0; i < P; ++i) {
        b[i] = sigmoid(z[i]);
        for (int64_t c = 0; c < C; ++c) ds[i] += grad.at(n, c, i) * a[c] * x.at(n, c, i);
        ds[i] *= b[i] * (1 - b[i]);
      }
      taps([&](int64_t i, int64_t t, int64_t from) {
        dq[from] += p.kernel[t] * ds[i];
        dkernel[t] += q[from] * ds[i];
      });
    }
    double* const to = dx.data() + n * C * P;
    for (int64_t c = 0; c < C; ++c) {
      for (int64_t i = 0; i < P; ++i) {
        out[(n * C + c) * P + i] = x.at(n, c, i) * a[c] * b[i];
        double de = b[i] * grad.at(n, c, i);
        if (o.mean) de += dq[i] / static_cast<double>(C);
        if (o.max && k > 0 && channel_at[i] == c) de += dq[max_pool * P + i];
        da[c] += de * x.at(n, c, i);
        to[c * P + i] = a[c] * de;
      }
    }
    if (h == 0) return;
    Doubles dv(2 * C), dl(C);
    for (int64_t c = 0; c < C; ++c) dl[c] = da[c] * a[c] * (1 - a[c]);
    for (int64_t j = 0; j < o.pools() * h; ++j) {
      double dhidden = 0;
      for (int64_t c = 0; c < C; ++c) {
        dhidden += before[j] > 0 ? dl[c] * p.expand[c * h + j % h] : 0;
        dexpand[c * h + j % h] += dl[c] * std::max(0.0, before[j]);
      }
      dreduce_bias[j % h] += dhidden;
      for (int64_t c = 0; c < C; ++c) {
        dreduce[j % h * C + c] += dhidden * v[j / h * C + c];
        dv[j / h * C + c] += dhidden * p.reduce[j % h * C + c];
      }
    }
    for (int64_t c = 0; c < C; ++c) {
      dexpand_bias[c] += static_cast<double>(o.pools()) * dl[c];
      if (o.max) to[c * P + pixel_at[c]] += dv[max_pool * C + c];
      for (int64_t i = 0; i < P && o.mean; ++i) to[c * P + i] += dv[c] / static_cast<double>(P);
    }
  }
};

// By `whole`, or by the steps one item at a time and the last first.
void run(const lmwp::AttentionPasses& passes, const lmwp::AttentionProblem& p, bool by_steps) {
  std::unique_ptr<float[]> scratch(new float[passes.scratch_floats(p)]);
  for (int64_t image = 0; image < p.batch; ++image) {
    if (!by_steps) {
      passes.whole(p, image, scratch.get());
      continue;
    }
    for (const lmwp::AttentionStep* step = passes.steps; step->run; ++step) {
      for (int64_t i = step->items(p) - 1; i >= 0; --i) {
        step->run(p, image, scratch.get(), i, i + 1);
      }
    }
  }
}

bool check(const Shape& s, const Options& o, bool by_steps, bool fault) {
  const Feature beside(s, o.dtype, fault, true), beside_out(s, o.dtype, 0, true);
  const Feature x(s, o.dtype, fault), grad(s, o.dtype, 0), out(s, o.dtype, 0), dx(s, o.dtype, 0);
  const int64_t taps = o.pools() * o.size * o.size;
  const auto reduce = parameters(o.hidden * s.channels, 0.2), reduce_bias = parameters(o.hidden, 1);
  const auto expand = parameters(s.channels * o.hidden, 0.2),
             expand_bias = parameters(s.channels, 1);
  const auto kernel = parameters(taps, 0.2);
  const auto dreduce = parameters(o.hidden * s.channels, 1), dreduce_bias = parameters(o.hidden, 1);
  const auto dexpand = parameters(s.channels * o.hidden, 1),
             dexpand_bias = parameters(s.channels, 1);
  const auto dkernel = parameters(taps, 1);

  lmwp::AttentionProblem p{};
  p.dtype = o.dtype;
  p.mean = o.mean;
  p.max = o.max;
  p.batch = s.batch;
  p.channels = s.channels;
  p.rows = s.rows;
  p.columns = s.columns;
  p.hidden = o.hidden;
  p.size = o.size;
  p.x = x.view;
  p.out = out.view;
  p.reduce = reduce.get();
  p.reduce_bias = reduce_bias.get();
  p.expand = expand.get();
  p.expand_bias = expand_bias.get();
  p.kernel = kernel.get();
  const int dtype = static_cast<int>(o.dtype);
  run(lmwp::LMWP_ISA::channel_spatial_attention_forward()[dtype], p, by_steps);

  lmwp::AttentionProblem of_pixels = p;
  of_pixels.x = beside.view;
  of_pixels.out = beside_out.view;
  run(lmwp::LMWP_ISA::channel_spatial_attention_forward()[dtype], of_pixels, by_steps);

  const auto& backward = lmwp::LMWP_ISA::channel_spatial_attention_backward()[dtype];
  std::unique_ptr<float[]> records(new float[s.batch * backward.record_floats(p)]);
  p.grad = grad.view;
  p.out = dx.view;
  p.grad_reduce = dreduce.get();
  p.grad_reduce_bias = dreduce_bias.get();
  p.grad_expand = dexpand.get();
  p.grad_expand_bias = dexpand_bias.get();
  p.grad_kernel = dkernel.get();
  p.records = records.get();
  run(backward.images, p, by_steps);
  backward.combine(p);

  const Truth truth(s, o, p, x, grad), beside_truth(s, o, p, beside, grad);
  bool right = true;
  const auto expect = [&](const char* what, double got, double expected, double tolerance) {
    if (std::abs(got - expected) <= tolerance * (1 + std::abs(expected))) return;
    if (right) {
      std::fprintf(stderr, "dtype %d %ldx%ldx%ldx%ld hidden %ld size %ld: %s is %g, expected %g\n",
                   dtype, s.batch, s.channels, s.rows, s.columns, o.hidden, o.size, what, got,
                   expected);
    }
    right = false;
  };
  const double exact = o.dtype == Dtype::float32 ? 1e-4 : 1e-2;
  for (int64_t i = 0; i < s.count(); ++i) {
    const int64_t n = i / s.pixels() / s.channels, c = i / s.pixels() % s.channels;
    expect("out", out.at(n, c, i % s.pixels()), truth.out[i], exact);
    expect("out of pixels", beside_out.at(n, c, i % s.pixels()), beside_truth.out[i], exact);
    expect("dx", dx.at(n, c, i % s.pixels()), truth.dx[i], 4 * exact);
  }
  const auto expect_all = [&](const char* what, const float* got, const Doubles& expected) {
    for (size_t i = 0; i < expected.size(); ++i) expect(what, got[i], expected[i], 5e-4);
  };
  expect_all("dreduce", dreduce.get(), truth.dreduce);
  expect_all("dexpand", dexpand.get(), truth.dexpand);
  if (o.hidden > 0) {
    expect_all("dreduce bias", dreduce_bias.get(), truth.dreduce_bias);
    expect_all("dexpand bias", dexpand_bias.get(), truth.dexpand_bias);
  }
  expect_all("dkernel", dkernel.get(), truth.dkernel);
  return right;
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  int turn = 0;
  for (Dtype dtype : {Dtype::float32, Dtype::bfloat16})
    for (int64_t size : {0, 3, 5, 7})
      for (int64_t width : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33}) {
        ++turn;
        const bool mean = turn % 3 != 0, max = turn % 3 != 1;
        const int64_t hidden = size == 0 || turn % 4 ? 1 + turn % 18 : 0;
        const Shape shape{1 + turn % 2, 1 + turn % 19, 1 + turn % 7, width};
        if (!check(shape, {dtype, mean, max, hidden, size}, turn % 2, fault)) return 1;
      }
  // More than one chunk of a plane, and more than one band of rows.
  for (bool by_steps : {false, true})
    if (!check({1, 35, 67, 61}, {Dtype::float32, true, true, 3, 7}, by_steps, fault)) return 1;
  return 0;
}
