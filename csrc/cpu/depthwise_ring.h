// How the depthwise kernels cut branches into tasks, and the rows of input that they work on.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/depthwise_rows.h"
#include "cpu/depthwise_scales.h"

namespace lmwp::LMWP_ISA {

constexpr int kMaxKernel = 7;
constexpr int64_t kTaskOutputs = 32768;       // enough work to be worth a task
constexpr int64_t kRingFloats = 4096;         // half of a first-level cache
constexpr int64_t kInterleavedTaskRows = 16;  // keeps all channels of a band in cache

// How one branch is cut into tasks and laid out in scratch.
struct Plan {
  int64_t dilation, padding;
  int64_t group;     // distance of the output rows of a block
  int64_t row_step;  // input rows, in units of dilation, from one output row of a block to the next
  int64_t half;      // floats of the even columns of a stride-2 row, before the odd ones
  int64_t first;     // where column 0 of an input row goes (stride 1)
  int64_t row;       // floats from one scratch row to the next
  int64_t ring_rows;  // input rows kept, at least those that a block can reach
  int64_t bands, band_rows;
  bool interleaved;         // channels are innermost in memory: neighbouring tasks are channels
  int64_t tap[kMaxKernel];  // where tap j of output column 0 lies in a scratch row
};

static inline Plan make_plan(const DepthwiseProblem& problem, const DepthwiseBranch& branch) {
  Plan plan;
  const int64_t k = problem.kernel, stride = problem.stride;
  // From the map's extent on, every tap but the centre reads padding, whatever the dilation.
  plan.dilation = min(problem.dilation, max(branch.height, branch.width));
  plan.padding = plan.dilation * (k / 2);
  const bool halves = stride == 2 && plan.dilation % 2 == 0;
  plan.group = halves ? plan.dilation / 2 : plan.dilation;
  plan.row_step = halves ? 1 : stride;
  plan.ring_rows = stride * (plan.group * kRows - 1) + (k - 1) * plan.dilation + 1;
  const int64_t columns = align(branch.out_width);
  if (stride == 1) {
    plan.first = align(plan.padding);
    plan.half = 0;
    plan.row = plan.first + columns + align(plan.padding);
  } else {
    plan.first = 0;
    plan.half = columns + align(plan.padding + 1);
    plan.row = 2 * plan.half;
  }
  plan.row |= kAlign;  // an odd number of cache lines, so that rows do not share cache sets
  // Rows are read ahead as far as the cache allows: loads that straddle two young stores stall.
  const int64_t padded_rows = branch.height + 2 * plan.padding;
  plan.ring_rows = max(plan.ring_rows, min(padded_rows, kRingFloats / plan.row));
  for (int64_t j = 0; j < k; ++j) {
    const int64_t column = j * plan.dilation;  // in the padded row
    plan.tap[j] =
        stride == 1 ? plan.first - plan.padding + column : column % 2 * plan.half + column / 2;
  }
  plan.interleaved = branch.x_stride[3] != 1 && branch.x_stride[1] == 1;
  const int64_t rows = plan.interleaved ? kInterleavedTaskRows : kTaskOutputs / branch.out_width;
  const int64_t block = kRows * plan.group;
  plan.band_rows = ceil_div(max(rows, plan.ring_rows), block) * block;
  plan.bands = ceil_div(branch.out_height, plan.band_rows);
  return plan;
}

static inline int64_t task_count(const Plan& plan, const DepthwiseBranch& branch) {
  return branch.batch * branch.channels * plan.bands;
}

static inline int64_t task_count(const DepthwiseProblem& problem) {
  int64_t tasks = 0;
  for (int64_t b = 0; b < problem.count; ++b) {
    const DepthwiseBranch& branch = problem.branches[b];
    tasks += task_count(make_plan(problem, branch), branch);
  }
  return tasks;
}

// Calls function(branch, plan, from, to) for the tasks of each branch that lie in [begin, end).
template <typename Function>
static inline void for_each_branch(const DepthwiseProblem& problem, int64_t begin, int64_t end,
                                   Function&& function) {
  int64_t first = 0;
  for (int64_t b = 0; b < problem.count && first < end; ++b) {
    const DepthwiseBranch& branch = problem.branches[b];
    const Plan plan = make_plan(problem, branch);
    const int64_t tasks = task_count(plan, branch);
    const int64_t from = max(begin - first, 0), to = min(end - first, tasks);
    if (from < to) function(branch, plan, from, to);
    first += tasks;
  }
}

// The output rows [begin, end) of one plane: a task.
struct Band {
  int64_t image, channel, begin, end;

  Band(const DepthwiseBranch& branch, const Plan& plan, int64_t task) {
    const int64_t channels = branch.channels;
    const int64_t inner = plan.interleaved ? channels : plan.bands;
    const int64_t outer = plan.interleaved ? plan.bands : channels;
    const int64_t i = task % inner, o = task / inner % outer;
    const int64_t band = plan.interleaved ? o : i;
    image = task / (inner * outer);
    channel = plan.interleaved ? i : o;
    begin = band * plan.band_rows;
    end = min(branch.out_height, begin + plan.band_rows);
  }
};

// Input rows of one plane, zero padded and in float32, as many as blocks of output rows need.
template <typename T>
class InputRing {
 public:
  static int64_t scratch_floats(const Plan& plan, const DepthwiseBranch& branch) {
    return (plan.ring_rows + 1) * plan.row + unsplit_floats(branch);
  }

  // `scratch` begins at a cache line.
  InputRing(const DepthwiseProblem& problem, const DepthwiseBranch& branch, const Plan& plan,
            float* scratch)
      : problem_(problem),
        branch_(branch),
        plan_(plan),
        ring_(scratch),
        zeros_(ring_ + plan.ring_rows * plan.row),
        unsplit_(zeros_ + plan.row),
        step_(problem.spread ? 2 : 1),
        columns_(ceil_div(branch.width, step_)),
        elements_((ceil_div(branch.height, step_) - 1) * branch.x_stride[2] +
                  (columns_ - 1) * branch.x_stride[3] + 1) {
    // Padding is written here once; rows are read into the space between.
    __builtin_memset(ring_, 0, scratch_floats(plan, branch) * sizeof(float));
  }

  void start(const Band& band) {
    x_ = static_cast<const T*>(branch_.x) + band.image * branch_.x_stride[0] +
         band.channel * branch_.x_stride[1];
    last_ = min(branch_.height - 1, (band.end - 1) * problem_.stride + plan_.padding);
    next_ = max(0, band.begin * problem_.stride - plan_.padding);
    oldest_ = next_;
  }

  // Reads what the output rows [h, h + kRows * group) need and is not there yet.
  void advance(int64_t h) {
    const int64_t first = h * problem_.stride - plan_.padding;
    if (first - oldest_ >= plan_.ring_rows) oldest_ += plan_.ring_rows;
    const int64_t stop = min(last_ + 1, first + plan_.ring_rows);
    for (; next_ < stop; ++next_) read(next_);
  }

  // The rows that output rows h, h + group, ... share, `dilation` apart.
  void shared_rows(int64_t h, const float** rows) const {
    const int64_t count = plan_.row_step * (kRows - 1) + problem_.kernel;
    const int64_t top = h * problem_.stride - plan_.padding;
    for (int64_t r = 0; r < count; ++r) rows[r] = row(top + r * plan_.dilation);
  }

 private:
  static int64_t unsplit_floats(const DepthwiseBranch& branch) {
    return align(branch.width) + kAlign;
  }

  // Where input row h lies, one of the ring_rows from the oldest in use on.
  float* slot(int64_t h) const {
    const int64_t i = h - oldest_;
    return ring_ + (i < plan_.ring_rows ? i : i - plan_.ring_rows) * plan_.row;
  }

  const float* row(int64_t h) const {
    const bool nothing = h < 0 || h >= branch_.height || (problem_.spread && h % 2 == 1);
    return nothing ? zeros_ : slot(h);
  }

  // Starts to bring in the row that will take the place of row h, so that memory does not wait
  // while rows are computed.
  void fetch_ahead(int64_t h) const {
    const T* const row = x_ + (h + plan_.ring_rows) * branch_.x_stride[2];
    const int64_t line = kAlign * static_cast<int64_t>(sizeof(float) / sizeof(T));
    if (branch_.x_stride[3] != 1) return;
    for (int64_t c = 0; c < columns_; c += line) __builtin_prefetch(row + c);
  }

  void read(int64_t h) {
    const int64_t columns = columns_;
    fetch_ahead(h);
    const T *x = x_ + h * branch_.x_stride[2], *end = x_ + elements_;
    float* const to = slot(h);
    if (problem_.spread) {
      if (h % 2 == 1) return;
      x = x_ + h / 2 * branch_.x_stride[2];
      read_row(x, branch_.x_stride[3], columns, end, unsplit_);
      for (int64_t c = 0; c < columns; ++c) to[plan_.first + 2 * c] = unsplit_[c];
    } else if (problem_.stride == 1) {
      read_row(x, branch_.x_stride[3], columns, end, to + plan_.first);
    } else {
      read_row(x, branch_.x_stride[3], columns, end, unsplit_);
      const int64_t parity = plan_.padding % 2;
      float* const even = to + parity * plan_.half + plan_.padding / 2;
      float* const odd = to + (1 - parity) * plan_.half + (plan_.padding + 1) / 2;
      split_columns(unsplit_, columns, even, odd);
    }
  }

  const DepthwiseProblem& problem_;
  const DepthwiseBranch& branch_;
  const Plan& plan_;
  float *const ring_, *zeros_, *unsplit_;
  const int64_t step_;                // input rows and columns from one that is there to the next
  const int64_t columns_, elements_;  // of a row, and from the first of a plane to its last
  const T* x_;
  int64_t next_;    // first input row not read yet
  int64_t oldest_;  // input row in the first slot, or ring_rows before it
  int64_t last_;    // last input row that the band needs
};

// Output rows of a block that lie before `end`.
static inline int rows_of_block(const Plan& plan, int64_t h, int64_t end) {
  int valid = 1;
  while (valid < kRows && h + valid * plan.group < end) ++valid;
  return valid;
}

// Calls block(h) for every block of the band; its rows are h, h + group, ...
template <typename T, typename Block>
static inline void for_each_block(const Plan& plan, const Band& band, InputRing<T>& ring,
                                  Block&& block) {
  ring.start(band);
  for (int64_t h = band.begin; h < band.end; h += kRows * plan.group) {
    ring.advance(h);
    for (int64_t g = h; g < min(band.end, h + plan.group); ++g) block(g);
  }
}

static inline float* to_cache_line(float* scratch) {
  const uintptr_t misaligned = reinterpret_cast<uintptr_t>(scratch) / sizeof(float) % kAlign;
  return scratch + (kAlign - misaligned) % kAlign;
}

}  // namespace lmwp::LMWP_ISA
