/* The float parts of the forward pass, written once over eight lanes and compiled once per instruction set.
 *
 * Same bits everywhere, because nothing here is left to the compiler or to libm: element i of a reduction goes to lane
 * i mod 8, a lane adds in ascending order with fused multiply-add, lanes are summed in the one order of f32x8_sum, a
 * tail is a load with zeros in the missing lanes, and every other operation is correctly rounded by IEEE 754.
 *
 * Included by float_scalar.c, float_avx2.c and float_neon.c after their lanes_*.h. */
#include <stddef.h>
#include <string.h>

#include "kernels.h"

enum { LANES = 8, CACHE_LINE = 64, ROWS_IN_FLIGHT = 8, COLUMNS_IN_FLIGHT = 8 * LANES };

/* Adding and subtracting 1.5 * 2^23 rounds |x| < 2^22 to the nearest whole number, ties to even. */
#define ROUNDING_MAGIC 0x1.8p23f

LANES_INLINE f32x8 load_tail(const float *p, size_t n) {
    float lanes[LANES] = {0};
    memcpy(lanes, p, n * sizeof *p);
    return f32x8_load(lanes);
}

LANES_INLINE void store_tail(float *p, size_t n, f32x8 a) {
    float lanes[LANES];
    f32x8_store(lanes, a);
    memcpy(p, lanes, n * sizeof *p);
}


LANES_INLINE f32x8 load_stored(const void *p, nis_dtype dtype) {
    if (dtype == NIS_F32) return f32x8_load(p);
    if (dtype == NIS_I8) return f32x8_load_i8(p);
    return dtype == NIS_F16 ? f32x8_load_f16(p) : f32x8_load_bf16(p);
}

LANES_INLINE f32x8 load_stored_tail(const void *p, nis_dtype dtype, size_t n) {
    float lanes[LANES] = {0}; /* as large as eight of the widest dtype */
    memcpy(lanes, p, n * nis_element_bytes(dtype));
    return load_stored(lanes, dtype);
}

LANES_INLINE f32x8 round_half_even(f32x8 x) {
    return f32x8_sub(f32x8_add(x, f32x8_set(ROUNDING_MAGIC)), f32x8_set(ROUNDING_MAGIC));
}

/* e^x within 1.5 ulp for x in -87..88, 0 below -87. x = n ln 2 + r with ln 2 in two parts, then a polynomial of degree 6
 * in r (minimax coefficients of Cephes expf, S. Moshier), then 2^n by its bits. */
LANES_INLINE f32x8 exponential(f32x8 x) {
    const f32x8 lowest = f32x8_set(-87.0f);
    const f32x8 bounded = f32x8_min(f32x8_max(x, lowest), f32x8_set(88.0f));
    const f32x8 n = round_half_even(f32x8_mul(bounded, f32x8_set(0x1.715476p0f)));
    f32x8 r = f32x8_fma(n, f32x8_set(-0x1.62e400p-1f), bounded);
    r = f32x8_fma(n, f32x8_set(-0x1.7f7d1cp-20f), r);
    f32x8 p = f32x8_set(1.9875691500e-4f);
    p = f32x8_fma(p, r, f32x8_set(1.3981999507e-3f));
    p = f32x8_fma(p, r, f32x8_set(8.3334519073e-3f));
    p = f32x8_fma(p, r, f32x8_set(4.1665795894e-2f));
    p = f32x8_fma(p, r, f32x8_set(1.6666665459e-1f));
    p = f32x8_fma(p, r, f32x8_set(5.0000001201e-1f));
    p = f32x8_add(f32x8_fma(p, f32x8_mul(r, r), r), f32x8_set(1.0f));
    return f32x8_where_ge(x, lowest, f32x8_mul(p, f32x8_power_of_two(n)));
}

/* The bits of the largest |x|: from NIS_NOT_FINITE_BITS on, an infinity or a NaN is among them. */
static uint32_t LANES_NAME(magnitude_bits)(const float *x, size_t n) {
    u32x8 largest = u32x8_zero();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) largest = u32x8_max_magnitude(largest, f32x8_load(x + i));
    if (i < n) largest = u32x8_max_magnitude(largest, load_tail(x + i, n - i));
    uint32_t lanes[LANES], result = 0;
    u32x8_store(lanes, largest);
    for (i = 0; i < LANES; i++) result = lanes[i] > result ? lanes[i] : result;
    return result;
}

/* round_half_even(x * scale), clamped to -128..127; returns the sum of what it wrote. */
static int32_t LANES_NAME(quantise)(const float *x, size_t n, float scale, int8_t *quantised) {
    const f32x8 lowest = f32x8_set(-128.0f), highest = f32x8_set(127.0f), factor = f32x8_set(scale);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x8 scaled = f32x8_min(f32x8_max(f32x8_mul(f32x8_load(x + i), factor), lowest), highest);
        f32x8_store_i8(quantised + i, round_half_even(scaled));
    }
    if (i < n) {
        int8_t lanes[LANES];
        const f32x8 scaled = f32x8_min(f32x8_max(f32x8_mul(load_tail(x + i, n - i), factor), lowest), highest);
        f32x8_store_i8(lanes, round_half_even(scaled));
        memcpy(quantised + i, lanes, n - i);
    }
    int32_t sum = 0;
    for (i = 0; i < n; i++) sum += quantised[i];
    return sum;
}

static float LANES_NAME(sum_of_squares)(const float *x, size_t n) {
    f32x8 sum = f32x8_set(0.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x8 v = f32x8_load(x + i);
        sum = f32x8_fma(v, v, sum);
    }
    if (i < n) {
        const f32x8 v = load_tail(x + i, n - i);
        sum = f32x8_fma(v, v, sum);
    }
    return f32x8_sum(sum);
}

static float LANES_NAME(maximum)(const float *x, size_t n) {
    float result = x[0];
    size_t i = 0;
    if (n >= LANES) {
        f32x8 largest = f32x8_load(x);
        for (i = LANES; i + LANES <= n; i += LANES) largest = f32x8_max(largest, f32x8_load(x + i));
        float lanes[LANES];
        f32x8_store(lanes, largest);
        result = lanes[0];
        for (size_t lane = 1; lane < LANES; lane++) result = lanes[lane] > result ? lanes[lane] : result;
    }
    for (; i < n; i++) result = x[i] > result ? x[i] : result;
    return result;
}

/* x becomes e^(x - maximum); returns the sum. */
static float LANES_NAME(exponentials)(float *x, size_t n, float maximum) {
    const f32x8 offset = f32x8_set(maximum);
    f32x8 sum = f32x8_set(0.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x8 e = exponential(f32x8_sub(f32x8_load(x + i), offset));
        f32x8_store(x + i, e);
        sum = f32x8_add(sum, e);
    }
    if (i < n) {
        store_tail(x + i, n - i, exponential(f32x8_sub(load_tail(x + i, n - i), offset)));
        sum = f32x8_add(sum, load_tail(x + i, n - i));
    }
    return f32x8_sum(sum);
}

LANES_INLINE f32x8 silu(f32x8 x) {
    const f32x8 one = f32x8_set(1.0f);
    return f32x8_div(x, f32x8_add(one, exponential(f32x8_sub(f32x8_set(0.0f), x))));
}

/* gate becomes silu(gate) * up. */
static void LANES_NAME(silu_times)(float *gate, const float *up, size_t n) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        f32x8_store(gate + i, f32x8_mul(silu(f32x8_load(gate + i)), f32x8_load(up + i)));
    }
    if (i < n) store_tail(gate + i, n - i, f32x8_mul(silu(load_tail(gate + i, n - i)), load_tail(up + i, n - i)));
}

/* ---- element by element: every operation rounded once, in lanes or one by one ------------------------------------- */

static void LANES_NAME(scale_by)(const float *x, float r, const float *weight, size_t n, float *y) {
    const f32x8 factor = f32x8_set(r);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        f32x8_store(y + i, f32x8_mul(f32x8_mul(f32x8_load(x + i), factor), f32x8_load(weight + i)));
    }
    for (; i < n; i++) y[i] = (x[i] * r) * weight[i];
}

static void LANES_NAME(scale_sums)(const int32_t *sums, size_t n, float factor, bool add, float *to) {
    const f32x8 factors = f32x8_set(factor);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x8 scaled = f32x8_mul(f32x8_load_i32(sums + i), factors);
        f32x8_store(to + i, add ? f32x8_add(f32x8_load(to + i), scaled) : scaled);
    }
    for (; i < n; i++) {
        const float scaled = (float)sums[i] * factor;
        to[i] = add ? to[i] + scaled : scaled;
    }
}

/* A branch on the sign of each would be mispredicted half the time. */
static void LANES_NAME(relu2_times)(float *gate, const float *up, size_t n) {
    const f32x8 zero = f32x8_set(0.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x8 positive = f32x8_max(f32x8_load(gate + i), zero);
        f32x8_store(gate + i, f32x8_mul(f32x8_mul(positive, positive), f32x8_load(up + i)));
    }
    for (; i < n; i++) {
        const float positive = gate[i] > 0.0f ? gate[i] : 0.0f;
        gate[i] = (positive * positive) * up[i];
    }
}

/* `count` rows at once so that their additions overlap; each row's own order is the same whatever the count. The next
 * `count` rows are fetched meanwhile: a row is too short for the hardware to see a stream (1 KiB of f16 at width 512). */
LANES_INLINE void dots_in_flight(const float *x, const char *rows, nis_dtype dtype, size_t row_bytes, size_t n,
                                 float *dots, const size_t count) {
    f32x8 sum[ROWS_IN_FLIGHT];
    for (size_t r = 0; r < count; r++) sum[r] = f32x8_set(0.0f);
    const size_t per_line = CACHE_LINE / nis_element_bytes(dtype);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x8 v = f32x8_load(x + i);
        const char *column = rows + i * nis_element_bytes(dtype);
        if (i % per_line == 0) {
#pragma GCC unroll 8
            for (size_t r = 0; r < count; r++) __builtin_prefetch(column + (r + count) * row_bytes);
        }
#pragma GCC unroll 8
        for (size_t r = 0; r < count; r++) sum[r] = f32x8_fma(v, load_stored(column + r * row_bytes, dtype), sum[r]);
    }
    if (i < n) {
        const f32x8 v = load_tail(x + i, n - i);
        const char *column = rows + i * nis_element_bytes(dtype);
        for (size_t r = 0; r < count; r++) {
            sum[r] = f32x8_fma(v, load_stored_tail(column + r * row_bytes, dtype, n - i), sum[r]);
        }
    }
    for (size_t r = 0; r < count; r++) dots[r] = f32x8_sum(sum[r]);
}

LANES_INLINE void dots_of_type(const float *x, const char *rows, nis_dtype dtype, size_t row_bytes, size_t row_count,
                               size_t n, float *dots) {
    size_t row = 0;
    for (; row + ROWS_IN_FLIGHT <= row_count; row += ROWS_IN_FLIGHT) {
        dots_in_flight(x, rows + row * row_bytes, dtype, row_bytes, n, dots + row, ROWS_IN_FLIGHT);
    }
    for (; row < row_count; row++) dots_in_flight(x, rows + row * row_bytes, dtype, row_bytes, n, dots + row, 1);
}

/* dots[r] = sum_i x[i] * rows[r][i]; row_stride in elements. */
static void LANES_NAME(dot_rows)(const float *x, const void *rows, nis_dtype dtype, size_t row_stride,
                                 size_t row_count, size_t n, float *dots) {
    const size_t row_bytes = row_stride * nis_element_bytes(dtype);
    if (dtype == NIS_F32) dots_of_type(x, rows, NIS_F32, row_bytes, row_count, n, dots);
    if (dtype == NIS_F16) dots_of_type(x, rows, NIS_F16, row_bytes, row_count, n, dots);
    if (dtype == NIS_BF16) dots_of_type(x, rows, NIS_BF16, row_bytes, row_count, n, dots);
    if (dtype == NIS_I8) dots_of_type(x, rows, NIS_I8, row_bytes, row_count, n, dots);
}

LANES_INLINE void weighted_columns(const float *weights, const char *rows, nis_dtype dtype, size_t row_bytes,
                                   size_t row_count, float *sum, const size_t registers) {
    f32x8 total[COLUMNS_IN_FLIGHT / LANES];
    for (size_t c = 0; c < registers; c++) total[c] = f32x8_load(sum + c * LANES);
    for (size_t row = 0; row < row_count; row++) {
        const f32x8 weight = f32x8_set(weights[row]);
        const char *column = rows + row * row_bytes;
#pragma GCC unroll 8
        for (size_t c = 0; c < registers; c++) {
            total[c] = f32x8_fma(weight, load_stored(column + c * LANES * nis_element_bytes(dtype), dtype), total[c]);
        }
    }
    for (size_t c = 0; c < registers; c++) f32x8_store(sum + c * LANES, total[c]);
}

LANES_INLINE void weighted_of_type(const float *weights, const char *rows, nis_dtype dtype, size_t row_bytes,
                                   size_t row_count, size_t n, float *sum) {
    size_t i = 0;
    for (; i + COLUMNS_IN_FLIGHT <= n; i += COLUMNS_IN_FLIGHT) {
        const char *column = rows + i * nis_element_bytes(dtype);
        weighted_columns(weights, column, dtype, row_bytes, row_count, sum + i, COLUMNS_IN_FLIGHT / LANES);
    }
    for (; i + LANES <= n; i += LANES) {
        weighted_columns(weights, rows + i * nis_element_bytes(dtype), dtype, row_bytes, row_count, sum + i, 1);
    }
    if (i < n) {
        f32x8 total = load_tail(sum + i, n - i);
        for (size_t row = 0; row < row_count; row++) {
            const char *column = rows + row * row_bytes + i * nis_element_bytes(dtype);
            total = f32x8_fma(f32x8_set(weights[row]), load_stored_tail(column, dtype, n - i), total);
        }
        store_tail(sum + i, n - i, total);
    }
}

/* sum[i] += weights[r] * rows[r][i], rows in ascending order, so that a caller may go on where it stopped; row_stride in
 * elements. */
static void LANES_NAME(weighted_sum)(const float *weights, const void *rows, nis_dtype dtype, size_t row_stride,
                                     size_t row_count, size_t n, float *sum) {
    const size_t row_bytes = row_stride * nis_element_bytes(dtype);
    if (dtype == NIS_F32) weighted_of_type(weights, rows, NIS_F32, row_bytes, row_count, n, sum);
    if (dtype == NIS_F16) weighted_of_type(weights, rows, NIS_F16, row_bytes, row_count, n, sum);
    if (dtype == NIS_BF16) weighted_of_type(weights, rows, NIS_BF16, row_bytes, row_count, n, sum);
    if (dtype == NIS_I8) weighted_of_type(weights, rows, NIS_I8, row_bytes, row_count, n, sum);
}

static void LANES_NAME(to_float)(const void *stored, nis_dtype dtype, size_t n, float *x) {
    const char *p = stored;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) f32x8_store(x + i, load_stored(p + i * nis_element_bytes(dtype), dtype));
    if (i < n) store_tail(x + i, n - i, load_stored_tail(p + i * nis_element_bytes(dtype), dtype, n - i));
}

/* Round to nearest even, as IEEE 754 converts binary32 to binary16. */
static void LANES_NAME(to_half)(const float *x, size_t n, uint16_t *half) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) f32x8_store_f16(half + i, f32x8_load(x + i));
    if (i < n) {
        uint16_t lanes[LANES];
        f32x8_store_f16(lanes, load_tail(x + i, n - i));
        memcpy(half + i, lanes, (n - i) * sizeof *half);
    }
}

/* ---- the output head's screen: screen.h says what it is, head.c what its bounds are for -------------------------- */

/* Codes 0..63 of x [whole] / scale, and what the three levels miss, squared and summed, in units of the scale. `whole`
 * is a multiple of eight; zeros that fill up count as misses, which makes a bound larger and never wrong. */
LANES_INLINE void screen_codes(const float *x, size_t whole, float inverse, int8_t *codes, float *squares) {
    const f32x8 factor = f32x8_set(inverse), half = f32x8_set(0.5f), lowest = f32x8_set(-32.0f);
    f32x8 sum[NIS_SCREEN_LEVELS] = {f32x8_set(0.0f), f32x8_set(0.0f), f32x8_set(0.0f)};
    for (size_t i = 0; i < whole; i += LANES) {
        const f32x8 y = f32x8_mul(f32x8_load(x + i), factor);
        const f32x8 bounded = f32x8_min(f32x8_max(y, lowest), f32x8_set(31.5f));
        /* y, its half and its quarter rounded down; a tie may go either way, as either code is as near. */
        const f32x8 one = f32x8_max(round_half_even(f32x8_sub(bounded, half)), lowest);
        const f32x8 two = round_half_even(f32x8_fma(one, half, f32x8_set(-0.25f)));
        const f32x8 four = round_half_even(f32x8_fma(one, f32x8_set(0.25f), f32x8_set(-0.375f)));
        const f32x8 miss[NIS_SCREEN_LEVELS] = {f32x8_sub(y, f32x8_fma(four, f32x8_set(4.0f), f32x8_set(2.0f))),
                                               f32x8_sub(y, f32x8_fma(two, f32x8_set(2.0f), f32x8_set(1.0f))),
                                               f32x8_sub(y, f32x8_add(one, half))};
        f32x8_store_i8(codes + i, f32x8_sub(one, lowest));
        for (size_t level = 0; level < NIS_SCREEN_LEVELS; level++) {
            sum[level] = f32x8_fma(miss[level], miss[level], sum[level]);
        }
    }
    for (size_t level = 0; level < NIS_SCREEN_LEVELS; level++) squares[level] = f32x8_sum(sum[level]);
}

/* Chooses the scale of a row, its codes and their bounds; false if the row is not finite. x and codes have room for n
 * rounded up to eight; codes beyond n are not zero.
 *
 * The bounds hold in real numbers: y = fl(x / scale) is off by at most 2^-22 of itself, sums of squares by n / 8 + 8
 * roundings, everything else is double and rounded up at the end. What underflows is smaller than the 1e-30. */
static bool LANES_NAME(screen_row)(const void *row, nis_dtype dtype, size_t n, float *x, int8_t *codes,
                                   nis_screen_row *about) {
    const size_t whole = (n + LANES - 1) / LANES * LANES;
    LANES_NAME(to_float)(row, dtype, n, x);
    for (size_t i = n; i < whole; i++) x[i] = 0.0f;
    const uint32_t bits = LANES_NAME(magnitude_bits)(x, n);
    if (bits >= NIS_NOT_FINITE_BITS) return false;
    float largest, squares[NIS_SCREEN_LEVELS], norm_squares = 0.0f;
    memcpy(&largest, &bits, sizeof largest);

    /* A limit of three times the root mean square suits a bell-shaped row; rows with outliers get wider ones as long
     * as that makes the finest level better. */
    float limit = 0x1p-100f, rms = 0.0f;
    if (largest > limit) {
        const f32x8 inverse = f32x8_set(1.0f / largest);
        f32x8 sum = f32x8_set(0.0f);
        for (size_t i = 0; i < whole; i += LANES) {
            const f32x8 v = f32x8_mul(f32x8_load(x + i), inverse);
            sum = f32x8_fma(v, v, sum);
        }
        norm_squares = f32x8_sum(sum);
        rms = largest * __builtin_sqrtf(norm_squares / (float)n);
        const float usual = 3.0f * rms > limit ? 3.0f * rms : limit;
        limit = usual < largest ? usual : largest;
    }
    screen_codes(x, whole, 1.0f / (limit / 32.0f), codes, squares);
    if (largest > 5.0f * rms) {
        for (float wider = limit; wider < largest;) {
            wider = wider * 1.5f < largest ? wider * 1.5f : largest;
            float others[NIS_SCREEN_LEVELS];
            screen_codes(x, whole, 1.0f / (wider / 32.0f), codes, others);
            if (!((double)others[2] * wider * wider < (double)squares[2] * limit * limit)) break;
            limit = wider;
        }
        screen_codes(x, whole, 1.0f / (limit / 32.0f), codes, squares);
    }

    about->scale = limit / 32.0f;
    const double up = 1.0 + (double)(n / LANES + 16) * 0x1p-23;
    const double norm = largest > 0x1p-100f ? (double)largest * __builtin_sqrt((double)norm_squares) * up
                                            : 0x1p-100 * __builtin_sqrt((double)n);
    about->norm = (float)(norm * (1.0 + 0x1p-20));
    for (size_t level = 0; level < NIS_SCREEN_LEVELS; level++) {
        const double error = (double)about->scale * (__builtin_sqrt((double)squares[level]) * up + 1e-30) + norm * 0x1p-22;
        about->error[level] = (float)(error * (1.0 + 0x1p-20));
    }
    return true;
}

/* upper[r] = dots[r] * (scales[r] * factor) + (errors[r] * a + norms[r] * b + 2^-100). */
static void LANES_NAME(screen_uppers)(const int32_t *dots, const float *scales, const float *norms,
                                      const float *errors, size_t n, float factor, float a, float b, float *upper) {
    const f32x8 tiny = f32x8_set(0x1p-100f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const f32x8 step = f32x8_mul(f32x8_load(scales + i), f32x8_set(factor));
        const f32x8 norm_part = f32x8_fma(f32x8_load(norms + i), f32x8_set(b), tiny);
        const f32x8 bound = f32x8_fma(f32x8_load(errors + i), f32x8_set(a), norm_part);
        f32x8_store(upper + i, f32x8_add(f32x8_mul(f32x8_load_i32(dots + i), step), bound));
    }
    for (; i < n; i++) { /* the same operations on one */
        const float bound = __builtin_fmaf(errors[i], a, __builtin_fmaf(norms[i], b, 0x1p-100f));
        upper[i] = (float)dots[i] * (scales[i] * factor) + bound;
    }
}

const nis_float_kernels LANES_NAME(nis_float) = {
    .magnitude_bits = LANES_NAME(magnitude_bits),
    .quantise = LANES_NAME(quantise),
    .sum_of_squares = LANES_NAME(sum_of_squares),
    .maximum = LANES_NAME(maximum),
    .exponentials = LANES_NAME(exponentials),
    .scale_by = LANES_NAME(scale_by),
    .scale_sums = LANES_NAME(scale_sums),
    .relu2_times = LANES_NAME(relu2_times),
    .silu_times = LANES_NAME(silu_times),
    .dot_rows = LANES_NAME(dot_rows),
    .weighted_sum = LANES_NAME(weighted_sum),
    .to_float = LANES_NAME(to_float),
    .to_half = LANES_NAME(to_half),
    .screen_row = LANES_NAME(screen_row),
    .screen_uppers = LANES_NAME(screen_uppers),
};
