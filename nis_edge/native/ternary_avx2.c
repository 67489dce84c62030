/* Ternary products with AVX2: one 32-byte load is two rows of one column group, maddubs multiplies codes by activations.
 *
 * Per load 7 operations unpack four planes and 8 multiply and add them. Sums stay in 16 bits for
 * NIS_GROUPS_PER_WIDENING groups (ternary.h proves the bound), then madd widens them to 32. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "ternary.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    PAIRS = NIS_BLOCK_ROWS / 2,   /* two rows per register, one in each half */
    TILE_TOKENS = 8,              /* 8 sums + 4 planes of codes leave 4 of 16 registers for activations and products */
    PREFETCH_BLOCKS = 24,         /* 3 KiB ahead: beyond what the hardware prefetcher of Zen covers at a page's end */
};

typedef struct {
    __m256i plane[NIS_PLANES];
} planes;

/* Sixteen activations of one plane in both halves: both rows of a pair meet the same columns. */
ALWAYS_INLINE __m256i broadcast_plane(const int8_t *activations, size_t plane) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(activations + plane * NIS_PLANE_COLUMNS)));
}

/* Two rows' codes, one byte each. The 16-bit shift drags bits across bytes; the mask drops them. */
ALWAYS_INLINE planes unpack_pair(const uint8_t *pair) {
    const __m256i mask = _mm256_set1_epi8(3);
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)pair);
    return (planes){{
        _mm256_and_si256(bytes, mask),
        _mm256_and_si256(_mm256_srli_epi16(bytes, 2), mask),
        _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask),
        _mm256_and_si256(_mm256_srli_epi16(bytes, 6), mask),
    }};
}

ALWAYS_INLINE __m256i widen(__m256i sum_i32x8, __m256i sum_i16x16) {
    return _mm256_add_epi32(sum_i32x8, _mm256_madd_epi16(sum_i16x16, _mm256_set1_epi16(1)));
}

/* Four registers of [4 partial sums of row 2p | 4 of row 2p+1] become the eight rows' sums in order. */
ALWAYS_INLINE __m256i rows_of_pairs(const __m256i pair_i32x8[PAIRS]) {
    const __m256i sum01 = _mm256_hadd_epi32(pair_i32x8[0], pair_i32x8[1]);
    const __m256i sum23 = _mm256_hadd_epi32(pair_i32x8[2], pair_i32x8[3]);
    const __m256i even_then_odd = _mm256_hadd_epi32(sum01, sum23); /* rows 0 2 4 6 | 1 3 5 7 */
    return _mm256_permutevar8x32_epi32(even_then_odd, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

void nis_gemv_t2_i8_avx2(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
                         int32_t activation_sum, int32_t *sums) {
    for (size_t block = 0; block < row_blocks; block++) {
        const uint8_t *bytes = packed + block * column_groups * NIS_BLOCK_BYTES;
        __m256i pair_i32x8[PAIRS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                                     _mm256_setzero_si256()};
        for (size_t first = 0; first < column_groups; first += NIS_GROUPS_PER_WIDENING) {
            const size_t left = column_groups - first;
            const size_t count = left < NIS_GROUPS_PER_WIDENING ? left : NIS_GROUPS_PER_WIDENING;
            __m256i sum_i16x16[PAIRS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                                         _mm256_setzero_si256()};
            for (size_t group = first; group < first + count; group++) {
                const uint8_t *pair = bytes + group * NIS_BLOCK_BYTES;
                const int8_t *columns = activations + group * NIS_GROUP_COLUMNS;
                /* A prefetch past the end of the mapping is ignored by the CPU. */
                _mm_prefetch((const char *)(pair + PREFETCH_BLOCKS * NIS_BLOCK_BYTES), _MM_HINT_T0);
                _mm_prefetch((const char *)(pair + PREFETCH_BLOCKS * NIS_BLOCK_BYTES + 64), _MM_HINT_T0);
                const __m256i a0 = broadcast_plane(columns, 0), a1 = broadcast_plane(columns, 1);
                const __m256i a2 = broadcast_plane(columns, 2), a3 = broadcast_plane(columns, 3);
#pragma GCC unroll 4
                for (size_t p = 0; p < PAIRS; p++) {
                    const planes codes = unpack_pair(pair + p * 2 * NIS_UNIT_BYTES);
                    const __m256i sum01 = _mm256_add_epi16(_mm256_maddubs_epi16(codes.plane[0], a0),
                                                           _mm256_maddubs_epi16(codes.plane[1], a1));
                    const __m256i sum23 = _mm256_add_epi16(_mm256_maddubs_epi16(codes.plane[2], a2),
                                                           _mm256_maddubs_epi16(codes.plane[3], a3));
                    sum_i16x16[p] = _mm256_add_epi16(sum_i16x16[p], _mm256_add_epi16(sum01, sum23));
                }
            }
#pragma GCC unroll 4
            for (size_t p = 0; p < PAIRS; p++) pair_i32x8[p] = widen(pair_i32x8[p], sum_i16x16[p]);
        }
        const __m256i rows = _mm256_sub_epi32(rows_of_pairs(pair_i32x8), _mm256_set1_epi32(activation_sum));
        _mm256_storeu_si256((__m256i *)(sums + block * NIS_BLOCK_ROWS), rows);
    }
}

/* One row block times `tokens` (a compile-time constant) vectors: a pair's codes are unpacked once and meet them all. */
ALWAYS_INLINE void block_times_tile(const uint8_t *bytes, size_t column_groups, const int8_t *activations,
                                    size_t activation_stride, const int32_t *activation_sums, int32_t *sums,
                                    size_t sums_stride, const size_t tokens) {
    __m256i pair_i32x8[TILE_TOKENS][PAIRS];
    for (size_t t = 0; t < tokens; t++) {
        for (size_t p = 0; p < PAIRS; p++) pair_i32x8[t][p] = _mm256_setzero_si256();
    }
    for (size_t first = 0; first < column_groups; first += NIS_GROUPS_PER_WIDENING) {
        const size_t left = column_groups - first;
        const size_t count = left < NIS_GROUPS_PER_WIDENING ? left : NIS_GROUPS_PER_WIDENING;
        for (size_t p = 0; p < PAIRS; p++) {
            __m256i sum_i16x16[TILE_TOKENS];
#pragma GCC unroll 8
            for (size_t t = 0; t < tokens; t++) sum_i16x16[t] = _mm256_setzero_si256();
            for (size_t group = first; group < first + count; group++) {
                const planes codes = unpack_pair(bytes + group * NIS_BLOCK_BYTES + p * 2 * NIS_UNIT_BYTES);
                const int8_t *columns = activations + group * NIS_GROUP_COLUMNS;
#pragma GCC unroll 8
                for (size_t t = 0; t < tokens; t++) {
                    const int8_t *token = columns + t * activation_stride;
#pragma GCC unroll 4
                    for (size_t plane = 0; plane < NIS_PLANES; plane++) {
                        sum_i16x16[t] = _mm256_add_epi16(
                            sum_i16x16[t], _mm256_maddubs_epi16(codes.plane[plane], broadcast_plane(token, plane)));
                    }
                }
            }
#pragma GCC unroll 8
            for (size_t t = 0; t < tokens; t++) pair_i32x8[t][p] = widen(pair_i32x8[t][p], sum_i16x16[t]);
        }
    }
    for (size_t t = 0; t < tokens; t++) {
        const __m256i rows = _mm256_sub_epi32(rows_of_pairs(pair_i32x8[t]), _mm256_set1_epi32(activation_sums[t]));
        _mm256_storeu_si256((__m256i *)(sums + t * sums_stride), rows);
    }
}

#define GEMV nis_gemv_t2_i8_avx2
#define GEMM nis_gemm_t2_i8_avx2
#include "ternary_tiles.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nis_ternary_avx2_is_for_x86;
#endif
