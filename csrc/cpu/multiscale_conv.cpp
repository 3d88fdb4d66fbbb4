// Convolutions from branches at several scales to branches at several scales, depth first.
//
// A task is a band of rows of one output. What it reads is brought into float32 planes that stay in
// cache: conversion, any strides, padding, pooling and resizing down happen on the way, and a tap
// of the kernel is one constant offset. Terms of coarser scales are convolved at their own size and
// widened; then, a strip of rows after the other, all output channels are computed, a few at a time
// in registers, with the epilogue. Where depthwise stages follow, the strip is the band, and the
// stages run on a channel's rows while they are still in cache. See the ops' READMEs for the
// counts.
#include "cpu/multiscale_conv.h"

#include "cpu/denormals.h"
#include "cpu/depthwise_rows.h"
#include "cpu/multiscale_plan.h"
#include "cpu/term_reader.h"

namespace lmwp::LMWP_ISA {
namespace {

const float kOnes[] = {1, 1, 1, 1, 1, 1, 1, 1};
const float kZeros[] = {0, 0, 0, 0, 0, 0, 0, 0};
static_assert(kTileChannels <= 8);

// Runs the tasks of one output with elements of type T.
template <typename T>
class Runner {
 public:
  Runner(const ConvProblem& problem, const ConvOutput& output, const float* packed, int64_t rows,
         float* scratch)
      : problem_(problem),
        output_(output),
        packed_(packed),
        rows_(rows),
        own_(own_planes(problem, output, rows)),
        results_(output.width, conv_rows(output, rows)),
        reader_(buffers_) {
    Arena arena(scratch);
    const int64_t buffer = buffer_floats(output);
    for (float*& row : buffers_) row = arena.take(buffer) + kAlign;
    for (float*& row : out_rows_) row = arena.take(buffer);
    pointers_ = reinterpret_cast<const float**>(arena.take(pointer_floats(problem, output)));
    coarse_pointers_ =
        reinterpret_cast<const float**>(arena.take(coarse_pointer_floats(problem, output)));
    result_ = arena.take(kTileChannels * results_.floats()) + kAlign;
    staged_ = arena.take(results_.floats()) + kAlign;
    int64_t coarse_taps = 0;
    for (int64_t i = 0; i < output.term_count; ++i) {
      pieces_[i] = take(arena, output.terms[i], coarse_taps);
      if (is_coarse(output.terms[i])) coarse_taps += taps_of(output.terms[i]);
    }
    own_taps_ = tap_count(problem, output, false);
    taps_ = own_taps_ + coarse_taps;
    coarse_result_ = arena.take(0) + kAlign;
  }

  void run(int64_t image, int64_t band) {
    begin_ = min(band * rows_, output_.height);
    end_ = min(begin_ + rows_, output_.height);
    if (begin_ == end_) return;
    const int64_t halo = halo_of(output_);
    conv_begin_ = max(0, begin_ - halo);
    conv_end_ = min(output_.height, end_ + halo);
    image_ = image;
    flat_ = is_flat();
    const float** pointers = pointers_;
    for (int64_t g = 0; g < output_.group_count; ++g) {
      for (int64_t i = 0; i < output_.term_count; ++i) {
        if (!is_coarse(output_.terms[i])) pointers = add_taps(i, output_.groups[g], pointers);
      }
    }
    for (int64_t i = 0; i < output_.term_count; ++i) load_term(i);
    const int64_t rows = conv_end_ - conv_begin_, width = output_.width;
    if (flat_) {
      const int64_t step = strip_pixels(problem_, output_);
      for (int64_t c = 0; c < rows * width; c += step) {
        compute({conv_begin_, 1, c, min(c + step, rows * width)});
      }
    } else {
      const int64_t step = output_.depthwise ? rows : strip_rows(problem_, output_, own_);
      for (int64_t h = conv_begin_; h < conv_end_; h += step) {
        compute({h, min(step, conv_end_ - h), 0, width});
      }
    }
  }

 private:
  // What a term has of scratch.
  struct Pieces {
    Planes planes;
    float *tables, *plane;  // no plane: it is read where it is
    float* widened;         // a coarser term's part of every output channel, laid out as `wide`
    Results wide;
    int64_t first_tap;   // of a coarser term among those of all of them
    int64_t begin, end;  // rows of the band
  };

  Pieces take(Arena& arena, const ConvTerm& term, int64_t first_tap) const {
    Pieces pieces{};
    pieces.planes = own_;
    pieces.tables = arena.take(ColumnResizer::scratch_floats(horizontal(term, output_.width)));
    if (is_coarse(term)) {
      pieces.planes = coarse_planes(problem_, output_, term, rows_);
      pieces.wide = widened(output_, term, pieces.planes, rows_);
      pieces.widened = arena.take(output_.channels * pieces.wide.floats());
      pieces.first_tap = first_tap;
    }
    if (!in_place(problem_, output_, term)) {
      pieces.plane = arena.take(term.input->channels * pieces.planes.floats());
    }
    return pieces;
  }

  int64_t taps_of(const ConvTerm& term) const {
    return term.input->channels * problem_.kernel * problem_.kernel;
  }

  const T* input_channel(const ConvInput& input, int64_t c) const {
    return static_cast<const T*>(input.x) + image_ * input.stride[0] + c * input.stride[1];
  }

  // Rows of a coarser term that the band's rows come from.
  void coarse_rows(const ConvTerm& term, int64_t* begin, int64_t* end) const {
    const Axis axis = vertical(term, output_.height);
    if (term.resample == Resample::bilinear_up) {
      *begin = axis.low(conv_begin_);
      *end = min(axis.low(conv_end_ - 1) + 2, axis.in);
    } else if (term.resample == Resample::bilinear_down_adjoint) {
      *begin = axis.first_from(conv_begin_ - 1);
      *end = axis.first_from(conv_end_);
    } else {
      *begin = conv_begin_ >> term.steps;
      *end = min(((conv_end_ - 1) >> term.steps) + 1, axis.in);
    }
  }

  // Brings the band's rows of term i into its planes and, if it is coarser, on to its part of
  // every output channel.
  void load_term(int64_t i) {
    const ConvTerm& term = output_.terms[i];
    Pieces& pieces = pieces_[i];
    pieces.begin = conv_begin_;
    pieces.end = conv_end_;
    if (in_place(problem_, output_, term)) return;
    if (is_coarse(term)) coarse_rows(term, &pieces.begin, &pieces.end);
    const ColumnResizer resizer(horizontal(term, output_.width), pieces.tables);
    if (term.resample != Resample::none) resizer.prepare();
    load_rows(term, resizer, pieces);
    if (!is_coarse(term)) return;
    for_each_tile(output_, [&](const Tile& tile) { widen(i, resizer, tile); });
  }

  // Rows of a term with padding around them.
  void load_rows(const ConvTerm& term, const ColumnResizer& resizer, const Pieces& pieces) const {
    const Planes& planes = pieces.planes;
    const int64_t begin = pieces.begin, end = pieces.end;
    const Axis rows = vertical(term, output_.height);
    float* to = pieces.plane;
    for (int64_t c = 0; c < term.input->channels; ++c, to += planes.floats()) {
      const T* x = input_channel(*term.input, c);
      if (planes.padding == 0 && reader_.read_rows(term, x, begin, end - begin, to)) continue;
      clear(to, planes.lead());
      float* row = to + planes.lead();
      for (int64_t h = begin - planes.padding; h < end + planes.padding; ++h, row += planes.pitch) {
        if (h < 0 || h >= planes.height) {
          clear(row, planes.pitch);
        } else {
          reader_.read(term, resizer, rows, x, h, row);
          clear(row + planes.width, planes.padding);
        }
      }
    }
  }

  // Appends, for each channel of term i and each tap, where the first pixel reads.
  const float** add_taps(int64_t i, const ConvGroup& group, const float** to) const {
    const ConvTerm& term = output_.terms[i];
    const Pieces& pieces = pieces_[i];
    const Planes& planes = pieces.planes;
    const int64_t reach = problem_.kernel / 2;
    const Size size{planes.height, planes.width};
    const int64_t dilation = effective_dilation(group.dilation * term.dilation, size);
    for (int64_t c = 0; c < term.input->channels; ++c) {
      const float* first =
          pieces.plane
              ? pieces.plane + c * planes.floats() + planes.lead() + planes.padding * planes.pitch
              : reinterpret_cast<const float*>(input_channel(*term.input, c)) +
                    conv_begin_ * planes.pitch;
      for (int64_t y = -reach; y <= reach; ++y) {
        for (int64_t x = -reach; x <= reach; ++x) {
          *to++ = first + y * dilation * planes.pitch + x * dilation;
        }
      }
    }
    return to;
  }

  // A window of all channels.
  void compute(const TileWindow& window) {
    for_each_tile(output_, [&](const Tile& tile) { compute(tile, window); });
  }

  // A window of one tile from its sources to the output.
  void compute(const Tile& tile, const TileWindow& window) {
    const int64_t begin = window.begin, end = begin + window.rows;
    TileAddend addends[kMostTerms];
    int64_t addend_count = 0;
    for (int64_t i = 0; i < output_.term_count; ++i) {
      const ConvTerm& term = output_.terms[i];
      const Pieces& pieces = pieces_[i];
      if (!is_coarse(term)) continue;
      const bool resized = term.resample == Resample::bilinear_up;
      const Axis same{output_.height, output_.height};
      addends[addend_count++] = {pieces.widened + tile.output_channel * pieces.wide.floats(),
                                 pieces.wide.floats(), pieces.wide.pitch,
                                 resized ? pieces.begin : conv_begin_,
                                 resized ? vertical(term, output_.height) : same};
    }
    const int64_t c = tile.output_channel;
    const ConvEpilogue& epilogue = output_.epilogue;
    float* out = result_ + (output_.depthwise ? conv_begin_ - first_row() : 0) * results_.pitch;
    int64_t stride = results_.floats(), pitch = results_.pitch;
    const bool direct = flat_ || (keeps_rows() && output_.width >= kLanes);
    if (direct) {
      out = reinterpret_cast<float*>(output_row(c, begin));
      stride = output_.stride[1];
      pitch = output_.stride[2];
    }
    tile_function(tile.channels)(
        {pointers_ + (tile.group - output_.groups) * own_taps_, own_taps_, own_.pitch,
         packed_ + c * taps_, begin - conv_begin_},
        {addends, addend_count, epilogue.scale ? epilogue.scale + c : kOnes,
         epilogue.shift ? epilogue.shift + c : kZeros, epilogue.slope ? epilogue.slope + c : kOnes,
         out, stride, pitch},
        window);
    if (direct) return;
    for (int64_t t = 0; t < tile.channels; ++t) {
      float* const finished = result_ + t * results_.floats();
      if (output_.depthwise) {
        run_stages(c + t, finished);
      } else if (output_.spread_height) {
        spread(c + t, finished, begin, end);
      } else {
        for (int64_t h = begin; h < end; ++h) {
          write_row(finished + (h - begin) * results_.pitch, output_.width, output_row(c + t, h),
                    output_.stride[3]);
        }
      }
    }
  }

  // Whether results belong where they come to lie in a row, as they are.
  bool keeps_rows() const {
    return is_float32(static_cast<const T*>(nullptr)) && output_.stride[3] == 1 &&
           !output_.depthwise && !output_.spread_height;
  }

  // Whether rows, without gaps between them and without addends, are one.
  bool is_flat() const {
    return keeps_rows() && own_.pitch == output_.width && output_.stride[2] == output_.width &&
           (conv_end_ - conv_begin_) * output_.width >= kLanes &&
           tap_count(problem_, output_, true) == 0;
  }

  // Convolves coarser term i and brings its part of a tile to the output's width.
  void widen(int64_t i, const ColumnResizer& resizer, const Tile& tile) {
    const ConvTerm& term = output_.terms[i];
    const Pieces& pieces = pieces_[i];
    const int64_t rows = pieces.end - pieces.begin, pitch = pieces.planes.pitch;
    const Results narrow(pieces.planes.width, pieces.planes.rows);
    const Results& wide = pieces.wide;
    const float* const weight =
        packed_ + tile.output_channel * taps_ + (own_taps_ + pieces.first_tap) * tile.channels;
    add_taps(i, *tile.group, coarse_pointers_);
    tile_function(tile.channels)(
        {coarse_pointers_, taps_of(term), pitch, weight, 0},
        {nullptr, 0, kOnes, kZeros, kOnes, coarse_result_, narrow.floats(), narrow.pitch},
        {pieces.begin, rows, 0, pieces.planes.width});
    for (int64_t t = 0; t < tile.channels; ++t) {
      float* const from = coarse_result_ + t * narrow.floats();
      float* const to = pieces.widened + (tile.output_channel + t) * wide.floats();
      if (term.resample == Resample::bilinear_up) {
        for (int64_t r = 0; r < rows; ++r) {
          resizer(from + r * narrow.pitch, to + r * wide.pitch);
        }
      } else if (term.resample == Resample::max_pool_adjoint) {
        route(term, tile.output_channel + t, from, narrow.pitch, pieces, to);
      } else {
        gather(term, resizer, from, narrow.pitch, pieces, to);
      }
    }
  }

  // Takes the rows of gradients at `from` to the band's rows at `to`.
  void route(const ConvTerm& term, int64_t c, const float* from, int64_t from_pitch,
             const Pieces& pieces, float* to) const {
    const ConvInput& routed = *output_.routed;
    const int64_t begin = pieces.begin, end = pieces.end, pitch = pieces.wide.pitch;
    const T* const x = input_channel(routed, c);
    for (int64_t q = begin; q < end; ++q) {
      reader_.route(routed, x, term.steps, q, from + (q - begin) * from_pitch, conv_begin_,
                    conv_end_, to, pitch);
    }
    for (int64_t h = max(end << term.steps, conv_begin_); h < conv_end_; ++h) {
      clear(to + (h - conv_begin_) * pitch, output_.width);
    }
  }

  // Brings the gradients of resized rows at `from` back to the band's rows at `to`.
  void gather(const ConvTerm& term, const ColumnResizer& resizer, const float* from,
              int64_t from_pitch, const Pieces& pieces, float* to) const {
    const Axis axis = vertical(term, output_.height);
    float* const mixed = buffers_[4];
    for (int64_t h = conv_begin_; h < conv_end_; ++h, to += pieces.wide.pitch) {
      gather_rows(
          axis, h, horizontal(term, output_.width).out,
          [&](int64_t r, int) { return from + (r - pieces.begin) * from_pitch; }, mixed);
      resizer.adjoint(mixed, to);
    }
  }

  // Gives a quarter of each result to four pixels of the output.
  void spread(int64_t c, const float* result, int64_t begin, int64_t end) const {
    float* const row = out_rows_[0];
    const int64_t width = output_.spread_width;
    for (int64_t h = begin; h < end; ++h, result += results_.pitch) {
      for (int64_t i = 0; i < output_.width; i += kLanes) {
        const Vec quarter = load<Vec>(result + i) * 0.25f;
        store(row + 2 * i, interleave_low(quarter, quarter));
        store(row + 2 * i + kLanes, interleave_high(quarter, quarter));
      }
      row[width - 1] = width % 2 ? 0 : row[width - 1];
      for (int64_t to = 2 * h; to < 2 * h + 2; ++to) {
        write_row(row, width, output_row(c, to), output_.stride[3]);
      }
    }
    if (end < output_.height || output_.spread_height % 2 == 0) return;
    clear(row, width);
    write_row(row, width, output_row(c, output_.spread_height - 1), output_.stride[3]);
  }

  int64_t first_row() const { return begin_ - halo_of(output_); }

  T* output_row(int64_t c, int64_t h) const {
    return static_cast<T*>(output_.y) + image_ * output_.stride[0] + c * output_.stride[1] +
           h * output_.stride[2];
  }

  // Zeros beside the rows [begin, end), and in the others of [first, last).
  void pad(float* plane, int64_t first, int64_t begin, int64_t end, int64_t last) const {
    clear(plane - 1, 1 + (begin - first) * results_.pitch);
    for (int64_t h = begin; h < end; ++h) {
      float* const row = plane + (h - first) * results_.pitch;
      row[-1] = 0;
      row[output_.width] = 0;
    }
    clear(plane + (end - first) * results_.pitch - 1, 1 + (last - end) * results_.pitch);
  }

  // The two depthwise stages of channel c from the convolution's result to the output.
  void run_stages(int64_t c, float* result) {
    const int64_t begin = max(0, begin_ - 1), end = min(output_.height, end_ + 1);
    pad(result, first_row(), conv_begin_, conv_end_, end + 1);
    const int64_t first = begin_ - 1;
    depthwise(output_.depthwise[0], c, result - first_row() * results_.pitch, begin, end,
              [&](int64_t h) { return staged_ + (h - first) * results_.pitch; });
    pad(staged_, first, begin, end, end_ + 1);
    const float* from = staged_ - first * results_.pitch;
    if constexpr (is_float32(static_cast<const T*>(nullptr))) {
      if (output_.stride[3] == 1 && output_.width >= kNarrowest) {
        depthwise(output_.depthwise[1], c, from, begin_, end_,
                  [&](int64_t h) { return output_row(c, h); });
        return;
      }
    }
    for (int64_t h = begin_; h < end_; h += kRows) {
      const int64_t stop = min(end_, h + kRows);
      depthwise(output_.depthwise[1], c, from, h, stop,
                [&](int64_t row) { return out_rows_[row - h]; });
      for (int64_t row = h; row < stop; ++row) {
        write_row(out_rows_[row - h], output_.width, output_row(c, row), output_.stride[3]);
      }
    }
  }

  // Rows [begin, end) of one channel; row h of the input lies at from + h * pitch.
  template <typename RowOf>
  void depthwise(const DepthwiseStage& stage, int64_t c, const float* from, int64_t begin,
                 int64_t end, RowOf&& row_of) const {
    static constexpr int64_t taps[3] = {-1, 0, 1};
    const ConvEpilogue& epilogue = stage.epilogue;
    const Channel channel{stage.weight + 9 * c, epilogue.scale ? epilogue.scale[c] : 1.0f,
                          epilogue.shift ? epilogue.shift[c] : 0.0f,
                          epilogue.slope ? epilogue.slope[c] : 1.0f};
    const RowsFunction several = rows_function<kRows>(3, 1, output_.width);
    const RowsFunction single = rows_function<1>(3, 1, output_.width);
    const float* rows[kRows + 2];
    float* out[kRows];
    for (int64_t h = begin; h < end;) {
      const int count = end - h >= kRows ? kRows : 1;
      for (int r = 0; r < count + 2; ++r) rows[r] = from + (h - 1 + r) * results_.pitch;
      for (int r = 0; r < count; ++r) out[r] = row_of(h + r);
      if (output_.width < kLanes) {
        (count == kRows ? several : single)(rows, taps, channel, output_.width, out);
      } else if (count == kRows) {
        depthwise_aligned_rows<kRows>(rows, channel, output_.width, out);
      } else {
        depthwise_aligned_rows<1>(rows, channel, output_.width, out);
      }
      h += count;
    }
  }

  const ConvProblem& problem_;
  const ConvOutput& output_;
  const float* const packed_;
  const int64_t rows_;
  const Planes own_;
  const Results results_;
  float* buffers_[kBuffers];
  float* out_rows_[kRows];
  const TermReader<T> reader_;
  Pieces pieces_[kMostTerms];
  int64_t own_taps_, taps_;  // of an output channel at its own scale, and all of them
  float *result_, *staged_, *coarse_result_;
  const float **pointers_, **coarse_pointers_;
  int64_t image_, begin_, end_;    // output rows of the task
  int64_t conv_begin_, conv_end_;  // rows of the convolution's result that it needs
  bool flat_;                      // whether it computes them as one
};

template <typename T>
void run_as(const ConvProblem& problem, const float* packed, int64_t begin, int64_t end,
            float* scratch) {
  const int64_t bands = band_count(problem);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t j = task % problem.output_count, band = task / problem.output_count % bands;
    const float* weight = packed;
    for (int64_t i = 0; i < j; ++i) weight += packed_floats(problem, problem.outputs[i]);
    const ConvOutput& output = problem.outputs[j];
    Runner<T> runner(problem, output, weight, band_rows(output, bands), scratch);
    runner.run(task / problem.output_count / bands, band);
  }
}

void run(const ConvProblem& problem, const float* packed, int64_t begin, int64_t end,
         float* scratch) {
  const FlushDenormals flush;
  switch (problem.dtype) {
    case Dtype::float32:
      return run_as<float>(problem, packed, begin, end, scratch);
    case Dtype::float16:
      return run_as<Half>(problem, packed, begin, end, scratch);
    case Dtype::bfloat16:
      return run_as<BFloat16>(problem, packed, begin, end, scratch);
  }
}

}  // namespace

MultiscaleConvKernel multiscale_conv_kernel() {
  return {packed_floats, pack, task_count, scratch_floats, run};
}

}  // namespace lmwp::LMWP_ISA
