/* The screen's planes with SDOT (ARMv8.2-A dot product). */
#if defined(__aarch64__)

#include <arm_neon.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

#include "screen.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { ROWS_IN_FLIGHT = 4 };

/* `count` rows (a compile-time constant) meet the same activations. */
ALWAYS_INLINE void rows_in_flight(const uint8_t *codes, size_t groups, const int8_t *activations, int32_t *dots,
                                  const size_t count) {
    const uint8x16_t low_half = vdupq_n_u8(15);
    const size_t row_bytes = groups * NIS_SCREEN_NIBBLE_BYTES;
    int32x4_t sum_i32x4[ROWS_IN_FLIGHT];
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) sum_i32x4[r] = vdupq_n_s32(0);
    for (size_t at = 0; at < row_bytes; at += 16) {
        const int8_t *a = activations + at / 64 * 128 + at % 64;
        const int8x16_t low = vld1q_s8(a), high = vld1q_s8(a + 64);
#pragma GCC unroll 4
        for (size_t r = 0; r < count; r++) {
            const uint8x16_t c = vld1q_u8(codes + r * row_bytes + at);
            sum_i32x4[r] = vdotq_s32(sum_i32x4[r], vreinterpretq_s8_u8(vandq_u8(c, low_half)), low);
            sum_i32x4[r] = vdotq_s32(sum_i32x4[r], vreinterpretq_s8_u8(vshrq_n_u8(c, 4)), high);
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) dots[r] = vaddvq_s32(sum_i32x4[r]);
}

#include "screen_rows.h"

static int32_t bits(const uint8_t *bits, size_t groups, const int8_t *activations) {
    const uint8x16_t one = vdupq_n_u8(1);
    int32x4_t sum_i32x4[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
    for (size_t group = 0; group < groups; group++) {
        uint8x16_t b[2] = {vld1q_u8(bits + group * 32), vld1q_u8(bits + group * 32 + 16)};
        const int8_t *a = activations + group * NIS_SCREEN_GROUP_COLUMNS;
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++) {
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                const int8x16_t c = vreinterpretq_s8_u8(vandq_u8(b[h], one));
                sum_i32x4[h] = vdotq_s32(sum_i32x4[h], c, vld1q_s8(a + 32 * k + 16 * h));
                b[h] = vshrq_n_u8(b[h], 1);
            }
        }
    }
    return vaddvq_s32(vaddq_s32(sum_i32x4[0], sum_i32x4[1]));
}

const nis_screen_kernels nis_screen_neondot = {nibbles, bits};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nis_screen_neondot_is_for_aarch64;
#endif
