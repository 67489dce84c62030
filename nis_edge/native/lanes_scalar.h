/* Eight float lanes in plain C: the meaning of every operation that lanes_avx2.h and lanes_neon.h repeat. */
#ifndef NIS_LANES_H
#define NIS_LANES_H

#include <stdint.h>
#include <string.h>

#define LANES_NAME(stem) stem##_scalar
#define LANES_INLINE static inline

typedef struct {
    float lane[8];
} f32x8;
typedef struct {
    uint32_t lane[8];
} u32x8;

#define EACH_LANE for (int i = 0; i < 8; i++)

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* IEEE binary16 to binary32: exact for every value. */
static inline float half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31, fraction = half & 0x3ff;
    if (exponent == 31) return float_of(sign | 0x7f800000 | fraction << 13);
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24 */
        const float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return float_of(sign | (exponent + 112) << 23 | fraction << 13);
}

/* binary32 to binary16, round to nearest even. */
static inline uint16_t float_to_half(float x) {
    const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);  /* NaN */
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (magnitude < 0x38800000) { /* below 2^-14: in units of 2^-24, rounded by the addition of 2^-1 * 2^24 units */
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
    }
    const uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13));
}

static inline f32x8 f32x8_set(float x) {
    f32x8 r;
    EACH_LANE r.lane[i] = x;
    return r;
}
static inline f32x8 f32x8_load(const float *p) {
    f32x8 r;
    EACH_LANE r.lane[i] = p[i];
    return r;
}
static inline f32x8 f32x8_load_f16(const uint16_t *p) {
    f32x8 r;
    EACH_LANE r.lane[i] = half_to_float(p[i]);
    return r;
}
static inline f32x8 f32x8_load_i32(const int32_t *p) { /* rounded to nearest even */
    f32x8 r;
    EACH_LANE r.lane[i] = (float)p[i];
    return r;
}
static inline f32x8 f32x8_load_bf16(const uint16_t *p) {
    f32x8 r;
    EACH_LANE r.lane[i] = float_of((uint32_t)p[i] << 16);
    return r;
}
static inline f32x8 f32x8_load_i8(const int8_t *p) {
    f32x8 r;
    EACH_LANE r.lane[i] = (float)p[i];
    return r;
}
static inline void f32x8_store(float *p, f32x8 a) { EACH_LANE p[i] = a.lane[i]; }
static inline void f32x8_store_f16(uint16_t *p, f32x8 a) { EACH_LANE p[i] = float_to_half(a.lane[i]); }
/* Lanes are whole numbers in -128..127. */
static inline void f32x8_store_i8(int8_t *p, f32x8 a) { EACH_LANE p[i] = (int8_t)a.lane[i]; }
static inline f32x8 f32x8_add(f32x8 a, f32x8 b) {
    EACH_LANE a.lane[i] += b.lane[i];
    return a;
}
static inline f32x8 f32x8_sub(f32x8 a, f32x8 b) {
    EACH_LANE a.lane[i] -= b.lane[i];
    return a;
}
static inline f32x8 f32x8_mul(f32x8 a, f32x8 b) {
    EACH_LANE a.lane[i] *= b.lane[i];
    return a;
}
static inline f32x8 f32x8_div(f32x8 a, f32x8 b) {
    EACH_LANE a.lane[i] /= b.lane[i];
    return a;
}
/* a * b + c with one rounding. */
static inline f32x8 f32x8_fma(f32x8 a, f32x8 b, f32x8 c) {
    EACH_LANE c.lane[i] = __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]);
    return c;
}
/* a > b ? a : b, hence b where either is NaN. */
static inline f32x8 f32x8_max(f32x8 a, f32x8 b) {
    EACH_LANE a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
/* a < b ? a : b. */
static inline f32x8 f32x8_min(f32x8 a, f32x8 b) {
    EACH_LANE a.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
}
/* a where x >= y, else 0. */
static inline f32x8 f32x8_where_ge(f32x8 x, f32x8 y, f32x8 a) {
    EACH_LANE a.lane[i] = x.lane[i] >= y.lane[i] ? a.lane[i] : 0.0f;
    return a;
}
/* 2^n for whole n in -126..127. */
static inline f32x8 f32x8_power_of_two(f32x8 n) {
    EACH_LANE n.lane[i] = float_of((uint32_t)((int32_t)n.lane[i] + 127) << 23);
    return n;
}
/* ((0+4)+(2+6)) + ((1+5)+(3+7)): the one order in which lanes are summed. */
static inline float f32x8_sum(f32x8 a) {
    const float *l = a.lane;
    return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}
static inline u32x8 u32x8_zero(void) {
    u32x8 r;
    EACH_LANE r.lane[i] = 0;
    return r;
}
/* The larger of a and the bits of |x|, which order magnitudes, infinities and NaNs as integers. */
static inline u32x8 u32x8_max_magnitude(u32x8 a, f32x8 x) {
    EACH_LANE {
        const uint32_t magnitude = bits_of(x.lane[i]) & 0x7fffffff;
        a.lane[i] = a.lane[i] > magnitude ? a.lane[i] : magnitude;
    }
    return a;
}
static inline void u32x8_store(uint32_t *p, u32x8 a) { EACH_LANE p[i] = a.lane[i]; }

#undef EACH_LANE
#endif
