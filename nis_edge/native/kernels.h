/* What one instruction set offers the forward pass: ternary products in integers, float parts in fixed order. */
#ifndef NIS_KERNELS_H
#define NIS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "nis_engine.h"
#include "screen.h"
#include "ternary.h"

/* From these bits on a float's magnitude is an infinity or a NaN. */
#define NIS_NOT_FINITE_BITS 0x7f800000u

/* Bytes of one stored number. */
static inline size_t nis_element_bytes(nis_dtype dtype) { return dtype == NIS_F32 ? 4 : dtype == NIS_I8 ? 1 : 2; }

/* The float parts. All are instances of float_kernels.h and equal bit for bit on every instruction set. */
typedef struct {
    uint32_t (*magnitude_bits)(const float *x, size_t n);
    int32_t (*quantise)(const float *x, size_t n, float scale, int8_t *quantised);
    float (*sum_of_squares)(const float *x, size_t n);
    float (*maximum)(const float *x, size_t n);
    float (*exponentials)(float *x, size_t n, float maximum);
    /* Element-wise: each operation rounded once. y = (x * r) * weight; to (+)= sums * factor; gate = relu(gate)^2 * up. */
    void (*scale_by)(const float *x, float r, const float *weight, size_t n, float *y);
    void (*scale_sums)(const int32_t *sums, size_t n, float factor, bool add, float *to);
    void (*relu2_times)(float *gate, const float *up, size_t n);
    void (*silu_times)(float *gate, const float *up, size_t n);
    void (*dot_rows)(const float *x, const void *rows, nis_dtype dtype, size_t row_stride, size_t row_count, size_t n,
                     float *dots);
    void (*weighted_sum)(const float *weights, const void *rows, nis_dtype dtype, size_t row_stride, size_t row_count,
                         size_t n, float *sum);
    void (*to_float)(const void *stored, nis_dtype dtype, size_t n, float *x);
    void (*to_half)(const float *x, size_t n, uint16_t *half);
    bool (*screen_row)(const void *row, nis_dtype dtype, size_t n, float *x, int8_t *codes, nis_screen_row *about);
    void (*screen_uppers)(const int32_t *dots, const float *scales, const float *norms, const float *errors, size_t n,
                          float factor, float a, float b, float *upper);
} nis_float_kernels;

extern const nis_float_kernels nis_float_scalar, nis_float_avx2, nis_float_neon;

typedef struct {
    const char *name;
    bool (*offered_by)(const nis_cpu *cpu);
    nis_gemv_t2_i8 *gemv;
    nis_gemm_t2_i8 *gemm;
    const nis_float_kernels *floats;
    const nis_screen_kernels *screen;
} nis_kernels;

/* The row of dispatch.c's table: `name` NULL gives the best the CPU offers; NULL is returned when the named one is not
 * compiled in or not offered. */
const nis_kernels *nis_kernels_named(const char *name);

#endif
