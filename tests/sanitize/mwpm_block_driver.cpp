// Runs the multi-scale weight pruning module of one instruction set over small problems, each
// tensor and all scratch in heap blocks of exactly their sizes, and compares with loops in double.
// Prints nothing and returns 0 if all is well. With "fault" as argument the last element of x is
// missing: a sanitizer must stop it.
#include <cmath>
#include <cstdio>
#include <string>

#include "cpu/mwpm_block.h"
#include "planes.h"

namespace {

using lmwp::Dtype;

struct Setting {
  int64_t batch, channels, width, hidden, rows, columns;
  std::vector<int64_t> octaves, dilations;
  Dtype dtype;
  int64_t threads;
  bool side_by_side;  // the channels of a pixel

  int64_t pixels() const { return rows * columns; }
  int64_t branches() const { return static_cast<int64_t>(octaves.size()); }
};

// weight, scale, shift and slope of a layer.
struct Layer {
  Layer(int64_t out, int64_t in)
      : weight(draw(out * in, 0.25)), scale(draw(out)), shift(draw(out)), slope(draw(out, 0.25)) {}
  Values weight, scale, shift, slope;
};

struct Arguments {
  explicit Arguments(const Setting& s)
      : x(draw(s.batch * s.channels * s.pixels())),
        expand(s.width, s.channels),
        project(s.channels, s.width),
        reduce(draw(s.hidden * s.width, 0.125)),
        reduce_bias(draw(s.hidden)),
        slope(draw(s.hidden, 0.25)),
        grow(draw(s.branches() * s.width * s.hidden, 0.125)),
        grow_bias(draw(s.branches() * s.width)),
        threshold(s.width),
        weights(draw(s.branches() * s.width * 9, 0.25)),
        scale(draw(s.branches() * s.width)),
        shift(draw(s.branches() * s.width)) {
    for (double& value : threshold) {
      value = (0.5 + coarse() / 8) / static_cast<double>(s.branches());
    }
  }

  Values x;
  Layer expand, project;
  Values reduce, reduce_bias, slope, grow, grow_bias, threshold, weights, scale, shift;
};

// The shares [branches, width] of an image whose expanded feature has these means.
Values shares_of(const Setting& s, const Arguments& a, const Values& means) {
  Values hidden(s.hidden), shares(s.branches() * s.width);
  for (int64_t j = 0; j < s.hidden; ++j) {
    double z = a.reduce_bias[j];
    for (int64_t c = 0; c < s.width; ++c) z += a.reduce[j * s.width + c] * means[c];
    hidden[j] = prelu(z, a.slope[j]);
  }
  for (int64_t c = 0; c < s.width; ++c) {
    double total = 0, kept = 0;
    for (int64_t k = 0; k < s.branches(); ++k) {
      const int64_t entry = k * s.width + c;
      double z = a.grow_bias[entry];
      for (int64_t j = 0; j < s.hidden; ++j) z += a.grow[entry * s.hidden + j] * hidden[j];
      total += shares[entry] = std::exp(z);
    }
    for (int64_t k = 0; k < s.branches(); ++k) {
      double& share = shares[k * s.width + c];
      share = std::max(0.0, share / total - a.threshold[c]);
      kept += share;
    }
    for (int64_t k = 0; k < s.branches(); ++k) shares[k * s.width + c] /= kept;
  }
  return shares;
}

// Means over windows of 2^octave of one plane.
Values pooled(const double* x, const Setting& s, int64_t octave, int64_t rows, int64_t columns) {
  const int64_t window = int64_t{1} << octave;
  Values means(rows * columns);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      double sum = 0, count = 0;
      for (int64_t i = r * window; i < std::min((r + 1) * window, s.rows); ++i)
        for (int64_t j = c * window; j < std::min((c + 1) * window, s.columns); ++j) {
          sum += x[i * s.columns + j];
          count += 1;
        }
      means[r * columns + c] = sum / count;
    }
  return means;
}

Values truth(const Setting& s, const Arguments& a, int64_t image) {
  const int64_t P = s.pixels();
  const double* const x = a.x.data() + image * s.channels * P;
  Values u(s.width * P), means(s.width), mixed(s.width * P), out(s.channels * P);
  for (int64_t c = 0; c < s.width; ++c)
    for (int64_t i = 0; i < P; ++i) {
      double z = 0;
      for (int64_t k = 0; k < s.channels; ++k) {
        z += a.expand.weight[c * s.channels + k] * x[k * P + i];
      }
      u[c * P + i] = prelu(a.expand.scale[c] * z + a.expand.shift[c], a.expand.slope[c]);
      means[c] += u[c * P + i] / static_cast<double>(P);
    }
  const Values shares = shares_of(s, a, means);
  for (int64_t k = 0; k < s.branches(); ++k) {
    const int64_t window = int64_t{1} << s.octaves[k];
    const int64_t rows = (s.rows + window - 1) / window,
                  columns = (s.columns + window - 1) / window;
    for (int64_t c = 0; c < s.width; ++c) {
      const int64_t entry = k * s.width + c;
      const Values z = convolved(pooled(u.data() + c * P, s, s.octaves[k], rows, columns).data(),
                                 rows, columns, a.weights.data() + 9 * entry, s.dilations[k]);
      for (int64_t i = 0; i < P; ++i) {
        const double y =
            resized(z.data(), rows, columns, i / s.columns, i % s.columns, s.rows, s.columns);
        mixed[c * P + i] += shares[entry] * (a.scale[entry] * y + a.shift[entry]);
      }
    }
  }
  for (int64_t c = 0; c < s.channels; ++c)
    for (int64_t i = 0; i < P; ++i) {
      double z = 0;
      for (int64_t k = 0; k < s.width; ++k) {
        z += a.project.weight[c * s.width + k] * mixed[k * P + i];
      }
      out[c * P + i] =
          prelu(x[c * P + i] + a.project.scale[c] * z + a.project.shift[c], a.project.slope[c]);
    }
  return out;
}

bool check(const Setting& s, bool one_by_one, bool fault) {
  const Arguments a(s);
  const Planes x(a.x, s.dtype, s.channels, s.pixels(), fault, s.side_by_side);
  const Planes out(Values(a.x.size()), s.dtype, s.channels, s.pixels(), 0, s.side_by_side);
  const Parameter expand(a.expand.weight), expand_scale(a.expand.scale),
      expand_shift(a.expand.shift), expand_slope(a.expand.slope), project(a.project.weight),
      project_scale(a.project.scale), project_shift(a.project.shift),
      project_slope(a.project.slope), reduce(a.reduce), reduce_bias(a.reduce_bias), slope(a.slope),
      grow(a.grow), grow_bias(a.grow_bias), threshold(a.threshold), weights(a.weights),
      scale(a.scale), shift(a.shift);

  lmwp::MwpmProblem p{};
  p.dtype = s.dtype;
  p.batch = s.batch;
  p.rows = s.rows;
  p.columns = s.columns;
  p.expand = {s.channels, s.width, expand, expand_scale, expand_shift, expand_slope};
  p.project = {s.width, s.channels, project, project_scale, project_shift, project_slope};
  p.gate = {s.hidden, reduce, reduce_bias, slope, grow, grow_bias, threshold};
  p.branches = s.branches();
  p.octaves = s.octaves.data();
  p.dilations = s.dilations.data();
  p.weights = weights;
  p.scale = scale;
  p.shift = shift;
  p.x = x.view;
  p.out = out.view;
  p.threads = s.threads;
  run(lmwp::LMWP_ISA::mwpm_block_kernels()[static_cast<int>(s.dtype)], p, one_by_one);

  const double tolerance = s.dtype == Dtype::float32 ? 1e-3 : 2e-2;
  for (int64_t image = 0; image < s.batch; ++image) {
    const Values expected = truth(s, a, image);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double got = out.at(image * static_cast<int64_t>(expected.size()) + i);
      if (std::abs(got - expected[i]) <= tolerance * (1 + std::abs(expected[i]))) continue;
      std::fprintf(stderr, "dtype %d %ldx%ldx%ldx%ld width %ld: %zu is %g, expected %g\n",
                   static_cast<int>(s.dtype), s.batch, s.channels, s.rows, s.columns, s.width, i,
                   got, expected[i]);
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  const std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>> kinds = {
      {{0, 0, 1, 2}, {1, 2, 1, 1}}, {{0}, {3}}, {{2, 0}, {1, 40}}, {{1, 1, 3}, {1, 2, 1}}};
  int64_t turn = 0;
  for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16})
    for (int64_t columns : {1, 2, 5, 11, 13, 16, 17, 33, 51}) {
      ++turn;
      const auto& [octaves, dilations] = kinds[turn % kinds.size()];
      const Setting s{1 + turn % 2, 1 + 5 * turn % 37, 1 + 7 * turn % 45, 1 + 3 * turn % 19,
                      1 + turn % 9, columns,           octaves,           dilations,
                      dtype,        1 + turn % 3,      turn % 4 < 2};
      if (!check(s, turn % 2, fault)) return 1;
    }
  // More than one band of rows, the last of which ends within a window.
  const Setting tall{1, 18,  33, 9, 31, 61, kinds[0].first, kinds[0].second, Dtype::float32,
                     4, true};
  return check(tall, true, fault) ? 0 : 1;
}
