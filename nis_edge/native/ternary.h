/* The packed ternary matrix: its layout, its bounds, and what every instruction set's kernel promises.
 *
 * A weight is -1, 0 or +1 and is stored as the code weight + 1 in two bits. Rows are padded to a multiple of 8 and
 * columns to a multiple of 64 (the padding's code is that of zero).
 *
 *   unit   16 bytes = 64 columns of one row. Byte j holds columns j, j+16, j+32, j+48 at bits 0-1, 2-3, 4-5, 6-7, so
 *          the four "planes" (byte >> 2p) & 3 are 16 columns in their natural order, and so are the activations.
 *   block  128 bytes = 8 rows x 64 columns = units of rows 0..7, two cache lines.
 *   matrix blocks in the order [row block][column group].
 *
 * Same bytes on every CPU; models/FORMAT.md is the prose. A kernel computes, for each row,
 *
 *   dot(row, a) = sum_j code_j * a_j  -  sum_j a_j        with a_j in -128..127
 *
 * which is an integer and therefore the same on every instruction set. It is exact for every byte a file can hold: the
 * code 3, which no packer writes, counts as weight +2 everywhere.
 */
#ifndef NIS_TERNARY_H
#define NIS_TERNARY_H

#include <stddef.h>
#include <stdint.h>

enum {
    NIS_BLOCK_ROWS = 8,
    NIS_GROUP_COLUMNS = 64,
    NIS_UNIT_BYTES = 16,
    NIS_BLOCK_BYTES = NIS_BLOCK_ROWS * NIS_UNIT_BYTES,
    NIS_PLANES = 4,
    NIS_PLANE_COLUMNS = NIS_UNIT_BYTES,

    /* Column groups summed in 16 bits before they must be widened; the assertions below say why 8 is safe. */
    NIS_GROUPS_PER_WIDENING = 8,

    /* The largest matrix accepted: rows of a vocabulary-sized matrix, columns bounded by the int32 sum below. */
    NIS_ROWS_MAX = 1 << 24,
    NIS_COLUMNS_MAX = 1 << 20,
};

#define NIS_CODE_MAX 3          /* two bits */
#define NIS_ACTIVATION_MAX 128  /* magnitude of int8 */

_Static_assert(NIS_UNIT_BYTES * NIS_PLANES == NIS_GROUP_COLUMNS, "a unit is one row of a column group");

/* AVX2: maddubs adds 2 products per 16-bit lane: 2 * 3 * 128 = 768. A group has 4 planes: 3072. Eight groups: 24576. */
_Static_assert(2 * NIS_CODE_MAX * NIS_ACTIVATION_MAX * NIS_PLANES * NIS_GROUPS_PER_WIDENING <= INT16_MAX,
               "16-bit sums of maddubs must not overflow between widenings");
/* NEON without SDOT: smlal adds 1 product per 16-bit lane; a unit's 64 columns fill 8 lanes, so 8 products per group:
 * 8 * 3 * 128 = 3072. Eight groups: 24576. */
_Static_assert((NIS_GROUP_COLUMNS / 8) * NIS_CODE_MAX * NIS_ACTIVATION_MAX * NIS_GROUPS_PER_WIDENING <= INT16_MAX,
               "16-bit sums of smlal must not overflow between widenings");
/* The whole row in 32 bits: 2^20 * 3 * 128 = 402,653,184, and as much again for the sum of activations. */
_Static_assert((int64_t)NIS_COLUMNS_MAX * (NIS_CODE_MAX + 1) * NIS_ACTIVATION_MAX <= INT32_MAX,
               "the 32-bit sum of the longest row must not overflow");

static inline size_t nis_row_blocks(size_t rows) { return (rows + NIS_BLOCK_ROWS - 1) / NIS_BLOCK_ROWS; }
static inline size_t nis_column_groups(size_t columns) { return (columns + NIS_GROUP_COLUMNS - 1) / NIS_GROUP_COLUMNS; }
static inline size_t nis_padded_columns(size_t columns) { return nis_column_groups(columns) * NIS_GROUP_COLUMNS; }

/* One activation vector times consecutive row blocks.
 *   packed       row_blocks * column_groups blocks
 *   activations  column_groups * 64 values, zero in the padding
 *   activation_sum  their sum
 *   sums         out, row_blocks * 8 values */
typedef void nis_gemv_t2_i8(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
                            int32_t activation_sum, int32_t *sums);

/* The same for several tokens: token t's activations at activations + t * activation_stride, its sum in
 * activation_sums[t], its result at sums + t * sums_stride. Equal to one gemv per token. */
typedef void nis_gemm_t2_i8(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
                            size_t activation_stride, const int32_t *activation_sums, size_t tokens, int32_t *sums,
                            size_t sums_stride);

nis_gemv_t2_i8 nis_gemv_t2_i8_scalar, nis_gemv_t2_i8_avx2, nis_gemv_t2_i8_avxvnni, nis_gemv_t2_i8_avx512vnni,
    nis_gemv_t2_i8_neon, nis_gemv_t2_i8_neondot;
nis_gemm_t2_i8 nis_gemm_t2_i8_scalar, nis_gemm_t2_i8_avx2, nis_gemm_t2_i8_avxvnni, nis_gemm_t2_i8_avx512vnni,
    nis_gemm_t2_i8_neon, nis_gemm_t2_i8_neondot;

#endif
