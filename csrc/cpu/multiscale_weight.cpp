// Gradients of the weights of multi-scale convolutions: for every pair of an input channel and an
// output channel, and every tap, the sum over pixels of their products.
//
// A task is a band of rows of one image, for one block of the weight after the other. See the ops'
// READMEs for the counts.
#include "cpu/multiscale_weight.h"

#include "cpu/denormals.h"
#include "cpu/weight_narrow.h"
#include "cpu/weight_wide.h"

namespace lmwp::LMWP_ISA {
namespace {

constexpr int64_t kManySums = 32768;  // floats of a vector for each product, no longer near

bool is_wide(const WeightProblem& problem, const WeightBlock& block) {
  return products(problem, block) * kLanes >= kManySums;
}

int64_t task_count(const WeightProblem& problem) { return problem.batch * band_count(problem); }

int64_t partial_floats(const WeightProblem& problem) {
  int64_t floats = 0;
  for (int64_t b = 0; b < problem.block_count; ++b) floats += products(problem, problem.blocks[b]);
  return floats * task_count(problem);
}

int64_t scratch_floats(const WeightProblem& problem) {
  int64_t most = 0;
  for (int64_t b = 0; b < problem.block_count; ++b) {
    const WeightBlock& block = problem.blocks[b];
    most = max(most, is_wide(problem, block) ? WideWeight<float>::scratch_floats(problem, block)
                                             : NarrowWeight<float>::scratch_floats(problem, block));
  }
  return kAlign + most;
}

template <typename T>
void run_as(const WeightProblem& problem, int64_t begin, int64_t end, float* partials,
            float* scratch) {
  const int64_t bands = band_count(problem);
  for (int64_t task = begin; task < end; ++task) {
    float* block_partials = partials;
    for (int64_t b = 0; b < problem.block_count; ++b) {
      const WeightBlock& block = problem.blocks[b];
      const int64_t count = products(problem, block), rows = band_rows(problem, block);
      const int64_t first = min(block.height, task % bands * rows);
      const Band band{task / bands, first, min(block.height, first + rows)};
      float* const partial = block_partials + task * count;
      if (is_wide(problem, block)) {
        WideWeight<T>(problem, block, Arena(scratch)).run(band, partial);
      } else {
        NarrowWeight<T>(problem, block, Arena(scratch)).run(band, partial);
      }
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
