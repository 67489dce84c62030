/* Single kernels, with their arguments checked: for tests and benchmarks, not for running models. */
#ifndef NIS_PROBE_H
#define NIS_PROBE_H

#include "nis_engine.h"

/* sums [tokens, rows padded to 8] = W [rows, columns] times activations [tokens, columns padded to 64]; the padding of
 * the activations must be zero. `isa` as in nis_model_create. With tokens = 1 this is the gemv. */
NIS_API nis_status nis_probe_matmul(const char *isa, const uint8_t *packed, size_t rows, size_t columns,
                                    const int8_t *activations, size_t tokens, int32_t *sums);
/* The gemm even for one token. */
NIS_API nis_status nis_probe_gemm(const char *isa, const uint8_t *packed, size_t rows, size_t columns,
                                  const int8_t *activations, size_t tokens, int32_t *sums);

NIS_API nis_status nis_probe_quantise(const char *isa, const float *x, size_t n, int8_t *quantised, float *scale,
                                      int32_t *sum);
NIS_API nis_status nis_probe_sum_of_squares(const char *isa, const float *x, size_t n, float *sum);
NIS_API nis_status nis_probe_maximum(const char *isa, const float *x, size_t n, float *maximum);
/* x becomes e^(x - maximum). */
NIS_API nis_status nis_probe_exponentials(const char *isa, float *x, size_t n, float maximum, float *sum);
NIS_API nis_status nis_probe_silu_times(const char *isa, float *gate, const float *up, size_t n);
NIS_API nis_status nis_probe_dot_rows(const char *isa, const float *x, const void *rows, nis_dtype dtype,
                                      size_t row_count, size_t n, float *dots);
NIS_API nis_status nis_probe_weighted_sum(const char *isa, const float *weights, const void *rows, nis_dtype dtype,
                                          size_t row_count, size_t n, float *sum);
NIS_API nis_status nis_probe_to_half(const char *isa, const float *x, size_t n, uint16_t *half);
NIS_API nis_status nis_probe_to_float(const char *isa, const void *stored, nis_dtype dtype, size_t n, float *x);
/* cosines and sines [head_dim / 2] of a position, as the forward pass uses them. */
NIS_API nis_status nis_probe_rope(double theta, uint32_t head_dim, uint32_t position, float *cosines, float *sines);

/* Tokens that the model's sessions have sent through a layer, counted layer by layer: what was computed, without a clock. */
NIS_API uint64_t nis_probe_layer_tokens(nis_model *model);

#endif
