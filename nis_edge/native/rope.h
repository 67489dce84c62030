/* Rotary position embedding: its angles. */
#ifndef NIS_ROPE_H
#define NIS_ROPE_H

#include <stddef.h>

/* frequencies [head_dim / 2] */
void nis_rope_frequencies(double theta, size_t head_dim, float *frequencies);
/* cosines and sines [half] of position * frequency */
void nis_rope_angles(const float *frequencies, size_t half, size_t position, float *cosines, float *sines);

#endif
