// Finding the kept blocks of a pruned weight, and checking those of a stored one.
#pragma once

#include <cstdint>
#include <vector>

namespace lmwp {

// Where the kept blocks of a matrix are: slab of columns by slab, in each row of blocks by row.
struct BlockIndices {
  std::vector<int32_t> offsets, columns;
};

// The kept blocks, of rows x columns, of the mask [height, width] in slabs of `slab` columns. Rows
// that the last blocks lack are ignored. Throws std::invalid_argument where a block is kept in part
// or does not divide the width.
BlockIndices pack_blocks(const bool* mask, int64_t height, int64_t width, int64_t rows,
                         int64_t columns, int64_t slab);

// Throws std::invalid_argument unless these are the blocks of a matrix of `block_rows` rows and
// `block_columns` columns of blocks, `slab` of these in a slab: offsets that rise from 0 to the
// number of columns, and in each row columns that rise strictly and are of its slab.
void check_blocks(const int32_t* offsets, int64_t offset_count, const int32_t* columns,
                  int64_t column_count, int64_t block_rows, int64_t block_columns, int64_t slab);

// Throws std::invalid_argument unless the indices rise strictly from `begin` or more to below
// `end`.
void check_rising(const int32_t* indices, int64_t count, int64_t begin, int64_t end);

}  // namespace lmwp
