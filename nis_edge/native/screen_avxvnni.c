/* The screen's planes with AVX-VNNI. Codes are not shifted down before vpdpbusd multiplies them: each position has a
 * sum of its own, whose shift at the end is exact (240 * 128 * 65536 / 16 < 2^31). */
#if defined(__x86_64__)

#include <immintrin.h>

#include "screen.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,avxvnni")
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { ROWS_IN_FLIGHT = 4, PREFETCH_BYTES = 4096 };

#include "screen_lanes_avx2.h"

/* `count` rows (a compile-time constant) meet the same activations. */
ALWAYS_INLINE void rows_in_flight(const uint8_t *codes, size_t groups, const int8_t *activations, int32_t *dots,
                                  const size_t count) {
    const __m256i low_half = _mm256_set1_epi8(15);
    const size_t row_bytes = groups * NIS_SCREEN_NIBBLE_BYTES;
    __m256i low_i32x8[ROWS_IN_FLIGHT], high_i32x8[ROWS_IN_FLIGHT];
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) low_i32x8[r] = high_i32x8[r] = _mm256_setzero_si256();
    for (size_t at = 0; at < row_bytes; at += 64) {
#pragma GCC unroll 4
        for (size_t r = 0; r < count; r++) {
            _mm_prefetch((const char *)codes + (r + ROWS_IN_FLIGHT) * row_bytes + at + PREFETCH_BYTES, _MM_HINT_T1);
        }
#pragma GCC unroll 2
        for (size_t part = 0; part < 64; part += 32) { /* low halves, and high halves 64 columns on */
            const __m256i low = load(activations + 2 * at + part), high = load(activations + 2 * at + 64 + part);
#pragma GCC unroll 4
            for (size_t r = 0; r < count; r++) {
                const __m256i c = load(codes + r * row_bytes + at + part);
                low_i32x8[r] = _mm256_dpbusd_avx_epi32(low_i32x8[r], _mm256_and_si256(c, low_half), low);
                high_i32x8[r] = _mm256_dpbusd_avx_epi32(high_i32x8[r], _mm256_andnot_si256(low_half, c), high);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) {
        dots[r] = sum_of(_mm256_add_epi32(low_i32x8[r], _mm256_srai_epi32(high_i32x8[r], 4)));
    }
}

#include "screen_rows.h"

/* Bit k stands for 2^k times its activation until the end. */
static int32_t bits(const uint8_t *bits, size_t groups, const int8_t *activations) {
    __m256i sum_i32x8[8];
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) sum_i32x8[k] = _mm256_setzero_si256();
    for (size_t group = 0; group < groups; group++) {
        const __m256i b = load(bits + group * NIS_SCREEN_BIT_BYTES);
        const int8_t *a = activations + group * NIS_SCREEN_GROUP_COLUMNS;
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            const __m256i mask = _mm256_set1_epi8((char)(1 << k));
            sum_i32x8[k] = _mm256_dpbusd_avx_epi32(sum_i32x8[k], _mm256_and_si256(b, mask), load(a + 32 * k));
        }
    }
    __m256i sum = sum_i32x8[0];
#pragma GCC unroll 8
    for (int k = 1; k < 8; k++) sum = _mm256_add_epi32(sum, _mm256_srai_epi32(sum_i32x8[k], k));
    return sum_of(sum);
}

const nis_screen_kernels nis_screen_avxvnni = {nibbles, bits};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nis_screen_avxvnni_is_for_x86;
#endif
