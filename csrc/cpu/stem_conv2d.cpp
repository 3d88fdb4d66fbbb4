// A dense convolution of a few planes with affine and PReLU.
//
// A task is a band of output rows. The input rows it reads are brought into zero-padded float32
// lines, for stride 2 their even columns before the odd ones, so that a tap of neighbouring pixels
// is next to each other. A tile of pixels by two vectors of output channels keeps its sums in
// registers while the taps pass by; the results go to pixels, or are transposed into planes.
#include "cpu/stem_conv2d.h"

#include "cpu/denormals.h"
#include "cpu/feature_pixels.h"
#include "cpu/resample.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kBandRows = 4;  // of the output

using Problem = StemProblem;

int64_t bands(const Problem& p) { return ceil_div(p.out_rows(), kBandRows); }
int64_t task_count(const Problem& p) { return p.batch * bands(p); }

// Scratch of a thread.
struct Lines {
  Lines(const Problem& p, float* memory)
      : half(align(ceil_div(p.columns + p.kernel, p.stride) + p.kernel)),
        pitch(p.stride * half),
        per_channel((kBandRows - 1) * p.stride + p.kernel) {
    Arena arena(memory);
    const float* const begin = arena.take(0);
    first = arena.take(p.channels * per_channel * pitch);
    row = arena.take(2 * half + 2 * kAlign);
    taps = reinterpret_cast<const float**>(arena.take(align(2 * p.layer.in)));
    results = arena.take(p.out_columns() * padded(p.layer.out));
    floats = arena.take(0) - begin + kAlign;
  }

  int64_t half;  // floats of the even columns of a line
  int64_t pitch, per_channel;
  float *first, *row, *results;
  const float** taps;
  int64_t floats;
};

int64_t scratch_floats(const Problem& p) { return Lines(p, nullptr).floats; }

// Input row r of a plane as a line, zeros where there is none.
template <typename T>
void read_line(const Problem& p, const T* plane, int64_t r, const Lines& lines, float* to) {
  if (r < 0 || r >= p.rows) return clear(to, lines.pitch);
  float* const row = p.stride == 1 ? to : lines.row;
  const int64_t padding = p.kernel / 2, floats = p.stride * lines.half;
  clear(row, padding);
  widen_rows(plane + r * p.columns, 0, 1, p.columns, row + padding);
  clear(row + padding + p.columns, max(0, floats - padding - p.columns));
  if (p.stride == 2) split_columns(row, floats, to, to + lines.half);
}

// P pixels of V vectors of channels.
template <int P, int V>
void stem_tile(const float* const* taps, int64_t count, int64_t column, const float* weight,
               const float* shift, const float* slope, float* to, int64_t pitch) {
  Vec sum[P][V];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[p][v] = load<Vec>(shift + v * kLanes);
  }
  for (int64_t k = 0; k < count; ++k, weight += V * kLanes) {
    const float* const from = taps[k] + column;
    Vec w[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) w[v] = load<Vec>(weight + v * kLanes);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[p][v] += broadcast<Vec>(from[p]) * w[v];
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p, to += pitch) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      const Vec a = load<Vec>(slope + v * kLanes);
      store(to + v * kLanes, sum[p][v] < 0.0f ? a * sum[p][v] : sum[p][v]);
    }
  }
}

using StemTile = void (*)(const float* const*, int64_t, int64_t, const float*, const float*,
                          const float*, float*, int64_t);

// stem_tile of `pixels`, 1 to kTilePixels.
template <int V, int P = kTilePixels>
StemTile stem_tile_of(int64_t pixels) {
  if constexpr (P > 1) {
    if (pixels < P) return stem_tile_of<V, P - 1>(pixels);
  }
  return stem_tile<P, V>;
}

// A row of the output, to pixels `pitch` apart.
void convolve_row(const Problem& p, const Lines& lines, const float* packed, float* to,
                  int64_t pitch) {
  const int64_t out = padded(p.layer.out), in = p.layer.in;
  const float *const shift = packed + in * out, *const slope = shift + out;
  for (int64_t panel = 0; panel < out; panel += kPanelChannels) {
    const bool whole = panel + kPanelChannels <= out;
    for_each_even_tile(p.out_columns(), kTilePixels, [&](int64_t column, int64_t count) {
      const StemTile tile = whole ? stem_tile_of<kPanelVectors>(count) : stem_tile_of<1>(count);
      tile(lines.taps, in, column, packed + panel * in, shift + panel, slope + panel,
           to + column * pitch + panel, pitch);
    });
  }
}

template <typename T>
void run_task(const Problem& p, const float* packed, int64_t task, float* scratch) {
  const Lines lines(p, scratch);
  const int64_t image = task / bands(p), begin = task % bands(p) * kBandRows;
  const int64_t end = min(p.out_rows(), begin + kBandRows), columns = p.out_columns();
  const int64_t first = begin * p.stride - p.kernel / 2;
  const int64_t count = (end - begin - 1) * p.stride + p.kernel;
  const T* const x = first_of<const T>(p.x, image, 0);
  for (int64_t c = 0; c < p.channels; ++c) {
    for (int64_t i = 0; i < count; ++i) {
      read_line(p, x + c * p.x.channel, first + i, lines,
                lines.first + (c * lines.per_channel + i) * lines.pitch);
    }
  }
  for (int64_t h = begin; h < end; ++h) {
    const float** tap = lines.taps;
    for (int64_t c = 0; c < p.channels; ++c) {
      for (int64_t dy = 0; dy < p.kernel; ++dy) {
        const int64_t line = c * lines.per_channel + (h - begin) * p.stride + dy;
        for (int64_t dx = 0; dx < p.kernel; ++dx) {
          *tap++ = lines.first + line * lines.pitch + dx % p.stride * lines.half + dx / p.stride;
        }
      }
    }
    T* const to = first_of<T>(p.out, image, h * columns);
    const int64_t out = padded(p.layer.out);
    if constexpr (is_float32(static_cast<const T*>(nullptr))) {
      if (p.out.pixel && p.layer.out == out) {
        convolve_row(p, lines, packed, to, p.out.pixel);
        continue;
      }
    }
    convolve_row(p, lines, packed, lines.results, out);
    const auto as_it_is = []<Part>(int64_t, int64_t, int64_t, Vec v) { return v; };
    if (p.out.pixel) {
      to_pixels(lines.results, columns, p.layer.out, to, p.out.pixel, as_it_is);
    } else {
      to_planes(lines.results, columns, p.layer.out, to, p.out.channel, as_it_is);
    }
  }
}

template <typename T>
void run_as(const Problem& p, const float* packed, int64_t begin, int64_t end, float* scratch) {
  for (int64_t task = begin; task < end; ++task) run_task<T>(p, packed, task, scratch);
}

void run(const Problem& p, const float* packed, int64_t begin, int64_t end, float* scratch) {
  const FlushDenormals flush;
  switch (p.dtype) {
    case Dtype::float32:
      return run_as<float>(p, packed, begin, end, scratch);
    case Dtype::float16:
      return run_as<Half>(p, packed, begin, end, scratch);
    case Dtype::bfloat16:
      return run_as<BFloat16>(p, packed, begin, end, scratch);
  }
}

}  // namespace

StemKernel stem_conv2d_kernel() { return {packed_floats, pack, task_count, scratch_floats, run}; }

}  // namespace lmwp::LMWP_ISA
