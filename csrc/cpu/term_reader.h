// Rows of the inputs of a multi-scale convolution, as it reads them.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/multiscale_plan.h"

namespace lmwp::LMWP_ISA {

// Rows of channels of the inputs, pooled or resized to where a convolution reads them.
template <typename T>
class TermReader {
 public:
  explicit TermReader(float* const* buffers) : buffers_(buffers) {}

  // Row h of the term's map, before any resize up. `to` has room for whole vectors.
  void read(const ConvTerm& term, const ColumnResizer& resizer, const Axis& rows, const T* x,
            int64_t h, float* to) const {
    const ConvInput& input = *term.input;
    const int64_t width = input_size(input).width;
    if (term.resample == Resample::bilinear_down) {
      const int64_t low = rows.low(h), next = min(low + 1, rows.in - 1);
      float* const mixed = buffers_[4];
      mix_rows(base_row(input, x, low, 0), base_row(input, x, next, 1), rows.fraction(h), width,
               mixed);
      resizer(mixed, to);
    } else if (term.resample == Resample::bilinear_up_adjoint) {
      float* const mixed = buffers_[4];
      gather_rows(
          rows, h, width, [&](int64_t r, int buffer) { return base_row(input, x, r, buffer); },
          mixed);
      resizer.adjoint(mixed, to);
    } else if (term.resample == Resample::max_pool) {
      largest_row(input, x, h, term.steps, width, to);
    } else if (input.entry_pool) {
      mean_2x2(input_row(input, x, 2 * h, 2), input_row(input, x, 2 * h + 1, 3), width, to);
    } else {
      read_row(row_of(input, x, h), input.stride[3], input.width, end_of(input, x), to);
    }
  }

  // Rows [begin, begin + count) at once, where they are to be as they are and lie without gaps; the
  // rows behind them are fetched for the next call. False where that does not hold.
  bool read_rows(const ConvTerm& term, const T* x, int64_t begin, int64_t count, float* to) const {
    const ConvInput& input = *term.input;
    if constexpr (is_float32(static_cast<const T*>(nullptr))) {
      const int64_t elements = count * input.width;
      const bool as_they_are =
          (term.resample == Resample::none || is_coarse(term)) && !input.entry_pool;
      if (!as_they_are || input.stride[3] != 1 || input.stride[2] != input.width ||
          elements < kLanes) {
        return false;
      }
      const float* const from = row_of(input, x, begin);
      for (int64_t i = 0; i < elements; i += kLanes) {
        const int64_t at = min(i, elements - kLanes);
        __builtin_prefetch(from + at + elements, 0, 2);
        store(to + at, load<Vec>(from + at));
      }
      return true;
    }
    return false;
  }

  // Takes row q of the gradients of a max pool over windows of 2^steps to the first of the maxima
  // of each window, or to its first NaN; writes the rows [begin, end) of the map at plane.
  void route(const ConvInput& input, const T* x, int steps, int64_t q, const float* gradients,
             int64_t begin, int64_t end, float* plane, int64_t pitch) const {
    const Size size = input_size(input);
    const int64_t side = int64_t{1} << steps, columns = size.width >> steps, top = q * side;
    if (steps == 1 && begin <= top && top + 2 <= end) {
      float* const to = plane + (top - begin) * pitch;
      const float *a = base_row(input, x, top, 0), *b = base_row(input, x, top + 1, 1);
      route_2x2(a, b, gradients, columns, to, to + pitch);
      if (size.width % 2) to[size.width - 1] = to[pitch + size.width - 1] = 0;
      return;
    }
    float* const largest = buffers_[1];
    int32_t* const where = reinterpret_cast<int32_t*>(buffers_[4]);
    for (int64_t i = 0; i < side; ++i) {
      const float* row = base_row(input, x, top + i, 0);
      if (steps == 2) {
        find_largest_of_4(row, columns, static_cast<int>(4 * i), largest, where);
        continue;
      }
      for (int64_t c = 0; c < columns; ++c) {
        for (int64_t j = 0; j < side; ++j) {
          const float value = row[c * side + j];
          const bool first = i + j == 0;
          if (first || (!(value <= largest[c]) && largest[c] == largest[c])) {
            largest[c] = value;
            where[c] = static_cast<int32_t>(i * side + j);
          }
        }
      }
    }
    for (int64_t i = max(0, begin - top); i < min(side, end - top); ++i) {
      float* const to = plane + (top + i - begin) * pitch;
      if (steps == 2) {
        place_in_4(gradients, where, columns, static_cast<int>(4 * i), buffers_[0]);
        for (int64_t c = 0; c < 4 * columns; ++c) to[c] = buffers_[0][c];
        clear(to + 4 * columns, size.width - 4 * columns);
        continue;
      }
      clear(to, size.width);
      for (int64_t c = 0; c < columns; ++c) {
        if (where[c] / side == i) to[c * side + where[c] % side] = gradients[c];
      }
    }
  }

 private:
  // Row h pooled by maxima over windows of 2^steps.
  void largest_row(const ConvInput& input, const T* x, int64_t h, int steps, int64_t width,
                   float* to) const {
    const int64_t first = h << steps;
    const float* row = base_row(input, x, first, 0);
    if (steps == 1) return larger_2x2(row, base_row(input, x, first + 1, 1), width / 2, to);
    float* const largest = buffers_[4];
    for (int64_t i = 1; i < int64_t{1} << steps; ++i) {
      larger_of_rows(row, base_row(input, x, first + i, 1), width, largest);
      row = largest;
    }
    for (int step = 1; step < steps; ++step) larger_of_columns(largest, width >> step, largest);
    larger_of_columns(largest, width >> steps, to);
  }

  // Row h after the entry pool, in a buffer or where it is.
  const float* base_row(const ConvInput& input, const T* x, int64_t h, int buffer) const {
    if (!input.entry_pool) return input_row(input, x, h, buffer);
    mean_2x2(input_row(input, x, 2 * h, 2), input_row(input, x, 2 * h + 1, 3), input.width / 2,
             buffers_[buffer]);
    return buffers_[buffer];
  }

  // Row h with room for whole vectors, in a buffer or, followed by others, where it is.
  const float* input_row(const ConvInput& input, const T* x, int64_t h, int buffer) const {
    const T* const row = row_of(input, x, h);
    const T* const end = end_of(input, x);
    if constexpr (is_float32(static_cast<const T*>(nullptr))) {
      if (input.stride[3] == 1 && end - row >= input.width + 2 * kLanes) return row;
    }
    read_row(row, input.stride[3], input.width, end, buffers_[buffer]);
    return buffers_[buffer];
  }

  static const T* row_of(const ConvInput& input, const T* x, int64_t h) {
    return x + h * input.stride[2];
  }

  static const T* end_of(const ConvInput& input, const T* x) {
    return x + (input.height - 1) * input.stride[2] + (input.width - 1) * input.stride[3] + 1;
  }

  float* const* const buffers_;
};

}  // namespace lmwp::LMWP_ISA
