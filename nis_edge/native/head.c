/* The output head: screened in a few bits, decided in full precision.
 *
 * Theory. The head has a row w per token, its logit is w . h. Most tokens are far from likely, and a rough product shows
 * that: with a stand-in v for w and an int8 vector q for h, in real numbers
 *
 *   w . h = v . q  +  (w - v) . h  +  v . (h - q)
 *   |w . h - v . q|  <=  ||w - v|| ||h||  +  ||v|| ||h - q||                                (Cauchy and Schwarz)
 *                    <=  e H + (N + e) D,    e >= ||w - v||, N >= ||w||, H >= ||h||, D >= ||h - q||
 *
 * The logit that the engine defines is rounded: eight lanes of n / 8 fused additions and a tree. It is off by at most
 * (n / 8 + 8) 2^-24 N H. The estimate v . q is an exact integer times two floats; its conversion and products are off by
 * at most 4 * 2^-24 (N + e)(H + D). With K = 2^-20 + (n / 8 + 8) 2^-23 all of it is below
 *
 *   bound = e a + N b + 2^-100,    a = (H + D)(1 + K),  b = D + (H + D) K,   both rounded up
 *
 * so that upper = estimate + bound is never below the logit. H and D are summed in double, e and N come with their proof
 * from screen_row (float_kernels.h); 2^-100 stands above whatever underflows. Where the sizes could overflow a float, or
 * underflow to where 2^-100 is coarse, the head is computed in full.
 *
 * Deciding. The rows with the greatest uppers are computed in full: the count-th best of them is a bound L that the true
 * count-th best cannot be below. Rows whose upper is below L are out. The rest are looked at with one more bit, which
 * halves e, and so on; what is left after the last bit is computed in full and sorted. Nothing of the result depends on
 * the screen: a coarser one leaves more rows to compute, never other tokens. tests/kernels holds it against sorting.
 *
 * Where it is from. A package may bring it (record 0017): then the first evaluation reads it where it is mapped. Else it
 * is made from the rows themselves, by the threads, a slice at each of the first evaluations after the very first; rows
 * without one are computed in full until then (record 0008). */
#define _GNU_SOURCE
#include "head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "screen_making.h"

enum {
    /* More candidates than a sixteenth of the vocabulary: nearly every row would be computed twice. */
    VOCABULARY_SHARE = 16,
    SLICES = 8,
    /* So few rows are computed in full at once instead of being looked at with another bit. */
    FEW_ROWS = 64,
    /* Every so many evaluations the cheaper first level is tried again. */
    TRY_AGAIN = 64,
    SCAN_BLOCK = 64,
    HUGE_PAGE = 2 << 20,
};

typedef struct nis_screen {
    size_t groups; /* of 256 columns */
    nis_screen_planes planes; /* [vocab] rows */
    nis_screen_places made;   /* where this engine made them; all NULL where they are the package's */
    size_t built;             /* rows that have planes */
    double longest;           /* of their stand-ins, norms and errors: nis_screen_longest */
    size_t first_level;    /* 0: nibbles for all rows; 1: nibbles and ones */
    size_t since_level_0;
    int8_t *activations;   /* [groups * 256] */
    int32_t *dots;         /* [vocab]: twice the codes' product minus the middle's, in units of scale / 2 */
    uint32_t *list;        /* [vocab] */
    char *scratch;         /* [threads]: what making a row takes */
} nis_screen;

/* What the middle of level l's codes is worth per activation, in half codes: u = 4 n + 2 o + h - 31.5, and a plane that
 * was not read stands for its middle. */
static const int32_t middle[NIS_SCREEN_LEVELS] = {60, 62, 63};
static const int32_t bit_worth[2] = {4, 2};

typedef struct {
    nis_model *model;
    nis_screen *screen;
    const float *normed;
    float *upper; /* [vocab]; of a computed row its logit */
    size_t level;
    int32_t activation_sum;
    float factor; /* activation = int8 * 2 * factor; twice because dots are in half codes */
    float a, b;   /* the bound's factors, above */
    const uint32_t *list;
    atomic_bool not_finite;
} evaluation;

static size_t row_bytes(const nis_model *model) { return (size_t)model->a.hidden * nis_element_bytes(model->head_dtype); }

const void *nis_head_row(const nis_model *model, size_t row) {
    return (const char *)model->head + row * row_bytes(model);
}

/* In the latter case reading ahead would fill the memory with rows that nobody asks for. Pages shared with other tensors
 * are left alone; a refusal costs speed only. */
void nis_head_expect(nis_model *model, bool here_and_there) {
    if (model->head_here_and_there == here_and_there) return;
    model->head_here_and_there = here_and_there;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), head = (uintptr_t)model->head;
    const uintptr_t first = (head + page - 1) / page * page, end = (head + model->a.vocab * row_bytes(model)) / page * page;
    if (first < end) madvise((void *)first, end - first, here_and_there ? MADV_RANDOM : MADV_NORMAL);
}

/* ---- computing rows in full -------------------------------------------------------------------------------------- */

/* Items: rows of the head. */
static void compute_rows(void *argument, size_t thread, size_t first, size_t end) {
    (void)thread;
    evaluation *e = argument;
    const size_t hidden = e->model->a.hidden;
    const nis_float_kernels *floats = e->model->kernels->floats;
    floats->dot_rows(e->normed, nis_head_row(e->model, first), e->model->head_dtype, hidden, end - first, hidden,
                     e->upper + first);
    if (floats->magnitude_bits(e->upper + first, end - first) >= NIS_NOT_FINITE_BITS) atomic_store(&e->not_finite, true);
}

/* Items: places in the list. */
static void compute_listed(void *argument, size_t thread, size_t item, size_t end) {
    evaluation *e = argument;
    for (; item < end; item++) compute_rows(e, thread, e->list[item], e->list[item] + 1);
}

/* ---- the best of many -------------------------------------------------------------------------------------------- */

static bool worse(const nis_candidate *a, const nis_candidate *b) {
    return a->logit < b->logit || (a->logit == b->logit && a->token > b->token);
}

static void sift_down(nis_candidate *heap, size_t size, size_t at) {
    for (size_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && worse(&heap[child + 1], &heap[child])) child++;
        if (!worse(&heap[child], &heap[at])) return;
        const nis_candidate held = heap[at];
        heap[at] = heap[child];
        heap[child] = held;
    }
}

/* A heap with the worst on top; `size` of `room` are taken. */
static void offer(nis_candidate *heap, size_t *size, size_t room, nis_candidate candidate) {
    if (*size < room) {
        heap[(*size)++] = candidate;
        if (*size == room) {
            for (size_t at = room / 2 + 1; at-- > 0;) sift_down(heap, room, at);
        }
    } else if (worse(&heap[0], &candidate)) {
        heap[0] = candidate;
        sift_down(heap, room, 0);
    }
}

static int by_rank(const void *a, const void *b) { return (int)worse(a, b) - (int)worse(b, a); }

/* The `room` best of values [count], best first; returns how many. */
static size_t best_of(const nis_float_kernels *floats, const float *values, size_t count, size_t room,
                      nis_candidate *best) {
    size_t size = 0;
    for (size_t block = 0; block < count; block += SCAN_BLOCK) {
        const size_t end = block + SCAN_BLOCK < count ? block + SCAN_BLOCK : count;
        if (size == room && floats->maximum(values + block, end - block) <= best[0].logit) continue;
        for (size_t i = block; i < end; i++) offer(best, &size, room, (nis_candidate){(int32_t)i, values[i]});
    }
    qsort(best, size, sizeof *best, by_rank);
    return size;
}

/* How many of the sorted candidates lie within the gap. */
static size_t within_gap(const nis_candidate *best, size_t size, float gap) {
    const float lowest = best[0].logit - gap;
    while (size > 1 && !(best[size - 1].logit >= lowest)) size--;
    return size;
}

/* ---- making the screen ------------------------------------------------------------------------------------------- */

static void *large_memory(size_t bytes) {
    const size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : 64;
    void *p = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (p && bytes >= HUGE_PAGE) madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a refusal costs speed only */
    return p;
}

static void free_screen(nis_screen *s) {
    if (!s) return;
    const nis_screen_places *m = &s->made;
    void *owned[] = {m->nibbles, m->ones, m->halves, m->scales, m->norms, m->errors[0], m->errors[1], m->errors[2],
                     s->activations, s->dots, s->list, s->scratch};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) free(owned[i]);
    free(s);
}

/* Room for the planes of all rows; false: there is none. */
static bool make_room(nis_screen *s, size_t vocab, size_t hidden, size_t threads) {
    nis_screen_places *m = &s->made;
    m->nibbles = large_memory(vocab * s->groups * NIS_SCREEN_NIBBLE_BYTES);
    m->ones = large_memory(vocab * s->groups * NIS_SCREEN_BIT_BYTES);
    m->halves = large_memory(vocab * s->groups * NIS_SCREEN_BIT_BYTES);
    m->scales = large_memory(vocab * sizeof(float));
    m->norms = large_memory(vocab * sizeof(float));
    for (size_t i = 0; i < NIS_SCREEN_LEVELS; i++) m->errors[i] = large_memory(vocab * sizeof(float));
    s->scratch = calloc(threads, nis_screen_scratch_bytes(hidden)); /* a multiple of 256 * 5: every thread's is aligned */
    s->planes = (nis_screen_planes){m->nibbles, {m->ones, m->halves}, m->scales, m->norms,
                                    {m->errors[0], m->errors[1], m->errors[2]}};
    return m->nibbles && m->ones && m->halves && m->scales && m->norms && m->errors[0] && m->errors[1] && m->errors[2] &&
           s->scratch;
}

static nis_screen *make_screen(const nis_model *model) {
    const size_t vocab = model->a.vocab, hidden = model->a.hidden;
    nis_screen *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->groups = nis_screen_groups(hidden);
    s->activations = calloc(s->groups * NIS_SCREEN_GROUP_COLUMNS, 1);
    s->dots = large_memory(vocab * sizeof(int32_t));
    s->list = large_memory(vocab * sizeof(uint32_t));
    bool ready = s->activations && s->dots && s->list;
    if (model->packed_screen.nibbles) {
        s->planes = model->packed_screen;
        s->built = vocab;
        s->longest = nis_screen_longest(model->kernels->floats, &s->planes, 0, vocab);
    } else {
        ready = ready && make_room(s, vocab, hidden, nis_pool_threads(model->pool));
    }
    if (!ready) {
        free_screen(s);
        return NULL;
    }
    return s;
}

/* Items: rows from screen->built on. */
static void screen_rows(void *argument, size_t thread, size_t item, size_t end) {
    evaluation *e = argument;
    const nis_screen *s = e->screen;
    const nis_model *model = e->model;
    void *scratch = s->scratch + thread * nis_screen_scratch_bytes(model->a.hidden);
    for (; item < end; item++) {
        const size_t row = s->built + item;
        if (!nis_screen_make_row(model->kernels->floats, nis_head_row(model, row), model->head_dtype, model->a.hidden,
                                 scratch, row, &s->made)) {
            atomic_store(&e->not_finite, true);
            return;
        }
    }
}

static nis_status build_slice(evaluation *e) {
    nis_screen *s = e->screen;
    const size_t vocab = e->model->a.vocab, slice = vocab / SLICES + 1, left = vocab - s->built;
    const size_t count = slice < left ? slice : left;
    nis_pool_run(e->model->pool, screen_rows, e, count);
    if (atomic_load(&e->not_finite)) return NIS_NOT_FINITE;
    s->longest = fmax(s->longest, nis_screen_longest(e->model->kernels->floats, &s->planes, s->built, count));
    s->built += count;
    return NIS_OK;
}

/* ---- looking through it ------------------------------------------------------------------------------------------ */

/* Sets activations, factor, a and b from normed; false where the bounds would not hold, or not help. */
static bool prepare(evaluation *e) {
    const nis_screen *s = e->screen;
    const size_t hidden = e->model->a.hidden;
    const nis_float_kernels *floats = e->model->kernels->floats;
    const uint32_t bits = floats->magnitude_bits(e->normed, hidden);
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    if (!(largest >= 0x1p-40f && largest <= 0x1p40f)) return false;
    e->activation_sum = floats->quantise(e->normed, hidden, 127.0f / largest, s->activations);
    const double step = (double)largest / 127.0;
    double squares = 0.0, missed = 0.0;
    for (size_t i = 0; i < hidden; i++) {
        const double x = e->normed[i], miss = x - s->activations[i] * step;
        squares += x * x;
        missed += miss * miss;
    }
    /* A sum of 65536 squares in double is off by less than 2^-36 of itself. */
    const double length = sqrt(squares) * (1.0 + 0x1p-36), distance = sqrt(missed) * (1.0 + 0x1p-36) + 0x1p-80;
    const double k = 0x1p-20 + ((double)hidden / 8.0 + 8.0) * 0x1p-23;
    e->factor = (float)(step * 0.5);
    e->a = (float)((length + distance) * (1.0 + k) * (1.0 + 0x1p-20));
    e->b = (float)((distance + (length + distance) * k) * (1.0 + 0x1p-20));
    return s->longest * (length + distance) < 0x1p100;
}

static void raise_uppers(evaluation *e, size_t row, size_t count) {
    const nis_screen_planes *p = &e->screen->planes;
    e->model->kernels->floats->screen_uppers(e->screen->dots + row, p->scales + row, p->norms + row,
                                             p->errors[e->level] + row, count, e->factor, e->a, e->b, e->upper + row);
}

/* Adds bit plane `level - 1` of a row, so that its product is that of `level`. */
static int32_t bit_product(const evaluation *e, size_t row, size_t level) {
    const nis_screen *s = e->screen;
    const uint8_t *bits = s->planes.bits[level - 1] + row * s->groups * NIS_SCREEN_BIT_BYTES;
    const int32_t dot = e->model->kernels->screen->bits(bits, s->groups, s->activations);
    return bit_worth[level - 1] * dot - (middle[level] - middle[level - 1]) * e->activation_sum;
}

/* Items: rows. Those with planes get their upper of the first level, the others their logit. */
static void look_at_rows(void *argument, size_t thread, size_t first, size_t end) {
    evaluation *e = argument;
    nis_screen *s = e->screen;
    if (end > s->built) compute_rows(e, thread, first > s->built ? first : s->built, end);
    if (end > s->built) end = s->built;
    if (first >= end) return;
    const uint8_t *nibbles = s->planes.nibbles + first * s->groups * NIS_SCREEN_NIBBLE_BYTES;
    e->model->kernels->screen->nibbles(nibbles, end - first, s->groups, s->activations, s->dots + first);
    for (size_t row = first; row < end; row++) s->dots[row] = 8 * s->dots[row] - middle[0] * e->activation_sum;
    for (size_t row = first; e->level == 1 && row < end; row++) {
        const uint8_t *ahead = s->planes.bits[0] + row * s->groups * NIS_SCREEN_BIT_BYTES + 2048;
        for (size_t line = 0; line < s->groups * NIS_SCREEN_BIT_BYTES; line += 64) __builtin_prefetch(ahead + line, 0, 2);
        s->dots[row] += bit_product(e, row, 1);
    }
    raise_uppers(e, first, end - first);
}

/* Items: places in the list. One more bit. */
static void look_at_listed(void *argument, size_t thread, size_t item, size_t end) {
    (void)thread;
    evaluation *e = argument;
    nis_screen *s = e->screen;
    for (; item < end; item++) {
        const size_t row = e->list[item];
        if (item + 4 < end) {
            const uint8_t *ahead = s->planes.bits[e->level - 1] + e->list[item + 4] * s->groups * NIS_SCREEN_BIT_BYTES;
            for (size_t line = 0; line < s->groups * NIS_SCREEN_BIT_BYTES; line += 64) __builtin_prefetch(ahead + line);
        }
        s->dots[row] += bit_product(e, row, e->level);
        raise_uppers(e, row, 1);
    }
}

/* The rows whose upper, or logit, is not below `lowest`: screened ones alone, or all. Returns how many. */
static size_t list_rows(const evaluation *e, float lowest, size_t rows) {
    const nis_float_kernels *floats = e->model->kernels->floats;
    uint32_t *list = e->screen->list;
    size_t size = 0;
    for (size_t block = 0; block < rows; block += SCAN_BLOCK) {
        const size_t end = block + SCAN_BLOCK < rows ? block + SCAN_BLOCK : rows;
        if (floats->maximum(e->upper + block, end - block) < lowest) continue;
        for (size_t row = block; row < end; row++) {
            list[size] = (uint32_t)row;
            size += e->upper[row] >= lowest;
        }
    }
    return size;
}

/* What no row below can be among the `count` best, or within the gap: from the logits of the rows with the best uppers.
 * `best` is room for `count`. */
static float lowest_of_best(evaluation *e, size_t count, float gap, nis_candidate *best) {
    const nis_float_kernels *floats = e->model->kernels->floats;
    const size_t size = best_of(floats, e->upper, e->model->a.vocab, count, best), hidden = e->model->a.hidden;
    float lowest = INFINITY, highest = -INFINITY;
    for (size_t i = 0; i < size; i++) {
        float logit;
        const void *row = nis_head_row(e->model, (size_t)best[i].token);
        floats->dot_rows(e->normed, row, e->model->head_dtype, hidden, 1, hidden, &logit);
        lowest = logit < lowest ? logit : lowest;
        highest = logit > highest ? logit : highest;
    }
    return highest - gap > lowest ? highest - gap : lowest;
}

static nis_status best_screened(evaluation *e, size_t count, float gap, nis_candidate *best, size_t *found) {
    nis_model *model = e->model;
    nis_screen *s = e->screen;
    nis_head_stats *stats = &model->head_stats;
    const size_t vocab = model->a.vocab;
    if (s->first_level == 1 && ++s->since_level_0 == TRY_AGAIN) s->first_level = s->since_level_0 = 0;
    e->level = s->first_level;
    nis_pool_run(model->pool, look_at_rows, e, vocab);
    if (atomic_load(&e->not_finite)) return NIS_NOT_FINITE;
    stats->rows_screened += s->built;

    float lowest = lowest_of_best(e, count, gap, best);
    while (++e->level < NIS_SCREEN_LEVELS) {
        const size_t size = list_rows(e, lowest, s->built);
        if (e->level == 1 && size > s->built / 2) s->first_level = 1;
        if (size <= FEW_ROWS + count) break;
        e->list = s->list;
        nis_pool_run(model->pool, look_at_listed, e, size);
        stats->rows_refined += size;
        const float raised = lowest_of_best(e, count, gap, best);
        lowest = raised > lowest ? raised : lowest;
    }
    const size_t size = list_rows(e, lowest, vocab);
    e->list = s->list;
    nis_pool_run(model->pool, compute_listed, e, size);
    if (atomic_load(&e->not_finite)) return NIS_NOT_FINITE;
    stats->rows_computed += size + (vocab - s->built);

    *found = 0;
    for (size_t i = 0; i < size; i++) {
        offer(best, found, count, (nis_candidate){(int32_t)s->list[i], e->upper[s->list[i]]});
    }
    qsort(best, *found, sizeof *best, by_rank);
    *found = within_gap(best, *found, gap);
    return NIS_OK;
}

/* ---- the door ---------------------------------------------------------------------------------------------------- */

static bool is_worth(size_t vocab, size_t hidden, nis_dtype dtype, uint64_t from_bytes) {
    return from_bytes <= vocab * hidden * nis_element_bytes(dtype) && hidden >= NIS_SCREEN_COLUMNS_MIN &&
           hidden <= NIS_SCREEN_COLUMNS_MAX && vocab >= VOCABULARY_SHARE;
}

uint32_t nis_screen_pays(uint32_t vocab, uint32_t hidden, uint32_t dtype) {
    return dtype <= NIS_BF16 && is_worth(vocab, hidden, (nis_dtype)dtype, NIS_SCREEN_FROM_BYTES);
}

bool nis_head_is_screened(const nis_model *model, size_t count) {
    return is_worth(model->a.vocab, model->a.hidden, model->head_dtype, model->screen_from_bytes) &&
           count <= model->a.vocab / VOCABULARY_SHARE;
}

nis_status nis_head_best(nis_model *model, const float *normed, size_t count, float gap, nis_candidate *best,
                         size_t *found) {
    const size_t vocab = model->a.vocab;
    if (!model->head_values) model->head_values = large_memory(vocab * sizeof(float));
    if (!model->head_values) return NIS_NO_MEMORY;
    evaluation e = {.model = model, .normed = normed, .upper = model->head_values};
    const bool screen = nis_head_is_screened(model, count);
    nis_head_stats *stats = &model->head_stats;
    stats->rows += vocab;
    /* The first token after loading should not wait for a screen to be made. */
    const bool at_once = model->packed_screen.nibbles != NULL;
    if (screen && !model->screen && (at_once || stats->evaluations > 0)) model->screen = make_screen(model);
    stats->evaluations += screen;
    e.screen = model->screen;
    if (screen && e.screen) {
        if (e.screen->built < vocab) {
            const nis_status status = build_slice(&e);
            if (status != NIS_OK) return status;
        }
        if (prepare(&e)) {
            nis_head_expect(model, e.screen->built == vocab);
            return best_screened(&e, count, gap, best, found);
        }
    }
    nis_head_expect(model, false);
    stats->rows_computed += vocab;
    nis_pool_run(model->pool, compute_rows, &e, vocab);
    if (atomic_load(&e.not_finite)) return NIS_NOT_FINITE;
    *found = within_gap(best, best_of(model->kernels->floats, e.upper, vocab, count, best), gap);
    return NIS_OK;
}

nis_status nis_head_all(nis_model *model, const float *normed, const float **logits) {
    const size_t vocab = model->a.vocab;
    if (!model->head_values) model->head_values = large_memory(vocab * sizeof(float));
    if (!model->head_values) return NIS_NO_MEMORY;
    evaluation e = {.model = model, .normed = normed, .upper = model->head_values};
    nis_head_expect(model, false);
    nis_pool_run(model->pool, compute_rows, &e, vocab);
    *logits = model->head_values;
    return atomic_load(&e.not_finite) ? NIS_NOT_FINITE : NIS_OK;
}

void nis_head_free(nis_model *model) {
    free_screen(model->screen);
    free(model->head_values);
    free(model->head_normed);
}
