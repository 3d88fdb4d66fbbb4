// Runs the multi-scale mixes of one instruction set over small problems, forward and backward, each
// tensor in a heap block of exactly its size, and compares with loops in double; gradients with
// their differences along a random direction. Prints nothing and returns 0 if all is well. With
// "fault" as argument the last element of u is missing: a sanitizer must stop it.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cpu/multiscale_mix.h"
#include "elements.h"

namespace {

using lmwp::Dtype;
using lmwp::MixKernel;
using lmwp::MixProblem;
using Values = std::vector<double>;

constexpr double kEps = 1e-2;

struct Setting {
  int64_t batch, channels, rows, columns;
  std::vector<int64_t> octaves, dilations;
  Dtype dtype;
  bool norm;

  int64_t branches() const { return static_cast<int64_t>(octaves.size()); }
  int64_t pixels() const { return rows * columns; }
};

// u, weights, mix, scale and shift.
struct Arguments {
  Values of[5];
};

Values draw(int64_t count) {
  Values values(count);
  for (double& value : values) value = coarse();
  return values;
}

std::vector<float> narrow(const Values& values) { return {values.begin(), values.end()}; }

// A feature of the dtype in a block of its own.
class Block {
 public:
  Block(const Values& values, const Setting& s, int64_t missing = 0)
      : dtype_(s.dtype), data_(new char[(values.size() - missing) * size_of(s.dtype)]) {
    const int64_t count = static_cast<int64_t>(values.size()) - missing;
    for (int64_t i = 0; i < count; ++i) put(data_.get(), i, values[i], dtype_);
    view = {data_.get(), s.channels * s.pixels(), s.pixels(), s.columns};
  }
  double at(int64_t i) const { return get(data_.get(), i, dtype_); }

  lmwp::MixFeature view;

 private:
  const Dtype dtype_;
  std::unique_ptr<char[]> data_;
};

// One plane of a branch before its affine; `rows` and `columns` become those of its octave.
Values convolved(const double* u, const double* weight, int64_t octave, int64_t dilation,
                 int64_t& rows, int64_t& columns) {
  const int64_t window = int64_t{1} << octave, height = rows, width = columns;
  rows = (height + window - 1) / window;
  columns = (width + window - 1) / window;
  Values pooled(rows * columns), z(rows * columns);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      double sum = 0, count = 0;
      for (int64_t i = r * window; i < std::min((r + 1) * window, height); ++i)
        for (int64_t j = c * window; j < std::min((c + 1) * window, width); ++j) {
          sum += u[i * width + j];
          count += 1;
        }
      pooled[r * columns + c] = sum / count;
    }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t i = r + (tap / 3 - 1) * dilation, j = c + (tap % 3 - 1) * dilation;
        if (i < 0 || i >= rows || j < 0 || j >= columns) continue;
        z[r * columns + c] += weight[tap] * pooled[i * columns + j];
      }
  return z;
}

double between(const Values& y, int64_t rows, int64_t columns, double at_row, double at_column) {
  const double r = std::max(at_row, 0.0), c = std::max(at_column, 0.0);
  const int64_t i = static_cast<int64_t>(r), j = static_cast<int64_t>(c);
  const int64_t below = std::min(i + 1, rows - 1), right = std::min(j + 1, columns - 1);
  const double down = r - static_cast<double>(i), along = c - static_cast<double>(j);
  return (1 - down) * ((1 - along) * y[i * columns + j] + along * y[i * columns + right]) +
         down * ((1 - along) * y[below * columns + j] + along * y[below * columns + right]);
}

Values forward(const Setting& s, const Arguments& a) {
  const auto& [u, weights, mix, scale, shift] = a.of;
  Values out(u.size());
  for (int64_t k = 0; k < s.branches(); ++k)
    for (int64_t c = 0; c < s.channels; ++c) {
      const int64_t at = k * s.channels + c;
      int64_t rows = 0, columns = 0;
      std::vector<Values> z;
      double sum = 0, squares = 0;
      for (int64_t n = 0; n < s.batch; ++n) {
        rows = s.rows;
        columns = s.columns;
        z.push_back(convolved(&u[(n * s.channels + c) * s.pixels()], &weights[at * 9], s.octaves[k],
                              s.dilations[k], rows, columns));
        for (double value : z[n]) sum += value;
      }
      const double count = static_cast<double>(s.batch * rows * columns), mean = sum / count;
      for (const Values& plane : z)
        for (double value : plane) squares += (value - mean) * (value - mean);
      const double factor = s.norm ? scale[at] / std::sqrt(squares / count + kEps) : scale[at];
      const double constant = shift[at] - (s.norm ? mean * factor : 0);
      for (int64_t n = 0; n < s.batch; ++n)
        for (int64_t i = 0; i < s.pixels(); ++i) {
          const auto place = [](int64_t p, int64_t in, int64_t out) {
            return (static_cast<double>(p) + 0.5) * static_cast<double>(in) /
                       static_cast<double>(out) -
                   0.5;
          };
          const double value = between(z[n], rows, columns, place(i / s.columns, rows, s.rows),
                                       place(i % s.columns, columns, s.columns));
          out[(n * s.channels + c) * s.pixels() + i] +=
              mix[(n * s.branches() + k) * s.channels + c] * (factor * value + constant);
        }
    }
  return out;
}

double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void run(const MixKernel& kernel, const MixProblem& p) {
  // Last first, with scratch full of NaN: a task must not lean on what others left.
  for (int64_t task = kernel.task_count(p) - 1; task >= 0; --task) {
    const int64_t floats = kernel.scratch_floats(p);
    std::unique_ptr<float[]> scratch(new float[floats]);
    std::fill_n(scratch.get(), floats, NAN);
    kernel.run(p, task, task + 1, scratch.get());
  }
}

bool close(const Setting& s, const char* what, double got, double truth, double scale,
           double tolerance) {
  if (std::abs(got - truth) <= tolerance * (1 + scale)) return true;
  std::fprintf(stderr, "dtype %d norm %d: %ldx%ldx%ldx%ld, %ld branches: %s is %g, expected %g\n",
               static_cast<int>(s.dtype), s.norm, s.batch, s.channels, s.rows, s.columns,
               s.branches(), what, got, truth);
  return false;
}

bool check(const Setting& s, bool fault) {
  namespace isa = lmwp::LMWP_ISA;
  const int64_t table = s.branches() * s.channels, elements = s.batch * s.channels * s.pixels();
  Arguments a{{draw(elements), draw(table * 9), draw(s.batch * table), draw(table), draw(table)}};
  for (size_t i = 0; i < a.of[2].size(); i += 3) a.of[2][i] = 0;
  const Values grad_values = draw(elements);
  const Block u(a.of[0], s, fault), grad(grad_values, s), out(draw(elements), s);
  std::vector<float> parameters[5], gradients[5];
  for (int i = 1; i < 5; ++i) {
    parameters[i] = narrow(a.of[i]);
    gradients[i].resize(a.of[i].size());
  }
  std::vector<float> mean(table), var(table), means(s.batch * table);

  MixProblem p{};
  p.dtype = s.dtype;
  p.batch = s.batch;
  p.channels = s.channels;
  p.rows = s.rows;
  p.columns = s.columns;
  p.branches = s.branches();
  p.octaves = s.octaves.data();
  p.dilations = s.dilations.data();
  p.u = u.view;
  p.out = out.view;
  p.weights = parameters[1].data();
  p.mix = parameters[2].data();
  p.scale = parameters[3].data();
  p.shift = parameters[4].data();
  if (s.norm) {
    p.eps = kEps;
    p.batch_mean = mean.data();
    p.batch_var = var.data();
    p.means = means.data();
  }
  run(s.norm ? isa::multiscale_norm_mix_kernel() : isa::multiscale_mix_kernel(), p);
  const double exact = s.dtype == Dtype::float32 ? 1e-5 : s.dtype == Dtype::float16 ? 2e-3 : 2e-2;
  const Values truth = forward(s, a);
  double largest = 0;
  for (double value : truth) largest = std::max(largest, std::abs(value));
  for (int64_t i = 0; i < elements; ++i)
    if (!close(s, "out", out.at(i), truth[i], largest, exact)) return false;

  p.grad = grad.view;
  p.grad_weights = gradients[1].data();
  p.grad_mix = gradients[2].data();
  p.grad_scale = gradients[3].data();
  p.grad_shift = gradients[4].data();
  run(isa::multiscale_mix_backward_kernel(), p);
  for (int kind = 0; kind < 5; ++kind) {
    const Values direction = draw(static_cast<int64_t>(a.of[kind].size()));
    double found = 0, size = 0, difference = 0;
    for (size_t i = 0; i < direction.size(); ++i) {
      const double g = kind == 0 ? out.at(static_cast<int64_t>(i)) : gradients[kind][i];
      found += g * direction[i];
      size += std::abs(g * direction[i]);
    }
    constexpr double kStep = 1e-6;
    for (double sign : {1.0, -1.0}) {
      Arguments moved = a;
      for (size_t i = 0; i < direction.size(); ++i)
        moved.of[kind][i] += sign * kStep * direction[i];
      difference += sign * dot(grad_values, forward(s, moved)) / (2 * kStep);
    }
    const char* const names[] = {"du", "dweights", "dmix", "dscale", "dshift"};
    if (!close(s, names[kind], found, difference, size, kind == 0 ? exact : 1e-4)) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  int turn = 0;
  for (bool norm : {false, true})
    for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16})
      for (int64_t width : {1, 2, 3, 5, 7, 8, 11, 15, 16, 17, 31, 33, 42}) {
        ++turn;
        const int64_t height = 2 + 5 * turn % 19;
        const std::vector<int64_t> octaves[] = {{0, 0, 1, 2}, {0}, {3, 0, 1}, {1, 2, 2}};
        const std::vector<int64_t> dilations[] = {{1, 2, 1, 1}, {1}, {1, 3, 2}, {1, 90, 2}};
        const int which = turn % 4;
        if (!check({2 + turn % 2, 1 + turn % 3, height, width, octaves[which], dilations[which],
                    dtype, norm},
                   fault))
          return 1;
      }
  return 0;
}
