/* The screen's planes with AVX-512 VNNI. Codes are not shifted down before vpdpbusd multiplies them: each position has a
 * sum of its own, whose shift at the end is exact (240 * 128 * 65536 / 16 < 2^31). */
#if defined(__x86_64__)

#include <immintrin.h>

#include "screen.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni")
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { ROWS_IN_FLIGHT = 4, PREFETCH_BYTES = 6144 };

ALWAYS_INLINE __m128i sum_of_quarters(__m512i sum_i32x16) {
    const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(sum_i32x16), _mm512_extracti64x4_epi64(sum_i32x16, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
}

/* `count` rows (a compile-time constant) meet the same activations. */
ALWAYS_INLINE void rows_in_flight(const uint8_t *codes, size_t groups, const int8_t *activations, int32_t *dots,
                                  const size_t count) {
    const __m512i low_half = _mm512_set1_epi8(15);
    const size_t row_bytes = groups * NIS_SCREEN_NIBBLE_BYTES;
    __m512i low_i32x16[ROWS_IN_FLIGHT], high_i32x16[ROWS_IN_FLIGHT];
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) low_i32x16[r] = high_i32x16[r] = _mm512_setzero_si512();
    /* The next rows are fetched in the order of memory, whichever row is multiplied. */
    const char *ahead = (const char *)codes + ROWS_IN_FLIGHT * row_bytes + PREFETCH_BYTES;
    for (size_t at = 0; at < row_bytes; at += 64) {
        const __m512i low = _mm512_loadu_si512(activations + 2 * at);
        const __m512i high = _mm512_loadu_si512(activations + 2 * at + 64);
#pragma GCC unroll 4
        for (size_t r = 0; r < count; r++) {
            _mm_prefetch(ahead + ROWS_IN_FLIGHT * at + 64 * r, _MM_HINT_T1);
            const __m512i c = _mm512_loadu_si512(codes + r * row_bytes + at);
            low_i32x16[r] = _mm512_dpbusd_epi32(low_i32x16[r], _mm512_and_si512(c, low_half), low);
            high_i32x16[r] = _mm512_dpbusd_epi32(high_i32x16[r], _mm512_andnot_si512(low_half, c), high);
        }
    }
    __m128i row_i32x4[ROWS_IN_FLIGHT];
#pragma GCC unroll 4
    for (size_t r = 0; r < count; r++) {
        row_i32x4[r] = sum_of_quarters(_mm512_add_epi32(low_i32x16[r], _mm512_srai_epi32(high_i32x16[r], 4)));
    }
    for (size_t r = count; r < ROWS_IN_FLIGHT; r++) row_i32x4[r] = _mm_setzero_si128();
    const __m128i rows = _mm_hadd_epi32(_mm_hadd_epi32(row_i32x4[0], row_i32x4[1]),
                                        _mm_hadd_epi32(row_i32x4[2], row_i32x4[3]));
    if (count == ROWS_IN_FLIGHT) {
        _mm_storeu_si128((__m128i *)dots, rows);
    } else {
        dots[0] = _mm_cvtsi128_si32(rows);
    }
}

#include "screen_rows.h"

/* The 32 bytes stand in both halves of a register, one bit in the lower, the next in the upper: 64 columns in order. */
static int32_t bits(const uint8_t *bits, size_t groups, const int8_t *activations) {
    __m512i mask[4], sum_i32x16[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        mask[k] = _mm512_inserti64x4(_mm512_set1_epi8((char)(1 << 2 * k)), _mm256_set1_epi8((char)(2 << 2 * k)), 1);
        sum_i32x16[k] = _mm512_setzero_si512();
    }
    for (size_t group = 0; group < groups; group++) {
        const __m512i b = _mm512_broadcast_i64x4(
            _mm256_loadu_si256((const __m256i *)(bits + group * NIS_SCREEN_BIT_BYTES)));
        const int8_t *a = activations + group * NIS_SCREEN_GROUP_COLUMNS;
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            sum_i32x16[k] =
                _mm512_dpbusd_epi32(sum_i32x16[k], _mm512_and_si512(b, mask[k]), _mm512_loadu_si512(a + 64 * k));
        }
    }
    __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) sum = _mm512_add_epi32(sum, _mm512_srai_epi32(sum_i32x16[k], (unsigned)(2 * k)));
    const __m256i low = _mm512_castsi512_si256(sum), high = _mm512_extracti64x4_epi64(sum, 1);
    const __m256i eight = _mm256_add_epi32(low, _mm256_srai_epi32(high, 1));
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return _mm_cvtsi128_si32(four);
}

const nis_screen_kernels nis_screen_avx512vnni = {nibbles, bits};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nis_screen_avx512vnni_is_for_x86;
#endif
