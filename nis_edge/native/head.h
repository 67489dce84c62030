/* The most likely tokens of one position, without computing every logit. */
#ifndef NIS_HEAD_H
#define NIS_HEAD_H

#include "model.h"

enum {
    /* A smaller head stays in a cache next to the cores, where three barriers cost more than reading it. */
    NIS_SCREEN_FROM_BYTES = 8 << 20,
};

/* The `count` most likely tokens after `normed` [hidden], which is the final norm's output: exactly those, in exactly
 * that order and with exactly the logits that computing all logits and sorting them would give (greater first, lower
 * token among equals). With a gap only tokens count whose logit is at least the best one minus `gap` (INFINITY: all
 * do). `best` has room for `count`, 1 to vocab; *found says how many there are.
 *
 * For whoever samples: top-k is count = k. Min-p is count = the room you have and gap = -temperature * log(min_p); if
 * *found == count there may be more, then ask for all logits. A penalty that only lowers m tokens' logits leaves the
 * best k among the best k + m. Top-p alone needs the sum over all logits, hence all logits.
 *
 * The caller holds pass_lock. NIS_NOT_FINITE as for all logits, except that a logit that is infinite only because of
 * rounding is found wherever it is, and that with a screen from the package a damaged row is met only where it counts. */
nis_status nis_head_best(nis_model *model, const float *normed, size_t count, float gap, nis_candidate *best,
                         size_t *found);

/* Whether the screen would serve for `count` tokens; otherwise all logits cost no more. */
bool nis_head_is_screened(const nis_model *model, size_t count);

/* All logits after `normed`, in memory of the model. The caller holds pass_lock. */
nis_status nis_head_all(nis_model *model, const float *normed, const float **logits);

/* Tells the system, if it is news, how the pages of the head will be read: all in order, or a row here and there. */
void nis_head_expect(nis_model *model, bool here_and_there);

/* A row of the head [hidden], of head_dtype. */
const void *nis_head_row(const nis_model *model, size_t row);

void nis_head_free(nis_model *model);

#endif
