// Runs the guided fusion of one instruction set over small problems, each tensor and all scratch in
// heap blocks of exactly their sizes, and compares with loops in double. Prints nothing and returns
// 0 if all is well. With "fault" as argument the last element of the decoder feature is missing: a
// sanitizer must stop it.
#include <cmath>
#include <cstdio>
#include <string>

#include "cpu/guided_fusion.h"
#include "planes.h"

namespace {

using lmwp::Dtype;

struct Setting {
  int64_t batch, encoder, decoder, channels, out;
  int64_t rows, columns, low_rows, low_columns;
  std::vector<int64_t> dilations;
  Dtype dtype;
  int64_t threads;
  bool side_by_side;  // the channels of a pixel

  int64_t pixels() const { return rows * columns; }
  int64_t low_pixels() const { return low_rows * low_columns; }
  int64_t branches() const { return static_cast<int64_t>(dilations.size()); }
};

// weight, scale and shift of a layer.
struct Layer {
  Layer(int64_t out, int64_t in)
      : weight(draw(out * in, 0.25)), scale(draw(out)), shift(draw(out)) {}
  Values weight, scale, shift;
};

struct Arguments {
  explicit Arguments(const Setting& s)
      : encoder(draw(s.batch * s.encoder * s.pixels())),
        decoder(draw(s.batch * s.decoder * s.low_pixels())),
        encode(s.channels, s.encoder),
        decode(s.channels, s.decoder),
        fuse(s.out, s.channels),
        slope(draw(s.out, 0.25)),
        guide(draw(s.decoder, 0.25)),
        guide_bias(draw(1)),
        gate(draw(s.batch * s.channels)),
        weights(draw(s.branches() * s.channels * 9, 0.25)),
        scale(draw(s.branches() * s.channels)),
        shift(draw(s.branches() * s.channels)) {}

  Values encoder, decoder;
  Layer encode, decode, fuse;
  Values slope, guide, guide_bias, gate, weights, scale, shift;
};

// A layer of planes [in, pixels].
Values applied(const Layer& layer, int64_t out, int64_t in, const double* x, int64_t pixels) {
  Values y(out * pixels);
  for (int64_t c = 0; c < out; ++c)
    for (int64_t i = 0; i < pixels; ++i) {
      double z = 0;
      for (int64_t k = 0; k < in; ++k) z += layer.weight[c * in + k] * x[k * pixels + i];
      y[c * pixels + i] = layer.scale[c] * z + layer.shift[c];
    }
  return y;
}

Values truth(const Setting& s, const Arguments& a, int64_t image) {
  const int64_t P = s.pixels(), Q = s.low_pixels();
  const double* const decoder = a.decoder.data() + image * s.decoder * Q;
  Values f = applied(a.encode, s.channels, s.encoder, a.encoder.data() + image * s.encoder * P, P);
  const Values coarse = applied(a.decode, s.channels, s.decoder, decoder, Q);
  Values guides(Q, a.guide_bias[0]);
  for (int64_t i = 0; i < Q; ++i) {
    for (int64_t c = 0; c < s.decoder; ++c) guides[i] += a.guide[c] * decoder[c * Q + i];
    guides[i] = 1 / (1 + std::exp(-guides[i]));
  }
  const auto up = [&](const double* plane, int64_t i) {
    return resized(plane, s.low_rows, s.low_columns, i / s.columns, i % s.columns, s.rows,
                   s.columns);
  };
  Values sum(s.channels * P);
  for (int64_t c = 0; c < s.channels; ++c) {
    double* const plane = f.data() + c * P;
    for (int64_t i = 0; i < P; ++i) {
      plane[i] = plane[i] * (1 + up(guides.data(), i)) +
                 up(coarse.data() + c * Q, i) * a.gate[image * s.channels + c];
      sum[c * P + i] = plane[i];
    }
    for (int64_t k = 0; k < s.branches(); ++k) {
      const int64_t entry = k * s.channels + c;
      const Values z =
          convolved(plane, s.rows, s.columns, a.weights.data() + 9 * entry, s.dilations[k]);
      for (int64_t i = 0; i < P; ++i) sum[c * P + i] += a.scale[entry] * z[i] + a.shift[entry];
    }
  }
  Values out = applied(a.fuse, s.out, s.channels, sum.data(), P);
  for (int64_t i = 0; i < s.out * P; ++i) out[i] = prelu(out[i], a.slope[i / P]);
  return out;
}

bool check(const Setting& s, bool one_by_one, bool fault) {
  const Arguments a(s);
  const Planes encoder(a.encoder, s.dtype, s.encoder, s.pixels(), 0, s.side_by_side);
  const Planes decoder(a.decoder, s.dtype, s.decoder, s.low_pixels(), fault, s.side_by_side);
  const Planes out(Values(s.batch * s.out * s.pixels()), s.dtype, s.out, s.pixels(), 0,
                   s.side_by_side);
  const Parameter encode(a.encode.weight), encode_scale(a.encode.scale),
      encode_shift(a.encode.shift), decode(a.decode.weight), decode_scale(a.decode.scale),
      decode_shift(a.decode.shift), fuse(a.fuse.weight), fuse_scale(a.fuse.scale),
      fuse_shift(a.fuse.shift), slope(a.slope), guide(a.guide), guide_bias(a.guide_bias),
      gate(a.gate), weights(a.weights), scale(a.scale), shift(a.shift);

  lmwp::GuidedFusionProblem p{};
  p.dtype = s.dtype;
  p.batch = s.batch;
  p.rows = s.rows;
  p.columns = s.columns;
  p.low_rows = s.low_rows;
  p.low_columns = s.low_columns;
  p.encoder = {s.encoder, s.channels, encode, encode_scale, encode_shift, nullptr};
  p.decoder = {s.decoder, s.channels, decode, decode_scale, decode_shift, nullptr};
  p.fuse = {s.channels, s.out, fuse, fuse_scale, fuse_shift, slope};
  p.guide = guide;
  p.guide_bias = guide_bias;
  p.gate = gate;
  p.branches = s.branches();
  p.dilations = s.dilations.data();
  p.weights = weights;
  p.scale = scale;
  p.shift = shift;
  p.from_encoder = encoder.view;
  p.from_decoder = decoder.view;
  p.out = out.view;
  p.threads = s.threads;
  run(lmwp::LMWP_ISA::guided_fusion_kernels()[static_cast<int>(s.dtype)], p, one_by_one);

  const double tolerance = s.dtype == Dtype::float32 ? 1e-3 : 2e-2;
  for (int64_t image = 0; image < s.batch; ++image) {
    const Values expected = truth(s, a, image);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double got = out.at(image * static_cast<int64_t>(expected.size()) + i);
      if (std::abs(got - expected[i]) <= tolerance * (1 + std::abs(expected[i]))) continue;
      std::fprintf(stderr, "dtype %d %ldx%ldx%ld from %ldx%ld: %zu is %g, expected %g\n",
                   static_cast<int>(s.dtype), s.channels, s.rows, s.columns, s.low_rows,
                   s.low_columns, i, got, expected[i]);
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const bool fault = argc > 1 && std::string(argv[1]) == "fault";
  const std::vector<std::vector<int64_t>> kinds = {{1, 2}, {3}, {1, 40, 2}, {2, 2, 1, 5}};
  int64_t turn = 0;
  for (Dtype dtype : {Dtype::float32, Dtype::float16, Dtype::bfloat16})
    for (int64_t columns : {1, 2, 5, 11, 13, 16, 17, 33, 51}) {
      ++turn;
      const int64_t rows = 1 + turn % 9;
      const bool halves = turn % 3 != 0;
      const Setting s{1 + turn % 2,
                      1 + 5 * turn % 37,
                      1 + 3 * turn % 21,
                      1 + 7 * turn % 45,
                      1 + 2 * turn % 35,
                      rows,
                      columns,
                      halves ? (rows + 1) / 2 : 1 + turn % 7,
                      halves ? (columns + 1) / 2 : 1 + turn % 11,
                      kinds[turn % kinds.size()],
                      dtype,
                      1 + turn % 3,
                      turn % 4 < 2};
      if (!check(s, turn % 2, fault)) return 1;
    }
  // More than one band of rows, and more than one part of the decoder feature.
  const Setting tall{1, 18, 9, 33, 17, 44, 60, 22, 30, kinds[0], Dtype::float32, 4, true};
  return check(tall, true, fault) ? 0 : 1;
}
