// Tiles of a convolution by a pruned weight, and what they read, in float32 planes.
// Compiled once per instruction set: every name lives in the namespace of that set.
#pragma once

#include "cpu/rows.h"
#include "cpu/sparse_conv2d.h"

namespace lmwp::LMWP_ISA {

// Some output pixels of one image.
struct SparseTile {
  int64_t image, row, column, rows, columns;
};

static inline int64_t tile_columns(const SparseConvProblem& p) {
  return ceil_div(p.out_width, p.tiling.columns);
}

// Of one image.
static inline int64_t tile_count(const SparseConvProblem& p) {
  return ceil_div(p.out_height, p.tiling.rows) * tile_columns(p);
}

// Tile `index` of those of all images.
static inline SparseTile tile_at(const SparseConvProblem& p, int64_t index) {
  const int64_t tiles = tile_count(p), across = tile_columns(p);
  const int64_t row = index % tiles / across * p.tiling.rows;
  const int64_t column = index % across * p.tiling.columns;
  return {index / tiles, row, column, min(p.tiling.rows, p.out_height - row),
          min(p.tiling.columns, p.out_width - column)};
}

// Vectors that cover the pixels of a plane's rows and what lies between them.
static inline int64_t tile_vectors(const SparseConvProblem& p, const SparseTile& tile) {
  return ceil_div((tile.rows - 1) * p.tiling.pitch + tile.columns, kLanes);
}

static inline void clear_columns(float* row, int64_t begin, int64_t end) {
  if (begin < end) __builtin_memset(row + begin, 0, (end - begin) * sizeof(float));
}

// Columns [begin, end) of a plane of a tile are in the map, those around them are padding.
struct PlaneColumns {
  PlaneColumns(const SparseConvProblem& p, const SparseTile& tile, const SparsePlane& plane)
      : width(tile.columns + (p.tiling.pitch - p.tiling.columns)),
        of_first(plane.column + tile.column * p.step[1]),
        step(p.step[1]),
        begin(min(ceil_div(max(0, -of_first), step), width)),
        end(max(begin, min(width, of_first < p.width ? ceil_div(p.width - of_first, step) : 0))) {}

  // Of the map, for one of the plane.
  int64_t of_map(int64_t column) const { return of_first + column * step; }

  const int64_t width, of_first, step, begin, end;
};

// A plane of a tile, of a group whose input channels begin at `channel`.
template <typename T>
static inline void load_plane(const SparseConvProblem& p, const SparseTile& tile, int64_t channel,
                              const SparsePlane& plane, float* to) {
  const T* const x = static_cast<const T*>(p.x) + tile.image * p.x_stride[0] +
                     (channel + plane.channel) * p.x_stride[1];
  const PlaneColumns columns(p, tile, plane);
  const int64_t width = columns.width, begin = columns.begin, end = columns.end;
  for (int64_t i = 0; i < tile.rows + p.tiling.halo; ++i, to += p.tiling.pitch) {
    const int64_t h = plane.row + (tile.row + i) * p.step[0];
    if (h < 0 || h >= p.height || begin == end) {
      clear_columns(to, 0, width);
      continue;
    }
    const T* const row = x + h * p.x_stride[2];
    read_row(row + columns.of_map(begin) * p.x_stride[3], columns.step * p.x_stride[3], end - begin,
             row + (p.width - 1) * p.x_stride[3] + 1, to + begin);
    clear_columns(to, 0, begin);
    clear_columns(to, end, width);
  }
}

}  // namespace lmwp::LMWP_ISA
