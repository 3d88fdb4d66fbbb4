// Gradients of weights between few channels: lanes run along the pixels.
//
// A piece of all planes that fits into the first-level cache meets all tiles of channels before the
// next piece; sums wait in scratch, a vector each, and their lanes are added up at the end.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/product_tile.h"
#include "cpu/weight_bands.h"

namespace lmwp::LMWP_ISA {

constexpr int64_t kPieceFloats = 6144;  // three quarters of a first-level cache
constexpr int64_t kLeastPiece = 256;    // pixels, below which sums come and go too often
constexpr int64_t kNearSums = 8192;     // floats of sums that come and go quickly

// Runs the tasks of one block with elements of type T.
template <typename T>
class NarrowWeight {
 public:
  NarrowWeight(const WeightProblem& problem, const WeightBlock& block, Arena arena)
      : problem_(problem),
        block_(block),
        rows_(band_rows(problem, block)),
        padding_(padding_of(problem, block)),
        reader_(block, arena),
        gradients_(take(arena, block.gradients, 0)),
        x_(take(arena, block.x, padding_)),
        sums_(arena.take(products(problem, block) * kLanes)) {}

  static int64_t scratch_floats(const WeightProblem& problem, const WeightBlock& block) {
    const int64_t rows = band_rows(problem, block), padding = padding_of(problem, block);
    return BandReader<T>::scratch_floats(block) + products(problem, block) * kLanes +
           block.gradients.input->channels * plane_floats(block, rows, 0) +
           block.x.input->channels * plane_floats(block, rows, padding);
  }

  // Sums of the products, [channel of the gradients, channel of x, tap], to `partial`.
  void run(const Band& band, float* partial) const {
    const int64_t count = products(problem_, block_);
    clear(sums_, count * kLanes);
    if (band.begin < band.end) {
      const ProductSide gradients = read(block_.gradients, 0, band, gradients_);
      const ProductSide x = read(block_.x, padding_, band, x_);
      add_all(gradients, x, band.end - band.begin);
    }
    for (int64_t p = 0; p < count; ++p) {
      float sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) sum += sums_[p * kLanes + lane];
      partial[p] = sum;
    }
  }

 private:
  float* take(Arena& arena, const ConvTerm& side, int64_t padding) const {
    return arena.take(side.input->channels * plane_floats(block_, rows_, padding));
  }

  // The band's rows of all channels; `first` is pixel (begin, 0).
  ProductSide read(const ConvTerm& side, int64_t padding, const Band& band, float* to) const {
    const ColumnResizer resizer = reader_.resizer(side);
    const int64_t pitch = block_.width + padding, plane = plane_floats(block_, rows_, padding);
    for (int64_t c = 0; c < side.input->channels; ++c) {
      reader_.read(side, resizer, c, band, padding, to + c * plane);
    }
    return {to + align(padding) + padding * pitch, plane, pitch};
  }

  // All products, a piece of the planes after the other; planes without gaps are single rows.
  void add_all(const ProductSide& gradients, const ProductSide& x, int64_t rows) const {
    int64_t width = block_.width;
    if (problem_.kernel == 1 && gradients.pitch == width && x.pitch == width) {
      width *= rows;
      rows = 1;
    }
    const int64_t channels = block_.gradients.input->channels + block_.x.input->channels;
    const int64_t sums = products(problem_, block_) * kLanes;
    const int64_t least = kLeastPiece * max(1, sums / kNearSums);
    const int64_t pixels = max(least, kPieceFloats / channels) / kLanes * kLanes;
    const int64_t piece_rows = max(1, pixels / width);
    const int64_t piece_width = rows == 1 ? pixels : width;
    for (int64_t h = 0; h < rows; h += piece_rows) {
      for (int64_t c = 0; c < width; c += piece_width) {
        add_piece(gradients.at(h * gradients.pitch + c), x.at(h * x.pitch + c),
                  min(piece_rows, rows - h), min(piece_width, width - c));
      }
    }
  }

  void add_piece(const ProductSide& gradients, const ProductSide& x, int64_t rows,
                 int64_t width) const {
    const int64_t in = block_.x.input->channels, taps = area(problem_);
    const int64_t reach = problem_.kernel / 2;
    const int64_t dilation = dilation_of(block_);
    const int64_t out = block_.gradients.input->channels;
    for_each_even_tile(in, kProductTile, [&](int64_t c, int64_t c_count) {
      for_each_even_tile(out, kProductTile, [&](int64_t o, int64_t o_count) {
        const ProductFunction add = product_function(o_count, c_count);
        const ProductSide a = gradients.at(o * gradients.plane);
        for (int64_t tap = 0; tap < taps; ++tap) {
          const int64_t i = tap / problem_.kernel - reach, j = tap % problem_.kernel - reach;
          const int64_t tap_offset = i * dilation * x.pitch + j * dilation;
          const ProductSide b = x.at(c * x.plane + tap_offset);
          float* const sums = sums_ + ((o * in + c) * taps + tap) * kLanes;
          add(a, b, rows, width, {sums, in * taps, taps});
        }
      });
    });
  }

  const WeightProblem& problem_;
  const WeightBlock& block_;
  const int64_t rows_, padding_;
  const BandReader<T> reader_;
  float *const gradients_, *const x_, *const sums_;
};

}  // namespace lmwp::LMWP_ISA
