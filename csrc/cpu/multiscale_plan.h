// How a multi-scale convolution is cut: channels into tiles, weights into what tiles read, rows
// into bands, and what of all that lies where in scratch. Compiled once per instruction set: every
// name lives in the namespace of that set.
#pragma once

#include "cpu/conv_tile.h"
#include "cpu/depthwise_rows.h"
#include "cpu/multiscale_conv.h"
#include "cpu/resample.h"

namespace lmwp::LMWP_ISA {

constexpr int64_t kBandFloats = 196608;  // planes of a task, much of a second-level cache
constexpr int64_t kPanelFloats = 49152;  // the same where nothing follows the convolution
constexpr int64_t kStripFloats = 6144;   // three quarters of a first-level cache
constexpr int64_t kLeastRows = 8;  // below, bands spend more on their borders than on themselves
constexpr int64_t kSlack = (kTileVectors + 1) * kLanes;  // whole vectors beyond the last row
constexpr int64_t kStageHalo = 2;                        // rows around a band for two 3 x 3 stages
constexpr int kBuffers = 5;                              // rows that a TermReader works in

constexpr bool kOwnThenCoarse[] = {false, true};
struct Size {
  int64_t height, width;
};

static inline Size input_size(const ConvInput& input) {
  const int shift = input.entry_pool;  // not a division, which costs as much as a short row
  return {input.height >> shift, input.width >> shift};
}

// Whether the term is convolved at the size of its input.
static inline bool is_coarse(const ConvTerm& term) {
  return term.resample == Resample::bilinear_up || term.resample == Resample::max_pool_adjoint ||
         term.resample == Resample::bilinear_down_adjoint;
}

// The bilinear resize of the forward pass along one side.
static inline Axis axis_of(const ConvTerm& term, int64_t input, int64_t output) {
  const bool adjoint = term.resample == Resample::bilinear_up_adjoint ||
                       term.resample == Resample::bilinear_down_adjoint;
  return adjoint ? Axis{output, input} : Axis{input, output};
}

static inline Axis vertical(const ConvTerm& term, int64_t output_height) {
  return axis_of(term, input_size(*term.input).height, output_height);
}

static inline Axis horizontal(const ConvTerm& term, int64_t output_width) {
  return axis_of(term, input_size(*term.input).width, output_width);
}

// Some output channels of one group, computed together.
struct Tile {
  const ConvGroup* group;
  int64_t group_channel;   // its first channel within the group
  int64_t output_channel;  // and within the output
  int64_t channels;
};

template <typename Function>
static inline void for_each_tile(const ConvOutput& output, Function&& function) {
  int64_t first = 0;
  for (int64_t g = 0; g < output.group_count; ++g) {
    const ConvGroup& group = output.groups[g];
    for_each_even_tile(group.channels, kTileChannels, [&](int64_t begin, int64_t count) {
      function(Tile{&group, begin, first + begin, count});
    });
    first += group.channels;
  }
}

// Elements of the sums of one output channel: those at its own scale, or those of coarser terms.
static inline int64_t tap_count(const ConvProblem& problem, const ConvOutput& output, bool coarse) {
  int64_t channels = 0;
  for (int64_t i = 0; i < output.term_count; ++i) {
    const ConvTerm& term = output.terms[i];
    if (is_coarse(term) == coarse) channels += term.input->channels;
  }
  return channels * problem.kernel * problem.kernel;
}

static inline int64_t packed_floats(const ConvProblem& problem, const ConvOutput& output) {
  const int64_t taps = tap_count(problem, output, false) + tap_count(problem, output, true);
  return output.channels * taps;
}

static inline int64_t packed_floats(const ConvProblem& problem) {
  int64_t floats = 0;
  for (int64_t j = 0; j < problem.output_count; ++j) {
    floats += packed_floats(problem, problem.outputs[j]);
  }
  return floats;
}

// Weights of a term as a tile reads them: [channel, tap, channel of the tile].
static inline float* pack_term(const ConvProblem& problem, const Tile& tile, const ConvTerm& term,
                               float* to) {
  const int64_t area = problem.kernel * problem.kernel, row = problem.columns * area;
  const float* weight = tile.group->weight + tile.group_channel * row + term.column * area;
  for (int64_t k = 0; k < term.input->channels * area; ++k) {
    for (int64_t t = 0; t < tile.channels; ++t) *to++ = weight[t * row + k];
  }
  return to;
}

static inline void pack(const ConvProblem& problem, float* packed) {
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
  int64_t floats() const { return spaced(lead() + (rows + 2 * padding) * pitch + kSlack); }
};

// How the results of a tile lie in scratch: rows with zeros to their left and right.
struct Results {
  int64_t pitch, rows;

  Results() : pitch(0), rows(0) {}
  Results(int64_t width, int64_t row_count) : pitch(align(width + 2)), rows(row_count) {}
  int64_t floats() const { return spaced(kAlign + rows * pitch + kSlack); }
};

// From the map's extent on, every tap but the centre reads padding, whatever the dilation.
static inline int64_t effective_dilation(int64_t dilation, Size size) {
  return min(dilation, max(size.height, size.width));
}

static inline int64_t padding_of(const ConvProblem& problem, const ConvOutput& output, Size size) {
  int64_t of_groups = 1, of_terms = 1;
  for (int64_t g = 0; g < output.group_count; ++g) {
    of_groups = max(of_groups, output.groups[g].dilation);
  }
  for (int64_t i = 0; i < output.term_count; ++i) {
    of_terms = max(of_terms, output.terms[i].dilation);
  }
  return problem.kernel / 2 * effective_dilation(of_groups * of_terms, size);
}

static inline int64_t halo_of(const ConvOutput& output) {
  return output.depthwise ? kStageHalo : 0;
}

// Whether a 1 x 1 kernel reads the term's input where it is, in whole vectors. Where stages follow,
// a band is large, and what is near stays near; elsewhere, copying into a panel brings it near.
static inline bool in_place(const ConvProblem& problem, const ConvOutput& output,
                            const ConvTerm& term) {
  const ConvInput& input = *term.input;
  return output.depthwise && problem.dtype == Dtype::float32 && problem.kernel == 1 &&
         !input.entry_pool && term.resample == Resample::none && input.stride[3] == 1 &&
         input.width >= kLanes && input.stride[2] >= input.width &&
         input.stride[2] <= 2 * input.width;
}

static inline int64_t conv_rows(const ConvOutput& output, int64_t rows) {
  return rows + 2 * halo_of(output);
}

// Planes of the terms at the output's own scale, for `rows` output rows.
static inline Planes own_planes(const ConvProblem& problem, const ConvOutput& output,
                                int64_t rows) {
  const int64_t padding = padding_of(problem, output, {output.height, output.width});
  int64_t pitch = output.width + padding;
  for (int64_t i = 0; i < output.term_count; ++i) {
    if (in_place(problem, output, output.terms[i])) pitch = output.terms[i].input->stride[2];
  }
  return {output.width, output.height, padding, pitch, conv_rows(output, rows)};
}

// Planes of a coarser term for `rows` output rows.
static inline Planes coarse_planes(const ConvProblem& problem, const ConvOutput& output,
                                   const ConvTerm& term, int64_t rows) {
  const Size size = input_size(*term.input);
  const int64_t padding = padding_of(problem, output, size);
  const int64_t reached = (conv_rows(output, rows) + 1) * size.height / output.height + 3;
  return {size.width, size.height, padding, size.width + padding, min(size.height, reached)};
}

// Rows of a coarser term, as wide as the output: those of the term where they are resized as they
// are added, else those of the band, written in whole vectors of pairs.
static inline Results widened(const ConvOutput& output, const ConvTerm& term, const Planes& coarse,
                              int64_t rows) {
  if (term.resample == Resample::bilinear_up) return {output.width, coarse.rows};
  return {output.width + 2 * kLanes, conv_rows(output, rows)};
}

static inline int64_t buffer_floats(const ConvOutput& output) {
  int64_t width = max(output.width, output.spread_width);
  for (int64_t i = 0; i < output.term_count; ++i) {
    width = max(width, output.terms[i].input->width);
  }
  return kAlign + align(width) + 2 * kSlack;
}

static inline int64_t pointer_floats(int64_t count) {
  return align(count * sizeof(const float*) / sizeof(float));
}

static inline int64_t pointer_floats(const ConvProblem& problem, const ConvOutput& output) {
  return pointer_floats(output.group_count * tap_count(problem, output, false));
}

static inline int64_t coarse_pointer_floats(const ConvProblem& problem, const ConvOutput& output) {
  return pointer_floats(tap_count(problem, output, true));
}

// Rows that all tiles compute in turn while what they read is in the first-level cache.
static inline int64_t strip_rows(const ConvProblem& problem, const ConvOutput& output,
                                 const Planes& own) {
  const int64_t area = problem.kernel * problem.kernel;
  const int64_t row = tap_count(problem, output, false) / area * own.pitch;
  return max(1, kStripFloats / max(1, row));
}

// The same where rows are one: whole vectors of a tile.
static inline int64_t strip_pixels(const ConvProblem& problem, const ConvOutput& output) {
  constexpr int64_t whole = kTileVectors * kLanes;
  const int64_t pixels = kStripFloats / max(1, tap_count(problem, output, false));
  return max(1, pixels / whole) * whole;
}

// Floats of scratch for `rows` output rows of one output; see Runner for what lies there.
static inline int64_t scratch_floats(const ConvProblem& problem, const ConvOutput& output,
                                     int64_t rows) {
  const Results results(output.width, conv_rows(output, rows));
  int64_t floats = kAlign + pointer_floats(problem, output);
  floats += coarse_pointer_floats(problem, output);
  floats += (kBuffers + kRows) * buffer_floats(output);
  floats += (kTileChannels + 1) * results.floats();
  int64_t coarse_results = 0;
  for (int64_t i = 0; i < output.term_count; ++i) {
    const ConvTerm& term = output.terms[i];
    floats += ColumnResizer::scratch_floats(horizontal(term, output.width));
    if (is_coarse(term)) {
      const Planes planes = coarse_planes(problem, output, term, rows);
      floats += term.input->channels * planes.floats();
      floats += output.channels * widened(output, term, planes, rows).floats();
      coarse_results = max(coarse_results, Results(planes.width, planes.rows).floats());
    } else if (!in_place(problem, output, term)) {
      floats += term.input->channels * own_planes(problem, output, rows).floats();
    }
  }
  return floats + kTileChannels * coarse_results;
}

// Rows of a band whose planes fit into the budget.
static inline int64_t fitting_rows(const ConvProblem& problem, const ConvOutput& output) {
  const int64_t least = scratch_floats(problem, output, kLeastRows);
  const int64_t more = scratch_floats(problem, output, 2 * kLeastRows) - least;
  const int64_t budget = output.depthwise ? kBandFloats : kPanelFloats;
  const int64_t steps = 1 + max(0, budget - least) / max(1, more);
  return min(output.height, kLeastRows * steps);
}

// Bands per image, the same for every output so that neighbouring tasks read the same input.
static inline int64_t band_count(const ConvProblem& problem) {
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

static inline int64_t band_rows(const ConvOutput& output, int64_t bands) {
  return ceil_div(ceil_div(output.height, bands), kRows) * kRows;
}

static inline int64_t task_count(const ConvProblem& problem) {
  return problem.batch * band_count(problem) * problem.output_count;
}

static inline int64_t scratch_floats(const ConvProblem& problem) {
  const int64_t bands = band_count(problem);
  int64_t floats = 0;
  for (int64_t j = 0; j < problem.output_count; ++j) {
    const ConvOutput& output = problem.outputs[j];
    floats = max(floats, scratch_floats(problem, output, band_rows(output, bands)));
  }
  return floats;
}

}  // namespace lmwp::LMWP_ISA
