/* The truth about the screen's planes: readable, one column at a time. */
#include "screen.h"

static void nibbles(const uint8_t *codes, size_t rows, size_t groups, const int8_t *activations, int32_t *dots) {
    for (size_t row = 0; row < rows; row++, codes += groups * NIS_SCREEN_NIBBLE_BYTES) {
        int32_t sum = 0;
        for (size_t i = 0; i < groups * NIS_SCREEN_NIBBLE_BYTES; i++) {
            const int8_t *a = activations + i / 64 * 128 + i % 64;
            sum += (codes[i] & 15) * a[0] + (codes[i] >> 4) * a[64];
        }
        dots[row] = sum;
    }
}

static int32_t bits(const uint8_t *bits, size_t groups, const int8_t *activations) {
    int32_t sum = 0;
    for (size_t i = 0; i < groups * NIS_SCREEN_BIT_BYTES; i++) {
        const int8_t *a = activations + i / 32 * 256 + i % 32;
        for (int k = 0; k < 8; k++) sum += (bits[i] >> k & 1) * a[32 * k];
    }
    return sum;
}

const nis_screen_kernels nis_screen_scalar = {nibbles, bits};
