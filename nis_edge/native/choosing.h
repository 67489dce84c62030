/* What a sampler can say from the most likely tokens alone. */
#ifndef NIS_CHOOSING_H
#define NIS_CHOOSING_H

#include "model.h"

/* How many of the most likely tokens (within *gap of the best) probably suffice; 0: all logits are needed. */
size_t nis_sampler_wanted(const nis_sampler *sampler, size_t recent_count, float *gap);

/* Chooses among `found` [count], which nis_head_best named when asked for `wanted` within `gap`: *sure, and the token that
 * nis_sampler_choose would choose from all logits. Not *sure: nothing was drawn, all logits are needed. `recent` is in
 * the vocabulary. */
void nis_sampler_choose_among(nis_sampler *sampler, nis_candidate *found, size_t count, size_t wanted, float gap,
                              const int32_t *recent, size_t recent_count, int32_t *token, bool *sure);

/* Room for nis_sampler_wanted's candidates. */
nis_candidate *nis_sampler_room(nis_sampler *sampler);
bool nis_sampler_knows(const nis_sampler *sampler, const int32_t *tokens, size_t count);
size_t nis_sampler_vocab(const nis_sampler *sampler);

#endif
