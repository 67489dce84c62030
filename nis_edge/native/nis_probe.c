/* Single kernels behind checked calls. */
#include "nis_probe.h"

#include <string.h>

#include "float_environment.h"
#include "kernels.h"
#include "model.h"
#include "rope.h"

static nis_status kernels_for(const char *isa, const nis_kernels **kernels) {
    *kernels = nis_kernels_named(isa);
    return *kernels ? NIS_OK : NIS_NO_KERNEL;
}

#define WITH_KERNELS(kernels, isa)                                    \
    const nis_kernels *kernels;                                       \
    if (kernels_for((isa), &kernels) != NIS_OK) return NIS_NO_KERNEL; \
    const unsigned long environment = nis_float_standard()

static nis_status matmul(const char *isa, const uint8_t *packed, size_t rows, size_t columns,
                         const int8_t *activations, size_t tokens, int32_t *sums, size_t gemm_from) {
    if (!packed || !activations || !sums || tokens < 1 || tokens > 4096) return NIS_ARGUMENT;
    if (rows < 1 || rows > NIS_ROWS_MAX || columns < 1 || columns > NIS_COLUMNS_MAX) return NIS_SHAPE;
    WITH_KERNELS(kernels, isa);
    const size_t blocks = nis_row_blocks(rows), groups = nis_column_groups(columns);
    const size_t stride = nis_padded_columns(columns), sums_stride = blocks * NIS_BLOCK_ROWS;
    int32_t activation_sums[4096];
    for (size_t t = 0; t < tokens; t++) {
        activation_sums[t] = 0;
        for (size_t i = 0; i < stride; i++) activation_sums[t] += activations[t * stride + i];
    }
    if (tokens >= gemm_from) {
        kernels->gemm(packed, blocks, groups, activations, stride, activation_sums, tokens, sums, sums_stride);
    } else {
        kernels->gemv(packed, blocks, groups, activations, activation_sums[0], sums);
    }
    nis_float_restore(environment);
    return NIS_OK;
}

nis_status nis_probe_matmul(const char *isa, const uint8_t *packed, size_t rows, size_t columns,
                            const int8_t *activations, size_t tokens, int32_t *sums) {
    return matmul(isa, packed, rows, columns, activations, tokens, sums, 2);
}

nis_status nis_probe_gemm(const char *isa, const uint8_t *packed, size_t rows, size_t columns,
                          const int8_t *activations, size_t tokens, int32_t *sums) {
    return matmul(isa, packed, rows, columns, activations, tokens, sums, 1);
}

nis_status nis_probe_quantise(const char *isa, const float *x, size_t n, int8_t *quantised, float *scale,
                              int32_t *sum) {
    if (!x || !quantised || !scale || !sum || n < 1) return NIS_ARGUMENT;
    WITH_KERNELS(kernels, isa);
    const uint32_t bits = kernels->floats->magnitude_bits(x, n);
    const union {
        uint32_t bits;
        float value;
    } largest = {bits};
    nis_status status = NIS_NOT_FINITE;
    if (bits < NIS_NOT_FINITE_BITS) {
        *scale = 127.0f / (largest.value > 1e-5f ? largest.value : 1e-5f);
        *sum = kernels->floats->quantise(x, n, *scale, quantised);
        status = NIS_OK;
    }
    nis_float_restore(environment);
    return status;
}

#define PROBE(condition, statement)           \
    if (!(condition)) return NIS_ARGUMENT;    \
    WITH_KERNELS(kernels, isa);               \
    statement;                                \
    nis_float_restore(environment);           \
    return NIS_OK

nis_status nis_probe_sum_of_squares(const char *isa, const float *x, size_t n, float *sum) {
    PROBE(x && sum, *sum = kernels->floats->sum_of_squares(x, n));
}

nis_status nis_probe_maximum(const char *isa, const float *x, size_t n, float *maximum) {
    PROBE(x && maximum && n >= 1, *maximum = kernels->floats->maximum(x, n));
}

nis_status nis_probe_exponentials(const char *isa, float *x, size_t n, float maximum, float *sum) {
    PROBE(x && sum, *sum = kernels->floats->exponentials(x, n, maximum));
}

nis_status nis_probe_silu_times(const char *isa, float *gate, const float *up, size_t n) {
    PROBE(gate && up, kernels->floats->silu_times(gate, up, n));
}

nis_status nis_probe_dot_rows(const char *isa, const float *x, const void *rows, nis_dtype dtype, size_t row_count,
                              size_t n, float *dots) {
    PROBE(x && rows && dots && (unsigned)dtype <= NIS_I8,
          kernels->floats->dot_rows(x, rows, dtype, n, row_count, n, dots));
}

nis_status nis_probe_weighted_sum(const char *isa, const float *weights, const void *rows, nis_dtype dtype,
                                  size_t row_count, size_t n, float *sum) {
    if (sum) memset(sum, 0, n * sizeof *sum);
    PROBE(weights && rows && sum && (unsigned)dtype <= NIS_I8,
          kernels->floats->weighted_sum(weights, rows, dtype, n, row_count, n, sum));
}

nis_status nis_probe_to_half(const char *isa, const float *x, size_t n, uint16_t *half) {
    PROBE(x && half, kernels->floats->to_half(x, n, half));
}

nis_status nis_probe_to_float(const char *isa, const void *stored, nis_dtype dtype, size_t n, float *x) {
    PROBE(stored && x && (unsigned)dtype <= NIS_BF16, kernels->floats->to_float(stored, dtype, n, x));
}

nis_status nis_probe_rope(double theta, uint32_t head_dim, uint32_t position, float *cosines, float *sines) {
    if (!cosines || !sines || head_dim < 2 || head_dim % 2 || head_dim > 1024 || position >= 1u << 20) {
        return NIS_ARGUMENT;
    }
    if (!(theta > 1.0 && theta <= 1e12)) return NIS_ARGUMENT;
    const unsigned long environment = nis_float_standard();
    float frequencies[512];
    nis_rope_frequencies(theta, head_dim, frequencies);
    nis_rope_angles(frequencies, head_dim / 2, position, cosines, sines);
    nis_float_restore(environment);
    return NIS_OK;
}

uint64_t nis_probe_layer_tokens(nis_model *model) {
    pthread_mutex_lock(&model->pass_lock);
    const uint64_t count = model->layer_tokens;
    pthread_mutex_unlock(&model->pass_lock);
    return count;
}
