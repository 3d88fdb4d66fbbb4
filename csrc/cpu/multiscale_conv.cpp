// Convolutions from branches at several scales to branches at several scales, depth first.
//
// A task is a band of rows of one output. Channels that a 1 x 1 kernel can read where they are stay
// there; the others are brought into zero-padded float32 planes that stay in cache: conversion, any
// strides, pooling and resizing down happen on the way, and a tap of the kernel is one constant
// offset. For every few output channels at a time, terms of coarser scales are convolved at their
// own size and widened, the other terms are added to them in registers, and what follows -
// epilogue, depthwise stages - is applied while the rows are still in cache. See the ops' READMEs
// for the counts.
#include "cpu/multiscale_conv.h"

#include "cpu/conv_tile.h"
#include "cpu/denormals.h"
#include "cpu/depthwise_rows.h"
#include "cpu/resample.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kBandFloats = 196608;  // planes of a task, much of a second-level cache
constexpr int64_t kLeastRows = 8;  // below, bands spend more on their borders than on themselves
constexpr int64_t kSlack = (kTileVectors + 1) * kLanes;  // whole vectors beyond the last row
constexpr int64_t kStageHalo = 2;                        // rows around a band for two 3 x 3 stages
constexpr int kBuffers = 5;

constexpr bool kOwnThenCoarse[] = {false, true};
const float kOnes[] = {1, 1, 1, 1, 1, 1, 1, 1};
const float kZeros[] = {0, 0, 0, 0, 0, 0, 0, 0};
static_assert(kTileChannels <= 8);

struct Size {
  int64_t height, width;
};

Size input_size(const ConvProblem& problem, const ConvInput& input) {
  const int64_t step = problem.entry_pool ? 2 : 1;
  return {input.height / step, input.width / step};
}

bool is_coarse(const ConvTerm& term) { return term.resample == Resample::bilinear_up; }

// Some output channels of one group, computed together.
struct Tile {
  const ConvGroup* group;
  int64_t group_channel;   // its first channel within the group
  int64_t output_channel;  // and within the output
  int64_t channels;
};

template <typename Function>
void for_each_tile(const ConvOutput& output, Function&& function) {
  int64_t first = 0;
  for (int64_t g = 0; g < output.group_count; ++g) {
    const ConvGroup& group = output.groups[g];
    const int64_t tiles = ceil_div(group.channels, kTileChannels);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t begin = t * group.channels / tiles, end = (t + 1) * group.channels / tiles;
      function(Tile{&group, begin, first + begin, end - begin});
    }
    first += group.channels;
  }
}

// Elements of the sums of one output channel: those at its own scale, or those of coarser terms.
int64_t tap_count(const ConvProblem& problem, const ConvOutput& output, bool coarse) {
  int64_t channels = 0;
  for (int64_t i = 0; i < output.term_count; ++i) {
    const ConvTerm& term = output.terms[i];
    if (is_coarse(term) == coarse) channels += term.input->channels;
  }
  return channels * problem.kernel * problem.kernel;
}

int64_t packed_floats(const ConvProblem& problem, const ConvOutput& output) {
  const int64_t taps = tap_count(problem, output, false) + tap_count(problem, output, true);
  return output.channels * taps;
}

int64_t packed_floats(const ConvProblem& problem) {
  int64_t floats = 0;
  for (int64_t j = 0; j < problem.output_count; ++j) {
    floats += packed_floats(problem, problem.outputs[j]);
  }
  return floats;
}

// Weights of a term as a tile reads them: [channel, tap, channel of the tile].
float* pack_term(const ConvProblem& problem, const Tile& tile, const ConvTerm& term, float* to) {
  const int64_t area = problem.kernel * problem.kernel, row = problem.columns * area;
  const float* weight = tile.group->weight + tile.group_channel * row + term.column * area;
  for (int64_t k = 0; k < term.input->channels * area; ++k) {
    for (int64_t t = 0; t < tile.channels; ++t) *to++ = weight[t * row + k];
  }
  return to;
}

void pack(const ConvProblem& problem, float* packed) {
  for (int64_t j = 0; j < problem.output_count; ++j) {
    const ConvOutput& output = problem.outputs[j];
    for_each_tile(output, [&](const Tile& tile) {
      for (const bool coarse : kOwnThenCoarse) {
        for (int64_t i = 0; i < output.term_count; ++i) {
          const ConvTerm& term = output.terms[i];
          if (is_coarse(term) == coarse) packed = pack_term(problem, tile, term, packed);
        }
      }
    });
  }
}

// How the channels of one size lie in scratch, or in an input that is read where it is.
struct Planes {
  int64_t width, height;  // of the whole map
  int64_t padding;        // zero rows around a plane, and zero columns between its rows
  int64_t pitch;          // floats from row to row
  int64_t rows;           // of a band, without padding

  int64_t lead() const { return align(padding); }  // zeros to the left of the first row
  int64_t floats() const { return lead() + align((rows + 2 * padding) * pitch + kSlack); }
};

// How the results of a tile lie in scratch: rows with zeros to their left and right.
struct Results {
  int64_t pitch, rows;

  Results(int64_t width, int64_t row_count) : pitch(align(width + 2)), rows(row_count) {}
  int64_t floats() const { return kAlign + align(rows * pitch + kSlack); }
};

// From the map's extent on, every tap but the centre reads padding, whatever the dilation.
int64_t effective_dilation(int64_t dilation, Size size) {
  return min(dilation, max(size.height, size.width));
}

int64_t padding_of(const ConvProblem& problem, const ConvOutput& output, Size size) {
  int64_t dilation = 0;
  for (int64_t g = 0; g < output.group_count; ++g) {
    dilation = max(dilation, effective_dilation(output.groups[g].dilation, size));
  }
  return problem.kernel / 2 * dilation;
}

int64_t halo_of(const ConvOutput& output) { return output.depthwise ? kStageHalo : 0; }

// Whether a 1 x 1 kernel can read the term's input where it is, in whole vectors.
bool in_place(const ConvProblem& problem, const ConvTerm& term) {
  const ConvInput& input = *term.input;
  return problem.dtype == Dtype::float32 && problem.kernel == 1 && !problem.entry_pool &&
         term.resample == Resample::none && input.stride[3] == 1 && input.width >= kLanes &&
         input.stride[2] >= input.width && input.stride[2] <= 2 * input.width;
}

int64_t conv_rows(const ConvOutput& output, int64_t rows) { return rows + 2 * halo_of(output); }

// Planes of the terms at the output's own scale, for `rows` output rows.
Planes own_planes(const ConvProblem& problem, const ConvOutput& output, int64_t rows) {
  const int64_t padding = padding_of(problem, output, {output.height, output.width});
  int64_t pitch = output.width + padding;
  for (int64_t i = 0; i < output.term_count; ++i) {
    if (in_place(problem, output.terms[i])) pitch = output.terms[i].input->stride[2];
  }
  return {output.width, output.height, padding, pitch, conv_rows(output, rows)};
}

// Planes of a coarser term for `rows` output rows.
Planes coarse_planes(const ConvProblem& problem, const ConvOutput& output, const ConvTerm& term,
                     int64_t rows) {
  const Size size = input_size(problem, *term.input);
  const int64_t padding = padding_of(problem, output, size);
  const int64_t reached = conv_rows(output, rows) * size.height / output.height + 3;
  return {size.width, size.height, padding, size.width + padding, min(size.height, reached)};
}

// Rows of a coarser term, as wide as the output.
Results widened(const ConvOutput& output, const Planes& coarse) {
  return {output.width, coarse.rows};
}

int64_t buffer_floats(const ConvOutput& output) {
  int64_t width = output.width;
  for (int64_t i = 0; i < output.term_count; ++i) {
    width = max(width, output.terms[i].input->width);
  }
  return kAlign + align(width) + 2 * kSlack;
}

int64_t pointer_floats(const ConvProblem& problem, const ConvOutput& output) {
  const int64_t taps = max(tap_count(problem, output, false), tap_count(problem, output, true));
  return align(taps * sizeof(const float*) / sizeof(float));
}

// Floats of scratch for `rows` output rows of one output; see Runner for what lies there.
int64_t scratch_floats(const ConvProblem& problem, const ConvOutput& output, int64_t rows) {
  const Results results(output.width, conv_rows(output, rows));
  int64_t floats = kAlign + pointer_floats(problem, output);
  floats += (kBuffers + kRows) * buffer_floats(output);
  floats += (kTileChannels + 1) * results.floats();
  int64_t coarse_results = 0;
  for (int64_t i = 0; i < output.term_count; ++i) {
    const ConvTerm& term = output.terms[i];
    floats += ColumnResizer::scratch_floats({input_size(problem, *term.input).width, output.width});
    if (is_coarse(term)) {
      const Planes planes = coarse_planes(problem, output, term, rows);
      floats += term.input->channels * planes.floats();
      floats += kTileChannels * widened(output, planes).floats();
      coarse_results = max(coarse_results, Results(planes.width, planes.rows).floats());
    } else if (!in_place(problem, term)) {
      floats += term.input->channels * own_planes(problem, output, rows).floats();
    }
  }
  return floats + kTileChannels * coarse_results;
}

// Rows of a band whose planes fit into the budget.
int64_t fitting_rows(const ConvProblem& problem, const ConvOutput& output) {
  const int64_t least = scratch_floats(problem, output, kLeastRows);
  const int64_t more = scratch_floats(problem, output, 2 * kLeastRows) - least;
  const int64_t steps = 1 + max(0, kBandFloats - least) / max(1, more);
  return min(output.height, kLeastRows * steps);
}

// Bands per image, the same for every output so that neighbouring tasks read the same input.
int64_t band_count(const ConvProblem& problem) {
  int64_t bands = 1, tallest = 1;
  for (int64_t j = 0; j < problem.output_count; ++j) {
    const ConvOutput& output = problem.outputs[j];
    bands = max(bands, ceil_div(output.height, fitting_rows(problem, output)));
    tallest = max(tallest, output.height);
  }
  if (problem.threads == 1) return bands;
  const int64_t wanted = ceil_div(2 * problem.threads, max(1, problem.batch));
  return max(bands, min(wanted, ceil_div(tallest, 2 * kLeastRows)));
}

int64_t band_rows(const ConvOutput& output, int64_t bands) {
  return ceil_div(ceil_div(output.height, bands), kRows) * kRows;
}

int64_t task_count(const ConvProblem& problem) {
  return problem.batch * band_count(problem) * problem.output_count;
}

int64_t scratch_floats(const ConvProblem& problem) {
  const int64_t bands = band_count(problem);
  int64_t floats = 0;
  for (int64_t j = 0; j < problem.output_count; ++j) {
    const ConvOutput& output = problem.outputs[j];
    floats = max(floats, scratch_floats(problem, output, band_rows(output, bands)));
  }
  return floats;
}

// Takes aligned pieces off scratch.
class Arena {
 public:
  explicit Arena(float* scratch) {
    const uintptr_t misaligned = reinterpret_cast<uintptr_t>(scratch) / sizeof(float) % kAlign;
    next_ = scratch + (kAlign - misaligned) % kAlign;
  }
  float* take(int64_t floats) {
    float* taken = next_;
    next_ += floats;
    return taken;
  }

 private:
  float* next_;
};

// Rows of channels of the inputs, pooled or resized to where a convolution reads them.
template <typename T>
class TermReader {
 public:
  TermReader(const ConvProblem& problem, float* const* buffers)
      : problem_(problem), buffers_(buffers) {}

  // Row h of the term's map, before any resize up. `to` has room for whole vectors.
  void read(const ConvTerm& term, const ColumnResizer& resizer, const Axis& rows, const T* x,
            int64_t h, float* to) const {
    const ConvInput& input = *term.input;
    const int64_t width = input_size(problem_, input).width;
    if (term.resample == Resample::bilinear_down) {
      const int64_t low = rows.low(h), next = min(low + 1, rows.in - 1);
      float* const mixed = buffers_[4];
      mix_rows(base_row(input, x, low, 0), base_row(input, x, next, 1), rows.fraction(h), width,
               mixed);
      resizer(mixed, to);
    } else if (term.resample == Resample::max_pool) {
      largest_row(input, x, h, term.steps, width, to);
    } else if (problem_.entry_pool) {
      mean_2x2(input_row(input, x, 2 * h, 2), input_row(input, x, 2 * h + 1, 3), width, to);
    } else {
      read_row(row_of(input, x, h), input.stride[3], input.width, end_of(input, x), to);
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
    if (!problem_.entry_pool) return input_row(input, x, h, buffer);
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

  const ConvProblem& problem_;
  float* const* const buffers_;
};

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
        reader_(problem, buffers_) {
    Arena arena(scratch);
    const int64_t buffer = buffer_floats(output);
    for (float*& row : buffers_) row = arena.take(buffer) + kAlign;
    for (float*& row : out_rows_) row = arena.take(buffer);
    pointers_ = reinterpret_cast<const float**>(arena.take(pointer_floats(problem, output)));
    result_ = arena.take(kTileChannels * results_.floats()) + kAlign;
    staged_ = arena.take(results_.floats()) + kAlign;
    planes_ = arena;
  }

  void run(int64_t image, int64_t band) {
    begin_ = min(band * rows_, output_.height);
    end_ = min(begin_ + rows_, output_.height);
    if (begin_ == end_) return;
    const int64_t halo = halo_of(output_);
    conv_begin_ = max(0, begin_ - halo);
    conv_end_ = min(output_.height, end_ + halo);
    image_ = image;
    load_terms();
    const float* weight = packed_;
    for_each_tile(output_, [&](const Tile& tile) { weight = compute(tile, weight); });
  }

 private:
  // What a term takes of scratch, in the order in which it is taken.
  struct Pieces {
    Planes planes;
    float *tables, *plane, *widened;
  };

  Pieces take(Arena& arena, const ConvTerm& term) const {
    Pieces pieces{own_, arena.take(ColumnResizer::scratch_floats(horizontal(term))), nullptr,
                  nullptr};
    if (in_place(problem_, term)) return pieces;
    if (is_coarse(term)) {
      pieces.planes = coarse_planes(problem_, output_, term, rows_);
      pieces.widened = arena.take(kTileChannels * widened(output_, pieces.planes).floats());
    }
    pieces.plane = arena.take(term.input->channels * pieces.planes.floats());
    return pieces;
  }

  const T* input_channel(const ConvInput& input, int64_t c) const {
    return static_cast<const T*>(input.x) + image_ * input.stride[0] + c * input.stride[1];
  }

  Axis vertical(const ConvTerm& term) const {
    return {input_size(problem_, *term.input).height, output_.height};
  }

  Axis horizontal(const ConvTerm& term) const {
    return {input_size(problem_, *term.input).width, output_.width};
  }

  // Rows of a coarser term that the band's rows are resized from.
  void coarse_rows(const ConvTerm& term, int64_t* begin, int64_t* end) const {
    const Axis axis = vertical(term);
    *begin = axis.low(conv_begin_);
    *end = min(axis.low(conv_end_ - 1) + 2, axis.in);
  }

  void load_terms() {
    Arena arena = planes_;
    for (int64_t i = 0; i < output_.term_count; ++i) {
      const ConvTerm& term = output_.terms[i];
      const Pieces pieces = take(arena, term);
      if (in_place(problem_, term)) continue;
      int64_t begin = conv_begin_, end = conv_end_;
      if (is_coarse(term)) coarse_rows(term, &begin, &end);
      const ColumnResizer resizer(horizontal(term), pieces.tables);
      if (is_coarse(term) || term.resample == Resample::bilinear_down) resizer.prepare();
      load_rows(term, resizer, pieces, begin, end);
    }
    coarse_result_ = arena.take(0) + kAlign;
  }

  // Rows [begin, end) of a term with padding around them.
  void load_rows(const ConvTerm& term, const ColumnResizer& resizer, const Pieces& pieces,
                 int64_t begin, int64_t end) const {
    const Planes& planes = pieces.planes;
    const Axis rows = vertical(term);
    float* to = pieces.plane;
    for (int64_t c = 0; c < term.input->channels; ++c, to += planes.floats()) {
      const T* x = input_channel(*term.input, c);
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

  static void clear(float* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) from[i] = 0;
  }

  // Appends, for each channel of a term and each tap, where the first pixel reads.
  const float** add_taps(const ConvTerm& term, const Pieces& pieces, int64_t dilation,
                         const float** to) const {
    const Planes& planes = pieces.planes;
    const int64_t reach = problem_.kernel / 2;
    dilation = effective_dilation(dilation, {planes.height, planes.width});
    for (int64_t c = 0; c < term.input->channels; ++c) {
      const float* first =
          pieces.plane
              ? pieces.plane + c * planes.floats() + planes.lead() + planes.padding * planes.pitch
              : reinterpret_cast<const float*>(input_channel(*term.input, c)) +
                    conv_begin_ * planes.pitch;
      for (int64_t i = -reach; i <= reach; ++i) {
        for (int64_t j = -reach; j <= reach; ++j) {
          *to++ = first + i * dilation * planes.pitch + j * dilation;
        }
      }
    }
    return to;
  }

  // One tile from its sources to the output; returns where the weights of the next one lie.
  const float* compute(const Tile& tile, const float* weight) {
    const TileFunction function = tile_function(tile.channels);
    const int64_t taps = tap_count(problem_, output_, false);
    TileAddend addends[kMostAddends];
    const int64_t addend_count =
        widen_coarse_terms(tile, function, weight + taps * tile.channels, addends);

    const float** end = pointers_;
    Arena arena = planes_;
    for (int64_t i = 0; i < output_.term_count; ++i) {
      const ConvTerm& term = output_.terms[i];
      const Pieces pieces = take(arena, term);
      if (!is_coarse(term)) end = add_taps(term, pieces, tile.group->dilation, end);
    }
    const ConvEpilogue& epilogue = output_.epilogue;
    const int64_t c = tile.output_channel;
    function(
        {pointers_, end - pointers_, own_.pitch, weight},
        {addends, addend_count, epilogue.scale ? epilogue.scale + c : kOnes,
         epilogue.shift ? epilogue.shift + c : kZeros, epilogue.slope ? epilogue.slope + c : kOnes,
         result_ + (conv_begin_ - first_row()) * results_.pitch, results_.floats(), results_.pitch},
        conv_begin_, conv_end_ - conv_begin_, output_.width);
    for (int64_t t = 0; t < tile.channels; ++t) {
      float* const finished = result_ + t * results_.floats();
      if (output_.depthwise) {
        run_stages(c + t, finished);
      } else {
        for (int64_t h = begin_; h < end_; ++h) {
          write_row(finished + (h - begin_) * results_.pitch, output_.width, output_row(c + t, h),
                    output_.stride[3]);
        }
      }
    }
    return weight + (taps + tap_count(problem_, output_, true)) * tile.channels;
  }

  // Convolves the terms of coarser scales and brings them to the output's width; their number.
  int64_t widen_coarse_terms(const Tile& tile, TileFunction function, const float* weight,
                             TileAddend* addends) {
    int64_t count = 0;
    Arena arena = planes_;
    for (int64_t i = 0; i < output_.term_count; ++i) {
      const ConvTerm& term = output_.terms[i];
      const Pieces pieces = take(arena, term);
      if (!is_coarse(term)) continue;
      const Planes& planes = pieces.planes;
      int64_t begin, end;
      coarse_rows(term, &begin, &end);
      const Results narrow(planes.width, planes.rows), wide = widened(output_, planes);
      const int64_t taps = add_taps(term, pieces, tile.group->dilation, pointers_) - pointers_;
      function({pointers_, taps, planes.pitch, weight},
               {nullptr, 0, kOnes, kZeros, kOnes, coarse_result_, narrow.floats(), narrow.pitch},
               begin, end - begin, planes.width);
      weight += taps * tile.channels;
      const ColumnResizer resizer(horizontal(term), pieces.tables);
      for (int64_t t = 0; t < tile.channels; ++t) {
        for (int64_t r = 0; r < end - begin; ++r) {
          resizer(coarse_result_ + t * narrow.floats() + r * narrow.pitch,
                  pieces.widened + t * wide.floats() + r * wide.pitch);
        }
      }
      addends[count++] = {pieces.widened, wide.floats(), wide.pitch, begin, vertical(term)};
    }
    return count;
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
  Arena planes_{nullptr};  // what `take` takes from
  float *result_, *staged_, *coarse_result_;
  const float** pointers_;
  int64_t image_, begin_, end_;    // output rows of the task
  int64_t conv_begin_, conv_end_;  // rows of the convolution's result that it needs
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
