/* Rotary position embedding: its angles. */
#ifndef NIS_ROPE_H
#define NIS_ROPE_H

#include <stddef.h>

/* frequencies [head_dim / 2] */
void nis_rope_frequencies(double theta, size_t head_dim, float *frequencies);
/* cosines and sines [half] of position * frequency */
void nis_rope_angles(const float *frequencies, size_t half, size_t position, float *cosines, float *sines);
/* The same for positions up to 2^20 beyond a model's context, where rounding the angle to float32 would blur distances:
 * the product is taken exactly. */
void nis_rope_late_angles(const float *frequencies, size_t half, size_t position, float *cosines, float *sines);
/* The natural logarithm of a positive normal number, the same on every CPU. */
double nis_logarithm(double x);

#endif
