/* Makes the screen of the output head from its rows: for the engine while it runs, for whoever packs, for whoever checks. */
#ifndef NIS_SCREEN_MAKING_H
#define NIS_SCREEN_MAKING_H

#include "model.h"

/* Bytes of scratch for one row at a time, aligned to floats. */
size_t nis_screen_scratch_bytes(size_t hidden);

/* The planes and bounds of one row of a head go to row `at` of `to`; false if the row is not finite. */
bool nis_screen_make_row(const nis_float_kernels *floats, const void *row, nis_dtype dtype, size_t hidden,
                         void *scratch, size_t at, const nis_screen_places *to);

/* What no stand-in, error or norm of these rows is longer than; infinite or NaN if a bound is none: not finite, or below
 * zero. */
double nis_screen_longest(const nis_float_kernels *floats, const nis_screen_planes *s, size_t first, size_t count);

/* Makes a few rows of a model's packed screen again, spread over the vocabulary. NIS_FORMAT: they are others, so the
 * screen is that of another head. What single rows say beyond those is trusted: record 0017. */
nis_status nis_screen_try(const nis_model *model);

#endif
