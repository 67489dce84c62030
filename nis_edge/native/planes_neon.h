/* One unit's four planes in NEON registers: what the kernels with and without SDOT share. Include it below the target
 * pragma, so that its functions are compiled for, and inlined into, the file's own instruction set. */
#ifndef NIS_PLANES_NEON_H
#define NIS_PLANES_NEON_H

#include <arm_neon.h>

#include "ternary.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef struct {
    int8x16_t plane[NIS_PLANES];
} planes;

ALWAYS_INLINE planes load_planes(const int8_t *activations) {
    return (planes){{vld1q_s8(activations), vld1q_s8(activations + 16), vld1q_s8(activations + 32),
                     vld1q_s8(activations + 48)}};
}

ALWAYS_INLINE planes unpack_unit(const uint8_t *unit) {
    const uint8x16_t bytes = vld1q_u8(unit), mask = vdupq_n_u8(3);
    return (planes){{
        vreinterpretq_s8_u8(vandq_u8(bytes, mask)),
        vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bytes, 2), mask)),
        vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bytes, 4), mask)),
        vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6)),
    }};
}

#endif
