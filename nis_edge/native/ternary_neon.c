/* Ternary products with plain ARMv8-A Advanced SIMD (Cortex-A53, A72): widening multiply-adds, no SDOT.
 *
 * A unit is one register: 6 operations unpack its four planes, 8 smlal multiply and add them into 16-bit sums, which
 * stay exact for NIS_GROUPS_PER_WIDENING groups (ternary.h proves the bound); sadalp then widens them to 32 bits. */
#if defined(__aarch64__)

#include "planes_neon.h"

enum { ROWS_IN_FLIGHT = 4, TILE_TOKENS = 4 };

ALWAYS_INLINE int16x8_t add_products(int16x8_t sum_i16x8, planes codes, planes activations) {
#pragma GCC unroll 4
    for (size_t p = 0; p < NIS_PLANES; p++) {
        sum_i16x8 = vmlal_s8(sum_i16x8, vget_low_s8(codes.plane[p]), vget_low_s8(activations.plane[p]));
        sum_i16x8 = vmlal_high_s8(sum_i16x8, codes.plane[p], activations.plane[p]);
    }
    return sum_i16x8;
}

/* Four rows of one block times one vector; `bytes` points at the first of the four units. */
ALWAYS_INLINE void rows_times_vector(const uint8_t *bytes, size_t column_groups, const int8_t *activations,
                                     int32_t activation_sum, int32_t *sums) {
    int32x4_t row_i32x4[ROWS_IN_FLIGHT] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (size_t first = 0; first < column_groups; first += NIS_GROUPS_PER_WIDENING) {
        const size_t left = column_groups - first;
        const size_t count = left < NIS_GROUPS_PER_WIDENING ? left : NIS_GROUPS_PER_WIDENING;
        int16x8_t sum_i16x8[ROWS_IN_FLIGHT] = {vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0)};
        for (size_t group = first; group < first + count; group++) {
            const planes columns = load_planes(activations + group * NIS_GROUP_COLUMNS);
#pragma GCC unroll 4
            for (size_t row = 0; row < ROWS_IN_FLIGHT; row++) {
                const planes codes = unpack_unit(bytes + group * NIS_BLOCK_BYTES + row * NIS_UNIT_BYTES);
                sum_i16x8[row] = add_products(sum_i16x8[row], codes, columns);
            }
        }
#pragma GCC unroll 4
        for (size_t row = 0; row < ROWS_IN_FLIGHT; row++) {
            row_i32x4[row] = vpadalq_s16(row_i32x4[row], sum_i16x8[row]);
        }
    }
    const int32x4_t rows = vpaddq_s32(vpaddq_s32(row_i32x4[0], row_i32x4[1]), vpaddq_s32(row_i32x4[2], row_i32x4[3]));
    vst1q_s32(sums, vsubq_s32(rows, vdupq_n_s32(activation_sum)));
}

void nis_gemv_t2_i8_neon(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
                         int32_t activation_sum, int32_t *sums) {
    for (size_t block = 0; block < row_blocks; block++) {
        const uint8_t *bytes = packed + block * column_groups * NIS_BLOCK_BYTES;
        for (size_t row = 0; row < NIS_BLOCK_ROWS; row += ROWS_IN_FLIGHT) {
            rows_times_vector(bytes + row * NIS_UNIT_BYTES, column_groups, activations, activation_sum,
                              sums + block * NIS_BLOCK_ROWS + row);
        }
    }
}

/* One row times four vectors: its codes are unpacked once and meet all four. */
ALWAYS_INLINE void row_times_tile(const uint8_t *bytes, size_t column_groups, const int8_t *activations,
                                  size_t activation_stride, const int32_t *activation_sums, int32_t *sums,
                                  size_t sums_stride) {
    int32x4_t token_i32x4[TILE_TOKENS] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
    for (size_t first = 0; first < column_groups; first += NIS_GROUPS_PER_WIDENING) {
        const size_t left = column_groups - first;
        const size_t count = left < NIS_GROUPS_PER_WIDENING ? left : NIS_GROUPS_PER_WIDENING;
        int16x8_t sum_i16x8[TILE_TOKENS] = {vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0)};
        for (size_t group = first; group < first + count; group++) {
            const planes codes = unpack_unit(bytes + group * NIS_BLOCK_BYTES);
#pragma GCC unroll 4
            for (size_t t = 0; t < TILE_TOKENS; t++) {
                const int8_t *columns = activations + t * activation_stride + group * NIS_GROUP_COLUMNS;
                sum_i16x8[t] = add_products(sum_i16x8[t], codes, load_planes(columns));
            }
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < TILE_TOKENS; t++) token_i32x4[t] = vpadalq_s16(token_i32x4[t], sum_i16x8[t]);
    }
    for (size_t t = 0; t < TILE_TOKENS; t++) sums[t * sums_stride] = vaddvq_s32(token_i32x4[t]) - activation_sums[t];
}

void nis_gemm_t2_i8_neon(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
                         size_t activation_stride, const int32_t *activation_sums, size_t tokens, int32_t *sums,
                         size_t sums_stride) {
    size_t token = 0;
    for (; token + TILE_TOKENS <= tokens; token += TILE_TOKENS) {
        for (size_t row = 0; row < row_blocks * NIS_BLOCK_ROWS; row++) {
            const uint8_t *bytes = packed + (row / NIS_BLOCK_ROWS) * column_groups * NIS_BLOCK_BYTES +
                                   (row % NIS_BLOCK_ROWS) * NIS_UNIT_BYTES;
            row_times_tile(bytes, column_groups, activations + token * activation_stride, activation_stride,
                           activation_sums + token, sums + token * sums_stride + row, sums_stride);
        }
    }
    for (; token < tokens; token++) {
        nis_gemv_t2_i8_neon(packed, row_blocks, column_groups, activations + token * activation_stride,
                            activation_sums[token], sums + token * sums_stride);
    }
}

#else
typedef int nis_ternary_neon_is_for_aarch64;
#endif
