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
// grid on which the term is convolved, that of the input where it is coarser, else the output's.
template <typename T>
struct OctaveTerm {
  const T* x;  // of one image
  int64_t channel_stride, row_stride, column_stride;
  Resample resample;
  bool entry_pool;
  int steps;           // of the max pool: its windows have 2^steps pixels a side
  Axis rows, columns;  // from the input to the output

  // Whether pixels of the grid are pixels of x, or those of the entry pool.
  __device__ __forceinline__ bool keeps_size() const {
    return resample == Resample::kNone || resample == Resample::kBilinearUp;
  }

  __device__ __forceinline__ const T* plane(int channel) const {
    return x + channel * channel_stride;
  }

  __device__ __forceinline__ float pixel(const T* plane, int row, int column) const {
    return to_float(plane[row * row_stride + column * column_stride]);
  }

  __device__ __forceinline__ float mean_of_four(const T* plane, int row, int column) const {
    row *= 2;
    column *= 2;
    return 0.25f * (pixel(plane, row, column) + pixel(plane, row, column + 1) +
                    pixel(plane, row + 1, column) + pixel(plane, row + 1, column + 1));
  }

  __device__ __forceinline__ float largest_of_four(const T* plane, int row, int column) const {
    row *= 2;
    column *= 2;
    return larger(larger(pixel(plane, row, column), pixel(plane, row, column + 1)),
                  larger(pixel(plane, row + 1, column), pixel(plane, row + 1, column + 1)));
  }

  __device__ __forceinline__ float entered(const T* plane, int row, int column) const {
    return entry_pool ? mean_of_four(plane, row, column) : pixel(plane, row, column);
  }

  __device__ __forceinline__ float largest(const T* plane, int row, int column) const {
    const int side = 1 << steps;
    float best = entered(plane, row * side, column * side);
#pragma unroll 1
    for (int i = 1; i < side * side; ++i) {
      best = larger(best, entered(plane, row * side + i / side, column * side + i % side));
    }
    return best;
  }

  __device__ __forceinline__ float resized(const T* plane, int row, int column) const {
    const int top = rows.low(row), bottom = rows.high(row);
    const int left = columns.low(column), right = columns.high(column);
    const float across = columns.fraction(column);
    return mix(mix(entered(plane, top, left), entered(plane, top, right), across),
               mix(entered(plane, bottom, left), entered(plane, bottom, right), across),
               rows.fraction(row));
  }

  // Calls work(read), where read(plane, row, column) is what the convolution reads at a pixel of
  // its grid: the usual kinds of reading each on their own, without a branch for each pixel.
  template <typename Work>
  __device__ __forceinline__ void with_reader(Work work) const {
    if (keeps_size() && !entry_pool) {
      work([&](const T* plane, int row, int column) { return pixel(plane, row, column); });
    } else if (keeps_size()) {
      work([&](const T* plane, int row, int column) { return mean_of_four(plane, row, column); });
    } else if (resample == Resample::kMaxPool && steps == 1 && !entry_pool) {
      work(
          [&](const T* plane, int row, int column) { return largest_of_four(plane, row, column); });
    } else if (resample == Resample::kMaxPool) {
      work([&](const T* plane, int row, int column) { return largest(plane, row, column); });
    } else {
      work([&](const T* plane, int row, int column) { return resized(plane, row, column); });
    }
  }
};

}  // namespace lmwp::cuda
