// Features of dense planes for the drivers, each in a heap block of exactly its size, and what they
// compute with in double.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/image_kernel.h"
#include "elements.h"

using Values = std::vector<double>;

inline Values draw(int64_t count, double scale = 1) {
  Values values(count);
  for (double& value : values) value = scale * coarse();
  return values;
}

// A parameter in a block of its own.
class Parameter {
 public:
  explicit Parameter(const Values& values) : data_(new float[values.size()]) {
    std::copy(values.begin(), values.end(), data_.get());
  }
  operator const float*() const { return data_.get(); }

 private:
  std::unique_ptr<float[]> data_;
};

// [batch, channels, pixels], in memory with the channels of a pixel side by side if that is asked
// for; the last `missing` elements there do not exist.
class Planes {
 public:
  Planes(const Values& values, lmwp::Dtype dtype, int64_t channels, int64_t pixels,
         int64_t missing = 0, bool side_by_side = false)
      : dtype_(dtype),
        channels_(channels),
        pixels_(pixels),
        side_by_side_(side_by_side),
        data_(new char[(values.size() - missing) * size_of(dtype)]) {
    const int64_t count = static_cast<int64_t>(values.size());
    for (int64_t i = 0; i < count; ++i) {
      if (place(i) < count - missing) put(data_.get(), place(i), values[i], dtype);
    }
    view = {data_.get(), channels * pixels, side_by_side ? 1 : pixels, side_by_side ? channels : 0};
  }
  double at(int64_t i) const { return get(data_.get(), place(i), dtype_); }

  lmwp::ImageFeature view;

 private:
  // Where element i of [batch, channels, pixels] lies.
  int64_t place(int64_t i) const {
    if (!side_by_side_) return i;
    const int64_t plane = i / pixels_, c = plane % channels_;
    return (plane - c) * pixels_ + i % pixels_ * channels_ + c;
  }

  const lmwp::Dtype dtype_;
  const int64_t channels_, pixels_;
  const bool side_by_side_;
  std::unique_ptr<char[]> data_;
};

inline double prelu(double z, double slope) { return z < 0 ? slope * z : z; }

// Depthwise 3 x 3 with zero padding, of one plane.
inline Values convolved(const double* x, int64_t rows, int64_t columns, const double* weight,
                        int64_t dilation) {
  Values z(rows * columns);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t t = 0; t < 9; ++t) {
        const int64_t i = r + (t / 3 - 1) * dilation, j = c + (t % 3 - 1) * dilation;
        if (i < 0 || i >= rows || j < 0 || j >= columns) continue;
        z[r * columns + c] += weight[t] * x[i * columns + j];
      }
  return z;
}

// A plane resized without aligned corners, at one pixel.
inline double resized(const double* x, int64_t rows, int64_t columns, int64_t r, int64_t c,
                      int64_t to_rows, int64_t to_columns) {
  const auto position = [](int64_t i, int64_t in, int64_t out) {
    return std::max(
        0.0,
        (static_cast<double>(i) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5);
  };
  const double y = position(r, rows, to_rows), at = position(c, columns, to_columns);
  const int64_t top = std::min(static_cast<int64_t>(y), rows - 1);
  const int64_t left = std::min(static_cast<int64_t>(at), columns - 1);
  const int64_t bottom = std::min(top + 1, rows - 1), right = std::min(left + 1, columns - 1);
  const double down = y - static_cast<double>(top), across = at - static_cast<double>(left);
  return (1 - down) * ((1 - across) * x[top * columns + left] + across * x[top * columns + right]) +
         down * ((1 - across) * x[bottom * columns + left] + across * x[bottom * columns + right]);
}

// Runs the steps of every image, the items of each in one range or one by one from the last.
template <typename Problem>
void run(const lmwp::ImageKernel<Problem>& kernel, Problem& p, bool one_by_one) {
  std::unique_ptr<float[]> packed(new float[kernel.packed_floats(p)]);
  kernel.pack(p, packed.get());
  p.packed = packed.get();
  std::unique_ptr<float[]> own(new float[kernel.own_floats(p)]);
  for (int64_t image = 0; image < p.batch; ++image) {
    std::unique_ptr<float[]> shared(new float[kernel.shared_floats(p)]);
    for (const auto* step = kernel.steps; step->run; ++step) {
      const int64_t items = step->items(p);
      if (!one_by_one) step->run(p, image, shared.get(), own.get(), 0, items);
      for (int64_t i = items - 1; one_by_one && i >= 0; --i) {
        step->run(p, image, shared.get(), own.get(), i, i + 1);
      }
    }
  }
}
