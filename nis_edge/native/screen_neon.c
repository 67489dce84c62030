/* The screen's planes with plain ARMv8-A Advanced SIMD: widening multiply-adds in 16 bits for 128 columns. */
#if defined(__aarch64__)

#include <arm_neon.h>

#include "screen.h"

static void nibbles(const uint8_t *codes, size_t rows, size_t groups, const int8_t *activations, int32_t *dots) {
    const uint8x16_t low_half = vdupq_n_u8(15);
    for (size_t row = 0; row < rows; row++, codes += groups * NIS_SCREEN_NIBBLE_BYTES) {
        int32x4_t sum_i32x4 = vdupq_n_s32(0);
        for (size_t half = 0; half < 2 * groups; half++) { /* 64 bytes, 128 columns */
            int16x8_t sum_i16x8 = vdupq_n_s16(0), other_i16x8 = vdupq_n_s16(0);
#pragma GCC unroll 4
            for (size_t part = 0; part < 4; part++) {
                const uint8x16_t c = vld1q_u8(codes + half * 64 + part * 16);
                const int8_t *a = activations + half * 128 + part * 16;
                const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(c, low_half));
                const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(c, 4));
                const int8x16_t a_low = vld1q_s8(a), a_high = vld1q_s8(a + 64);
                sum_i16x8 = vmlal_s8(sum_i16x8, vget_low_s8(low), vget_low_s8(a_low));
                other_i16x8 = vmlal_high_s8(other_i16x8, low, a_low);
                sum_i16x8 = vmlal_s8(sum_i16x8, vget_low_s8(high), vget_low_s8(a_high));
                other_i16x8 = vmlal_high_s8(other_i16x8, high, a_high);
            }
            sum_i32x4 = vpadalq_s16(vpadalq_s16(sum_i32x4, sum_i16x8), other_i16x8);
        }
        dots[row] = vaddvq_s32(sum_i32x4);
    }
}

static int32_t bits(const uint8_t *bits, size_t groups, const int8_t *activations) {
    const uint8x16_t one = vdupq_n_u8(1);
    int32x4_t sum_i32x4 = vdupq_n_s32(0);
    for (size_t half = 0; half < 2 * groups; half++) { /* 16 bytes: columns j and every 32nd after it */
        uint8x16_t b = vld1q_u8(bits + half * 16);
        const int8_t *a = activations + half / 2 * NIS_SCREEN_GROUP_COLUMNS + half % 2 * 16;
        int16x8_t sum_i16x8 = vdupq_n_s16(0), other_i16x8 = vdupq_n_s16(0);
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++, b = vshrq_n_u8(b, 1)) {
            const int8x16_t c = vreinterpretq_s8_u8(vandq_u8(b, one)), column = vld1q_s8(a + 32 * k);
            sum_i16x8 = vmlal_s8(sum_i16x8, vget_low_s8(c), vget_low_s8(column));
            other_i16x8 = vmlal_high_s8(other_i16x8, c, column);
        }
        sum_i32x4 = vpadalq_s16(vpadalq_s16(sum_i32x4, sum_i16x8), other_i16x8);
    }
    return vaddvq_s32(sum_i32x4);
}

const nis_screen_kernels nis_screen_neon = {nibbles, bits};

#else
typedef int nis_screen_neon_is_for_aarch64;
#endif
