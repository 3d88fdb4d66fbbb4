// Runs the kernels of convolutions by pruned weights, and of their gradients, of one instruction
// set over small problems, each tensor in a heap block of exactly its size, and compares with loops
// in double. Prints nothing and returns 0 if all is well. With "fault" as argument the last element
// of an input is missing: a sanitizer must stop it.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cpu/sparse_matrix.h"
#include "elements.h"

namespace {

using lmwp::Dtype;

struct Shape {
  int64_t batch, height, width;
  lmwp::SparseGeometry geometry;  // without sizes
  int64_t rows;                   // output channels that read the same
  int64_t slabs;                  // of single rows, of 4 columns
};

struct Settings {
  Dtype dtype;
  bool channels_last, epilogue, in_place;
  int64_t threads;
};

// A feature in a block of its own.
struct Map {
  Map(int64_t batch, int64_t channels, int64_t height, int64_t width, const Settings& settings,
      int64_t missing)
      : dtype(settings.dtype), stride{channels * height * width, height * width, width, 1} {
    if (settings.channels_last) {
      stride[1] = 1;
      stride[2] = width * channels;
      stride[3] = channels;
    }
    const int64_t count = batch * channels * height * width - missing;
    data.reset(new char[count * size_of(dtype)]);
    for (int64_t i = 0; i < count; ++i) put(data.get(), i, coarse(), dtype);
  }

  double at(int64_t n, int64_t c, int64_t h, int64_t w) const {
    return get(data.get(), n * stride[0] + c * stride[1] + h * stride[2] + w * stride[3], dtype);
  }

  const Dtype dtype;
  int64_t stride[4];
  std::unique_ptr<char[]> data;
};

// A random half of the matrix [out channels, columns], packed as the kernel reads it.
class Matrix {
 public:
  Matrix(const Shape& shape, int64_t columns) : columns_(columns) {
    const lmwp::SparseGeometry& g = shape.geometry;
    const int64_t blocks = g.out_channels / shape.rows, slab = shape.slabs > 1 ? 4 : columns;
    dense.assign(g.out_channels * columns, 0);
    outputs_.resize(g.out_channels);
    std::iota(outputs_.begin(), outputs_.end(), 0);
    offsets_.push_back(0);
    for (int64_t s = 0; s < shape.slabs; ++s) {
      for (int64_t b = 0; b < blocks; ++b) {
        for (int64_t k = s * slab; k < std::min(columns, (s + 1) * slab); ++k) {
          if (random_bits() % 2) continue;
          index_.push_back(static_cast<int32_t>(k));
          for (int64_t t = 0; t < shape.rows; ++t) {
            weight_.push_back(static_cast<float>(coarse()));
            dense[(b * shape.rows + t) * columns + k] = weight_.back();
          }
        }
        offsets_.push_back(static_cast<int32_t>(index_.size()));
      }
    }
    index_.shrink_to_fit();
    weight_.shrink_to_fit();
    offsets_.shrink_to_fit();
    sparse.channels.resize(g.group_channels);
    std::iota(sparse.channels.begin(), sparse.channels.end(), 0);
    if (shape.rows == 1) {
      sparse.singles = {offsets_.data(), index_.data(), weight_.data(), g.out_channels,
                        shape.slabs};
      return;
    }
    for (int64_t b = 0; b < blocks; ++b) {
      sparse.rows.push_back({&outputs_[b * shape.rows], shape.rows, shape.rows, 1,
                             weight_.data() + offsets_[b] * shape.rows, index_.data() + offsets_[b],
                             offsets_[b + 1] - offsets_[b]});
    }
    for (int64_t i = 0; i <= g.groups; ++i) sparse.first_row.push_back(i * blocks / g.groups);
  }

  const std::vector<float>& values() const { return weight_; }

  // The kept values of a dense matrix, in their order.
  std::vector<double> kept(const std::vector<double>& from) const {
    std::vector<double> values(weight_.size());
    sparse.for_each_row([&](const lmwp::SparseMatrix::Row& row) {
      for (int64_t k = 0; k < row.count; ++k) {
        values[row.weight + k * row.step - weight_.data()] =
            from[row.output * columns_ + row.column[k]];
      }
    });
    return values;
  }

  lmwp::SparseMatrix sparse{};
  std::vector<double> dense;

 private:
  const int64_t columns_;
  std::vector<int32_t> outputs_, offsets_, index_;
  std::vector<float> weight_;
};

// Calls function(weight, row, column of x) for each element of the dense matrix, by its index, that
// meets a pixel of input channel `first + c` at output pixel (h, w) of output channel o.
template <typename Function>
void for_each_product(const Shape& shape, int64_t o, int64_t h, int64_t w, Function&& function) {
  const lmwp::SparseGeometry& g = shape.geometry;
  const int64_t first = o / (g.out_channels / g.groups) * g.group_channels;
  int64_t weight = o * g.group_channels * g.kernel[0] * g.kernel[1];
  for (int64_t c = 0; c < g.group_channels; ++c) {
    for (int64_t i = 0; i < g.kernel[0]; ++i) {
      for (int64_t j = 0; j < g.kernel[1]; ++j, ++weight) {
        const int64_t row = h * g.step[0] + i * g.dilation[0] - g.padding[0];
        const int64_t column = w * g.step[1] + j * g.dilation[1] - g.padding[1];
        if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) continue;
        function(weight, first + c, row, column);
      }
    }
  }
}

std::vector<float> parameters(int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(coarse());
  return values;
}

struct Tolerance {
  bool fits(double got, double expected, const char* what) const {
    if (std::abs(got - expected) <= of * (1 + std::abs(expected))) return true;
    std::fprintf(stderr, "%s: %g, expected %g\n", what, got, expected);
    return false;
  }
  const double of;
};

void run(const lmwp::SparseConvProblem& p) {
  const lmwp::SparseConvKernel kernel = lmwp::LMWP_ISA::sparse_conv2d_kernel();
  std::unique_ptr<float[]> scratch(new float[kernel.scratch_floats(p)]);
  // Last first: a task must not lean on another's order.
  for (int64_t task = kernel.task_count(p) - 1; task >= 0; --task) {
    kernel.run(p, task, task + 1, scratch.get());
  }
}

lmwp::SparseConvProblem problem_of(const Map& x, Map& y, int64_t batch,
                                   const lmwp::SparseGeometry& g) {
  lmwp::SparseConvProblem p{};
  p.dtype = x.dtype;
  p.x = x.data.get();
  p.y = y.data.get();
  p.batch = batch;
  p.height = g.size[0];
  p.width = g.size[1];
  p.out_height = g.out_size[0];
  p.out_width = g.out_size[1];
  std::copy(x.stride, x.stride + 4, p.x_stride);
  std::copy(y.stride, y.stride + 4, p.y_stride);
  return p;
}

bool check_forward(const Shape& shape, const Settings& s, const Map& x, Map& y,
                   const Matrix& matrix, const Tolerance& tolerance) {
  const lmwp::SparseGeometry& g = shape.geometry;
  const auto scale = parameters(g.out_channels), shift = parameters(g.out_channels);
  const auto slope = parameters(g.out_channels);
  lmwp::SparsePlan plan(g, matrix.sparse.channels);
  if (s.in_place) plan.read_in_place(x.stride[1]);
  lmwp::SparseConvProblem p = problem_of(x, y, shape.batch, g);
  if (s.epilogue) {
    p.scale = scale.data();
    p.shift = shift.data();
    p.slope = slope.data();
  }
  matrix.sparse.describe(p);
  plan.describe(p, s.threads);
  run(p);
  for (int64_t n = 0; n < shape.batch; ++n)
    for (int64_t o = 0; o < g.out_channels; ++o)
      for (int64_t h = 0; h < g.out_size[0]; ++h)
        for (int64_t w = 0; w < g.out_size[1]; ++w) {
          double z = 0;
          for_each_product(shape, o, h, w, [&](int64_t i, int64_t c, int64_t row, int64_t column) {
            z += matrix.dense[i] * x.at(n, c, row, column);
          });
          if (s.epilogue) z = z * scale[o] + shift[o];
          if (s.epilogue && z < 0) z *= slope[o];
          if (!tolerance.fits(y.at(n, o, h, w), z, "result")) return false;
        }
  return true;
}

// The results of before stand for their gradient.
bool check_backward(const Shape& shape, const Settings& s, const Map& x, Map& y,
                    const Matrix& matrix, const Tolerance& tolerance) {
  const lmwp::SparseGeometry& g = shape.geometry;
  const int64_t channels = g.group_channels * g.groups;
  std::vector<double> dw(matrix.dense.size());
  std::vector<double> dx(shape.batch * channels * shape.height * shape.width);
  const auto at = [&](int64_t n, int64_t c, int64_t h, int64_t w) {
    return ((n * channels + c) * shape.height + h) * shape.width + w;
  };
  for (int64_t n = 0; n < shape.batch; ++n)
    for (int64_t o = 0; o < g.out_channels; ++o)
      for (int64_t h = 0; h < g.out_size[0]; ++h)
        for (int64_t w = 0; w < g.out_size[1]; ++w) {
          const double dy = y.at(n, o, h, w);
          for_each_product(shape, o, h, w, [&](int64_t i, int64_t c, int64_t row, int64_t column) {
            dw[i] += dy * x.at(n, c, row, column);
            dx[at(n, c, row, column)] += dy * matrix.dense[i];
          });
        }

  Map found(shape.batch, channels, shape.height, shape.width, s, 0);
  for (int64_t i = 0; i < std::min(g.step[0], g.size[0]); ++i)
    for (int64_t j = 0; j < std::min(g.step[1], g.size[1]); ++j) {
      const lmwp::SparsePhase phase(g, {i, j});
      const lmwp::SparseTranspose transpose(matrix.sparse, g, phase, 1);
      const lmwp::SparsePlan plan(phase.geometry, transpose.matrix().channels);
      lmwp::SparseConvProblem p = problem_of(y, found, shape.batch, phase.geometry);
      p.y = found.data.get() + (i * p.y_stride[2] + j * p.y_stride[3]) * size_of(s.dtype);
      for (int d = 0; d < 2; ++d) p.y_stride[2 + d] *= g.step[d];
      transpose.matrix().describe(p);
      plan.describe(p, s.threads);
      run(p);
    }
  for (int64_t n = 0; n < shape.batch; ++n)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t h = 0; h < shape.height; ++h)
        for (int64_t w = 0; w < shape.width; ++w) {
          if (!tolerance.fits(found.at(n, c, h, w), dx[at(n, c, h, w)], "dx")) return false;
        }

  const lmwp::SparseValuesKernel kernel = lmwp::LMWP_ISA::sparse_values_kernel();
  const lmwp::SparsePlan plan(g, matrix.sparse.channels);
  lmwp::SparseValuesProblem problem{};
  problem.conv = problem_of(x, y, shape.batch, g);
  problem.dy = y.data.get();
  problem.values = matrix.values().data();
  problem.value_count = static_cast<int64_t>(matrix.values().size());
  matrix.sparse.describe(problem.conv);
  plan.describe(problem.conv, 1);
  const int64_t count = kernel.partial_floats(problem);
  std::unique_ptr<float[]> partials(new float[count]());
  std::unique_ptr<float[]> scratch(new float[kernel.scratch_floats(problem)]);
  // What is left over from other tiles and ops must not matter.
  std::fill_n(scratch.get(), kernel.scratch_floats(problem), NAN);
  for (int64_t task = kernel.task_count(problem) - 1; task >= 0; --task) {
    kernel.run(problem, task, task + 1, partials.get(), scratch.get());
  }
  const std::vector<double> expected = matrix.kept(dw);
  for (int64_t k = 0; k < problem.value_count; ++k) {
    double sum = 0;
    for (int64_t i = k; i < count; i += problem.value_count) sum += partials[i];
    if (std::abs(sum - expected[k]) > 1e-4 * (100 + std::abs(expected[k]))) {
      std::fprintf(stderr, "value %ld: %g, expected %g\n", k, sum, expected[k]);
      return false;
    }
  }
  return true;
}

bool check(Shape shape, const Settings& s, bool fault) {
  lmwp::SparseGeometry& g = shape.geometry;
  const int64_t size[2] = {shape.height, shape.width};
  for (int d = 0; d < 2; ++d) {
    g.size[d] = size[d];
    g.out_size[d] =
        (size[d] + 2 * g.padding[d] - g.dilation[d] * (g.kernel[d] - 1) - 1) / g.step[d] + 1;
  }
  const Map x(shape.batch, g.group_channels * g.groups, shape.height, shape.width, s, fault);
  Map y(shape.batch, g.out_channels, g.out_size[0], g.out_size[1], s, 0);
  const Matrix matrix(shape, g.group_channels * g.kernel[0] * g.kernel[1]);
  const Tolerance tolerance{s.dtype == Dtype::float32   ? 1e-4
                            : s.dtype == Dtype::float16 ? 1e-2
                                                        : 6e-2};
  if (check_forward(shape, s, x, y, matrix, tolerance) &&
      check_backward(shape, s, x, y, matrix, tolerance)) {
    return true;
  }
  std::fprintf(stderr, "dtype %d: %ldx%ldx%ld\n", static_cast<int>(s.dtype), g.out_channels,
               shape.height, shape.width);
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  const std::vector<Shape> shapes = {
      {2, 1, 121, {7, 9, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {}, {}}, 1, 3},
      {1, 1, 288, {5, 6, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {}, {}}, 1, 1},
      {1, 1, 144, {12, 10, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {}, {}}, 4, 1},
      {1, 1, 3, {18, 4, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {}, {}}, 9, 1},
      {2, 9, 7, {4, 3, 2, {1, 1}, {2, 1}, {1, 0}, {1, 1}, {}, {}}, 1, 1},
      {1, 11, 13, {5, 1, 5, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {}, {}}, 1, 1},
      {2, 12, 37, {6, 1, 3, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {}, {}}, 1, 1},
      {1, 9, 40, {2, 1, 2, {3, 3}, {1, 1}, {2, 9}, {3, 9}, {}, {}}, 1, 1},
      {1, 12, 10, {6, 1, 6, {3, 5}, {2, 2}, {1, 2}, {1, 1}, {}, {}}, 1, 1},
      {1, 9, 20, {6, 4, 1, {3, 3}, {1, 1}, {2, 2}, {2, 2}, {}, {}}, 3, 1},
      {1, 7, 15, {4, 3, 1, {3, 2}, {3, 2}, {4, 0}, {1, 3}, {}, {}}, 2, 1},
      {1, 1, 1, {1, 1, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {}, {}}, 1, 1},
      {1, 2, 4200, {2, 1, 1, {1, 3}, {1, 1}, {0, 1}, {1, 1}, {}, {}}, 1, 1},
      {2, 5, 9, {35, 21, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {}, {}}, 1, 1},
      {1, 7, 18, {40, 37, 1, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {}, {}}, 4, 1},
      {1, 6, 7, {37, 1, 37, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {}, {}}, 1, 1},
      {1, 8, 5, {10, 5, 5, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {}, {}}, 2, 1},
      {2, 7, 20, {6, 20, 1, {3, 3}, {2, 2}, {1, 3}, {1, 2}, {}, {}}, 1, 1},
      {1, 5, 75, {6, 3, 1, {3, 3}, {2, 2}, {1, 1}, {1, 1}, {}, {}}, 1, 1},
  };
  int turn = 0;
  for (const Shape& shape : shapes)
    for (bool channels_last : {false, true})
      for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16}) {
        const bool can =
            shape.height == 1 && shape.width % 16 == 0 && !channels_last && dtype == Dtype::float32;
        for (bool in_place : {false, true}) {
          if (in_place && !can) continue;
          for (int64_t threads : {1, 3}) {
            const Settings settings{dtype, channels_last, ++turn % 3 != 0, in_place, threads};
            if (!check(shape, settings, fault)) return 1;
          }
        }
      }
  return 0;
}
