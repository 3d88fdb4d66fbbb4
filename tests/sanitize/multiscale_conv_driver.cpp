// Runs the multi-scale convolution of one instruction set over small problems, each tensor in a
// heap block of exactly its size, and compares with loops in double; gradients must be the adjoints
// of the forward pass. Prints nothing and returns 0
// if all is well. With "fault" as argument the last element of an input is missing: a sanitizer
// must stop it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/multiscale_weight.h"

namespace {

using namespace lmwp;

std::mt19937 random_bits(0);

float uniform() { return std::uniform_real_distribution<float>(-1, 1)(random_bits); }

std::vector<float> parameters(int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = uniform();
  return values;
}

// [channels, height, width] in double.
struct Map {
  int64_t channels, height, width;
  std::vector<double> values;

  Map(int64_t c, int64_t h, int64_t w) : channels(c), height(h), width(w), values(c * h * w) {}
  double& at(int64_t c, int64_t h, int64_t w) { return values[(c * height + h) * width + w]; }
  double padded(int64_t c, int64_t h, int64_t w) {
    return h < 0 || h >= height || w < 0 || w >= width ? 0 : at(c, h, w);
  }
};

template <typename Value>
Map make(int64_t channels, int64_t height, int64_t width, Value&& value) {
  Map map(channels, height, width);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t h = 0; h < height; ++h)
      for (int64_t w = 0; w < width; ++w) map.at(c, h, w) = value(c, h, w);
  return map;
}

Map mean(Map& x) {
  return make(x.channels, x.height / 2, x.width / 2, [&](int64_t c, int64_t h, int64_t w) {
    return (x.at(c, 2 * h, 2 * w) + x.at(c, 2 * h, 2 * w + 1) + x.at(c, 2 * h + 1, 2 * w) +
            x.at(c, 2 * h + 1, 2 * w + 1)) /
           4;
  });
}

Map largest(Map& x, int steps) {
  const int64_t side = int64_t{1} << steps;
  return make(x.channels, x.height >> steps, x.width >> steps,
              [&](int64_t c, int64_t h, int64_t w) {
                double most = -INFINITY;
                for (int64_t i = 0; i < side; ++i)
                  for (int64_t j = 0; j < side; ++j)
                    most = std::max(most, x.at(c, h * side + i, w * side + j));
                return most;
              });
}

Map resized(Map& x, int64_t height, int64_t width) {
  return make(x.channels, height, width, [&](int64_t c, int64_t h, int64_t w) {
    const double y = std::max((h + 0.5) * x.height / height - 0.5, 0.0);
    const double u = std::max((w + 0.5) * x.width / width - 0.5, 0.0);
    const int64_t top = std::min<int64_t>(y, x.height - 1),
                  left = std::min<int64_t>(u, x.width - 1);
    const int64_t bottom = std::min(top + 1, x.height - 1), right = std::min(left + 1, x.width - 1);
    const double fy = y - top, fx = u - left;
    return (1 - fy) * ((1 - fx) * x.at(c, top, left) + fx * x.at(c, top, right)) +
           fy * ((1 - fx) * x.at(c, bottom, left) + fx * x.at(c, bottom, right));
  });
}

Map convolved(Map& x, const float* weight, int64_t row, int64_t out, int kernel, int64_t dilation) {
  const int64_t reach = kernel / 2;
  return make(out, x.height, x.width, [&](int64_t o, int64_t h, int64_t w) {
    double sum = 0;
    const float* tap = weight + o * row;
    for (int64_t c = 0; c < x.channels; ++c)
      for (int64_t i = -reach; i <= reach; ++i)
        for (int64_t j = -reach; j <= reach; ++j)
          sum += *tap++ * x.padded(c, h + i * dilation, w + j * dilation);
    return sum;
  });
}

void finish(Map& z, const ConvEpilogue& epilogue) {
  if (epilogue.scale == nullptr) return;
  for (int64_t c = 0; c < z.channels; ++c)
    for (int64_t i = 0; i < z.height * z.width; ++i) {
      double& value = z.values[c * z.height * z.width + i];
      value = epilogue.scale[c] * value + epilogue.shift[c];
      if (value < 0) value *= epilogue.slope[c];
    }
}

Map depthwise(Map& x, const DepthwiseStage& stage) {
  Map y = make(x.channels, x.height, x.width, [&](int64_t c, int64_t h, int64_t w) {
    double sum = 0;
    for (int i = 0; i < 9; ++i)
      sum += stage.weight[9 * c + i] * x.padded(c, h + i / 3 - 1, w + i % 3 - 1);
    return sum;
  });
  finish(y, stage.epilogue);
  return y;
}

// Task by task, last first: a task must not lean on another's scratch or order.
void run(MultiscaleConvKernel kernel, const ConvProblem& problem) {
  std::unique_ptr<float[]> packed(new float[kernel.packed_floats(problem)]);
  kernel.pack(problem, packed.get());
  const int64_t floats = kernel.scratch_floats(problem);
  std::unique_ptr<float[]> scratch(new float[floats]);
  for (int64_t task = kernel.task_count(problem) - 1; task >= 0; --task) {
    std::fill_n(scratch.get(), floats, NAN);
    kernel.run(problem, packed.get(), task, task + 1, scratch.get());
  }
}

void run(MultiscaleWeightKernel kernel, const WeightProblem& problem) {
  std::unique_ptr<float[]> partials(new float[kernel.partial_floats(problem)]);
  const int64_t floats = kernel.scratch_floats(problem);
  std::unique_ptr<float[]> scratch(new float[floats]);
  for (int64_t task = kernel.task_count(problem) - 1; task >= 0; --task) {
    std::fill_n(scratch.get(), floats, NAN);
    kernel.run(problem, task, task + 1, partials.get(), scratch.get());
  }
  kernel.reduce(problem, partials.get());
}

// The sum of the products of two lists, and a bound of its rounding.
struct Product {
  double sum = 0, size = 0;
  void add(const float* a, const void* b, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const double product = static_cast<double>(a[i]) * static_cast<const float*>(b)[i];
      sum += product;
      size += std::abs(product);
    }
  }
};

bool equal(const char* what, const Product& a, const Product& b) {
  if (std::abs(a.sum - b.sum) <= 1e-5 * (1 + a.size + b.size)) return true;
  std::fprintf(stderr, "%s: %g, expected %g\n", what, a.sum, b.sum);
  return false;
}

// A resize as the gradients go it back.
Resample back(Resample resample) {
  switch (resample) {
    case Resample::max_pool:
      return Resample::max_pool_adjoint;
    case Resample::bilinear_down:
      return Resample::bilinear_down_adjoint;
    case Resample::bilinear_up:
      return Resample::bilinear_up_adjoint;
    default:
      return Resample::none;
  }
}

// <dx, x> and <dw, w> equal <dy, y> for the gradients dx, dw of a problem without epilogues.
bool check_gradients(MultiscaleConvKernel kernel, const ConvProblem& problem,
                     const std::vector<ConvInput>& inputs) {
  const int64_t area = problem.kernel * problem.kernel, row = problem.columns * area;
  const std::size_t out_count = problem.output_count, in_count = inputs.size();
  Product expected, by_x, by_weight;
  std::vector<std::unique_ptr<float[]>> dys, dws, dxs;
  std::vector<ConvInput> gradients;
  std::vector<WeightBlock> blocks;
  int64_t rows = 0;
  for (std::size_t j = 0; j < out_count; ++j) {
    const ConvOutput& output = problem.outputs[j];
    const int64_t count = output.channels * output.height * output.width;
    dys.emplace_back(new float[count]);
    for (int64_t k = 0; k < count; ++k) dys[j][k] = uniform();
    expected.add(dys[j].get(), output.y, count);
    ConvInput dy{dys[j].get(), output.channels, output.height, output.width, {}, false};
    std::copy_n(output.stride, 4, dy.stride);
    gradients.push_back(dy);
    dws.emplace_back(new float[output.channels * row]);
    rows += output.channels;
  }
  std::vector<float> transposed(problem.columns * rows * area);
  int64_t first = 0;
  for (std::size_t j = 0; j < out_count; ++j) {
    const ConvOutput& output = problem.outputs[j];
    for (int64_t o = 0; o < output.channels; ++o)
      for (int64_t c = 0; c < problem.columns; ++c)
        for (int64_t k = 0; k < area; ++k)
          transposed[(c * rows + first + o) * area + area - 1 - k] =
              output.groups->weight[o * row + c * area + k];
    first += output.channels;
    for (int64_t i = 0; i < output.term_count; ++i) {
      ConvTerm dy{&gradients[j], Resample::none, 0, 0, 1}, x = output.terms[i];
      const int64_t step = x.input->entry_pool ? 2 : 1;
      const bool up = x.resample == Resample::bilinear_up;
      if (up) {
        dy.resample = Resample::bilinear_up_adjoint;
        x.resample = Resample::none;
      }
      x.dilation = output.groups->dilation;
      blocks.push_back({dy, x, up ? x.input->height / step : output.height,
                        up ? x.input->width / step : output.width, dws[j].get() + x.column * area,
                        row});
    }
  }
  run(LMWP_ISA::multiscale_weight_kernel(),
      WeightProblem{blocks.data(), static_cast<int64_t>(blocks.size()), 1, problem.kernel,
                    Dtype::float32});
  for (std::size_t j = 0; j < out_count; ++j) {
    const ConvOutput& output = problem.outputs[j];
    by_weight.add(dws[j].get(), output.groups->weight, output.channels * row);
  }

  std::vector<std::vector<ConvTerm>> terms(in_count);
  std::vector<ConvGroup> groups(in_count);
  std::vector<ConvOutput> outputs;
  for (std::size_t i = 0; i < in_count; ++i) {
    const ConvInput& input = inputs[i];
    int64_t column = 0;
    for (std::size_t j = 0; j < out_count; ++j) {
      const ConvTerm& term = problem.outputs[j].terms[i];
      terms[i].push_back({&gradients[j], back(term.resample), std::abs(term.steps), column,
                          problem.outputs[j].groups->dilation});
      column += problem.outputs[j].channels;
    }
    groups[i] = {transposed.data() + problem.outputs[0].terms[i].column * rows * area,
                 input.channels, 1};
    const int64_t step = input.entry_pool ? 2 : 1;
    const int64_t count = input.channels * input.height * input.width;
    dxs.emplace_back(new float[count]);
    ConvOutput output{dxs[i].get(),
                      input.channels,
                      input.height / step,
                      input.width / step,
                      {},
                      terms[i].data(),
                      static_cast<int64_t>(out_count),
                      &groups[i],
                      1,
                      {},
                      nullptr,
                      &input,
                      input.entry_pool ? input.height : 0,
                      input.entry_pool ? input.width : 0};
    std::copy_n(input.stride, 4, output.stride);
    outputs.push_back(output);
  }
  run(kernel, ConvProblem{outputs.data(), static_cast<int64_t>(in_count), 1, rows, problem.kernel,
                          Dtype::float32, problem.threads});
  for (std::size_t i = 0; i < in_count; ++i) {
    const ConvInput& input = inputs[i];
    const int64_t count = input.channels * input.height * input.width;
    by_x.add(dxs[i].get(), input.x, count);
  }
  return equal("gradient of the weight", by_weight, expected) &&
         equal("gradient of the inputs", by_x, expected);
}

struct Settings {
  std::vector<int64_t> ins, outs;  // channels by scale
  int64_t height, width;           // of scale 0
  int kernel;
  int64_t dilation, threads;
  bool entry_pool, bilinear, stages, epilogue;
};

bool check(MultiscaleConvKernel kernel, const Settings& s, bool fault) {
  const int64_t columns = s.ins[0] + (s.ins.size() > 1 ? s.ins[1] : 0), area = s.kernel * s.kernel;
  const int64_t step = s.entry_pool ? 2 : 1;
  std::vector<std::unique_ptr<float[]>> blocks;
  std::vector<ConvInput> inputs(s.ins.size());
  std::vector<Map> maps;
  for (std::size_t i = 0; i < s.ins.size(); ++i) {
    const int64_t h = s.height >> i, w = s.width >> i, count = s.ins[i] * h * w;
    const bool short_one = fault && i == 0;
    blocks.emplace_back(new float[count - short_one]);
    float* data = blocks.back().get();
    for (int64_t k = 0; k < count - short_one; ++k) data[k] = uniform();
    inputs[i] = {data, s.ins[i], h, w, {count, h * w, w, 1}, s.entry_pool};
    if (fault) continue;
    Map x = make(s.ins[i], h, w,
                 [&](int64_t c, int64_t r, int64_t q) { return data[(c * h + r) * w + q]; });
    maps.push_back(s.entry_pool ? mean(x) : x);
  }
  std::vector<std::vector<float>> keep;
  const auto parameter = [&](int64_t count) {
    keep.push_back(parameters(count));
    return static_cast<const float*>(keep.back().data());
  };
  const auto epilogue = [&](int64_t count) {
    return s.epilogue ? ConvEpilogue{parameter(count), parameter(count), parameter(count)}
                      : ConvEpilogue{};
  };
  std::vector<std::vector<ConvTerm>> terms(s.outs.size());
  std::vector<ConvGroup> groups(s.outs.size());
  std::vector<std::vector<DepthwiseStage>> stages(s.outs.size());
  std::vector<ConvOutput> outputs(s.outs.size());
  for (std::size_t j = 0; j < s.outs.size(); ++j) {
    const int64_t h = (s.height >> j) / step, w = (s.width >> j) / step, c = s.outs[j];
    for (std::size_t i = 0; i < s.ins.size(); ++i) {
      const Resample resample = i == j       ? Resample::none
                                : i > j      ? Resample::bilinear_up
                                : s.bilinear ? Resample::bilinear_down
                                             : Resample::max_pool;
      terms[j].push_back({&inputs[i], resample, static_cast<int>(j) - static_cast<int>(i),
                          i == 0 ? 0 : s.ins[0], 1});
    }
    groups[j] = {parameter(c * columns * area), c, s.dilation};
    if (s.stages) {
      for (int k = 0; k < 2; ++k) stages[j].push_back({parameter(9 * c), epilogue(c)});
    }
    blocks.emplace_back(new float[c * h * w]);
    outputs[j] = {blocks.back().get(),
                  c,
                  h,
                  w,
                  {c * h * w, h * w, w, 1},
                  terms[j].data(),
                  static_cast<int64_t>(terms[j].size()),
                  &groups[j],
                  1,
                  epilogue(c),
                  s.stages ? stages[j].data() : nullptr,
                  nullptr,
                  0,
                  0};
  }
  const ConvProblem problem{
      outputs.data(), static_cast<int64_t>(outputs.size()), 1, columns, s.kernel, Dtype::float32,
      s.threads};
  run(kernel, problem);
  if (fault) return true;

  for (std::size_t j = 0; j < s.outs.size(); ++j) {
    const ConvOutput& output = outputs[j];
    Map sum(output.channels, output.height, output.width);
    for (std::size_t i = 0; i < s.ins.size(); ++i) {
      const ConvTerm& term = terms[j][i];
      Map x = maps[i];
      if (term.resample == Resample::max_pool) x = largest(x, term.steps);
      if (term.resample == Resample::bilinear_down) x = resized(x, output.height, output.width);
      Map z = convolved(x, groups[j].weight + term.column * area, columns * area, output.channels,
                        s.kernel, s.dilation);
      if (term.resample == Resample::bilinear_up) z = resized(z, output.height, output.width);
      for (std::size_t k = 0; k < z.values.size(); ++k) sum.values[k] += z.values[k];
    }
    finish(sum, output.epilogue);
    for (const DepthwiseStage& stage : stages[j]) sum = depthwise(sum, stage);
    const float* y = static_cast<const float*>(output.y);
    for (std::size_t k = 0; k < sum.values.size(); ++k) {
      if (!(std::abs(y[k] - sum.values[k]) <= 1e-4 * (1 + std::abs(sum.values[k])))) {
        std::fprintf(
            stderr,
            "%ldx%ld k%d d%ld pool %d bilinear %d stages %d: output %zu at %zu: %g, expected %g\n",
            s.height, s.width, s.kernel, s.dilation, s.entry_pool, s.bilinear, s.stages, j, k, y[k],
            sum.values[k]);
        return false;
      }
    }
  }
  return s.stages || s.epilogue || check_gradients(kernel, problem, inputs);
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  const MultiscaleConvKernel kernel = LMWP_ISA::multiscale_conv_kernel();
  const int64_t widths[] = {4, 8, 12, 16, 20, 28, 32, 36, 60, 64, 100}, heights[] = {4, 8, 20, 36};
  int turn = 0;
  for (int64_t width : widths)
    for (int variant = 0; variant < 16; ++variant) {
      ++turn;
      Settings s{{1 + turn % 5, 1 + turn % 3},
                 {1 + turn % 11, 1 + turn % 4},
                 heights[turn % 4],
                 width,
                 variant & 1 ? 3 : 1,
                 1,
                 1 + turn % 3,
                 (variant & 2) != 0,
                 turn % 5 == 0,
                 (variant & 4) != 0,
                 (variant & 8) != 0};
      if (turn % 7 == 0) s.ins.pop_back();
      if (turn % 6 == 0) s.outs.pop_back();
      if (s.kernel == 3 && !s.stages && turn % 2) s.dilation = 1 + turn % 20;
      if (!check(kernel, s, fault)) return 1;
    }
  // A plane of several bands.
  for (bool stages : {false, true}) {
    const Settings tall{{3, 2}, {9, 2}, 600, 48, 3, 1, 4, false, false, stages, stages};
    if (!check(kernel, tall, fault)) return 1;
  }
  // Many channels on either side.
  for (int size : {1, 3}) {
    for (int64_t ins : {35, 130}) {
      const Settings wide{{ins, 3}, {165 - ins}, 12, 20, size, size, 2, false, false, false, false};
      if (!check(kernel, wide, fault)) return 1;
    }
  }
  return 0;
}
