#pragma once

#include "cuda/lanes.cuh"

namespace lmwp::cuda {

// One input branch of an octave convolution; sizes are those after the entry pool, which the
// strides do not know of.
struct OctaveInput {
  const void* x;  // [N, channels, H, W] of any strides, in elements
  int64_t stride[4];
  int channels, height, width;
  int scale;   // branches lie at 1 / 2^scale of a common size
  int column;  // of the first channel in the weight
};

// One side of a bilinear resize without aligned corners.
struct Axis {
  int in, out;

  __device__ __forceinline__ float position(int i) const {
    const float at = (static_cast<float>(i) + 0.5f) * static_cast<float>(in) / out - 0.5f;
    return at > 0.0f ? at : 0.0f;
  }
  // The pixel at or before position(i), the one after it, and the weight of the latter.
  __device__ __forceinline__ int low(int i) const {
    const int at = static_cast<int>(position(i));
    return at < in ? at : in - 1;
  }
  __device__ __forceinline__ int high(int i) const { return low(i) + (low(i) + 1 < in); }
  __device__ __forceinline__ float fraction(int i) const {
    return position(i) - static_cast<float>(low(i));
  }
};

__device__ __forceinline__ float mix(float a, float b, float fraction) {
  return (1.0f - fraction) * a + fraction * b;
}

enum class Resample { kNone, kMaxPool, kBilinearDown, kBilinearUp };

// An input branch as one output sees it before the convolution: pooled or resized on load, on the
// grid of `height` x `width` pixels on which the term is convolved.
template <typename T>
struct OctaveTerm {
  const T* x;  // of one image
  int64_t channel_stride, row_stride, column_stride;
  Resample resample;
  bool entry_pool;
  int steps;  // of the max pool: its windows have 2^steps pixels a side
  int height, width;
  Axis rows, columns;

  // Whether a pixel of the grid is a pixel of x.
  __device__ __forceinline__ bool is_plain() const {
    return !entry_pool && (resample == Resample::kNone || resample == Resample::kBilinearUp);
  }

  __device__ __forceinline__ float pixel(const T* plane, int row, int column) const {
    if (!entry_pool) return to_float(plane[row * row_stride + column * column_stride]);
    const T* top = plane + 2 * row * row_stride + 2 * column * column_stride;
    const T* bottom = top + row_stride;
    return 0.25f * (to_float(top[0]) + to_float(top[column_stride]) + to_float(bottom[0]) +
                    to_float(bottom[column_stride]));
  }

  // NaN wins, as in torch.
  __device__ __forceinline__ float largest(const T* plane, int row, int column) const {
    const int side = 1 << steps;
    float best = pixel(plane, row * side, column * side);
    for (int i = 0; i < side * side; ++i) {
      const float value = pixel(plane, row * side + i / side, column * side + i % side);
      best = value > best || value != value ? value : best;
    }
    return best;
  }

  __device__ __forceinline__ float resized(const T* plane, int row, int column) const {
    const int top = rows.low(row), bottom = rows.high(row);
    const int left = columns.low(column), right = columns.high(column);
    const float across = columns.fraction(column);
    return mix(mix(pixel(plane, top, left), pixel(plane, top, right), across),
               mix(pixel(plane, bottom, left), pixel(plane, bottom, right), across),
               rows.fraction(row));
  }

  // What the convolution reads at a pixel of its grid.
  __device__ __forceinline__ float operator()(int channel, int row, int column) const {
    const T* plane = x + channel * channel_stride;
    switch (resample) {
      case Resample::kMaxPool:
        return largest(plane, row, column);
      case Resample::kBilinearDown:
        return resized(plane, row, column);
      default:
        return pixel(plane, row, column);
    }
  }
};

}  // namespace lmwp::cuda
