/* From logits to the next token: filters, a draw, and log-probabilities, with the same result on every machine.
 *
 * Probabilities become whole numbers of 30 bits at once, so that every sum is exact and no order matters; exponentials
 * are float_kernels.h's. The generator is splitmix64 (S. Vigna) used as a counter: draw n of a seed is a function of both
 * and of nothing else, so a conversation can be replayed from any place. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "choosing.h"
#include "float_environment.h"
#include "model.h"
#include "rope.h"

enum {
    WEIGHT_BITS = 30, /* of the most likely token */
    DIGIT_BITS = 11,  /* of a weight, per pass of a selection: three passes see 31 bits */
    DIGITS = 1 << DIGIT_BITS,
    FOUND_MAX = 1024, /* more of the most likely tokens than these are not asked for */
    FOUND_SPARE = 8,  /* so many beyond top-k: the last weight must differ from the k-th */
    MIN_P_GUESS = 256,
    MISS_REST = 16, /* tokens chosen from all logits after the most likely ones did not suffice */
};

/* e^-21 < 2^-30: a token that lies further below the most likely one has weight 0. */
#define REACH 21.0f

struct nis_sampler {
    const nis_float_kernels *floats;
    size_t vocab;
    nis_sampling how;
    uint64_t draws;
    float *logits;     /* [vocab]: of the candidates, then their exponentials */
    float *penalised;  /* [vocab] */
    int32_t *tokens;   /* [vocab]: the candidates, ascending */
    uint32_t *weights; /* [vocab] of the candidates */
    uint64_t sums[DIGITS];
    nis_candidate found[FOUND_MAX];
    unsigned rest; /* tokens to choose from all logits before the most likely ones are tried again */
};

static uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

uint64_t nis_draw(uint64_t seed, uint64_t number) {
    return mixed(mixed(seed + 0x9e3779b97f4a7c15) + (number + 1) * 0x9e3779b97f4a7c15);
}

/* floor(a * b / 2^64) */
static uint64_t high_product(uint64_t a, uint64_t b) {
    const uint64_t al = a & 0xffffffff, ah = a >> 32, bl = b & 0xffffffff, bh = b >> 32;
    const uint64_t low = al * bl, one = ah * bl + (low >> 32), two = al * bh + (one & 0xffffffff);
    return ah * bh + (one >> 32) + (two >> 32);
}

static bool within(float x, float lowest, float highest) { return x >= lowest && x <= highest; }

nis_status nis_sampler_create(const nis_model *model, const nis_sampling *how, nis_sampler **created) {
    if (!created) return NIS_ARGUMENT;
    *created = NULL;
    if (!model || !how || !within(how->temperature, 0.0f, 100.0f) || !within(how->top_p, 1e-6f, 1.0f) ||
        !within(how->min_p, 0.0f, 1.0f) || !within(how->repetition_penalty, 0.01f, 100.0f)) {
        return NIS_ARGUMENT;
    }
    nis_sampler *s = calloc(1, sizeof *s);
    if (!s) return NIS_NO_MEMORY;
    const size_t vocab = model->a.vocab;
    s->floats = model->kernels->floats;
    s->vocab = vocab;
    s->how = *how;
    s->logits = malloc(vocab * sizeof *s->logits);
    s->penalised = malloc(vocab * sizeof *s->penalised);
    s->tokens = malloc(vocab * sizeof *s->tokens);
    s->weights = malloc(vocab * sizeof *s->weights);
    if (!s->logits || !s->penalised || !s->tokens || !s->weights) {
        nis_sampler_free(s);
        return NIS_NO_MEMORY;
    }
    *created = s;
    return NIS_OK;
}

void nis_sampler_free(nis_sampler *s) {
    if (!s) return;
    free(s->logits);
    free(s->penalised);
    free(s->tokens);
    free(s->weights);
    free(s);
}

static const float *penalise(nis_sampler *s, const float *logits, const int32_t *recent, size_t count) {
    const float penalty = s->how.repetition_penalty;
    if (penalty == 1.0f || count == 0) return logits;
    memcpy(s->penalised, logits, s->vocab * sizeof *logits);
    for (size_t i = 0; i < count; i++) { /* from the untouched logits, so that a token named twice is punished once */
        const float x = logits[recent[i]];
        s->penalised[recent[i]] = x > 0.0f ? x / penalty : x * penalty;
    }
    return s->penalised;
}

/* The allowed tokens and their logits, ascending; returns their number. */
static size_t gather(nis_sampler *s, const float *logits, const uint64_t *allowed) {
    size_t count = 0;
    for (size_t base = 0; base < s->vocab; base += 64) {
        uint64_t bits = allowed[base / 64];
        if (s->vocab - base < 64) bits &= ((uint64_t)1 << (s->vocab - base)) - 1;
        for (; bits; bits &= bits - 1) {
            const size_t token = base + (size_t)__builtin_ctzll(bits);
            s->tokens[count] = (int32_t)token;
            s->logits[count++] = logits[token];
        }
    }
    return count;
}

static size_t most_likely(const nis_sampler *s, const float *logits, size_t count) {
    const float largest = s->floats->maximum(logits, count);
    size_t first = 0;
    while (first + 1 < count && logits[first] != largest) first++;
    return first;
}

/* Candidates `tokens` (NULL: every index is its own token) with `logits` [count] that can have a weight get it; the others
 * are dropped. `tokens` and `logits` may be the sampler's own. */
static size_t weigh(nis_sampler *s, const int32_t *tokens, const float *logits, size_t count) {
    const float largest = s->floats->maximum(logits, count), temperature = s->how.temperature;
    const float lowest = largest - REACH * temperature;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (logits[i] < lowest) continue;
        s->tokens[kept] = tokens ? tokens[i] : (int32_t)i;
        s->logits[kept++] = (logits[i] - largest) / temperature;
    }
    s->floats->exponentials(s->logits, kept, 0.0f);
    const float whole = (float)(1 << WEIGHT_BITS);
    const uint32_t least = (uint32_t)(s->how.min_p * whole);
    size_t heavy = 0;
    for (size_t i = 0; i < kept; i++) {
        const uint32_t weight = (uint32_t)(s->logits[i] * whole);
        if (weight == 0 || weight < least) continue;
        s->tokens[heavy] = s->tokens[i];
        s->weights[heavy++] = weight;
    }
    return heavy;
}

static uint64_t sum_of(const uint32_t *weights, size_t count) {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) sum += weights[i];
    return sum;
}

/* Keeps the heaviest candidates, lower tokens first among equals, until their number (or, by_weight, the sum of their
 * weights) reaches `goal`. A radix selection: no sorting, three passes. */
static size_t keep_heaviest(nis_sampler *s, size_t count, uint64_t goal, bool by_weight) {
    uint32_t prefix = 0; /* the digits known so far of the lightest weight that is kept */
    uint64_t above = 0;  /* what weighs more */
    for (int shift = WEIGHT_BITS + 1 - DIGIT_BITS, width = DIGIT_BITS; width > 0;) {
        memset(s->sums, 0, sizeof s->sums);
        for (size_t i = 0; i < count; i++) {
            if ((uint64_t)s->weights[i] >> (shift + width) != prefix) continue;
            s->sums[s->weights[i] >> shift & ((1u << width) - 1)] += by_weight ? s->weights[i] : 1;
        }
        uint32_t digit = (1u << width) - 1;
        while (digit > 0 && above + s->sums[digit] < goal) above += s->sums[digit--];
        prefix = prefix << width | digit;
        width = shift < DIGIT_BITS ? shift : DIGIT_BITS;
        shift -= width;
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (s->weights[i] < prefix) continue;
        if (s->weights[i] == prefix) {
            if (above >= goal) continue;
            above += by_weight ? prefix : 1;
        }
        s->tokens[kept] = s->tokens[i];
        s->weights[kept++] = s->weights[i];
    }
    return kept;
}

static int32_t draw(nis_sampler *s, size_t count) {
    uint64_t at = high_product(nis_draw(s->how.seed, s->draws++), sum_of(s->weights, count));
    size_t i = 0;
    while (i + 1 < count && at >= s->weights[i]) at -= s->weights[i++];
    return s->tokens[i];
}

/* Top-p of the weights that are left, and the draw. */
static int32_t finish(nis_sampler *s, size_t count) {
    if (s->how.top_p < 1.0f) {
        const uint64_t goal = (uint64_t)((double)s->how.top_p * (double)sum_of(s->weights, count));
        count = keep_heaviest(s, count, goal > 0 ? goal : 1, true);
    }
    return draw(s, count);
}

static nis_status choose(nis_sampler *s, const float *logits, const uint64_t *allowed, int32_t *token) {
    const int32_t *tokens = NULL; /* without a set of allowed ones every index is its own token */
    size_t count = s->vocab;
    if (allowed) {
        count = gather(s, logits, allowed);
        if (count == 0) return NIS_EMPTY;
        tokens = s->tokens;
        logits = s->logits;
    }
    if (s->how.temperature == 0.0f) {
        const size_t best = most_likely(s, logits, count);
        *token = tokens ? tokens[best] : (int32_t)best;
        return NIS_OK;
    }
    count = weigh(s, tokens, logits, count);
    if (s->how.top_k > 0 && s->how.top_k < count) count = keep_heaviest(s, count, s->how.top_k, false);
    *token = finish(s, count);
    return NIS_OK;
}

/* ---- from the most likely tokens alone --------------------------------------------------------------------------- */

nis_candidate *nis_sampler_room(nis_sampler *s) { return s->found; }

size_t nis_sampler_vocab(const nis_sampler *s) { return s->vocab; }

bool nis_sampler_knows(const nis_sampler *s, const int32_t *tokens, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= s->vocab) return false;
    }
    return true;
}

/* A penalty above 1 only lowers logits, so that the k best afterwards are among the k + recent_count best before. */
size_t nis_sampler_wanted(const nis_sampler *s, size_t recent_count, float *gap) {
    const size_t lowered = s->how.repetition_penalty == 1.0f ? 0 : recent_count;
    const float temperature = s->how.temperature;
    *gap = INFINITY;
    if (s->rest > 0 || (lowered > 0 && s->how.repetition_penalty < 1.0f) || lowered > FOUND_MAX) return 0;
    size_t wanted = 0;
    if (temperature == 0.0f) {
        wanted = lowered > 0 ? lowered + 2 : 1;
    } else {
        float reach = REACH;
        if (s->how.min_p > 0.0f) {
            const float cut = (float)-nis_logarithm((double)s->how.min_p);
            if (cut < reach) reach = cut;
        }
        /* A little more than needed; whether it was enough is seen from the weights. */
        if (lowered == 0) *gap = temperature * reach * 1.001f + 0.001f;
        if (s->how.top_k > 0) {
            wanted = s->how.top_k < FOUND_MAX ? s->how.top_k + lowered + FOUND_SPARE : 0;
        } else if (s->how.min_p > 0.0f && lowered == 0) {
            wanted = MIN_P_GUESS;
        }
    }
    return wanted <= FOUND_MAX && wanted < s->vocab ? wanted : 0;
}

static int by_token(const void *a, const void *b) {
    const int32_t one = ((const nis_candidate *)a)->token, other = ((const nis_candidate *)b)->token;
    return (one > other) - (one < other);
}

static void penalise_found(nis_sampler *s, const nis_candidate *found, size_t count, const int32_t *recent,
                           size_t recent_count) {
    const float penalty = s->how.repetition_penalty;
    for (size_t i = 0; i < recent_count; i++) {
        const nis_candidate key = {recent[i], 0.0f}, *hit = bsearch(&key, found, count, sizeof key, by_token);
        if (hit) s->logits[hit - found] = hit->logit > 0.0f ? hit->logit / penalty : hit->logit * penalty;
    }
}

/* What no token with a logit of at most `logit` can weigh more than. Subtraction and division round monotonically, the
 * exponential is within 1.5 ulp: of two results in the wrong order the greater is less than 2^-21 above the smaller. */
static uint32_t heaviest_at_most(const nis_sampler *s, float logit, float largest) {
    if (logit < largest - REACH * s->how.temperature) return 0;
    float x = (logit - largest) / s->how.temperature;
    s->floats->exponentials(&x, 1, 0.0f);
    const uint32_t weight = (uint32_t)(x * (float)(1 << WEIGHT_BITS));
    return weight + (weight >> 20) + 1;
}

static uint32_t lightest(const uint32_t *weights, size_t count) {
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < count; i++) least = weights[i] < least ? weights[i] : least;
    return least;
}

static bool choose_among(nis_sampler *s, nis_candidate *found, size_t count, float outside, const int32_t *recent,
                         size_t recent_count, int32_t *token) {
    qsort(found, count, sizeof *found, by_token);
    for (size_t i = 0; i < count; i++) {
        s->tokens[i] = found[i].token;
        s->logits[i] = found[i].logit;
    }
    if (s->how.repetition_penalty != 1.0f) penalise_found(s, found, count, recent, recent_count);
    const size_t best = most_likely(s, s->logits, count);
    const float largest = s->logits[best];
    if (s->how.temperature == 0.0f) {
        *token = s->tokens[best];
        return largest > outside;
    }
    if (!(largest >= outside)) return false;
    const uint32_t others = heaviest_at_most(s, outside, largest);
    const uint32_t least = (uint32_t)(s->how.min_p * (float)(1 << WEIGHT_BITS));
    count = weigh(s, s->tokens, s->logits, count);
    const size_t top = s->how.top_k;
    if (top > 0 && top < count) count = keep_heaviest(s, count, top, false);
    /* No other token has a weight that counts, or the k kept here are heavier than any other. */
    const bool none_other = others == 0 || others < least;
    if (!none_other && !(top > 0 && count == top && lightest(s->weights, count) > others)) return false;
    *token = finish(s, count);
    return true;
}

void nis_sampler_choose_among(nis_sampler *s, nis_candidate *found, size_t count, size_t wanted, float gap,
                              const int32_t *recent, size_t recent_count, int32_t *token, bool *sure) {
    const bool plain = s->how.repetition_penalty == 1.0f || recent_count == 0;
    if (s->how.temperature == 0.0f && plain) {
        *token = found[0].token; /* the lowest among equals, by nis_head_best's promise */
        *sure = true;
        return;
    }
    const unsigned long environment = nis_float_standard();
    const float outside = count == wanted ? found[count - 1].logit : found[0].logit - gap;
    *sure = choose_among(s, found, count, outside, recent, recent_count, token);
    if (!*sure) s->rest = MISS_REST;
    nis_float_restore(environment);
}

/* ---- from all logits --------------------------------------------------------------------------------------------- */

nis_status nis_sampler_choose(nis_sampler *s, const float *logits, const uint64_t *allowed, const int32_t *recent,
                              size_t recent_count, int32_t *token) {
    if (!s || !logits || !token || (recent_count > 0 && !recent)) return NIS_ARGUMENT;
    if (!nis_sampler_knows(s, recent, recent_count)) return NIS_TOKEN;
    if (s->rest > 0) s->rest--;
    const unsigned long environment = nis_float_standard();
    nis_status status = NIS_NOT_FINITE;
    if (s->floats->magnitude_bits(logits, s->vocab) < NIS_NOT_FINITE_BITS) {
        status = choose(s, penalise(s, logits, recent, recent_count), allowed, token);
    }
    nis_float_restore(environment);
    return status;
}

/* `likely` [count] holds the best so far, best first, `filled` of them. */
static size_t insert(nis_likely *likely, size_t count, size_t filled, int32_t token, float logit) {
    if (filled == count && !(logit > likely[filled - 1].log_probability)) return filled;
    size_t at = filled < count ? filled++ : filled - 1;
    for (; at > 0 && logit > likely[at - 1].log_probability; at--) likely[at] = likely[at - 1];
    likely[at] = (nis_likely){token, logit};
    return filled;
}

nis_status nis_sampler_log_probabilities(nis_sampler *s, const float *logits, int32_t token, float *of_token,
                                         nis_likely *likely, size_t count) {
    if (!s || !logits || !of_token || (count > 0 && !likely) || count > s->vocab) return NIS_ARGUMENT;
    if (token < 0 || (size_t)token >= s->vocab) return NIS_TOKEN;
    const unsigned long environment = nis_float_standard();
    nis_status status = NIS_NOT_FINITE;
    if (s->floats->magnitude_bits(logits, s->vocab) < NIS_NOT_FINITE_BITS) {
        const float largest = s->floats->maximum(logits, s->vocab);
        memcpy(s->logits, logits, s->vocab * sizeof *logits);
        const double sum = (double)s->floats->exponentials(s->logits, s->vocab, largest);
        const double all = (double)largest + nis_logarithm(sum); /* sum is at least 1 */
        size_t filled = 0;
        for (size_t i = 0; count > 0 && i < s->vocab; i++) filled = insert(likely, count, filled, (int32_t)i, logits[i]);
        for (size_t i = 0; i < filled; i++) likely[i].log_probability = (float)((double)likely[i].log_probability - all);
        *of_token = (float)((double)logits[token] - all);
        status = NIS_OK;
    }
    nis_float_restore(environment);
    return status;
}
