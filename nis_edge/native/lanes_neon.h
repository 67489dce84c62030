/* Eight float lanes in two Advanced SIMD registers; lanes_scalar.h says what each operation means. */
#ifndef NIS_LANES_H
#define NIS_LANES_H

#include <arm_neon.h>
#include <stdint.h>

#define LANES_NAME(stem) stem##_neon
#define LANES_INLINE static inline __attribute__((always_inline))

typedef struct {
    float32x4_t low, high;
} f32x8;
typedef struct {
    uint32x4_t low, high;
} u32x8;

LANES_INLINE f32x8 f32x8_set(float x) { return (f32x8){vdupq_n_f32(x), vdupq_n_f32(x)}; }
LANES_INLINE f32x8 f32x8_load(const float *p) { return (f32x8){vld1q_f32(p), vld1q_f32(p + 4)}; }
LANES_INLINE f32x8 f32x8_load_f16(const uint16_t *p) {
    const float16x8_t half = vreinterpretq_f16_u16(vld1q_u16(p));
    return (f32x8){vcvt_f32_f16(vget_low_f16(half)), vcvt_high_f32_f16(half)};
}
LANES_INLINE f32x8 f32x8_load_i32(const int32_t *p) {
    return (f32x8){vcvtq_f32_s32(vld1q_s32(p)), vcvtq_f32_s32(vld1q_s32(p + 4))};
}
LANES_INLINE f32x8 f32x8_load_bf16(const uint16_t *p) {
    const uint16x8_t words = vld1q_u16(p);
    return (f32x8){vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(words), 16)),
                   vreinterpretq_f32_u32(vshll_high_n_u16(words, 16))};
}
LANES_INLINE f32x8 f32x8_load_i8(const int8_t *p) {
    const int16x8_t words = vmovl_s8(vld1_s8(p));
    return (f32x8){vcvtq_f32_s32(vmovl_s16(vget_low_s16(words))), vcvtq_f32_s32(vmovl_high_s16(words))};
}
LANES_INLINE void f32x8_store(float *p, f32x8 a) {
    vst1q_f32(p, a.low);
    vst1q_f32(p + 4, a.high);
}
LANES_INLINE void f32x8_store_f16(uint16_t *p, f32x8 a) {
    vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(a.low), a.high)));
}
LANES_INLINE void f32x8_store_i8(int8_t *p, f32x8 a) {
    const int16x8_t words = vcombine_s16(vmovn_s32(vcvtq_s32_f32(a.low)), vmovn_s32(vcvtq_s32_f32(a.high)));
    vst1_s8(p, vmovn_s16(words));
}
#define BOTH(operation, a, b) (f32x8){operation((a).low, (b).low), operation((a).high, (b).high)}
LANES_INLINE f32x8 f32x8_add(f32x8 a, f32x8 b) { return BOTH(vaddq_f32, a, b); }
LANES_INLINE f32x8 f32x8_sub(f32x8 a, f32x8 b) { return BOTH(vsubq_f32, a, b); }
LANES_INLINE f32x8 f32x8_mul(f32x8 a, f32x8 b) { return BOTH(vmulq_f32, a, b); }
LANES_INLINE f32x8 f32x8_div(f32x8 a, f32x8 b) { return BOTH(vdivq_f32, a, b); }
#undef BOTH
LANES_INLINE f32x8 f32x8_fma(f32x8 a, f32x8 b, f32x8 c) {
    return (f32x8){vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
LANES_INLINE f32x8 f32x8_max(f32x8 a, f32x8 b) {
    return (f32x8){vbslq_f32(vcgtq_f32(a.low, b.low), a.low, b.low),
                   vbslq_f32(vcgtq_f32(a.high, b.high), a.high, b.high)};
}
LANES_INLINE f32x8 f32x8_min(f32x8 a, f32x8 b) {
    return (f32x8){vbslq_f32(vcltq_f32(a.low, b.low), a.low, b.low),
                   vbslq_f32(vcltq_f32(a.high, b.high), a.high, b.high)};
}
LANES_INLINE f32x8 f32x8_where_ge(f32x8 x, f32x8 y, f32x8 a) {
    return (f32x8){vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(x.low, y.low), vreinterpretq_u32_f32(a.low))),
                   vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(x.high, y.high), vreinterpretq_u32_f32(a.high)))};
}
LANES_INLINE f32x8 f32x8_power_of_two(f32x8 n) {
    const int32x4_t bias = vdupq_n_s32(127);
    return (f32x8){vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.low), bias), 23)),
                   vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.high), bias), 23))};
}
LANES_INLINE float f32x8_sum(f32x8 a) {
    const float32x4_t four = vaddq_f32(a.low, a.high); /* 0+4 1+5 2+6 3+7 */
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
LANES_INLINE u32x8 u32x8_zero(void) { return (u32x8){vdupq_n_u32(0), vdupq_n_u32(0)}; }
LANES_INLINE u32x8 u32x8_max_magnitude(u32x8 a, f32x8 x) {
    const uint32x4_t magnitude = vdupq_n_u32(0x7fffffff);
    return (u32x8){vmaxq_u32(a.low, vandq_u32(vreinterpretq_u32_f32(x.low), magnitude)),
                   vmaxq_u32(a.high, vandq_u32(vreinterpretq_u32_f32(x.high), magnitude))};
}
LANES_INLINE void u32x8_store(uint32_t *p, u32x8 a) {
    vst1q_u32(p, a.low);
    vst1q_u32(p + 4, a.high);
}

#endif
