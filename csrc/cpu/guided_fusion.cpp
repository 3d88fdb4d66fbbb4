// The guided fusion of an encoder feature with a coarser decoder feature, an image at a time.
//
// Inside, the channels of a pixel lie side by side. The decoder feature is convolved at its own
// size, with the guide of each of its pixels; bands of rows of the encoder feature are convolved
// and, while they are in cache, meet both resized, which exist for one row at a time; then bands
// of rows pass through the depthwise branches, one of which has the identity in its centre tap, and
// the last layer.
#include "cpu/guided_fusion.h"

#include "cpu/feature_pixels.h"
#include "cpu/image_steps.h"
#include "cpu/pixel_maps.h"
#include "cpu/sigmoid.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kDecodedPixels = 192;  // at a time
constexpr int64_t kBandFloats = 40960;   // of rows that are computed together
constexpr int64_t kSlack = 5 * kAlign;   // beyond a row, for whole vectors

using Problem = GuidedFusionProblem;

int64_t channels(const Problem& p) { return padded(p.encoder.out); }
int64_t low_pixels(const Problem& p) { return p.low_rows * p.low_columns; }

int64_t band_rows(const Problem& p) {
  const int64_t fitting = max(1, kBandFloats / (p.columns * channels(p)));
  const int64_t fair = p.threads == 1 ? p.rows : ceil_div(p.rows, 2 * p.threads);
  return min(fitting, fair);
}

int64_t bands(const Problem& p) { return ceil_div(p.rows, band_rows(p)); }

// What the parameters become: the layers, then taps times scale [branches, 9, channels] and the sum
// of the shifts.
struct Packed {
  Packed(const Problem& p, float* memory) {
    Pieces pieces(memory);
    encoder = pieces.take(packed_floats(p.encoder));
    decoder = pieces.take(packed_floats(p.decoder));
    fuse = pieces.take(packed_floats(p.fuse));
    taps = pieces.take(p.branches * kTaps * channels(p));
    shift = pieces.take(channels(p));
    floats = pieces.floats();
  }

  float *encoder, *decoder, *fuse, *taps, *shift;
  int64_t floats;
};

int64_t packed_parameters(const Problem& p) { return Packed(p, nullptr).floats; }

void pack_parameters(const Problem& p, float* memory) {
  const Packed packed(p, memory);
  pack(p.encoder, packed.encoder);
  pack(p.decoder, packed.decoder);
  pack(p.fuse, packed.fuse);
  const int64_t c = p.encoder.out, pitch = channels(p);
  clear(packed.taps, p.branches * kTaps * pitch);
  clear(packed.shift, pitch);
  for (int64_t b = 0; b < p.branches; ++b) {
    for (int64_t i = 0; i < c; ++i) {
      const int64_t entry = b * c + i;
      packed.shift[i] += p.shift[entry];
      for (int64_t tap = 0; tap < kTaps; ++tap) {
        const float identity = b == 0 && tap == kTaps / 2 ? 1.0f : 0.0f;
        packed.taps[(b * kTaps + tap) * pitch + i] =
            p.scale[entry] * p.weights[entry * kTaps + tap] + identity;
      }
    }
  }
}

// What is known of an image.
struct Image {
  Image(const Problem& p, float* memory)
      : map{p.rows, p.columns, channels(p), 0},
        down{p.low_rows, p.rows},
        across{p.low_columns, p.columns} {
    Pieces pieces(memory);
    for (int64_t b = 0; b < p.branches; ++b) {
      map.border = max(map.border, effective_reach(p.dilations[b], p.rows, p.columns));
    }
    float* const of_map = pieces.take(map.floats());
    if (of_map) map.place(of_map);
    decoded = pieces.take(low_pixels(p) * channels(p));
    guide = pieces.take(low_pixels(p) + kLanes);
    table = pieces.take(PixelResizer::scratch_floats(p.columns));
    guide_table = pieces.take(ColumnResizer::scratch_floats(across));
    gate = pieces.take(channels(p));
    branches = reinterpret_cast<MapBranch*>(pieces.take(p.branches * kBranchFloats));
    floats = pieces.floats();
  }

  PixelMap map;  // both features together
  Axis down, across;
  float* decoded;  // [pixels of the decoder feature, channels]
  float* guide;    // of each pixel of the decoder feature
  float *table, *guide_table;
  float* gate;
  MapBranch* branches;
  int64_t floats;
};

// The guides of a few pixels.
void find_guides(const Problem& p, const PixelSource& source, int64_t pixels, float* to) {
  const Vec bias = broadcast<Vec>(p.guide_bias[0]);
  for_vectors<1>(pixels, [&]<int vectors, Part part>(int64_t i, int64_t lanes) {
    Vec sum = bias;
    if (source.planar) {
      for (int64_t c = 0; c < p.decoder.in; ++c) {
        sum += p.guide[c] * get<part>(source.first + c * source.stride + i, lanes);
      }
    } else {
      const int64_t count = min(kLanes, pixels - i);
      sum +=
          products(source.first + i * source.stride, source.stride, count, p.decoder.in, p.guide);
    }
    put<part>(sigmoid(sum), to + i, lanes);
  });
}

int64_t decoded_parts(const Problem& p) { return ceil_div(low_pixels(p), kDecodedPixels); }

// The decoder feature at its own size.
template <typename T>
void decode(const Problem& p, int64_t n, float* shared, float* own, int64_t first, int64_t last) {
  const Image image(p, shared);
  const Packed packed(p, const_cast<float*>(p.packed));
  for (int64_t part = first; part < last; ++part) {
    const int64_t begin = part * kDecodedPixels;
    const int64_t pixels = min(kDecodedPixels, low_pixels(p) - begin);
    const PixelSource source = pixels_of<T>(p.from_decoder, n, begin, p.decoder.in, pixels, own);
    apply(p.decoder, packed.decoder, source, pixels,
          {image.decoded + begin * channels(p), pixels, channels(p), 0});
    find_guides(p, source, pixels, image.guide + begin);
  }
}

// How columns are resized, the gate of every channel, and the branches.
void prepare(const Problem& p, int64_t n, float* shared, float*, int64_t, int64_t) {
  const Image image(p, shared);
  const Packed packed(p, const_cast<float*>(p.packed));
  for (int64_t b = 0; b < p.branches; ++b) {
    image.branches[b] = {packed.taps + b * kTaps * channels(p), p.dilations[b]};
  }
  PixelResizer(p.columns, image.table).prepare(image.across);
  ColumnResizer(image.across, image.guide_table).prepare();
  for (int64_t c = 0; c < channels(p); c += kLanes) {
    const int64_t left = p.encoder.out - c;
    store(image.gate + c, load_first(p.gate + n * p.encoder.out + c, left));
  }
}

// Scratch of a thread.
struct Rows {
  Rows(const Problem& p, float* memory) {
    Pieces pieces(memory);
    decoded = pieces.take((p.low_columns + 1) * channels(p));
    low_guide = pieces.take(kAlign + align(p.low_columns) + kSlack);
    if (low_guide) low_guide += kAlign;
    guide = pieces.take(align(p.columns) + 4 * kSlack);
    sums = pieces.take(band_rows(p) * p.columns * spaced_pixel(channels(p)));
    fused = pieces.take(band_rows(p) * p.columns * padded(p.fuse.out));
    floats = pieces.floats();
  }

  float* decoded;            // a row of the decoder feature, between two
  float *low_guide, *guide;  // of a row, before and after its columns are resized
  float *sums, *fused;
  int64_t floats;
};

// Brings the decoder feature and its guide into row r, which holds the encoder feature.
void guide_row(const Problem& p, const Image& image, const Rows& rows, int64_t r) {
  const int64_t pitch = channels(p), columns = p.low_columns;
  mix_between(
      image.down, r, [&](int64_t row) { return image.decoded + row * columns * pitch; },
      columns * pitch, pitch, rows.decoded);
  const int64_t low = image.down.low(r), next = min(low + 1, p.low_rows - 1);
  const float fraction = image.down.fraction(r);
  for (int64_t c = 0; c < columns; ++c) {
    const float a = image.guide[low * columns + c], b = image.guide[next * columns + c];
    rows.low_guide[c] = a + fraction * (b - a);
  }
  ColumnResizer(image.across, image.guide_table)(rows.low_guide, rows.guide);
  const PixelResizer resizer(p.columns, image.table);
  for (int64_t channel = 0; channel < pitch; channel += kLanes) {
    const Vec gate = load<Vec>(image.gate + channel);
    float* at = image.map.own(r) + channel;
    for (int64_t c = 0; c < p.columns; ++c, at += image.map.pixel()) {
      const Vec encoded = load<Vec>(at) * (1.0f + rows.guide[c]);
      store(at, encoded + gate * resizer.at(rows.decoded + channel, pitch, c));
    }
  }
}

// Rows of both features together.
template <typename T>
void join(const Problem& p, int64_t n, float* shared, float* own, int64_t first, int64_t last) {
  const Image image(p, shared);
  const Packed packed(p, const_cast<float*>(p.packed));
  const Rows rows(p, own);
  for (int64_t band = first; band < last; ++band) {
    const int64_t begin = band * band_rows(p), end = min(p.rows, begin + band_rows(p));
    const int64_t pixels = (end - begin) * p.columns;
    const PixelSource source =
        pixels_of<T>(p.from_encoder, n, begin * p.columns, p.encoder.in, pixels, own + rows.floats);
    image.map.clear_borders(begin, end);
    apply(p.encoder, packed.encoder, source, pixels, image.map.target(begin));
    for (int64_t r = begin; r < end; ++r) guide_row(p, image, rows, r);
  }
}

// Rows of the result.
template <typename T>
void fuse(const Problem& p, int64_t n, float* shared, float* own, int64_t first, int64_t last) {
  const Image image(p, shared);
  const Packed packed(p, const_cast<float*>(p.packed));
  const Rows rows(p, own);
  const int64_t pitch = channels(p), out = padded(p.fuse.out);
  for (int64_t band = first; band < last; ++band) {
    const int64_t begin = band * band_rows(p), end = min(p.rows, begin + band_rows(p));
    const int64_t pixels = (end - begin) * p.columns;
    for (int64_t channel = 0; channel < pitch; channel += kLanes) {
      depthwise_rows(image.map, begin, end, image.branches, p.branches, channel,
                     load<Vec>(packed.shift + channel), rows.sums + channel, image.map.pixel());
    }
    const PixelSource source{rows.sums, image.map.pixel(), false};
    T* const to = first_of<T>(p.out, n, begin * p.columns);
    if constexpr (is_float32(static_cast<const T*>(nullptr))) {
      if (p.out.pixel && p.fuse.out == out) {
        apply(p.fuse, packed.fuse, source, pixels, {to, pixels, p.out.pixel, 0});
        continue;
      }
    }
    apply(p.fuse, packed.fuse, source, pixels, {rows.fused, pixels, out, 0});
    const auto as_it_is = []<Part>(int64_t, int64_t, int64_t, Vec v) { return v; };
    if (p.out.pixel) {
      to_pixels(rows.fused, pixels, p.fuse.out, to, p.out.pixel, as_it_is);
    } else {
      to_planes(rows.fused, pixels, p.fuse.out, to, p.out.channel, as_it_is);
    }
  }
}

int64_t shared_floats(const Problem& p) { return Image(p, nullptr).floats; }

template <typename T>
int64_t own_floats(const Problem& p) {
  int64_t floats = Rows(p, nullptr).floats;
  if (is_float32(static_cast<const T*>(nullptr))) return floats;
  floats += p.encoder.in * band_rows(p) * p.columns;
  return max(floats, p.decoder.in * kDecodedPixels);
}

template <typename T>
constexpr ImageStep<Problem> kSteps[] = {{decoded_parts, flushing<Problem, decode<T>>},
                                         {one_item<Problem>, flushing<Problem, prepare>},
                                         {bands, flushing<Problem, join<T>>},
                                         {bands, flushing<Problem, fuse<T>>},
                                         {}};

template <typename T>
constexpr ImageKernel<Problem> kKernel = {packed_parameters, pack_parameters, shared_floats,
                                          own_floats<T>, kSteps<T>};

}  // namespace

const ImageKernel<GuidedFusionProblem>* guided_fusion_kernels() {
  static constexpr ImageKernel<Problem> kernels[] = {kKernel<float>, kKernel<Half>,
                                                     kKernel<BFloat16>};
  return kernels;
}

}  // namespace lmwp::LMWP_ISA
