/* Ternary products with SDOT (ARMv8.2-A dot product: Cortex-A55, A76, A78AE and later).
 *
 * A unit is one register: 4 to 6 operations unpack its four planes, 4 SDOT multiply them and add into 32-bit sums, which
 * the longest row cannot overflow (ternary.h). Dispatch alone decides whether this file's code may run. */
#if defined(__aarch64__)

#include <arm_neon.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

#include "planes_neon.h"

enum { ROWS_IN_FLIGHT = 4, TILE_TOKENS = 4, TILE_ROWS = 2 };

/* A 32-bit lane gathers 4 products per plane and group; unshifted codes are at most 48. */
_Static_assert((int64_t)(NIS_COLUMNS_MAX / NIS_GROUP_COLUMNS) * 4 * 48 * NIS_ACTIVATION_MAX <= INT32_MAX,
               "the unshifted sums of the longest row must not overflow");

ALWAYS_INLINE int32x4_t add_products(int32x4_t sum_i32x4, planes codes, planes activations) {
#pragma GCC unroll 4
    for (size_t p = 0; p < NIS_PLANES; p++) sum_i32x4 = vdotq_s32(sum_i32x4, codes.plane[p], activations.plane[p]);
    return sum_i32x4;
}

ALWAYS_INLINE int32x4_t sum_of_each(const int32x4_t row_i32x4[4]) {
    return vpaddq_s32(vpaddq_s32(row_i32x4[0], row_i32x4[1]), vpaddq_s32(row_i32x4[2], row_i32x4[3]));
}

/* Four rows of one block times one vector; `bytes` points at the first of the four units. Codes at bits 2-3 and 4-5 stay
 * where they are, 4 and 16 times as large, and have sums of their own: 4 operations to unpack instead of 6. */
ALWAYS_INLINE int32x4_t rows_times_vector(const uint8_t *bytes, size_t column_groups, const int8_t *activations) {
    const uint8x16_t mask1 = vdupq_n_u8(0x03), mask4 = vdupq_n_u8(0x0c), mask16 = vdupq_n_u8(0x30);
    int32x4_t ones[ROWS_IN_FLIGHT], fours[ROWS_IN_FLIGHT], sixteens[ROWS_IN_FLIGHT];
#pragma GCC unroll 4
    for (size_t row = 0; row < ROWS_IN_FLIGHT; row++) ones[row] = fours[row] = sixteens[row] = vdupq_n_s32(0);
    for (size_t group = 0; group < column_groups; group++) {
        const planes columns = load_planes(activations + group * NIS_GROUP_COLUMNS);
#pragma GCC unroll 4
        for (size_t row = 0; row < ROWS_IN_FLIGHT; row++) {
            const uint8x16_t unit = vld1q_u8(bytes + group * NIS_BLOCK_BYTES + row * NIS_UNIT_BYTES);
            ones[row] = vdotq_s32(ones[row], vreinterpretq_s8_u8(vandq_u8(unit, mask1)), columns.plane[0]);
            fours[row] = vdotq_s32(fours[row], vreinterpretq_s8_u8(vandq_u8(unit, mask4)), columns.plane[1]);
            sixteens[row] = vdotq_s32(sixteens[row], vreinterpretq_s8_u8(vandq_u8(unit, mask16)), columns.plane[2]);
            ones[row] = vdotq_s32(ones[row], vreinterpretq_s8_u8(vshrq_n_u8(unit, 6)), columns.plane[3]);
        }
    }
#pragma GCC unroll 4
    for (size_t row = 0; row < ROWS_IN_FLIGHT; row++) {
        ones[row] = vaddq_s32(vsraq_n_s32(ones[row], fours[row], 2), vshrq_n_s32(sixteens[row], 4));
    }
    return sum_of_each(ones);
}

void nis_gemv_t2_i8_neondot(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
                            int32_t activation_sum, int32_t *sums) {
    const int32x4_t correction = vdupq_n_s32(activation_sum);
    for (size_t block = 0; block < row_blocks; block++) {
        const uint8_t *bytes = packed + block * column_groups * NIS_BLOCK_BYTES;
        for (size_t row = 0; row < NIS_BLOCK_ROWS; row += ROWS_IN_FLIGHT) {
            const int32x4_t rows = rows_times_vector(bytes + row * NIS_UNIT_BYTES, column_groups, activations);
            vst1q_s32(sums + block * NIS_BLOCK_ROWS + row, vsubq_s32(rows, correction));
        }
    }
}

/* Two rows times four vectors: 8 sums, 8 planes of codes and 4 of activations fit the 32 registers. */
ALWAYS_INLINE void rows_times_tile(const uint8_t *bytes, size_t column_groups, const int8_t *activations,
                                   size_t activation_stride, const int32_t *activation_sums, int32_t *sums,
                                   size_t sums_stride) {
    int32x4_t sum_i32x4[TILE_ROWS][TILE_TOKENS];
#pragma GCC unroll 4
    for (size_t t = 0; t < TILE_TOKENS; t++) sum_i32x4[0][t] = sum_i32x4[1][t] = vdupq_n_s32(0);
    for (size_t group = 0; group < column_groups; group++) {
        const planes codes0 = unpack_unit(bytes + group * NIS_BLOCK_BYTES);
        const planes codes1 = unpack_unit(bytes + group * NIS_BLOCK_BYTES + NIS_UNIT_BYTES);
#pragma GCC unroll 4
        for (size_t t = 0; t < TILE_TOKENS; t++) {
            const planes columns = load_planes(activations + t * activation_stride + group * NIS_GROUP_COLUMNS);
            sum_i32x4[0][t] = add_products(sum_i32x4[0][t], codes0, columns);
            sum_i32x4[1][t] = add_products(sum_i32x4[1][t], codes1, columns);
        }
    }
    for (size_t t = 0; t < TILE_TOKENS; t++) {
        sums[t * sums_stride] = vaddvq_s32(sum_i32x4[0][t]) - activation_sums[t];
        sums[t * sums_stride + 1] = vaddvq_s32(sum_i32x4[1][t]) - activation_sums[t];
    }
}

void nis_gemm_t2_i8_neondot(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
                            size_t activation_stride, const int32_t *activation_sums, size_t tokens, int32_t *sums,
                            size_t sums_stride) {
    size_t token = 0;
    for (; token + TILE_TOKENS <= tokens; token += TILE_TOKENS) {
        for (size_t row = 0; row < row_blocks * NIS_BLOCK_ROWS; row += TILE_ROWS) {
            const uint8_t *bytes = packed + (row / NIS_BLOCK_ROWS) * column_groups * NIS_BLOCK_BYTES +
                                   (row % NIS_BLOCK_ROWS) * NIS_UNIT_BYTES;
            rows_times_tile(bytes, column_groups, activations + token * activation_stride, activation_stride,
                            activation_sums + token, sums + token * sums_stride + row, sums_stride);
        }
    }
    for (; token < tokens; token++) {
        nis_gemv_t2_i8_neondot(packed, row_blocks, column_groups, activations + token * activation_stride,
                               activation_sums[token], sums + token * sums_stride);
    }
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nis_ternary_neondot_is_for_aarch64;
#endif
