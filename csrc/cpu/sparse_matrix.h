// A pruned weight as the kernels read it, and its transpose.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "cpu/sparse_plan.h"

namespace lmwp {

constexpr int64_t kSparseSlab = 64;  // columns of a slab, see lmwp_ops' layout.py
constexpr int64_t kSparseTile = 8;   // output channels that read a pixel together

// Rows of a matrix, one for each output channel. Its columns are those input channels of a group
// that are read, numbered in the order of `channels`, tap by tap.
struct SparseMatrix {
  std::vector<int32_t> channels;
  SparseSingles singles;         // or, where it has no offsets,
  std::vector<SparseRows> rows;  // and
  std::vector<int64_t> first_row;

  // What an output channel reads: weight[k * step] times column[k].
  struct Row {
    int64_t output;
    const int32_t* column;
    const float* weight;
    int64_t count, step;
  };

  // Calls function(row) for all rows, of each slab.
  template <typename Function>
  void for_each_row(Function&& function) const {
    for (int64_t s = 0; s < (singles.offset ? singles.slabs : 0); ++s) {
      const int32_t* const offset = singles.offset + s * singles.channels;
      for (int64_t o = 0; o < singles.channels; ++o) {
        const int64_t k = offset[o];
        function(Row{o, singles.column + k, singles.weight + k, offset[o + 1] - k, 1});
      }
    }
    for (const SparseRows& row : rows) {
      for (int64_t t = 0; t < row.count; ++t) {
        function(Row{row.output[t], row.column, row.weight + t * row.output_step, row.column_count,
                     row.column_step});
      }
    }
  }

  int64_t kept() const {
    if (singles.offset) return singles.offset[singles.slabs * singles.channels];
    int64_t kept = 0;
    for (const SparseRows& row : rows) kept += row.column_count * row.count;
    return kept;
  }

  // How often input channels are read, in all.
  int64_t reads() const {
    if (singles.offset) return kept();
    int64_t reads = 0;
    for (const SparseRows& row : rows) {
      reads += row.column_count * ((row.count + kSparseTile - 1) / kSparseTile);
    }
    return reads;
  }

  void describe(SparseConvProblem& problem) const {
    problem.singles = singles;
    problem.rows = rows.data();
    problem.first_row = first_row.data();
  }
};

// Every step-th pixel of an input in either direction, from pixel `at` on. Their gradient is a
// convolution of that of the results by those taps that lead from one of these to one of those.
struct SparsePhase {
  SparsePhase(const SparseGeometry& of, std::array<int64_t, 2> at)
      : geometry{of.groups * of.group_channels,
                 of.out_channels / of.groups,
                 of.groups,
                 {},
                 {1, 1},
                 {},
                 {},
                 {of.out_size[0], of.out_size[1]},
                 {}} {
    for (int d = 0; d < 2; ++d) {
      const int64_t step = of.step[d];
      number[d].assign(of.kernel[d], -1);
      count[d] = 0;
      int64_t first = 0, last = 0, apart = 1;
      for (int64_t k = of.kernel[d]; k-- > 0;) {
        const int64_t reached = at[d] + of.padding[d] - k * of.dilation[d];
        if (reached % step != 0) continue;
        if (count[d] == 0) first = reached / step;
        if (count[d] == 1) apart = reached / step - last;
        last = reached / step;
        number[d][k] = count[d]++;
      }
      geometry.kernel[d] = std::max<int64_t>(1, count[d]);
      geometry.padding[d] = -first;
      geometry.dilation[d] = apart;
      geometry.out_size[d] = (of.size[d] - at[d] + step - 1) / step;
    }
  }

  SparseGeometry geometry;
  std::vector<int64_t> number[2];  // of each tap, by rising offset, or -1
  int64_t count[2];                // of those that have one
};

// The transposed matrix of a phase: from the output channels to the input channels.
class SparseTranspose {
 public:
  // `tile` input channels in a row of `matrix.channels` are kept for the same taps of the same
  // outputs and share their reads; with one, all are single.
  SparseTranspose(const SparseMatrix& matrix, const SparseGeometry& sizes, const SparsePhase& phase,
                  int64_t tile)
      : phase_(phase), tile_(tile), per_group_(sizes.out_channels / sizes.groups) {
    number_outputs(matrix, sizes);
    count_ = static_cast<int64_t>(matrix.channels.size());
    tiles_ = (count_ + tile - 1) / tile * sizes.groups;
    const bool in_slabs = tile == 1 && taps() == 1;
    slabs_ = in_slabs ? (per_group_ + kSparseSlab - 1) / kSparseSlab : 1;
    fill(matrix);
    for (const int32_t channel : matrix.channels) inputs_.push_back(channel);
    if (tile == 1) {
      transposed_.singles = {offset_.data(), column_.data(), weight_.data(), tiles_, slabs_};
    } else {
      make_rows(sizes);
    }
  }
  SparseTranspose(const SparseTranspose&) = delete;
  SparseTranspose& operator=(const SparseTranspose&) = delete;

  const SparseMatrix& matrix() const { return transposed_; }

 private:
  int64_t taps() const { return phase_.count[0] * phase_.count[1]; }

  // Which outputs of a group are read: all, or, in tiles of one group, those that keep something.
  void number_outputs(const SparseMatrix& matrix, const SparseGeometry& sizes) {
    const bool some = tile_ > 1 && sizes.groups == 1;
    place_.assign(sizes.out_channels, some ? -1 : 0);
    if (some) {
      matrix.for_each_row([&](const SparseMatrix::Row& row) {
        if (row.count > 0) place_[row.output] = 0;
      });
    }
    for (int64_t o = 0, next = 0; o < sizes.out_channels; ++o) {
      if (o % per_group_ == 0) next = 0;
      if (place_[o] < 0) continue;
      place_[o] = next++;
      if (o < per_group_) transposed_.channels.push_back(static_cast<int32_t>(o));
    }
  }

  // Where a column of the matrix belongs: a lane of a tile, for a tap, unless that is -1.
  struct Column {
    int32_t tile, lane, tap;
  };

  std::vector<Column> find_columns() const {
    std::vector<Column> columns;
    for (int64_t c = 0; c < count_; ++c) {
      for (const int64_t y : phase_.number[0]) {
        for (const int64_t x : phase_.number[1]) {
          const int64_t tap = y < 0 || x < 0 ? -1 : y * phase_.count[1] + x;
          columns.push_back({static_cast<int32_t>(c / tile_), static_cast<int32_t>(c % tile_),
                             static_cast<int32_t>(tap)});
        }
      }
    }
    return columns;
  }

  // The first tile of the group and the slab of an output.
  int64_t first_tile(int64_t output) const {
    const int64_t slab = slabs_ > 1 ? place_[output] / kSparseSlab : 0;
    return slab * tiles_ + output / per_group_ * ((count_ + tile_ - 1) / tile_);
  }

  // Counts, then places: columns rise within a tile because outputs do.
  void fill(const SparseMatrix& matrix) {
    const std::vector<Column> columns = find_columns();
    offset_.assign(slabs_ * tiles_ + 1, 0);
    matrix.for_each_row([&](const SparseMatrix::Row& row) {
      int32_t* const size = offset_.data() + first_tile(row.output) + 1;
      for (int64_t k = 0; k < row.count; ++k) {
        const Column& column = columns[row.column[k]];
        size[column.tile] += column.lane == 0 && column.tap >= 0;
      }
    });
    for (std::size_t i = 1; i < offset_.size(); ++i) offset_[i] += offset_[i - 1];
    column_.resize(offset_.back());
    weight_.assign(offset_.back() * tile_, 0);
    std::vector<int32_t> next(slabs_ * tiles_ * tile_);
    for (std::size_t i = 0; i < next.size(); ++i) next[i] = offset_[i / tile_];
    matrix.for_each_row([&](const SparseMatrix::Row& row) {
      int32_t* const at = next.data() + first_tile(row.output) * tile_;
      const int64_t first = place_[row.output] * taps();
      for (int64_t k = 0; k < row.count; ++k) {
        const Column& column = columns[row.column[k]];
        if (column.tap < 0) continue;
        const int64_t to = at[column.tile * tile_ + column.lane]++;
        column_[to] = static_cast<int32_t>(first + column.tap);
        weight_[to * tile_ + column.lane] = row.weight[k * row.step];
      }
    });
  }

  // A row for each tile, and one for the channels that nothing is kept of.
  void make_rows(const SparseGeometry& sizes) {
    std::vector<bool> read(sizes.group_channels, false);
    for (const int32_t channel : inputs_) read[channel] = true;
    const int64_t kept = static_cast<int64_t>(inputs_.size());
    for (int32_t c = 0; c < sizes.group_channels; ++c) {
      if (!read[c]) inputs_.push_back(c);
    }
    const int64_t pruned = static_cast<int64_t>(inputs_.size()) - kept;
    for (int64_t g = 1; g < sizes.groups; ++g) {
      for (int64_t c = 0; c < kept; ++c) {
        inputs_.push_back(static_cast<int32_t>(g * sizes.group_channels + inputs_[c]));
      }
    }
    std::vector<SparseRows>& rows = transposed_.rows;
    const int64_t tiles = tiles_ / sizes.groups;
    for (int64_t i = 0; i < tiles_; ++i) {
      if (i % tiles == 0) transposed_.first_row.push_back(static_cast<int64_t>(rows.size()));
      const int64_t first = i % tiles * tile_, begin = offset_[i];
      const int32_t* const output = inputs_.data() + i / tiles * sizes.group_channels + first;
      rows.push_back({output, std::min(tile_, count_ - first), tile_, 1,
                      weight_.data() + begin * tile_, column_.data() + begin,
                      offset_[i + 1] - begin});
    }
    if (tiles_ == 0) transposed_.first_row.push_back(0);
    if (pruned > 0) rows.push_back({inputs_.data() + kept, pruned, 0, 0, nullptr, nullptr, 0});
    transposed_.first_row.push_back(static_cast<int64_t>(rows.size()));
  }

  const SparsePhase& phase_;
  const int64_t tile_, per_group_;
  int64_t count_ = 0, tiles_ = 0, slabs_ = 1;
  std::vector<int64_t> place_;  // of each output among those of its group that are read, or -1
  std::vector<int32_t> inputs_, offset_, column_;
  std::vector<float> weight_;
  SparseMatrix transposed_{};
};

}  // namespace lmwp
