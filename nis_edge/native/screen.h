/* The screen of the output head: every row once more in 6 bits, in three planes that are read only as far as needed.
 *
 * Row w has a scale s and codes u in 0..63; its stand-in is s * (u - 31.5). The codes are cut into planes:
 *
 *   nibbles  u >> 2, 4 bits. Group of 128 columns = 64 bytes: byte j holds column j in its low half, j + 64 in its high.
 *   ones     u >> 1 & 1, and
 *   halves   u & 1, 1 bit each. Group of 256 columns = 32 bytes: byte j holds column j + 32 k at bit k.
 *
 * With the first plane alone the stand-in is the middle of the four codes it can be, with two of them of the two.
 * Columns are padded to 256 with code 0; the padding's activations are zero. Products with int8 activations are
 * integers, hence the same on every instruction set. head.c says what the screen is for and proves its bounds. */
#ifndef NIS_SCREEN_H
#define NIS_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NIS_SCREEN_GROUP_COLUMNS = 256,
    NIS_SCREEN_NIBBLE_BYTES = NIS_SCREEN_GROUP_COLUMNS / 2,
    NIS_SCREEN_BIT_BYTES = NIS_SCREEN_GROUP_COLUMNS / 8,
    /* So that 8 * 15 * 128 * columns, and the correction by the sum of activations, stay below 2^31. */
    NIS_SCREEN_COLUMNS_MAX = 1 << 16,
    NIS_SCREEN_COLUMNS_MIN = 8,
    NIS_SCREEN_LEVELS = 3, /* nibbles alone, with ones, with halves too */
};

/* What is known of one row. Errors and norm are upper bounds. */
typedef struct {
    float scale;
    float error[NIS_SCREEN_LEVELS]; /* ||row - stand-in|| at each level */
    float norm;                     /* ||row|| */
} nis_screen_row;

/* AVX2 and NEON add products of nibbles in 16 bits: a lane gets 8 of at most 15 * 128 from 64 bytes. */
_Static_assert(16 * 15 * 128 <= INT16_MAX, "16-bit sums of two groups of nibbles must not overflow");

/* Where the rows of a screen stand: in a package, or where this engine made them. */
typedef struct {
    const uint8_t *nibbles, *bits[2]; /* [rows]: the planes above; bits[0] ones, bits[1] halves */
    const float *scales, *norms, *errors[NIS_SCREEN_LEVELS]; /* [rows] */
} nis_screen_planes;

static inline size_t nis_screen_groups(size_t hidden) {
    return (hidden + NIS_SCREEN_GROUP_COLUMNS - 1) / NIS_SCREEN_GROUP_COLUMNS;
}

typedef struct {
    /* dots[r] = sum of nibble * activation over `groups` groups of 256 columns, for consecutive rows. */
    void (*nibbles)(const uint8_t *codes, size_t rows, size_t groups, const int8_t *activations, int32_t *dots);
    /* The sum of the activations whose bit is set, for one row. */
    int32_t (*bits)(const uint8_t *bits, size_t groups, const int8_t *activations);
} nis_screen_kernels;

extern const nis_screen_kernels nis_screen_scalar, nis_screen_avx2, nis_screen_avxvnni, nis_screen_avx512vnni,
    nis_screen_neon, nis_screen_neondot;

#endif
