/* The truth about ternary products: readable, one column at a time, compiled without the auto-vectoriser. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-vectorize")
#endif

#include "ternary.h"

static int32_t unit_dot(const uint8_t *unit, const int8_t *activations) {
    int32_t sum = 0;
    for (size_t plane = 0; plane < NIS_PLANES; plane++) {
        for (size_t j = 0; j < NIS_PLANE_COLUMNS; j++) {
            const int32_t code = (unit[j] >> (2 * plane)) & 3;
            sum += code * activations[plane * NIS_PLANE_COLUMNS + j];
        }
    }
    return sum;
}

void nis_gemv_t2_i8_scalar(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
                           int32_t activation_sum, int32_t *sums) {
    for (size_t block = 0; block < row_blocks; block++) {
        for (size_t row = 0; row < NIS_BLOCK_ROWS; row++) {
            const uint8_t *unit = packed + block * column_groups * NIS_BLOCK_BYTES + row * NIS_UNIT_BYTES;
            int32_t sum = -activation_sum;
            for (size_t group = 0; group < column_groups; group++) {
                sum += unit_dot(unit + group * NIS_BLOCK_BYTES, activations + group * NIS_GROUP_COLUMNS);
            }
            sums[block * NIS_BLOCK_ROWS + row] = sum;
        }
    }
}

void nis_gemm_t2_i8_scalar(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
                           size_t activation_stride, const int32_t *activation_sums, size_t tokens, int32_t *sums,
                           size_t sums_stride) {
    for (size_t token = 0; token < tokens; token++) {
        nis_gemv_t2_i8_scalar(packed, row_blocks, column_groups, activations + token * activation_stride,
                              activation_sums[token], sums + token * sums_stride);
    }
}
