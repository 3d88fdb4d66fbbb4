// Gradients of the weights of multi-scale convolutions: for every pair of an input channel and an
// output channel, and every tap, the sum over pixels of their products.
//
// A task is a band of rows of one image. For one block of the weight after the other, both sides
// are brought into float32 planes in scratch: pooled, resized, zero padded, converted. A piece of
// all planes that fits into the first-level cache meets all tiles of channels before the next
// piece; sums wait in scratch, a vector each.
#include "cpu/multiscale_weight.h"

#include "cpu/denormals.h"
#include "cpu/product_tile.h"
#include "cpu/term_reader.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kPieceFloats = 6144;  // three quarters of a first-level cache
constexpr int64_t kLeastPiece = 256;    // pixels, below which sums come and go too often
constexpr int64_t kNearSums = 8192;     // floats of sums that come and go quickly

int64_t area(const WeightProblem& problem) { return problem.kernel * problem.kernel; }

int64_t products(const WeightProblem& problem, const WeightBlock& block) {
  return block.gradients.input->channels * block.x.input->channels * area(problem);
}

int64_t padding_of(const WeightProblem& problem, const WeightBlock& block) {
  const Size size{block.height, block.width};
  return problem.kernel / 2 * effective_dilation(block.x.dilation, size);
}

int64_t plane_floats(const WeightBlock& block, int64_t rows, int64_t padding) {
  return spaced(align(padding) + (rows + 2 * padding) * (block.width + padding) + kSlack);
}

int64_t planes_floats(const WeightProblem& problem, const WeightBlock& block, int64_t rows) {
  return block.gradients.input->channels * plane_floats(block, rows, 0) +
         block.x.input->channels * plane_floats(block, rows, padding_of(problem, block));
}

// Bands per image, the same for all blocks so that they find what they read in a second-level
// cache, which also holds the planes of one of them.
int64_t band_count(const WeightProblem& problem) {
  int64_t bands = 1;
  for (int64_t b = 0; b < problem.block_count; ++b) {
    const WeightBlock& block = problem.blocks[b];
    const int64_t channels = block.gradients.input->channels + block.x.input->channels;
    const int64_t rows = max(kLeastRows, kBandFloats / 2 / (channels * block.width));
    bands = max(bands, ceil_div(block.height, rows));
  }
  return bands;
}

int64_t band_rows(const WeightProblem& problem, const WeightBlock& block) {
  return ceil_div(block.height, band_count(problem));
}

int64_t task_count(const WeightProblem& problem) { return problem.batch * band_count(problem); }

int64_t partial_floats(const WeightProblem& problem) {
  int64_t floats = 0;
  for (int64_t b = 0; b < problem.block_count; ++b) floats += products(problem, problem.blocks[b]);
  return floats * task_count(problem);
}

int64_t buffer_floats(const WeightBlock& block) {
  const int64_t width = max(block.width, max(block.gradients.input->width, block.x.input->width));
  return kAlign + align(width) + 2 * kSlack;
}

int64_t table_floats(const WeightBlock& block, const ConvTerm& term) {
  return ColumnResizer::scratch_floats(horizontal(term, block.width));
}

int64_t scratch_floats(const WeightProblem& problem) {
  int64_t most = 0;
  for (int64_t b = 0; b < problem.block_count; ++b) {
    const WeightBlock& block = problem.blocks[b];
    int64_t floats = kAlign + kBuffers * buffer_floats(block);
    floats += table_floats(block, block.gradients) + table_floats(block, block.x);
    floats += products(problem, block) * kLanes +
              planes_floats(problem, block, band_rows(problem, block));
    most = max(most, floats);
  }
  return most;
}

// Runs the tasks of one block with elements of type T.
template <typename T>
class BlockRunner {
 public:
  BlockRunner(const WeightProblem& problem, const WeightBlock& block, float* scratch)
      : problem_(problem), block_(block), rows_(band_rows(problem, block)), reader_(buffers_) {
    Arena arena(scratch);
    for (float*& buffer : buffers_) buffer = arena.take(buffer_floats(block)) + kAlign;
    tables_[0] = arena.take(table_floats(block, block.gradients));
    tables_[1] = arena.take(table_floats(block, block.x));
    sums_ = arena.take(products(problem, block) * kLanes);
    planes_ = arena;
  }

  void run(int64_t image, int64_t band, float* partial) {
    image_ = image;
    begin_ = min(block_.height, band * rows_);
    end_ = min(block_.height, begin_ + rows_);
    Arena arena = planes_;
    const ProductSide gradients = load(block_.gradients, 0, tables_[0], arena);
    const ProductSide x = load(block_.x, padding_of(problem_, block_), tables_[1], arena);
    const int64_t count = products(problem_, block_);
    clear(sums_, count * kLanes);
    if (begin_ < end_) add_all(gradients, x);
    for (int64_t p = 0; p < count; ++p) {
      float sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) sum += sums_[p * kLanes + lane];
      partial[p] = sum;
    }
  }

 private:
  // The band's rows of one side; `first` is pixel (begin, 0).
  ProductSide load(const ConvTerm& term, int64_t padding, float* table, Arena& arena) const {
    const ConvInput& input = *term.input;
    const T* const x = static_cast<const T*>(input.x) + image_ * input.stride[0];
    const ColumnResizer resizer(horizontal(term, block_.width), table);
    if (term.resample != Resample::none) resizer.prepare();
    const Axis rows = vertical(term, block_.height);
    const int64_t pitch = block_.width + padding, plane = plane_floats(block_, rows_, padding);
    float* to = arena.take(input.channels * plane);
    const ProductSide side{to + align(padding) + padding * pitch, plane, pitch};
    for (int64_t c = 0; c < input.channels; ++c, to += plane) {
      const T* const channel = x + c * input.stride[1];
      if (padding == 0 && reader_.read_rows(term, channel, begin_, end_ - begin_, to)) continue;
      clear(to, align(padding));
      float* row = to + align(padding);
      for (int64_t h = begin_ - padding; h < end_ + padding; ++h, row += pitch) {
        if (h < 0 || h >= block_.height) {
          clear(row, pitch);
        } else {
          reader_.read(term, resizer, rows, channel, h, row);
          clear(row + block_.width, padding);
        }
      }
    }
    return side;
  }

  // All products, a piece of the planes after the other; planes without gaps are single rows.
  void add_all(const ProductSide& gradients, const ProductSide& x) const {
    int64_t rows = end_ - begin_, width = block_.width;
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
    const int64_t dilation = effective_dilation(block_.x.dilation, {block_.height, block_.width});
    for_each_product_tile(in, [&](int64_t c, int64_t c_count) {
      for_each_product_tile(block_.gradients.input->channels, [&](int64_t o, int64_t o_count) {
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
  const int64_t rows_;
  float* buffers_[kBuffers];
  const TermReader<T> reader_;
  float *tables_[2], *sums_;
  Arena planes_{nullptr};
  int64_t image_, begin_, end_;
};

template <typename T>
void run_as(const WeightProblem& problem, int64_t begin, int64_t end, float* partials,
            float* scratch) {
  const int64_t bands = band_count(problem);
  for (int64_t task = begin; task < end; ++task) {
    float* block_partials = partials;
    for (int64_t b = 0; b < problem.block_count; ++b) {
      const WeightBlock& block = problem.blocks[b];
      const int64_t count = products(problem, block);
      BlockRunner<T>(problem, block, scratch)
          .run(task / bands, task % bands, block_partials + task * count);
      block_partials += task_count(problem) * count;
    }
  }
}

void run(const WeightProblem& problem, int64_t begin, int64_t end, float* partials,
         float* scratch) {
  const FlushDenormals flush;
  switch (problem.dtype) {
    case Dtype::float32:
      return run_as<float>(problem, begin, end, partials, scratch);
    case Dtype::float16:
      return run_as<Half>(problem, begin, end, partials, scratch);
    case Dtype::bfloat16:
      return run_as<BFloat16>(problem, begin, end, partials, scratch);
  }
}

void reduce(const WeightProblem& problem, const float* partials) {
  for (int64_t b = 0; b < problem.block_count; ++b) {
    const WeightBlock& block = problem.blocks[b];
    const int64_t row = block.x.input->channels * area(problem);
    for (int64_t o = 0; o < block.gradients.input->channels; ++o)
      clear(block.to + o * block.row, row);
    for (int64_t task = 0; task < task_count(problem); ++task) {
      for (int64_t o = 0; o < block.gradients.input->channels; ++o, partials += row) {
        float* const to = block.to + o * block.row;
        for (int64_t i = 0; i < row; ++i) to[i] += partials[i];
      }
    }
  }
}

}  // namespace

MultiscaleWeightKernel multiscale_weight_kernel() {
  return {task_count, partial_floats, scratch_floats, run, reduce};
}

}  // namespace lmwp::LMWP_ISA
