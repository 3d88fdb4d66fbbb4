// Features for the drivers of passes over channels, each in a heap block of exactly its size.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu/channel_problem.h"
#include "elements.h"

struct Shape {
  int64_t batch, channels, rows, columns;
  int64_t count() const { return batch * channels * rows * columns; }
};

struct Layout {
  lmwp::Dtype dtype;
  bool interleaved;
};

// A feature in a block of its own.
class Feature {
 public:
  Feature(const Shape& shape, const Layout& layout, int64_t missing)
      : shape_(shape),
        dtype_(layout.dtype),
        bytes_((shape.count() - missing) * size_of(dtype_)),
        data_(new char[bytes_]) {
    const int64_t plane = shape.rows * shape.columns;
    view = {data_.get(), shape.channels * plane, plane, shape.columns, 1};
    if (layout.interleaved) {
      view = {data_.get(), shape.channels * plane, 1, shape.columns * shape.channels,
              shape.channels};
    }
    std::memset(data_.get(), 0xff, bytes_);  // NaN in every dtype
    for (int64_t i = 0; i < shape.count() - missing; ++i) put(data_.get(), i, coarse(), dtype_);
  }

  double at(int64_t n, int64_t c, int64_t h, int64_t w) const {
    const int64_t i = n * view.image + c * view.channel + h * view.row + w * view.column;
    return get(data_.get(), i, dtype_);
  }

  lmwp::ChannelFeature view;

 private:
  const Shape shape_;
  const lmwp::Dtype dtype_;
  const size_t bytes_;
  std::unique_ptr<char[]> data_;
};

inline std::vector<float> parameters(int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(coarse());
  return values;
}

template <typename Body>
void for_each(const Shape& s, int64_t c, Body body) {
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t h = 0; h < s.rows; ++h)
      for (int64_t w = 0; w < s.columns; ++w) body(n, c, h, w);
}

inline void set_sizes(lmwp::ChannelProblem& p, const Shape& shape, const Layout& layout) {
  p.dtype = layout.dtype;
  p.interleaved = layout.interleaved;
  p.batch = shape.batch;
  p.channels = shape.channels;
  p.rows = shape.rows;
  p.columns = shape.columns;
}
