// What the gradients of the weights of multi-scale convolutions read: bands of rows of both sides
// of a block, in float32 planes. Compiled once per instruction set: every name lives in the
// namespace of that set.
#pragma once

#include "cpu/multiscale_weight.h"
#include "cpu/term_reader.h"

namespace lmwp::LMWP_ISA {

static inline int64_t area(const WeightProblem& problem) { return problem.kernel * problem.kernel; }

static inline int64_t products(const WeightProblem& problem, const WeightBlock& block) {
  return block.gradients.input->channels * block.x.input->channels * area(problem);
}

static inline int64_t dilation_of(const WeightBlock& block) {
  return effective_dilation(block.x.dilation, {block.height, block.width});
}

static inline int64_t padding_of(const WeightProblem& problem, const WeightBlock& block) {
  return problem.kernel / 2 * dilation_of(block);
}

static inline int64_t plane_floats(const WeightBlock& block, int64_t rows, int64_t padding) {
  return spaced(align(padding) + (rows + 2 * padding) * (block.width + padding) + kSlack);
}

// Bands per image, the same for all blocks so that they find what they read in a second-level
// cache, which also holds the planes of one of them.
static inline int64_t band_count(const WeightProblem& problem) {
  int64_t bands = 1;
  for (int64_t b = 0; b < problem.block_count; ++b) {
    const WeightBlock& block = problem.blocks[b];
    const int64_t channels = block.gradients.input->channels + block.x.input->channels;
    const int64_t rows = max(kLeastRows, kBandFloats / 2 / (channels * block.width));
    bands = max(bands, ceil_div(block.height, rows));
  }
  return bands;
}

static inline int64_t band_rows(const WeightProblem& problem, const WeightBlock& block) {
  return ceil_div(block.height, band_count(problem));
}

// Rows [begin, end) of an image.
struct Band {
  int64_t image, begin, end;
};

// Brings channels of one side or the other to planes: converted, pooled, resized, zero padded.
template <typename T>
class BandReader {
 public:
  BandReader(const WeightBlock& block, Arena& arena) : block_(block), reader_(buffers_) {
    for (float*& buffer : buffers_) buffer = arena.take(buffer_floats(block)) + kAlign;
    gradients_table_ = arena.take(table_floats(block, block.gradients));
    x_table_ = arena.take(table_floats(block, block.x));
  }

  static int64_t scratch_floats(const WeightBlock& block) {
    return kBuffers * buffer_floats(block) + table_floats(block, block.gradients) +
           table_floats(block, block.x);
  }

  // For calls of read; the latest for a side counts.
  ColumnResizer resizer(const ConvTerm& side) const {
    const ColumnResizer resizer(horizontal(side, block_.width),
                                &side == &block_.x ? x_table_ : gradients_table_);
    if (side.resample != Resample::none) resizer.prepare();
    return resizer;
  }

  // The band's rows of channel c with `padding` zeros around them; pixel (begin, 0) comes to
  // `to` + align(padding) + padding * (width + padding).
  void read(const ConvTerm& side, const ColumnResizer& resizer, int64_t c, const Band& band,
            int64_t padding, float* to) const {
    const ConvInput& input = *side.input;
    const T* const x =
        static_cast<const T*>(input.x) + band.image * input.stride[0] + c * input.stride[1];
    if (padding == 0 && reader_.read_rows(side, x, band.begin, band.end - band.begin, to)) return;
    const Axis rows = vertical(side, block_.height);
    const int64_t pitch = block_.width + padding;
    clear(to, align(padding));
    float* row = to + align(padding);
    for (int64_t h = band.begin - padding; h < band.end + padding; ++h, row += pitch) {
      if (h < 0 || h >= block_.height) {
        clear(row, pitch);
      } else {
        reader_.read(side, resizer, rows, x, h, row);
        clear(row + block_.width, padding);
      }
    }
  }

 private:
  static int64_t buffer_floats(const WeightBlock& block) {
    const int64_t width = max(block.width, max(block.gradients.input->width, block.x.input->width));
    return kAlign + align(width) + 2 * kSlack;
  }

  static int64_t table_floats(const WeightBlock& block, const ConvTerm& side) {
    return ColumnResizer::scratch_floats(horizontal(side, block.width));
  }

  const WeightBlock& block_;
  float* buffers_[kBuffers] = {};
  const TermReader<T> reader_;
  float *gradients_table_, *x_table_;
};

}  // namespace lmwp::LMWP_ISA
