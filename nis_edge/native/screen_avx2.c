/* The screen's planes with AVX2: codes times activations by maddubs, in 16 bits for one group of 256 columns. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "screen.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { ROWS_IN_FLIGHT = 4, PREFETCH_BYTES = 2048 };

#include "screen_lanes_avx2.h"

ALWAYS_INLINE __m256i widen(__m256i sum_i32x8, __m256i sum_i16x16) {
    return _mm256_add_epi32(sum_i32x8, _mm256_madd_epi16(sum_i16x16, _mm256_set1_epi16(1)));
}

/* `count` rows (a compile-time constant) meet the same activations. */
ALWAYS_INLINE void rows_in_flight(const uint8_t *codes, size_t groups, const int8_t *activations, int32_t *dots,
                                  const size_t count) {
    const __m256i low_half = _mm256_set1_epi8(15);
    const size_t row_bytes = groups * NIS_SCREEN_NIBBLE_BYTES;
    __m256i sum_i32x8[ROWS_IN_FLIGHT];
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) sum_i32x8[r] = _mm256_setzero_si256();
    for (size_t group = 0; group < groups; group++) {
        __m256i sum_i16x16[ROWS_IN_FLIGHT];
#pragma GCC unroll 4
        for (size_t r = 0; r < count; r++) {
            sum_i16x16[r] = _mm256_setzero_si256();
            const char *ahead = (const char *)codes + (r + ROWS_IN_FLIGHT) * row_bytes + group * NIS_SCREEN_NIBBLE_BYTES + PREFETCH_BYTES;
            _mm_prefetch(ahead, _MM_HINT_T0);
            _mm_prefetch(ahead + 64, _MM_HINT_T0);
        }
#pragma GCC unroll 4
        for (size_t part = 0; part < 4; part++) { /* 32 bytes each: low halves, and high halves 64 columns on */
            const int8_t *a = activations + group * NIS_SCREEN_GROUP_COLUMNS + part / 2 * 128 + part % 2 * 32;
            const __m256i low = load(a), high = load(a + 64);
#pragma GCC unroll 4
            for (size_t r = 0; r < count; r++) {
                const __m256i c = load(codes + r * row_bytes + group * NIS_SCREEN_NIBBLE_BYTES + part * 32);
                const __m256i c_high = _mm256_and_si256(_mm256_srli_epi16(c, 4), low_half);
                sum_i16x16[r] = _mm256_add_epi16(
                    sum_i16x16[r], _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(c, low_half), low),
                                                    _mm256_maddubs_epi16(c_high, high)));
            }
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < count; r++) sum_i32x8[r] = widen(sum_i32x8[r], sum_i16x16[r]);
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) dots[r] = sum_of(sum_i32x8[r]);
}

#include "screen_rows.h"

static int32_t bits(const uint8_t *bits, size_t groups, const int8_t *activations) {
    const __m256i one = _mm256_set1_epi8(1);
    __m256i sum_i32x8 = _mm256_setzero_si256();
    for (size_t group = 0; group < groups; group++) {
        const __m256i b = load(bits + group * NIS_SCREEN_BIT_BYTES);
        const int8_t *a = activations + group * NIS_SCREEN_GROUP_COLUMNS;
        __m256i sum_i16x16[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#define PLANE(k)                                                                                                    \
    sum_i16x16[k % 2] = _mm256_add_epi16(sum_i16x16[k % 2],                                                         \
                                         _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(b, k), one),       \
                                                              load(a + k * 32)))
        PLANE(0);
        PLANE(1);
        PLANE(2);
        PLANE(3);
        PLANE(4);
        PLANE(5);
        PLANE(6);
        PLANE(7);
#undef PLANE
        sum_i32x8 = widen(sum_i32x8, _mm256_add_epi16(sum_i16x16[0], sum_i16x16[1]));
    }
    return sum_of(sum_i32x8);
}

const nis_screen_kernels nis_screen_avx2 = {nibbles, bits};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nis_screen_avx2_is_for_x86;
#endif
