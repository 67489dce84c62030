/* Rotary position embedding: cosines and sines that are the same on every CPU.
 *
 * The angle is the float32 product position * frequency, with the frequency rounded as transformers rounds it
 * (float32 power, then float32 reciprocal): that rounding is what the models were trained with. Logarithm, exponential,
 * sine and cosine are our own, in double with IEEE operations in a fixed order, so that no libm decides; their error is
 * below 2^-48, so the float32 results are the nearest or the next to it. */
#include "rope.h"

#include <stdint.h>
#include <string.h>

/* ln 2 in two parts, the first with 32 significant bits so that n * LN2_HIGH is exact (fdlibm e_log.c). */
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
/* pi/2 in three parts of 33 bits (fdlibm e_rem_pio2.c): n * part is exact for n < 2^20. */
#define HALF_PI_1 1.57079632673412561417e+00
#define HALF_PI_2 6.07710050630396597660e-11
#define HALF_PI_3 2.02226624871116645580e-21
#define TWO_OVER_PI 6.36619772367581382433e-01
/* Adding and subtracting 1.5 * 2^52 rounds to the nearest whole number. */
#define ROUNDING_MAGIC 0x1.8p52

static double round_to_whole(double x) { return (x + ROUNDING_MAGIC) - ROUNDING_MAGIC; }

static double times_power_of_two(double x, int exponent) {
    const uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return x * power;
}

/* x > 0, normal. x = m 2^e with m in [2^-1/2, 2^1/2); ln m = 2 artanh s with s = (m-1)/(m+1), |s| < 0.1716. */
double nis_logarithm(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0x000fffffffffffff) | 0x3ff0000000000000;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    const double s = (m - 1.0) / (m + 1.0), square = s * s;
    double series = 1.0 / 25.0;
    for (int k = 23; k >= 1; k -= 2) series = series * square + 1.0 / (double)k;
    return exponent * LN2_HIGH + (exponent * LN2_LOW + 2.0 * s * series);
}

/* |x| < 700: Taylor to the 15th power on |r| <= ln 2 / 2. */
static double exponential(double x) {
    const double n = round_to_whole(x * 1.44269504088896338700);
    const double r = (x - n * LN2_HIGH) - n * LN2_LOW;
    double series = 1.0;
    for (int k = 15; k >= 1; k--) series = 1.0 + series * r / (double)k;
    return times_power_of_two(series, (int)n);
}

/* 0 <= x < 2^20: Taylor on |r| <= pi/4, to the 17th power for the sine and the 18th for the cosine. */
static void sine_cosine(double x, double *sine, double *cosine) {
    const double n = round_to_whole(x * TWO_OVER_PI);
    const double r = ((x - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3, square = r * r;
    double s = 1.0, c = 1.0;
    for (int k = 16; k >= 2; k -= 2) s = 1.0 - s * square / (double)(k * (k + 1));
    for (int k = 17; k >= 1; k -= 2) c = 1.0 - c * square / (double)(k * (k + 1));
    s *= r;
    switch ((int64_t)n & 3) {
        case 0: *sine = s, *cosine = c; break;
        case 1: *sine = c, *cosine = -s; break;
        case 2: *sine = -s, *cosine = -c; break;
        default: *sine = -c, *cosine = s; break;
    }
}

void nis_rope_frequencies(double theta, size_t head_dim, float *frequencies) {
    const double log_theta = nis_logarithm(theta);
    for (size_t i = 0; i < head_dim / 2; i++) {
        const float exponent = (float)(2 * i) / (float)head_dim;
        const float power = (float)exponential(log_theta * (double)exponent);
        frequencies[i] = 1.0f / power;
    }
}

void nis_rope_angles(const float *frequencies, size_t half, size_t position, float *cosines, float *sines) {
    for (size_t i = 0; i < half; i++) {
        const float angle = (float)position * frequencies[i];
        double sine, cosine;
        sine_cosine((double)angle, &sine, &cosine);
        cosines[i] = (float)cosine;
        sines[i] = (float)sine;
    }
}

void nis_rope_late_angles(const float *frequencies, size_t half, size_t position, float *cosines, float *sines) {
    for (size_t i = 0; i < half; i++) {
        double sine, cosine;
        sine_cosine((double)position * (double)frequencies[i], &sine, &cosine); /* 20 + 24 bits: exact */
        cosines[i] = (float)cosine;
        sines[i] = (float)sine;
    }
}
