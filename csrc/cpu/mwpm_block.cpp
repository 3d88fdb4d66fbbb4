// The multi-scale weight pruning module, an image at a time.
//
// Inside, the channels of a pixel lie side by side: depthwise branches, pooling and resizing then
// work on whole vectors however small a map is. The expanded feature is made in bands of rows,
// with its channel means and its pooled octaves while it is in cache; the gate turns the means into
// shares, which are folded into the taps of each branch; the coarser octaves are convolved as a
// whole; then, in bands of rows, the branches are summed and projected. A branch that no channel of
// a vector has a share of is left out.
#include "cpu/mwpm_block.h"

#include "cpu/feature_pixels.h"
#include "cpu/image_steps.h"
#include "cpu/pixel_maps.h"
#include "cpu/sigmoid.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kOctaves = 16;         // 0 to 15
constexpr int64_t kLeastPixels = 192;    // of a band that is expanded
constexpr int64_t kMixedFloats = 40960;  // of a band that is projected, part of L2
constexpr int64_t kSums = 4;             // of a mean, so that they do not wait for each other

using Problem = MwpmProblem;

int64_t channels(const Problem& p) { return padded(p.expand.out); }

int64_t highest_octave(const Problem& p) {
  int64_t highest = 0;
  for (int64_t k = 0; k < p.branches; ++k) highest = max(highest, p.octaves[k]);
  return highest;
}

int64_t extent(int64_t pixels, int64_t octave) { return ceil_div(pixels, int64_t{1} << octave); }

int64_t expanded_rows(const Problem& p) {
  const int64_t window = int64_t{1} << highest_octave(p);
  return ceil_div(ceil_div(kLeastPixels, p.columns), window) * window;
}

int64_t expanded_bands(const Problem& p) { return ceil_div(p.rows, expanded_rows(p)); }

int64_t mixed_rows(const Problem& p) {
  const int64_t fitting = max(1, kMixedFloats / (p.columns * channels(p)));
  const int64_t fair = p.threads == 1 ? p.rows : ceil_div(p.rows, 2 * p.threads);
  return min(fitting, fair);
}

int64_t mixed_bands(const Problem& p) { return ceil_div(p.rows, mixed_rows(p)); }

// What the parameters become: both layers, the second without its activation, which follows the
// residual, the slopes of that, and taps [branches, 9, channels] and shifts of the branches, zeros
// beyond their channels.
struct Packed {
  Packed(const Problem& p, float* memory) {
    Pieces pieces(memory);
    expand = pieces.take(packed_floats(p.expand));
    project = pieces.take(packed_floats(p.project));
    slopes = pieces.take(padded(p.project.out));
    taps = pieces.take(p.branches * kTaps * channels(p));
    shifts = pieces.take(p.branches * channels(p));
    floats = pieces.floats();
  }

  float *expand, *project, *slopes, *taps, *shifts;
  int64_t floats;
};

int64_t packed_parameters(const Problem& p) { return Packed(p, nullptr).floats; }

void pack_parameters(const Problem& p, float* memory) {
  const Packed packed(p, memory);
  PointwiseLayer linear = p.project;
  linear.slope = nullptr;
  pack(p.expand, packed.expand);
  pack(linear, packed.project);
  for (int64_t c = 0; c < p.project.out; c += kLanes) {
    store(packed.slopes + c, load_first(p.project.slope + c, p.project.out - c));
  }
  const int64_t m = p.expand.out, pitch = channels(p);
  clear(packed.taps, p.branches * kTaps * pitch);
  clear(packed.shifts, p.branches * pitch);
  for (int64_t k = 0; k < p.branches; ++k) {
    for (int64_t c = 0; c < m; ++c) {
      const int64_t entry = k * m + c;
      packed.shifts[k * pitch + c] = p.shift[entry];
      for (int64_t tap = 0; tap < kTaps; ++tap) {
        packed.taps[(k * kTaps + tap) * pitch + c] =
            p.scale[entry] * p.weights[entry * kTaps + tap];
      }
    }
  }
}

// What is known of an image.
struct Image {
  Image(const Problem& p, float* memory) : highest(highest_octave(p)) {
    Pieces pieces(memory);
    const int64_t m = channels(p);
    for (int64_t octave = 0; octave <= highest; ++octave) {
      PixelMap& map = maps[octave];
      map = {extent(p.rows, octave), extent(p.columns, octave), m, 0};
      for (int64_t k = 0; k < p.branches; ++k) {
        if (p.octaves[k] != octave) continue;
        used[octave] = true;
        map.border = max(map.border, effective_reach(p.dilations[k], map.rows, map.columns));
      }
      float* const of_map = pieces.take(map.floats());
      if (of_map) map.place(of_map);
      if (octave == 0 || !used[octave]) continue;
      mixed[octave] = pieces.take(map.rows * map.columns * m);
      tables[octave] = pieces.take(PixelResizer::scratch_floats(p.columns));
    }
    sums = pieces.take(expanded_bands(p) * m);
    means = pieces.take(m);
    hidden = pieces.take(padded(p.gate.hidden));
    taps = pieces.take(p.branches * kTaps * m);
    shift = pieces.take(m);
    shares = pieces.take(p.branches * m);
    live = reinterpret_cast<MapBranch*>(pieces.take(m / kLanes * p.branches * kBranchFloats));
    counts = reinterpret_cast<int64_t*>(pieces.take(m / kLanes * kOctaves * 2));
    floats = pieces.floats();
  }

  PixelResizer resizer(int64_t octave, int64_t columns) const { return {columns, tables[octave]}; }
  Axis down(int64_t octave) const { return {maps[octave].rows, maps[0].rows}; }
  float* mixed_row(int64_t octave, int64_t r) const {
    return mixed[octave] + r * maps[octave].columns * maps[octave].channels;
  }

  int64_t highest, floats;
  bool used[kOctaves] = {};
  PixelMap maps[kOctaves];
  float *mixed[kOctaves], *tables[kOctaves];  // of coarser octaves: their sum, and how to resize it
  float* sums;                                // [bands, channels]
  float *means, *hidden;
  float* taps;      // [branches, 9, channels], times scale and share
  float* shift;     // [channels], of all branches
  float* shares;    // [branches, channels]
  MapBranch* live;  // of each vector of channels, those it has a share of, by octave
  int64_t* counts;  // of each vector of channels, how many there are of each octave
};

// Whether any channel of a vector has a share of branch k.
bool has_share(const Problem& p, const Image& image, int64_t k, int64_t channel) {
  const float* const shares = image.shares + k * channels(p) + channel;
  for (int64_t i = 0; i < kLanes; ++i) {
    if (shares[i] != 0) return true;
  }
  return false;
}

// Notes the branches that a vector of channels has a share of.
void find_live(const Problem& p, const Image& image, int64_t channel) {
  const int64_t vector = channel / kLanes;
  MapBranch* next = image.live + vector * p.branches;
  for (int64_t octave = 0; octave <= image.highest; ++octave) {
    MapBranch* const first = next;
    for (int64_t k = 0; k < p.branches; ++k) {
      if (p.octaves[k] != octave || !has_share(p, image, k, channel)) continue;
      *next++ = {image.taps + k * kTaps * channels(p), p.dilations[k]};
    }
    image.counts[vector * kOctaves + octave] = next - first;
  }
}

// Calls body(octave, branches, count) for every octave that a vector of channels has a share of,
// and for the first.
template <typename Body>
void for_each_octave(const Problem& p, const Image& image, int64_t channel, Body&& body) {
  const int64_t vector = channel / kLanes;
  const MapBranch* live = image.live + vector * p.branches;
  for (int64_t octave = 0; octave <= image.highest; ++octave) {
    const int64_t count = image.counts[vector * kOctaves + octave];
    if (octave == 0 || count > 0) body(octave, live, count);
    live += count;
  }
}

// Sums of the channels over rows [begin, end).
void sum_rows(const PixelMap& map, int64_t begin, int64_t end, float* to) {
  for (int64_t channel = 0; channel < map.channels; channel += kLanes) {
    Vec sums[kSums] = {};
    for (int64_t r = begin; r < end; ++r) {
      const float* const from = map.own(r) + channel;
      int64_t c = 0;
      for (; c + kSums <= map.columns; c += kSums) {
        for (int64_t i = 0; i < kSums; ++i) sums[i] += load<Vec>(from + (c + i) * map.pixel());
      }
      for (; c < map.columns; ++c) sums[0] += load<Vec>(from + c * map.pixel());
    }
    store(to + channel, (sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
}

// Pixels of `size` that a cell of an octave stands for, along one side.
float covered(int64_t cell, int64_t octave, int64_t size) {
  return static_cast<float>(min(size, (cell + 1) << octave) - (cell << octave));
}

// Means of row r of an octave from those of the octave before it, each of as many pixels as it
// stands for.
void pool_row(const Problem& p, const Image& image, int64_t octave, int64_t r) {
  const PixelMap &fine = image.maps[octave - 1], &map = image.maps[octave];
  const int64_t bottom = min(2 * r + 1, fine.rows - 1);
  const float height = covered(r, octave, p.rows);
  const float below = 2 * r + 1 < fine.rows ? covered(bottom, octave - 1, p.rows) / height : 0;
  for (int64_t c = 0; c < map.columns; ++c) {
    const int64_t right = min(2 * c + 1, fine.columns - 1);
    const float width = covered(c, octave, p.columns);
    const float beside =
        2 * c + 1 < fine.columns ? covered(right, octave - 1, p.columns) / width : 0;
    const Vec a = broadcast<Vec>((1 - below) * (1 - beside));
    const Vec b = broadcast<Vec>((1 - below) * beside);
    const Vec d = broadcast<Vec>(below * (1 - beside)), e = broadcast<Vec>(below * beside);
    const float *const top = fine.own(2 * r), *const under = fine.own(bottom);
    float* const to = map.own(r) + c * map.pixel();
    for (int64_t i = 0; i < map.channels; i += kLanes) {
      const int64_t left_at = 2 * c * fine.pixel() + i, right_at = right * fine.pixel() + i;
      store(to + i, (a * load<Vec>(top + left_at) + b * load<Vec>(top + right_at)) +
                        (d * load<Vec>(under + left_at) + e * load<Vec>(under + right_at)));
    }
  }
}

// Rows of the expanded feature, their sums and pooled octaves.
template <typename T>
void expand(const Problem& p, int64_t n, float* shared, float* own, int64_t first, int64_t last) {
  const Image image(p, shared);
  const Packed packed(p, const_cast<float*>(p.packed));
  for (int64_t band = first; band < last; ++band) {
    const int64_t begin = band * expanded_rows(p), end = min(p.rows, begin + expanded_rows(p));
    const int64_t pixels = (end - begin) * p.columns;
    const PixelSource source = pixels_of<T>(p.x, n, begin * p.columns, p.expand.in, pixels, own);
    image.maps[0].clear_borders(begin, end);
    apply(p.expand, packed.expand, source, pixels, image.maps[0].target(begin));
    sum_rows(image.maps[0], begin, end, image.sums + band * channels(p));
    for (int64_t octave = 1; octave <= image.highest; ++octave) {
      const int64_t from = begin >> octave, to = extent(end, octave);
      image.maps[octave].clear_borders(from, to);
      for (int64_t r = from; r < to; ++r) pool_row(p, image, octave, r);
    }
  }
}

// The values between the gate's layers; and how the columns of every octave are resized.
void find_hidden(const Problem& p, int64_t, float* shared, float*, int64_t, int64_t) {
  const Image image(p, shared);
  const float share = 1.0f / static_cast<float>(p.rows * p.columns);
  for (int64_t c = 0; c < channels(p); c += kLanes) {
    Vec sum{};
    for (int64_t band = 0; band < expanded_bands(p); ++band) {
      sum += load<Vec>(image.sums + band * channels(p) + c);
    }
    store(image.means + c, sum * share);
  }
  const PruningGate& gate = p.gate;
  for (int64_t j = 0; j < gate.hidden; j += kLanes) {
    const int64_t rows = min(kLanes, gate.hidden - j);
    const Vec z =
        products(gate.reduce + j * p.expand.out, p.expand.out, rows, p.expand.out, image.means) +
        load_first(gate.reduce_bias + j, rows);
    store(image.hidden + j, z < 0.0f ? load_first(gate.slope + j, rows) * z : z);
  }
  for (int64_t octave = 1; octave <= image.highest; ++octave) {
    if (!image.used[octave]) continue;
    image.resizer(octave, p.columns).prepare({image.maps[octave].columns, p.columns});
  }
}

// The shares of the branches: a softmax over them, less the threshold, brought to a sum of one.
void find_shares(const Problem& p, const Image& image, int64_t channel) {
  const int64_t rows = min(kLanes, p.expand.out - channel), m = channels(p);
  Vec largest = broadcast<Vec>(-__builtin_inff()), total{};
  for (int64_t k = 0; k < p.branches; ++k) {
    const int64_t first = k * p.expand.out + channel;
    const Vec logits = products(p.gate.expand + first * p.gate.hidden, p.gate.hidden, rows,
                                p.gate.hidden, image.hidden) +
                       load_first(p.gate.expand_bias + first, rows);
    store(image.shares + k * m + channel, logits);
    largest = larger(largest, logits);
  }
  const auto for_each_branch = [&](auto&& body) {
    for (int64_t k = 0; k < p.branches; ++k) {
      float* const at = image.shares + k * m + channel;
      const Vec v = body(load<Vec>(at));
      total += v;
      store(at, v);
    }
  };
  for_each_branch([&](Vec logits) { return exponential(logits - largest); });
  const Vec to_shares = 1.0f / total;
  const Vec threshold = load_first(p.gate.threshold + channel, rows);
  total = Vec{};
  for_each_branch([&](Vec v) {
    const Vec kept = v * to_shares - threshold;
    return kept < 0.0f ? Vec{} : kept;
  });
  const Vec to_weights = 1.0f / total;
  for_each_branch([&](Vec kept) { return keep_first(kept * to_weights, rows); });
}

// Taps and shifts times the shares; where there is none, zeros whatever they are.
void fold_shares(const Problem& p, const Image& image, int64_t channel) {
  const int64_t m = channels(p);
  const Packed packed(p, const_cast<float*>(p.packed));
  Vec shift{};
  for (int64_t k = 0; k < p.branches; ++k) {
    const Vec share = load<Vec>(image.shares + k * m + channel);
    const auto where_shared = [&](Vec v) { return share == 0.0f ? Vec{} : v; };
    shift += where_shared(share * load<Vec>(packed.shifts + k * m + channel));
    for (int64_t tap = k * kTaps; tap < (k + 1) * kTaps; ++tap) {
      const Vec given = load<Vec>(packed.taps + tap * m + channel);
      store(image.taps + tap * m + channel, where_shared(share * given));
    }
  }
  store(image.shift + channel, shift);
}

// Vectors of channels: their shares, and the sums of the branches of every coarser octave.
void find_coarse(const Problem& p, int64_t, float* shared, float*, int64_t first, int64_t last) {
  const Image image(p, shared);
  for (int64_t vector = first; vector < last; ++vector) {
    const int64_t channel = vector * kLanes;
    find_shares(p, image, channel);
    fold_shares(p, image, channel);
    find_live(p, image, channel);
    for_each_octave(p, image, channel, [&](int64_t octave, const MapBranch* live, int64_t count) {
      if (octave == 0) return;
      const PixelMap& map = image.maps[octave];
      depthwise_rows(map, 0, map.rows, live, count, channel, Vec{},
                     image.mixed_row(octave, 0) + channel, map.channels);
    });
  }
}

// Scratch of a thread that projects: a row of each octave, the sum of the branches,
// and what the projection gives.
struct Band {
  Band(const Problem& p, const Image& image, float* memory) {
    Pieces pieces(memory);
    for (int64_t octave = 1; octave <= image.highest; ++octave) {
      rows[octave] = pieces.take((image.maps[octave].columns + 1) * channels(p));
    }
    sums = pieces.take(mixed_rows(p) * p.columns * spaced_pixel(channels(p)));
    projected = pieces.take(mixed_rows(p) * p.columns * padded(p.project.out));
    floats = pieces.floats();
  }

  float* rows[kOctaves];
  float *sums, *projected;
  int64_t floats;
};

// Adds row r of the coarser octaves.
void add_octaves(const Problem& p, const Image& image, const Band& band, int64_t r, float* to) {
  const int64_t m = channels(p);
  for (int64_t octave = 1; octave <= image.highest; ++octave) {
    if (!image.used[octave]) continue;
    mix_between(
        image.down(octave), r, [&](int64_t row) { return image.mixed_row(octave, row); },
        image.maps[octave].columns * m, m, band.rows[octave]);
  }
  for (int64_t channel = 0; channel < m; channel += kLanes) {
    for_each_octave(p, image, channel, [&](int64_t octave, const MapBranch*, int64_t) {
      if (octave == 0) return;
      image.resizer(octave, p.columns)
          .add(band.rows[octave] + channel, m, to + channel, spaced_pixel(m));
    });
  }
}

// Rows [begin, end) of the weighted sum of all branches.
void mix_branches(const Problem& p, const Image& image, const Band& band, int64_t begin,
                  int64_t end) {
  const int64_t m = channels(p);
  for (int64_t channel = 0; channel < m; channel += kLanes) {
    for_each_octave(p, image, channel, [&](int64_t octave, const MapBranch* live, int64_t count) {
      if (octave > 0) return;
      depthwise_rows(image.maps[0], begin, end, live, count, channel,
                     load<Vec>(image.shift + channel), band.sums + channel, spaced_pixel(m));
    });
  }
  for (int64_t r = begin; r < end; ++r)
    add_octaves(p, image, band, r, band.sums + (r - begin) * p.columns * spaced_pixel(m));
}

// Whether what is projected can be written where it belongs.
template <typename T>
bool projects_in_place(const Problem& p) {
  return is_float32(static_cast<const T*>(nullptr)) && p.out.pixel &&
         p.project.out == padded(p.project.out);
}

// What is projected, and x, as pixels of the output.
template <typename T>
void add_to_x(const Problem& p, int64_t n, int64_t first, int64_t pixels, const float* projected) {
  const T* const x = first_of<const T>(p.x, n, first);
  T* const to = first_of<T>(p.out, n, first);
  if (p.out.pixel) {
    to_pixels(projected, pixels, p.project.out, to, p.out.pixel,
              [&]<Part part>(int64_t c, int64_t pixel, int64_t lanes, Vec v) {
                v += get<part>(x + pixel * p.x.pixel + c, lanes);
                return v < 0.0f ? get<part>(p.project.slope + c, lanes) * v : v;
              });
    return;
  }
  to_planes(projected, pixels, p.project.out, to, p.out.channel,
            [&]<Part part>(int64_t c, int64_t pixel, int64_t lanes, Vec v) {
              v += get<part>(x + c * p.x.channel + pixel, lanes);
              return v < 0.0f ? p.project.slope[c] * v : v;
            });
}

// Rows of the sum of the branches, projected and added to x.
template <typename T>
void project(const Problem& p, int64_t n, float* shared, float* own, int64_t first, int64_t last) {
  const Image image(p, shared);
  const Band band(p, image, own);
  const Packed packed(p, const_cast<float*>(p.packed));
  const int64_t out = padded(p.project.out);
  for (int64_t i = first; i < last; ++i) {
    const int64_t begin = i * mixed_rows(p), end = min(p.rows, begin + mixed_rows(p));
    const int64_t start = begin * p.columns, pixels = (end - begin) * p.columns;
    mix_branches(p, image, band, begin, end);
    const PixelSource source{band.sums, spaced_pixel(channels(p)), false};
    if (projects_in_place<T>(p)) {
      apply(p.project, packed.project, source, pixels,
            {first_of<float>(p.out, n, start), pixels, p.out.pixel, 0,
             first_of<const float>(p.x, n, start), p.x.pixel, packed.slopes});
    } else {
      apply(p.project, packed.project, source, pixels, {band.projected, pixels, out, 0});
      add_to_x<T>(p, n, start, pixels, band.projected);
    }
  }
}

int64_t vectors(const Problem& p) { return channels(p) / kLanes; }

int64_t shared_floats(const Problem& p) { return Image(p, nullptr).floats; }

template <typename T>
int64_t own_floats(const Problem& p) {
  const bool converts = !is_float32(static_cast<const T*>(nullptr));
  const int64_t copied = converts ? p.expand.in * expanded_rows(p) * p.columns : 0;
  return max(copied, Band(p, Image(p, nullptr), nullptr).floats);
}

template <typename T>
constexpr ImageStep<Problem> kSteps[] = {{expanded_bands, flushing<Problem, expand<T>>},
                                         {one_item<Problem>, flushing<Problem, find_hidden>},
                                         {vectors, flushing<Problem, find_coarse>},
                                         {mixed_bands, flushing<Problem, project<T>>},
                                         {}};

template <typename T>
constexpr ImageKernel<Problem> kKernel = {packed_parameters, pack_parameters, shared_floats,
                                          own_floats<T>, kSteps<T>};

}  // namespace

const ImageKernel<MwpmProblem>* mwpm_block_kernels() {
  static constexpr ImageKernel<Problem> kernels[] = {kKernel<float>, kKernel<Half>,
                                                     kKernel<BFloat16>};
  return kernels;
}

}  // namespace lmwp::LMWP_ISA
