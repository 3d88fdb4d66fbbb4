// Gradients of both gates. The gates are computed again; x and the gradient of the result are read
// for the sums over channels, for those over pixels, and for the gradient of x.
#include "cpu/attention_gates.h"
#include "cpu/channel_spatial_attention.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kTapRows = 8;  // whose products of a tap are summed in float32

int64_t scratch_floats(const AttentionProblem& p) { return GradientScratch(p, nullptr).floats(); }

Vec where(VecInt mask, Vec v) { return (Vec)((VecInt)v & mask); }

// The first element of a plane that is its maximum, or NaN if that is.
template <typename T>
int64_t find(const T* x, int64_t pixels, float maximum) {
  for (int64_t first = 0; first < pixels; first += kChunk) {
    const int64_t count = min(kChunk, pixels - first);
    float values[kChunk];
    Vec hits = {};
    for_vectors<1>(count, [&]<int, Part part>(int64_t i, int64_t lanes) {
      const Vec v = get<part>(x + first + i, lanes);
      const Vec hit = where((v == maximum) | (v != v), broadcast<Vec>(1.0f));
      hits += only_new<part>(hit, lanes);
      put<part>(v, values + i, lanes);
    });
    if (sum_of_lanes(hits) == 0) continue;
    for (int64_t i = 0; i < count; ++i) {
      if (values[i] == maximum || values[i] != values[i]) return first + i;
    }
  }
  return 0;
}

template <typename T>
void pool_and_find(const AttentionProblem& p, int64_t image, float* memory, int64_t begin,
                   int64_t end) {
  pool_pixels<T>(p, image, memory, begin, end);
  if (p.hidden == 0 || !p.max) return;
  const GradientScratch s(p, memory);
  for (int64_t c = begin; c < end; ++c) {
    const float maximum = s.pooled[p.mean * align(p.channels) + c];
    s.pixel_at[c] = find(plane<const T>(p.x, image, c), pixels(p), maximum);
  }
}

void gate_and_clear(const AttentionProblem& p, int64_t image, float* memory, int64_t begin,
                    int64_t end) {
  gate_channels(p, image, memory, begin, end);
  const GradientScratch s(p, memory);
  if (p.size > 0) __builtin_memset(s.dsums, 0, Frame(p).floats * sizeof(float));
}

// As pool_channels, and where the maxima are; and the products of the pixels with the gradient.
template <typename T>
void pool_and_multiply(const AttentionProblem& p, int64_t image, float* memory, int64_t first_row,
                       int64_t end_row) {
  if (p.size == 0) return;
  const GradientScratch s(p, memory);
  const float share = 1.0f / static_cast<float>(p.channels);
  for (int64_t first = first_row * p.columns; first < end_row * p.columns; first += kChunk) {
    const int64_t count = min(kChunk, end_row * p.columns - first);
    const T* const x = plane<const T>(p.x, image, 0) + first;
    const T* const grad = plane<const T>(p.grad, image, 0) + first;
    float means[kChunk], maxima[kChunk];
    for_vectors<2>(count, [&]<int vectors, Part part>(int64_t i, int64_t lanes) {
      Vec sum[vectors] = {}, product[vectors] = {}, top[vectors];
      VecInt at[vectors] = {};
      for (Vec& t : top) t = lowest();
      for (int64_t group = 0; group < p.channels; group += kChannelsSummed) {
        Vec partial[vectors] = {}, partial_product[vectors] = {};
        for (int64_t c = group; c < min(p.channels, group + kChannelsSummed); ++c) {
          for (int v = 0; v < vectors; ++v) {
            const int64_t pixel = i + v * kLanes;
            const Vec e = s.gate[c] * get<part>(x + c * p.x.channel + pixel, lanes);
            const Vec g = get<part>(grad + c * p.grad.channel + pixel, lanes);
            const VecInt above = (e > top[v]) | ((e != e) & (top[v] == top[v]));
            partial[v] += e;
            partial_product[v] += e * g;
            top[v] = above ? e : top[v];
            at[v] = above ? VecInt{} + static_cast<int32_t>(c) : at[v];
          }
        }
        for (int v = 0; v < vectors; ++v) {
          sum[v] += partial[v];
          product[v] += partial_product[v];
        }
      }
      for (int v = 0; v < vectors; ++v) {
        const int64_t pixel = i + v * kLanes;
        put<part>(sum[v] * share, means + pixel, lanes);
        put<part>(top[v], maxima + pixel, lanes);
        put<part>((Vec)at[v], s.channel_at + first + pixel, lanes);
        put<part>(product[v], s.products + first + pixel, lanes);
      }
    });
    if (p.mean) enframe(p, means, first, count, s.maps);
    if (p.max) enframe(p, maxima, first, count, s.maps + p.mean * Frame(p).floats);
  }
}

// The spatial gate, and the gradient of what its sigmoid is applied to.
void gate_gradients(const AttentionProblem& p, int64_t, float* memory, int64_t first_row,
                    int64_t end_row) {
  if (p.size == 0) return;
  const GradientScratch s(p, memory);
  gate_pixels(p, s, first_row, end_row, [&](int64_t pixel, int64_t lanes, Vec sums) {
    store_lanes(sigmoid_slope(sums), s.slopes + pixel, lanes);
  });
  for (int64_t first = first_row * p.columns; first < end_row * p.columns; first += kChunk) {
    const int64_t count = min(kChunk, end_row * p.columns - first);
    float gradients[kChunk];
    for_vectors<1>(count, [&]<int, Part part>(int64_t i, int64_t lanes) {
      const Vec slope = get<part>(s.slopes + first + i, lanes);
      put<part>(slope * get<part>(s.products + first + i, lanes), gradients + i, lanes);
    });
    enframe(p, gradients, first, count, s.dsums);
  }
}

// The gradients of the maps: the convolution turned round.
void map_gradients(const AttentionProblem& p, int64_t, float* memory, int64_t first_row,
                   int64_t end_row) {
  if (p.size == 0) return;
  const GradientScratch s(p, memory);
  const int64_t taps = p.size * p.size, pixel = first_row * p.columns;
  const float* kernel = p.kernel;
  const auto compute = [&](bool used, float scale, float* to) {
    if (!used) {
      __builtin_memset(to + pixel, 0, (end_row - first_row) * p.columns * sizeof(float));
      return;
    }
    float turned[49];
    for (int64_t i = 0; i < taps; ++i) turned[i] = scale * kernel[taps - 1 - i];
    convolve(p, s.dsums, 1, turned, first_row, end_row,
             [&](int64_t at, int64_t lanes, Vec sums) { store_lanes(sums, to + at, lanes); });
    kernel += taps;
  };
  compute(p.mean, 1.0f / static_cast<float>(p.channels), s.dmean);
  compute(p.max, 1.0f, s.dmax);
}

template <int k>
void tap_gradients(const AttentionProblem& p, const float* map, const float* dsums, float* to) {
  const Frame frame(p);
  double totals[k] = {};
  for (int64_t first = 0; first < p.rows; first += kTapRows) {
    Vec sums[k] = {};
    for (int64_t row = first; row < min(p.rows, first + kTapRows); ++row) {
      const float* const q = map + row * frame.pitch;
      const float* const d = dsums + (row + frame.radius) * frame.pitch + frame.radius;
      for (int64_t column = 0; column < p.columns; column += kLanes) {
        const Vec g = load<Vec>(d + column);
        for (int dx = 0; dx < k; ++dx) sums[dx] += g * load<Vec>(q + column + dx);
      }
    }
    for (int dx = 0; dx < k; ++dx) totals[dx] += sum_of_lanes(sums[dx]);
  }
  for (int dx = 0; dx < k; ++dx) to[dx] = static_cast<float>(totals[dx]);
}

int64_t kernel_rows(const AttentionProblem& p) { return pools(p) * p.size; }

void kernel_gradients(const AttentionProblem& p, int64_t image, float* memory, int64_t begin,
                      int64_t end) {
  const GradientScratch s(p, memory);
  const GradientRecord record(p, image);
  const Frame frame(p);
  for (int64_t i = begin; i < end; ++i) {
    const float* const map = s.maps + i / p.size * frame.floats + i % p.size * frame.pitch;
    float* const to = record.dkernel + i * p.size;
    if (p.size == 3) tap_gradients<3>(p, map, s.dsums, to);
    if (p.size == 5) tap_gradients<5>(p, map, s.dsums, to);
    if (p.size == 7) tap_gradients<7>(p, map, s.dsums, to);
  }
}

// The gradient of what the spatial gate multiplies, from that of the result.
template <Part part, typename T>
Vec through_spatial(const AttentionProblem& p, const GradientScratch& s, const T* grad,
                    int64_t pixel, int64_t channel, int64_t lanes) {
  const Vec g = get<part>(grad + pixel, lanes);
  if (p.size == 0) return g;
  const Vec b = get<part>(s.spatial + pixel, lanes);
  const VecInt at = (VecInt)get<part>(s.channel_at + pixel, lanes);
  const Vec top = where(at == static_cast<int32_t>(channel), get<part>(s.dmax + pixel, lanes));
  return b * g + (get<part>(s.dmean + pixel, lanes) + top);
}

template <typename T>
void channel_gate_gradients(const AttentionProblem& p, int64_t image, float* memory, int64_t begin,
                            int64_t end) {
  if (p.hidden == 0) return;
  const GradientScratch s(p, memory);
  for (int64_t c = begin; c < end; ++c) s.gated[c] = 0;
  for (int64_t first = 0; first < pixels(p); first += kChunk) {
    for (int64_t c = begin; c < end; ++c) {
      const T* const x = plane<const T>(p.x, image, c);
      const T* const grad = plane<const T>(p.grad, image, c);
      LaneSums sum;
      for_vectors<4>(min(kChunk, pixels(p) - first),
                     [&]<int vectors, Part part>(int64_t i, int64_t lanes) {
                       Vec products[vectors];
                       for (int v = 0; v < vectors; ++v) {
                         const int64_t pixel = first + i + v * kLanes;
                         const Vec de = through_spatial<part>(p, s, grad, pixel, c, lanes);
                         products[v] = de * get<part>(x + pixel, lanes);
                       }
                       sum.add(only_new<part>(sum_of<vectors>(products), lanes));
                     });
      s.gated[c] += sum.total();
    }
  }
}

// dhidden from dlogit: of each hidden channel, through the second layer and the ReLU.
void hidden_gradients(const AttentionProblem& p, const GradientScratch& s,
                      const GradientRecord& record) {
  for_vectors<1>(p.hidden, [&]<int, Part part>(int64_t j, int64_t lanes) {
    Vec sum = {};
    for (int64_t group = 0; group < p.channels; group += kChannelsSummed) {
      Vec partial = {};
      for (int64_t c = group; c < min(p.channels, group + kChannelsSummed); ++c) {
        partial += record.dlogit[c] * get<part>(p.expand + c * p.hidden + j, lanes);
      }
      sum += partial;
    }
    for (int64_t pool = 0; pool < pools(p); ++pool) {
      const int64_t at = pool * align(p.hidden) + j;
      const Vec before = get<part>(s.before + at, lanes);
      put<part>(where(before > 0.0f, sum), record.dhidden + at, lanes);
    }
  });
}

// From the gradients of the gate of each channel to those of its pools.
void layer_gradients(const AttentionProblem& p, int64_t image, float* memory, int64_t, int64_t) {
  if (p.hidden == 0) return;
  const GradientScratch s(p, memory);
  const GradientRecord record(p, image);
  for (int64_t c = 0; c < p.channels; c += kLanes) {
    store(record.dlogit + c, sigmoid_slope(load<Vec>(s.logits + c)));
  }
  for (int64_t c = 0; c < p.channels; ++c) {
    record.dlogit[c] = static_cast<float>(record.dlogit[c] * s.gated[c]);
  }
  hidden_gradients(p, s, record);
  __builtin_memcpy(record.pooled, s.pooled, pools(p) * align(p.channels) * sizeof(float));
  __builtin_memcpy(record.hidden, s.hidden, p.hidden * sizeof(float));
  const float* dhidden = record.dhidden;
  const auto compute = [&](bool used, float scale, float* to) {
    if (!used) {
      __builtin_memset(to, 0, p.channels * sizeof(float));
      return;
    }
    for_vectors<1>(p.channels, [&]<int, Part part>(int64_t c, int64_t lanes) {
      Vec sum = {};
      for (int64_t j = 0; j < p.hidden; ++j) {
        sum += dhidden[j] * get<part>(p.reduce + j * p.channels + c, lanes);
      }
      put<part>(scale * sum, to + c, lanes);
    });
    dhidden += align(p.hidden);
  };
  compute(p.mean, 1.0f / static_cast<float>(pixels(p)), s.dpooled);
  compute(p.max, 1.0f, s.dpooled + align(p.channels));
}

template <typename T>
void input_gradients(const AttentionProblem& p, int64_t image, float* memory, int64_t first_row,
                     int64_t end_row) {
  if (!p.out.data) return;
  const GradientScratch s(p, memory);
  for (int64_t first = first_row * p.columns; first < end_row * p.columns; first += kChunk) {
    const int64_t count = min(kChunk, end_row * p.columns - first);
    for (int64_t c = 0; c < p.channels; ++c) {
      const T* const grad = plane<const T>(p.grad, image, c);
      T* const out = plane<T>(p.out, image, c);
      const Vec gate = broadcast<Vec>(s.gate[c]);
      const Vec dmean = broadcast<Vec>(p.hidden > 0 ? s.dpooled[c] : 0.0f);
      for_vectors<4>(count, [&]<int vectors, Part part>(int64_t i, int64_t lanes) {
        for (int64_t at = first + i; at < first + i + vectors * kLanes; at += kLanes) {
          const Vec de = through_spatial<part>(p, s, grad, at, c, lanes);
          put<part>(gate * de + dmean, out + at, lanes);
        }
      });
      if (p.hidden == 0 || !p.max) continue;
      const int64_t at = s.pixel_at[c];
      if (at < first || at >= first + count) continue;
      const Vec de = through_spatial<Part::partial>(p, s, grad, at, c, 1);
      const Vec dmax = broadcast<Vec>(s.dpooled[align(p.channels) + c]);
      put<Part::partial>(gate * de + (dmean + dmax), out + at, 1);
    }
  }
}

// A matrix [rows, columns], the sum over images and some terms of each of left[row] *
// right[column]; a term is `left_step` and `right_step` from the one before.
void outer_products(const AttentionProblem& p, const float* left, int64_t left_step, int64_t rows,
                    const float* right, int64_t right_step, int64_t columns, int64_t terms,
                    float* to) {
  const int64_t record = GradientRecord::floats(p);
  for (int64_t row = 0; row < rows; ++row) {
    for_vectors<1>(columns, [&]<int, Part part>(int64_t column, int64_t lanes) {
      Vec sum = {};
      for (int64_t image = 0; image < p.batch; ++image) {
        for (int64_t term = 0; term < terms; ++term) {
          const float factor = left[image * record + term * left_step + row];
          sum += factor * get<part>(right + image * record + term * right_step + column, lanes);
        }
      }
      put<part>(sum, to + row * columns + column, lanes);
    });
  }
}

// The sum over images, and terms of each that lie `step` apart.
void sum_records(const AttentionProblem& p, const float* from, int64_t step, int64_t terms,
                 int64_t count, double scale, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    double sum = 0;
    for (int64_t image = 0; image < p.batch; ++image) {
      for (int64_t term = 0; term < terms; ++term) {
        sum += from[image * GradientRecord::floats(p) + term * step + i];
      }
    }
    to[i] = static_cast<float>(scale * sum);
  }
}

void combine(const AttentionProblem& p) {
  const FlushDenormals flush;
  const GradientRecord first(p, 0);
  const int64_t channels = align(p.channels), hidden = align(p.hidden);
  if (p.hidden > 0) {
    outer_products(p, first.dlogit, 0, p.channels, first.hidden, 0, p.hidden, 1, p.grad_expand);
    outer_products(p, first.dhidden, hidden, p.hidden, first.pooled, channels, p.channels, pools(p),
                   p.grad_reduce);
    const double every_pool = static_cast<double>(pools(p));
    sum_records(p, first.dlogit, 0, 1, p.channels, every_pool, p.grad_expand_bias);
    sum_records(p, first.dhidden, hidden, pools(p), p.hidden, 1, p.grad_reduce_bias);
  }
  sum_records(p, first.dkernel, 0, 1, pools(p) * p.size * p.size, 1, p.grad_kernel);
}

template <typename T>
constexpr AttentionStep kSteps[] = {{channel_items, flushing<pool_and_find<T>>},
                                    {one_item, flushing<gate_and_clear>},
                                    {row_items, flushing<pool_and_multiply<T>>},
                                    {row_items, flushing<gate_gradients>},
                                    {row_items, flushing<map_gradients>},
                                    {kernel_rows, flushing<kernel_gradients>},
                                    {channel_items, flushing<channel_gate_gradients<T>>},
                                    {one_item, flushing<layer_gradients>},
                                    {row_items, flushing<input_gradients<T>>},
                                    {}};

template <typename T>
void whole(const AttentionProblem& p, int64_t image, float* memory) {
  for (const AttentionStep* step = kSteps<T>; step->run; ++step) {
    step->run(p, image, memory, 0, step->items(p));
  }
}

template <typename T>
constexpr AttentionGradientPasses kPasses = {
    {scratch_floats, whole<T>, kSteps<T>}, GradientRecord::floats, combine};

}  // namespace

const AttentionGradientPasses* channel_spatial_attention_backward() {
  static constexpr AttentionGradientPasses passes[] = {kPasses<float>, kPasses<Half>,
                                                       kPasses<BFloat16>};
  return passes;
}

}  // namespace lmwp::LMWP_ISA
