#include "host/sparse_pack.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace lmwp {
namespace {

[[noreturn]] void fail(const std::string& text) { throw std::invalid_argument(text); }

// Whether rows [top, bottom) of a block are kept; all of them or none.
bool is_kept(const bool* mask, int64_t width, int64_t top, int64_t bottom, int64_t left,
             int64_t columns) {
  int64_t kept = 0;
  for (int64_t r = top; r < bottom; ++r) {
    const bool* const row = mask + r * width + left;
    kept += std::count(row, row + columns, true);
  }
  if (kept == 0) return false;
  if (kept < (bottom - top) * columns) {
    fail("the block at (" + std::to_string(top) + ", " + std::to_string(left) +
         ") is kept in part");
  }
  return true;
}

}  // namespace

BlockIndices pack_blocks(const bool* mask, int64_t height, int64_t width, int64_t rows,
                         int64_t columns, int64_t slab) {
  if (rows < 1 || columns < 1 || width % columns != 0) {
    fail("blocks of " + std::to_string(rows) + " x " + std::to_string(columns) + " do not divide " +
         std::to_string(width) + " columns");
  }
  if (slab < 1 || slab % columns != 0) fail("blocks do not divide the slabs");
  if (height * width > std::numeric_limits<int32_t>::max()) fail("the weight has 2^31 elements");
  BlockIndices found{{0}, {}};
  for (int64_t begin = 0; begin < width; begin += slab) {
    for (int64_t top = 0; top < height; top += rows) {
      const int64_t bottom = std::min(top + rows, height), end = std::min(begin + slab, width);
      for (int64_t left = begin; left < end; left += columns) {
        if (is_kept(mask, width, top, bottom, left, columns)) {
          found.columns.push_back(static_cast<int32_t>(left / columns));
        }
      }
      found.offsets.push_back(static_cast<int32_t>(found.columns.size()));
    }
  }
  return found;
}

void check_blocks(const int32_t* offsets, int64_t offset_count, const int32_t* columns,
                  int64_t column_count, int64_t block_rows, int64_t block_columns, int64_t slab) {
  if (block_rows < 1 || slab < 1) fail("there are no rows or slabs");
  const int64_t rows = (block_columns + slab - 1) / slab * block_rows;
  if (offset_count != rows + 1) {
    fail("there are " + std::to_string(offset_count) + " offsets instead of " +
         std::to_string(rows + 1));
  }
  if (offsets[0] != 0 || offsets[rows] != column_count) {
    fail("the offsets do not span the " + std::to_string(column_count) + " columns");
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (offsets[r + 1] < offsets[r] || offsets[r + 1] > column_count) {
      fail("the offsets of row " + std::to_string(r) + " fall");
    }
    const int64_t begin = r / block_rows * slab;
    check_rising(columns + offsets[r], offsets[r + 1] - offsets[r], begin,
                 std::min(begin + slab, block_columns));
  }
}

void check_rising(const int32_t* indices, int64_t count, int64_t begin, int64_t end) {
  for (int64_t i = 0; i < count; ++i) {
    if (indices[i] < begin || indices[i] >= end) {
      fail("index " + std::to_string(indices[i]) + " is out of order or out of range");
    }
    begin = int64_t{indices[i]} + 1;
  }
}

}  // namespace lmwp
