/* Ternary products with AVX-512 VNNI: one 64-byte load is four rows of one column group, vpdpbusd multiplies codes by
 * activations and adds four products at a time into 32-bit sums.
 *
 * One vector: the planes are not shifted down. (byte & 0x0c) is four times the code, (byte & 0x30) sixteen times,
 * (byte & 0xc0) sixty-four times; each has a sum of its own, whose shift at the end of the row is exact. That is 4
 * operations to unpack 256 weights instead of 7. Tiles of vectors unpack once for all of them, so there it does not
 * matter. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "ternary.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni")
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    HALVES = 2,           /* a block is two registers of four rows */
    TILE_TOKENS = 8,      /* 16 sums + 8 planes of codes leave 8 of 32 registers for activations */
    PREFETCH_BLOCKS = 40, /* 5 KiB ahead, across the end of a page, where the hardware prefetcher stops */
};

/* A 32-bit lane gathers one 4-product sum per plane and group; unshifted codes are at most 192. */
_Static_assert((int64_t)(NIS_COLUMNS_MAX / NIS_GROUP_COLUMNS) * 4 * 192 * NIS_ACTIVATION_MAX <= INT32_MAX,
               "the unshifted sums of the longest row must not overflow");

/* Sixteen activations of one plane in each quarter: all four rows meet the same columns. */
ALWAYS_INLINE __m512i broadcast_plane(const int8_t *activations, size_t plane) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(activations + plane * NIS_PLANE_COLUMNS)));
}

/* Two registers of four rows with four partial sums each become the eight rows' sums in order. */
ALWAYS_INLINE __m256i rows_of_halves(__m512i low, __m512i high) {
    low = _mm512_add_epi32(low, _mm512_shuffle_epi32(low, _MM_PERM_BADC));
    low = _mm512_add_epi32(low, _mm512_shuffle_epi32(low, _MM_PERM_CDAB));
    high = _mm512_add_epi32(high, _mm512_shuffle_epi32(high, _MM_PERM_BADC));
    high = _mm512_add_epi32(high, _mm512_shuffle_epi32(high, _MM_PERM_CDAB));
    const __m512i first_of_quarters = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castsi512_si256(_mm512_permutex2var_epi32(low, first_of_quarters, high));
}

void nis_gemv_t2_i8_avx512vnni(const uint8_t *packed, size_t row_blocks, size_t column_groups,
                               const int8_t *activations, int32_t activation_sum, int32_t *sums) {
    const __m512i masks[NIS_PLANES] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                                       _mm512_set1_epi8((char)0xc0)};
    for (size_t block = 0; block < row_blocks; block++) {
        const uint8_t *bytes = packed + block * column_groups * NIS_BLOCK_BYTES;
        __m512i sum_i32x16[HALVES][NIS_PLANES];
#pragma GCC unroll 4
        for (size_t p = 0; p < NIS_PLANES; p++) sum_i32x16[0][p] = sum_i32x16[1][p] = _mm512_setzero_si512();
        for (size_t group = 0; group < column_groups; group++, bytes += NIS_BLOCK_BYTES) {
            const int8_t *columns = activations + group * NIS_GROUP_COLUMNS;
            /* Into the second cache: the first has too few lines under way to hide the way from memory. A prefetch past
             * the end of the mapping is ignored by the CPU. */
            _mm_prefetch((const char *)(bytes + PREFETCH_BLOCKS * NIS_BLOCK_BYTES), _MM_HINT_T1);
            _mm_prefetch((const char *)(bytes + PREFETCH_BLOCKS * NIS_BLOCK_BYTES + 64), _MM_HINT_T1);
            const __m512i low = _mm512_loadu_si512(bytes), high = _mm512_loadu_si512(bytes + 64);
#pragma GCC unroll 4
            for (size_t p = 0; p < NIS_PLANES; p++) {
                const __m512i a = broadcast_plane(columns, p);
                sum_i32x16[0][p] = _mm512_dpbusd_epi32(sum_i32x16[0][p], _mm512_and_si512(low, masks[p]), a);
                sum_i32x16[1][p] = _mm512_dpbusd_epi32(sum_i32x16[1][p], _mm512_and_si512(high, masks[p]), a);
            }
        }
        __m512i half[HALVES];
#pragma GCC unroll 2
        for (size_t h = 0; h < HALVES; h++) {
            half[h] = _mm512_add_epi32(
                _mm512_add_epi32(sum_i32x16[h][0], _mm512_srai_epi32(sum_i32x16[h][1], 2)),
                _mm512_add_epi32(_mm512_srai_epi32(sum_i32x16[h][2], 4), _mm512_srai_epi32(sum_i32x16[h][3], 6)));
        }
        const __m256i rows = _mm256_sub_epi32(rows_of_halves(half[0], half[1]), _mm256_set1_epi32(activation_sum));
        _mm256_storeu_si256((__m256i *)(sums + block * NIS_BLOCK_ROWS), rows);
    }
}

/* One row block times `tokens` (a compile-time constant) vectors: its codes are unpacked once and meet them all. */
ALWAYS_INLINE void block_times_tile(const uint8_t *bytes, size_t column_groups, const int8_t *activations,
                                    size_t activation_stride, const int32_t *activation_sums, int32_t *sums,
                                    size_t sums_stride, const size_t tokens) {
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i sum_i32x16[TILE_TOKENS][HALVES];
#pragma GCC unroll 8
    for (size_t t = 0; t < tokens; t++) sum_i32x16[t][0] = sum_i32x16[t][1] = _mm512_setzero_si512();
    for (size_t group = 0; group < column_groups; group++) {
        const __m512i low = _mm512_loadu_si512(bytes + group * NIS_BLOCK_BYTES);
        const __m512i high = _mm512_loadu_si512(bytes + group * NIS_BLOCK_BYTES + 64);
        const __m512i codes[HALVES][NIS_PLANES] = {
            {_mm512_and_si512(low, mask), _mm512_and_si512(_mm512_srli_epi16(low, 2), mask),
             _mm512_and_si512(_mm512_srli_epi16(low, 4), mask), _mm512_and_si512(_mm512_srli_epi16(low, 6), mask)},
            {_mm512_and_si512(high, mask), _mm512_and_si512(_mm512_srli_epi16(high, 2), mask),
             _mm512_and_si512(_mm512_srli_epi16(high, 4), mask), _mm512_and_si512(_mm512_srli_epi16(high, 6), mask)},
        };
        const int8_t *columns = activations + group * NIS_GROUP_COLUMNS;
#pragma GCC unroll 8
        for (size_t t = 0; t < tokens; t++) {
#pragma GCC unroll 4
            for (size_t p = 0; p < NIS_PLANES; p++) {
                const __m512i a = broadcast_plane(columns + t * activation_stride, p);
                sum_i32x16[t][0] = _mm512_dpbusd_epi32(sum_i32x16[t][0], codes[0][p], a);
                sum_i32x16[t][1] = _mm512_dpbusd_epi32(sum_i32x16[t][1], codes[1][p], a);
            }
        }
    }
#pragma GCC unroll 8
    for (size_t t = 0; t < tokens; t++) {
        const __m256i rows = _mm256_sub_epi32(rows_of_halves(sum_i32x16[t][0], sum_i32x16[t][1]),
                                              _mm256_set1_epi32(activation_sums[t]));
        _mm256_storeu_si256((__m256i *)(sums + t * sums_stride), rows);
    }
}

#define GEMV nis_gemv_t2_i8_avx512vnni
#define GEMM nis_gemm_t2_i8_avx512vnni
#include "ternary_tiles.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nis_ternary_avx512vnni_is_for_x86;
#endif
