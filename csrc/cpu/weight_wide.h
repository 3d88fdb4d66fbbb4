// Gradients of weights between many channels: lanes run along the channels of one side.
//
// Those channels are laid side by side, a vector for each pixel; the other side stays in planes, of
// which every tap reads at an offset of its own. The sum over the pixels of their outer products
// needs no sum over lanes. A piece of the pixels meets all tiles before the next piece.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/outer_tile.h"
#include "cpu/transpose.h"
#include "cpu/weight_bands.h"

namespace lmwp::LMWP_ISA {

// Pixels that are summed up before they are added to the rest: their vectors fit into a first-level
// cache, and sums of few numbers are more exact.
constexpr int64_t kPiece = 64;

static inline int64_t vectors_of(const ConvTerm& side) {
  return ceil_div(side.input->channels, kLanes);
}

// Which side of a block lies in vectors: the one that leaves fewer products to compute.
static inline bool x_in_vectors(const WeightBlock& block) {
  return vectors_of(block.x) * block.gradients.input->channels <=
         vectors_of(block.gradients) * block.x.input->channels;
}

static inline const ConvTerm& side_in_vectors(const WeightBlock& block) {
  return x_in_vectors(block) ? block.x : block.gradients;
}

static inline const ConvTerm& side_in_planes(const WeightBlock& block) {
  return x_in_vectors(block) ? block.gradients : block.x;
}

// Runs the tasks of one block with elements of type T.
template <typename T>
class WideWeight {
 public:
  WideWeight(const WeightProblem& problem, const WeightBlock& block, Arena arena)
      : problem_(problem),
        block_(block),
        in_planes_(side_in_planes(block)),
        in_vectors_(side_in_vectors(block)),
        rows_(band_rows(problem, block)),
        padding_(padding_of(problem, block)),
        pixels_(align(rows_ * block.width)),
        vectors_of_pixel_(vectors_of(in_vectors_)),
        sum_rows_(in_planes_.input->channels * area(problem)),
        reader_(block, arena),
        planes_(arena.take(in_planes_.input->channels * plane_floats(block, rows_, padding_))),
        few_planes_(arena.take(kLanes * plane_floats(block, rows_, 0))),
        vectors_(arena.take(vectors_of_pixel_ * kLanes * pixels_)),
        sums_(arena.take(vectors_of_pixel_ * kLanes * sum_rows_)),
        pointers_(reinterpret_cast<const float**>(arena.take(pointer_floats(sum_rows_)))) {
    point();
  }

  static int64_t scratch_floats(const WeightProblem& problem, const WeightBlock& block) {
    const int64_t rows = band_rows(problem, block), padding = padding_of(problem, block);
    const int64_t planes = side_in_planes(block).input->channels, sums = planes * area(problem);
    const int64_t vectors = vectors_of(side_in_vectors(block));
    return BandReader<T>::scratch_floats(block) + planes * plane_floats(block, rows, padding) +
           kLanes * plane_floats(block, rows, 0) +
           vectors * kLanes * (align(rows * block.width) + sums) + pointer_floats(sums);
  }

  // Sums of the products, [channel of the gradients, channel of x, tap], to `partial`.
  void run(const Band& band, float* partial) const {
    clear(sums_, vectors_of_pixel_ * kLanes * sum_rows_);
    if (band.begin < band.end) {
      read_planes(band);
      read_vectors(band);
      add_all(band.end - band.begin);
    }
    write(partial);
  }

 private:
  void read_planes(const Band& band) const {
    const ColumnResizer resizer = reader_.resizer(in_planes_);
    const int64_t plane = plane_floats(block_, rows_, padding_);
    for (int64_t c = 0; c < in_planes_.input->channels; ++c) {
      reader_.read(in_planes_, resizer, c, band, padding_, planes_ + c * plane);
    }
  }

  // Where each row of sums reads pixel (begin, 0): x at the pixel and tap of a gradient, or the
  // gradient that pixel of x has at a tap.
  void point() const {
    const int64_t reach = problem_.kernel / 2, pitch = block_.width + padding_;
    const int64_t direction = x_in_vectors(block_) ? -dilation_of(block_) : dilation_of(block_);
    const float** to = pointers_;
    for (int64_t c = 0; c < in_planes_.input->channels; ++c) {
      const float* const first =
          planes_ + c * plane_floats(block_, rows_, padding_) + align(padding_) + padding_ * pitch;
      for (int64_t y = -reach; y <= reach; ++y) {
        for (int64_t x = -reach; x <= reach; ++x) *to++ = first + direction * (y * pitch + x);
      }
    }
  }

  // Lays the band's pixels of the other side out in blocks of a tile's vectors.
  void read_vectors(const Band& band) const {
    const ColumnResizer resizer = reader_.resizer(in_vectors_);
    const int64_t plane = plane_floats(block_, rows_, 0), channels = in_vectors_.input->channels;
    for_each_even_tile(vectors_of_pixel_, kTileVectors, [&](int64_t first, int64_t count) {
      for (int64_t v = first; v < first + count; ++v) {
        const int64_t few = min(kLanes, channels - v * kLanes);
        for (int64_t c = 0; c < few; ++c) {
          reader_.read(in_vectors_, resizer, v * kLanes + c, band, 0, few_planes_ + c * plane);
        }
        transpose_planes(few_planes_, plane, few, (band.end - band.begin) * block_.width,
                         vectors_ + (first * pixels_ + v - first) * kLanes, count * kLanes);
      }
    });
  }

  // All products, a piece of the pixels after the other; planes without gaps are single rows.
  void add_all(int64_t rows) const {
    int64_t width = block_.width;
    const int64_t pitch = width + padding_;
    if (padding_ == 0) {
      width *= rows;
      rows = 1;
    }
    for_each_even_tile(vectors_of_pixel_, kTileVectors, [&](int64_t first, int64_t count) {
      const int64_t floats = count * kLanes;  // of a pixel in this block
      const int64_t piece_rows = max(1, kPiece / width), piece_width = min(width, kPiece);
      for (int64_t h = 0; h < rows; h += piece_rows) {
        for (int64_t c = 0; c < width; c += piece_width) {
          OuterWindow window{pointers_,
                             h * pitch + c,
                             pitch,
                             vectors_ + first * kLanes * pixels_ + (h * width + c) * floats,
                             width * floats,
                             min(piece_rows, rows - h),
                             min(piece_width, width - c)};
          add_piece(window, first, count);
        }
      }
    });
  }

  void add_piece(OuterWindow& window, int64_t first_vector, int64_t vectors) const {
    const int64_t sum_row = vectors_of_pixel_ * kLanes;
    for_each_even_tile(sum_rows_, kTileChannels, [&](int64_t first, int64_t count) {
      window.planes = pointers_ + first;
      outer_function(count, vectors)(window, sums_ + first * sum_row + first_vector * kLanes,
                                     sum_row);
    });
  }

  // The sums as the weight lies: [channel of the gradients, channel of x, tap].
  void write(float* partial) const {
    const int64_t taps = area(problem_), row = block_.x.input->channels * taps;
    const bool turned = !x_in_vectors(block_);
    const int64_t plane_step = turned ? taps : row, lane_step = turned ? row : taps;
    const float* sums = sums_;
    for (int64_t c = 0; c < in_planes_.input->channels; ++c) {
      for (int64_t tap = 0; tap < taps; ++tap, sums += vectors_of_pixel_ * kLanes) {
        float* const to = partial + c * plane_step + tap;
        for (int64_t l = 0; l < in_vectors_.input->channels; ++l) to[l * lane_step] = sums[l];
      }
    }
  }

  const WeightProblem& problem_;
  const WeightBlock& block_;
  const ConvTerm &in_planes_, &in_vectors_;
  const int64_t rows_, padding_, pixels_;  // pixels of a band, in whole vectors
  const int64_t vectors_of_pixel_, sum_rows_;
  const BandReader<T> reader_;
  float *const planes_, *const few_planes_, *const vectors_, *const sums_;
  const float** const pointers_;
};

}  // namespace lmwp::LMWP_ISA
