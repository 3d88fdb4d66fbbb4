// Runs the multi-scale convolution of one instruction set over small problems, each tensor in a
// heap block of exactly its size, and compares with loops in double. Prints nothing and returns 0
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

#include "cpu/multiscale_conv.h"

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
    inputs[i] = {data, s.ins[i], h, w, {count, h * w, w, 1}};
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
      terms[j].push_back(
          {&inputs[i], resample, static_cast<int>(j) - static_cast<int>(i), i == 0 ? 0 : s.ins[0]});
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
                  s.stages ? stages[j].data() : nullptr};
  }
  const ConvProblem problem{outputs.data(),
                            static_cast<int64_t>(outputs.size()),
                            1,
                            columns,
                            s.kernel,
                            s.entry_pool,
                            Dtype::float32,
                            s.threads};
  std::unique_ptr<float[]> packed(new float[kernel.packed_floats(problem)]);
  kernel.pack(problem, packed.get());
  std::unique_ptr<float[]> scratch(new float[kernel.scratch_floats(problem)]);
  // Task by task, last first: a task must not lean on another's scratch or order.
  for (int64_t task = kernel.task_count(problem) - 1; task >= 0; --task) {
    std::fill_n(scratch.get(), kernel.scratch_floats(problem), NAN);
    kernel.run(problem, packed.get(), task, task + 1, scratch.get());
  }
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
  return true;
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
  const Settings tall{{3, 2}, {9, 2}, 600, 48, 3, 1, 4, false, false, true, true};
  return check(kernel, tall, fault) ? 0 : 1;
}
