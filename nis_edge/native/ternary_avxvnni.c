/* Ternary products with AVX-VNNI, the 256-bit vpdpbusd of CPUs without AVX-512 (Alder Lake, its N-series, Zen 5): one
 * 32-byte load is two rows of one column group, vpdpbusd multiplies codes by activations and adds four products at a
 * time into 32-bit sums.
 *
 * One vector: every second plane is not shifted down. (byte & 0x0c) is four times the code and has a sum of its own,
 * whose shift at the end of the row is exact; one shift by 4 brings the upper two planes into the same places. That is
 * 5 operations to unpack 128 weights instead of 7, and with two sums a pair everything stays in 16 registers. Tiles of
 * vectors unpack once for all of them. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "ternary.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,avxvnni")
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    PAIRS = NIS_BLOCK_ROWS / 2, /* two rows per register, one in each half */
    TILE_TOKENS = 4,            /* times two pairs: 8 sums, 2 loads, 2 planes, mask, activations: 14 of 16 registers */
    TILE_PAIRS = 2,
    PREFETCH_BLOCKS = 40, /* 5 KiB ahead, across the end of a page, where the hardware prefetcher stops */
};

/* A 32-bit lane gathers two 4-product sums a group; codes that are not shifted down are at most 12. */
_Static_assert((int64_t)(NIS_COLUMNS_MAX / NIS_GROUP_COLUMNS) * 2 * 4 * 12 * NIS_ACTIVATION_MAX <= INT32_MAX,
               "the unshifted sums of the longest row must not overflow");

/* Sixteen activations of one plane in both halves: both rows of a pair meet the same columns. */
ALWAYS_INLINE __m256i broadcast_plane(const int8_t *activations, size_t plane) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(activations + plane * NIS_PLANE_COLUMNS)));
}

ALWAYS_INLINE __m256i load_pair(const uint8_t *block, size_t pair) {
    return _mm256_loadu_si256((const __m256i *)(block + pair * 2 * NIS_UNIT_BYTES));
}

/* Loads through a hidden pointer are not taken for the ones before: keeping four pairs would push sums out of registers,
 * which costs more than reading them from the first cache once more. */
#define HIDE(pointer) __asm__("" : "+r"(pointer))

/* Four registers of [4 partial sums of row 2p | 4 of row 2p+1] become the eight rows' sums in order. */
ALWAYS_INLINE __m256i rows_of_pairs(const __m256i pair_i32x8[PAIRS]) {
    const __m256i sum01 = _mm256_hadd_epi32(pair_i32x8[0], pair_i32x8[1]);
    const __m256i sum23 = _mm256_hadd_epi32(pair_i32x8[2], pair_i32x8[3]);
    const __m256i even_then_odd = _mm256_hadd_epi32(sum01, sum23); /* rows 0 2 4 6 | 1 3 5 7 */
    return _mm256_permutevar8x32_epi32(even_then_odd, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

void nis_gemv_t2_i8_avxvnni(const uint8_t *packed, size_t row_blocks, size_t column_groups,
                            const int8_t *activations, int32_t activation_sum, int32_t *sums) {
    const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0c);
    for (size_t block = 0; block < row_blocks; block++) {
        const uint8_t *bytes = packed + block * column_groups * NIS_BLOCK_BYTES;
        __m256i low_i32x8[PAIRS], high_i32x8[PAIRS]; /* planes 0 and 2; planes 1 and 3, times four */
#pragma GCC unroll 4
        for (size_t p = 0; p < PAIRS; p++) low_i32x8[p] = high_i32x8[p] = _mm256_setzero_si256();
        for (size_t group = 0; group < column_groups; group++, bytes += NIS_BLOCK_BYTES) {
            const int8_t *columns = activations + group * NIS_GROUP_COLUMNS;
            /* A prefetch past the end of the mapping is ignored by the CPU. */
            _mm_prefetch((const char *)(bytes + PREFETCH_BLOCKS * NIS_BLOCK_BYTES), _MM_HINT_T1);
            _mm_prefetch((const char *)(bytes + PREFETCH_BLOCKS * NIS_BLOCK_BYTES + 64), _MM_HINT_T1);
            const uint8_t *again = bytes;
            HIDE(again);
            const __m256i a0 = broadcast_plane(columns, 0), a1 = broadcast_plane(columns, 1);
#pragma GCC unroll 4
            for (size_t p = 0; p < PAIRS; p++) {
                const __m256i pair = load_pair(bytes, p);
                low_i32x8[p] = _mm256_dpbusd_avx_epi32(low_i32x8[p], _mm256_and_si256(pair, low), a0);
                high_i32x8[p] = _mm256_dpbusd_avx_epi32(high_i32x8[p], _mm256_and_si256(pair, high), a1);
            }
            const __m256i a2 = broadcast_plane(columns, 2), a3 = broadcast_plane(columns, 3);
#pragma GCC unroll 4
            for (size_t p = 0; p < PAIRS; p++) { /* the 16-bit shift drags bits across bytes; the masks drop them */
                const __m256i upper = _mm256_srli_epi16(load_pair(again, p), 4);
                low_i32x8[p] = _mm256_dpbusd_avx_epi32(low_i32x8[p], _mm256_and_si256(upper, low), a2);
                high_i32x8[p] = _mm256_dpbusd_avx_epi32(high_i32x8[p], _mm256_and_si256(upper, high), a3);
            }
        }
        __m256i pair_i32x8[PAIRS];
#pragma GCC unroll 4
        for (size_t p = 0; p < PAIRS; p++) {
            pair_i32x8[p] = _mm256_add_epi32(low_i32x8[p], _mm256_srai_epi32(high_i32x8[p], 2));
        }
        const __m256i rows = _mm256_sub_epi32(rows_of_pairs(pair_i32x8), _mm256_set1_epi32(activation_sum));
        _mm256_storeu_si256((__m256i *)(sums + block * NIS_BLOCK_ROWS), rows);
    }
}

/* One row block times `tokens` (a compile-time constant) vectors, two pairs of rows at a time: a plane of their codes is
 * unpacked once and meets all vectors, and a vector's activations are read once for both pairs. */
ALWAYS_INLINE void block_times_tile(const uint8_t *bytes, size_t column_groups, const int8_t *activations,
                                    size_t activation_stride, const int32_t *activation_sums, int32_t *sums,
                                    size_t sums_stride, const size_t tokens) {
    const __m256i mask = _mm256_set1_epi8(3);
    __m256i pair_i32x8[TILE_TOKENS][PAIRS];
#pragma GCC unroll 2
    for (size_t first = 0; first < PAIRS; first += TILE_PAIRS) {
        __m256i sum_i32x8[TILE_TOKENS][TILE_PAIRS];
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; t++) sum_i32x8[t][0] = sum_i32x8[t][1] = _mm256_setzero_si256();
        for (size_t group = 0; group < column_groups; group++) {
            const uint8_t *pairs = bytes + group * NIS_BLOCK_BYTES + first * 2 * NIS_UNIT_BYTES;
            const int8_t *columns = activations + group * NIS_GROUP_COLUMNS;
            __m256i one = _mm256_loadu_si256((const __m256i *)pairs);
            __m256i other = _mm256_loadu_si256((const __m256i *)(pairs + 2 * NIS_UNIT_BYTES));
#pragma GCC unroll 4
            for (size_t plane = 0; plane < NIS_PLANES; plane++) {
                const __m256i codes[TILE_PAIRS] = {_mm256_and_si256(one, mask), _mm256_and_si256(other, mask)};
#pragma GCC unroll 4
                for (size_t t = 0; t < tokens; t++) {
                    const __m256i a = broadcast_plane(columns + t * activation_stride, plane);
                    sum_i32x8[t][0] = _mm256_dpbusd_avx_epi32(sum_i32x8[t][0], codes[0], a);
                    sum_i32x8[t][1] = _mm256_dpbusd_avx_epi32(sum_i32x8[t][1], codes[1], a);
                }
                one = _mm256_srli_epi16(one, 2);
                other = _mm256_srli_epi16(other, 2);
            }
        }
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; t++) {
            pair_i32x8[t][first] = sum_i32x8[t][0];
            pair_i32x8[t][first + 1] = sum_i32x8[t][1];
        }
    }
#pragma GCC unroll 4
    for (size_t t = 0; t < tokens; t++) {
        const __m256i rows = _mm256_sub_epi32(rows_of_pairs(pair_i32x8[t]), _mm256_set1_epi32(activation_sums[t]));
        _mm256_storeu_si256((__m256i *)(sums + t * sums_stride), rows);
    }
}

void nis_gemm_t2_i8_avxvnni(const uint8_t *packed, size_t row_blocks, size_t column_groups,
                            const int8_t *activations, size_t activation_stride, const int32_t *activation_sums,
                            size_t tokens, int32_t *sums, size_t sums_stride) {
    size_t token = 0;
#define BLOCK_TIMES(tile, first)                                                                               \
    block_times_tile(packed + block * column_groups * NIS_BLOCK_BYTES, column_groups,                          \
                     activations + (first) * activation_stride, activation_stride, activation_sums + (first),  \
                     sums + (first) * sums_stride + block * NIS_BLOCK_ROWS, sums_stride, tile)
    for (; token + 8 <= tokens; token += 8) { /* a block meets eight vectors while the first cache has both */
        for (size_t block = 0; block < row_blocks; block++) {
            BLOCK_TIMES(4, token);
            BLOCK_TIMES(4, token + 4);
        }
    }
    if (token + 4 <= tokens) {
        for (size_t block = 0; block < row_blocks; block++) BLOCK_TIMES(4, token);
        token += 4;
    }
    if (token + 2 <= tokens) {
        for (size_t block = 0; block < row_blocks; block++) BLOCK_TIMES(2, token);
        token += 2;
    }
#undef BLOCK_TIMES
    if (token < tokens) {
        nis_gemv_t2_i8_avxvnni(packed, row_blocks, column_groups, activations + token * activation_stride,
                               activation_sums[token], sums + token * sums_stride);
    }
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nis_ternary_avxvnni_is_for_x86;
#endif
