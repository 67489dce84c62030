/* The transformer step, in the order of thought: embed, then per layer norm, q k v, rotate, attend, project, norm, gate
 * and up, down; at the end norm and head.
 *
 * Numerics (the one definition; engine/reference.py restates it in numpy):
 *   activations  scale s = 127 / max(max|x|, 1e-5); value = clamp(round_half_even(x * s), -128, 127), per token
 *   linear       y = (float)integer dot * (weight scale / s)
 *   norm         y = (x * (1 / sqrt(mean(x^2) + eps))) * weight
 *   rope         halves rotated: (a cos - b sin, b cos + a sin), each operation rounded
 *   attention    softmax over scores (q . k) * (1 / sqrt(head_dim)); the sum of e^score * v, then times 1 / sum
 *   ffn          relu2: (relu(gate) * relu(gate)) * up; silu: (gate / (1 + e^-gate)) * up
 * Element-wise lines below are plain C: no reduction, no contraction (-ffp-contract=off), hence the same bits however
 * the compiler vectorises them. Reductions and exponentials are float_kernels.h's.
 *
 * Threads share rows, heads or tokens; no number is ever reduced across threads, so their count cannot matter. */
#include <math.h>
#include <string.h>

#include "head.h"
#include "model.h"
#include "rope.h"

#if defined(__FAST_MATH__)
#error "the promise of equal bits needs IEEE arithmetic: build without -ffast-math"
#endif

enum {
    /* Row blocks whose 32-bit sums are kept between product and use: 32 rows times 64 tokens are 8 KiB of stack. */
    PIECE_BLOCKS = 4,
    PIECE_ROWS = PIECE_BLOCKS * NIS_BLOCK_ROWS,
    /* Tokens that the kernels' widest tiles take at once. */
    GROUP_MULTIPLE = 8,
    /* Rows of the output head per tile: 16 rows of 2b4t in f16 are 80 KiB, within an L2 cache. */
    HEAD_TILE_ROWS = 16,
};

/* One token on its way through a stack. */
typedef struct {
    nis_session *session;
    const nis_kv_cache *cache;
    size_t item;     /* of the batch */
    size_t position;
    int32_t token;
    float *logits;   /* [vocab]; NULL: not wanted */
    const float *cosines, *sines;           /* [head_dim / 2] of the position */
    const float *sink_cosines, *sink_sines; /* of the place it has towards the sinks; NULL: none has rolled away */
} row;

/* One chunk's run through one stack. Rows stand in any order: each reads the cache by its own position. */
typedef struct {
    nis_model *model;
    const nis_batch_item *items;
    size_t item_count;
    row rows[NIS_CHUNK_TOKENS];
    const layer *layer;
    size_t layer_index;
    size_t tokens;             /* rows in use */
    size_t first;              /* rows before this one need no output of this layer, only keys and values */
    size_t needed;             /* rows before this one need no output of the stack */
    _Atomic uint64_t not_finite; /* bit r: row r */
} pass;

_Static_assert(NIS_CHUNK_TOKENS <= 64, "a row has a bit in pass.not_finite");

static void mark_not_finite(pass *p, size_t row) { atomic_fetch_or(&p->not_finite, (uint64_t)1 << row); }

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* ---- norm and quantise ------------------------------------------------------------------------------------------- */

/* y [n] = rmsnorm(x) * weight; false if x is not finite or too large to square. */
static bool rms_norm(const nis_model *model, const float *x, const float *weight, size_t n, float *y) {
    const float squares = model->kernels->floats->sum_of_squares(x, n);
    if (!(squares <= 3.4028234e38f)) return false;
    const float r = 1.0f / sqrtf(squares / (float)n + model->a.norm_eps);
    model->kernels->floats->scale_by(x, r, weight, n, y);
    return true;
}

/* Row `token` of the quantised activations from x [n]; false if x is not finite. */
static bool quantise_token(nis_model *model, const float *x, size_t n, size_t token) {
    const nis_float_kernels *floats = model->kernels->floats;
    quantised *to = &model->buffers.quantised;
    const uint32_t bits = floats->magnitude_bits(x, n);
    if (bits >= NIS_NOT_FINITE_BITS) return false;
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    const float scale = 127.0f / (largest > 1e-5f ? largest : 1e-5f);
    int8_t *values = to->values + token * to->stride;
    to->scales[token] = scale;
    to->sums[token] = floats->quantise(x, n, scale, values);
    memset(values + n, 0, nis_padded_columns(n) - n);
    return true;
}

typedef struct {
    pass *pass;
    const float *x;      /* [tokens, n] */
    const float *weight; /* [n]; NULL: quantise x as it is */
    size_t n, first;
} norm_work;

/* Items: tokens from work->first on. */
static void norm_and_quantise_tokens(void *argument, size_t thread, size_t item, size_t end) {
    (void)thread;
    const norm_work *work = argument;
    nis_model *model = work->pass->model;
    for (; item < end; item++) {
        const size_t token = work->first + item;
        const float *x = work->x + token * work->n;
        float *y = model->buffers.normed + token * work->n;
        const bool finite = work->weight == NULL ? quantise_token(model, x, work->n, token)
                                                 : rms_norm(model, x, work->weight, work->n, y) &&
                                                       quantise_token(model, y, work->n, token);
        if (!finite) mark_not_finite(work->pass, token);
    }
}

/* quantised [first..tokens, n] = quantise(norm(x)), or quantise(x) without a weight. */
static void norm_and_quantise(pass *p, const float *x, const float *weight, size_t n, size_t first) {
    norm_work work = {p, x, weight, n, first};
    nis_pool_run(p->model->pool, norm_and_quantise_tokens, &work, p->tokens - first);
}

/* ---- linear ------------------------------------------------------------------------------------------------------ */

/* A rectangle of a product: row blocks block..block_end of the matrices, for tokens token..token_end. */
typedef struct {
    size_t block, block_end, token, token_end;
} tile;

/* Exact sums of up to PIECE_BLOCKS row blocks from `block` on: sums [token - t->token][PIECE_ROWS]. */
static void piece_sums(const pass *p, const matrix *w, const tile *t, size_t block, int32_t *sums) {
    const quantised *a = &p->model->buffers.quantised;
    const size_t groups = nis_column_groups(w->columns), blocks = smaller(PIECE_BLOCKS, t->block_end - block);
    const uint8_t *codes = w->codes + block * groups * NIS_BLOCK_BYTES;
    const int8_t *values = a->values + t->token * a->stride;
    const int32_t *activation_sums = a->sums + t->token;
    if (t->token_end - t->token == 1) {
        p->model->kernels->gemv(codes, blocks, groups, values, *activation_sums, sums);
    } else {
        p->model->kernels->gemm(codes, blocks, groups, values, a->stride, activation_sums, t->token_end - t->token, sums,
                                PIECE_ROWS);
    }
}

/* y [tokens, rows] within the tile; `add` adds to what stands there. */
static void linear_tile(const pass *p, const matrix *w, const tile *t, float *y, bool add) {
    const float *scales = p->model->buffers.quantised.scales;
    int32_t sums[NIS_CHUNK_TOKENS * PIECE_ROWS];
    for (size_t block = t->block; block < t->block_end; block += PIECE_BLOCKS) {
        const size_t row = block * NIS_BLOCK_ROWS, rows = smaller(PIECE_ROWS, w->rows - row);
        const size_t count = smaller(rows, (t->block_end - block) * NIS_BLOCK_ROWS);
        piece_sums(p, w, t, block, sums);
        for (size_t token = t->token; token < t->token_end; token++) {
            const float factor = w->scale / scales[token];
            const int32_t *sum = sums + (token - t->token) * PIECE_ROWS;
            p->model->kernels->floats->scale_sums(sum, count, factor, add, y + token * w->rows + row);
        }
    }
}

/* How the threads share a product: by tokens first, so that each goes on with the activations that it has in its caches,
 * and within a group of tokens by row blocks. A single token has one group. */
typedef void compute_tile(const pass *p, const void *argument, const tile *t);

typedef struct {
    const pass *pass;
    compute_tile *compute;
    const void *argument;
    size_t blocks, first, group_tokens;
} product;

/* Items: row blocks of the first group of tokens, of the second, ... */
static void product_items(void *argument, size_t thread, size_t item, size_t end) {
    (void)thread;
    const product *w = argument;
    while (item < end) {
        const size_t token = w->first + item / w->blocks * w->group_tokens, block = item % w->blocks;
        const tile t = {block, smaller(w->blocks, block + end - item), token,
                        smaller(token + w->group_tokens, w->pass->tokens)};
        w->compute(w->pass, w->argument, &t);
        item += t.block_end - block;
    }
}

/* Tokens of a group, of `tokens` for the threads to share: the kernels' tiles are of GROUP_MULTIPLE. */
static size_t group_of(const pass *p, size_t tokens) {
    const size_t threads = nis_pool_threads(p->model->pool), each = (tokens + threads - 1) / threads;
    return (each + GROUP_MULTIPLE - 1) / GROUP_MULTIPLE * GROUP_MULTIPLE;
}

/* All row blocks, for tokens from `first` on. */
static void run_product(const pass *p, compute_tile *compute, const void *argument, size_t blocks, size_t first) {
    const size_t tokens = p->tokens - first, group = group_of(p, tokens);
    product w = {p, compute, argument, blocks, first, group};
    nis_pool_run(p->model->pool, product_items, &w, blocks * ((tokens + group - 1) / group));
}

/* Matrices that read the same activations are one product: their row blocks form one list. */
typedef struct {
    const matrix *w;
    float *y;
    size_t first; /* tokens before this one are not wanted */
    bool add;
} linear;

typedef struct {
    const linear *linears;
    size_t count;
} linear_list;

static void linears_tile(const pass *p, const void *argument, const tile *whole) {
    const linear_list *list = argument;
    size_t offset = 0;
    for (size_t i = 0; i < list->count; i++) {
        const linear *l = &list->linears[i];
        const size_t here = nis_row_blocks(l->w->rows);
        const size_t from = larger(whole->block, offset), to = smaller(whole->block_end, offset + here);
        const size_t token = larger(whole->token, l->first);
        if (from < to && token < whole->token_end) {
            linear_tile(p, l->w, &(tile){from - offset, to - offset, token, whole->token_end}, l->y, l->add);
        }
        offset += here;
    }
}

/* Tokens from `first` on. */
static void run_linears(const pass *p, const linear *linears, size_t count, size_t first) {
    const linear_list list = {linears, count};
    size_t blocks = 0;
    for (size_t i = 0; i < count; i++) blocks += nis_row_blocks(linears[i].w->rows);
    run_product(p, linears_tile, &list, blocks, first);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* x [head_dim] rotated in place by the angles of one position. */
static void rotate(float *x, const float *cosines, const float *sines, size_t half) {
    for (size_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

/* One head's key or value of one position; with int8 *factor times a stored number is the number. False if x is not
 * finite. */
static bool store_kv(const nis_model *model, nis_dtype dtype, const float *x, size_t n, char *to, float *factor) {
    const nis_float_kernels *floats = model->kernels->floats;
    if (dtype == NIS_F32) {
        memcpy(to, x, n * sizeof *x);
    } else if (dtype == NIS_F16) {
        floats->to_half(x, n, (uint16_t *)(void *)to);
    } else {
        const uint32_t bits = floats->magnitude_bits(x, n);
        if (bits >= NIS_NOT_FINITE_BITS) return false;
        float largest;
        memcpy(&largest, &bits, sizeof largest);
        const float scale = 127.0f / (largest > 1e-30f ? largest : 1e-30f);
        floats->quantise(x, n, scale, (int8_t *)(void *)to);
        *factor = 1.0f / scale;
    }
    return true;
}

/* Items: tokens. Rotates q [heads, head_dim] and k [kv_heads, head_dim]; keys and values go into the cache. */
static void rotate_and_store_tokens(void *argument, size_t thread, size_t token, size_t end) {
    (void)thread;
    pass *p = argument;
    const nis_model *model = p->model;
    const nis_architecture *a = &model->a;
    const size_t dim = a->head_dim, half = dim / 2, attended = a->heads * dim;
    for (; token < end; token++) {
        const row *r = &p->rows[token];
        const nis_kv_layout *layout = &r->cache->layout;
        float *q = model->buffers.q + token * attended, *q_sinks = model->buffers.q_sinks + token * attended;
        if (token >= p->first && r->sink_cosines) {
            memcpy(q_sinks, q, attended * sizeof *q);
            for (size_t h = 0; h < a->heads; h++) rotate(q_sinks + h * dim, r->sink_cosines, r->sink_sines, half);
        }
        for (size_t h = 0; token >= p->first && h < a->heads; h++) rotate(q + h * dim, r->cosines, r->sines, half);
        nis_kv_block *block = r->cache->blocks[r->position / NIS_BLOCK_POSITIONS];
        const size_t slot = r->position % NIS_BLOCK_POSITIONS, at = slot * dim * nis_element_bytes(layout->dtype);
        for (size_t h = 0; h < a->kv_heads; h++) {
            float *k = model->buffers.k + (token * a->kv_heads + h) * dim;
            const float *v = model->buffers.v + (token * a->kv_heads + h) * dim;
            const nis_kv_place place = nis_kv_at(layout, block, p->layer_index, h);
            float unused, *key_factor = place.key_factors ? place.key_factors + slot : &unused;
            float *value_factor = place.value_factors ? place.value_factors + slot : &unused;
            rotate(k, r->cosines, r->sines, half);
            if (!store_kv(model, layout->dtype, k, dim, place.keys + at, key_factor) ||
                !store_kv(model, layout->dtype, v, dim, place.values + at, value_factor)) {
                mark_not_finite(p, token);
            }
        }
    }
}

/* A run of positions that one query reads: all of them, or the sinks, or what the window still holds. */
typedef struct {
    size_t from, to;
    const float *q; /* [head_dim] */
} stretch;

/* scores [to - from] = q . k, in the cache's blocks one after another. */
static void score(const nis_float_kernels *floats, const row *r, size_t layer, size_t kv_head, const stretch *s,
                  float *scores) {
    const nis_kv_layout *layout = &r->cache->layout;
    const size_t dim = layout->head_dim, key_bytes = dim * nis_element_bytes(layout->dtype);
    for (size_t at = s->from, end; at < s->to; at = end) {
        const size_t block = at / NIS_BLOCK_POSITIONS, slot = at % NIS_BLOCK_POSITIONS;
        end = smaller(s->to, (block + 1) * NIS_BLOCK_POSITIONS);
        const nis_kv_place place = nis_kv_at(layout, r->cache->blocks[block], layer, kv_head);
        float *to = scores + (at - s->from);
        floats->dot_rows(s->q, place.keys + slot * key_bytes, layout->dtype, dim, end - at, dim, to);
        for (size_t i = 0; place.key_factors && i < end - at; i++) to[i] *= place.key_factors[slot + i];
    }
}

/* out [head_dim] += weights [to - from] . v, in ascending order; spoils the weights. */
static void add_values(const nis_float_kernels *floats, const row *r, size_t layer, size_t kv_head, const stretch *s,
                       float *weights, float *out) {
    const nis_kv_layout *layout = &r->cache->layout;
    const size_t dim = layout->head_dim, value_bytes = dim * nis_element_bytes(layout->dtype);
    for (size_t at = s->from, end; at < s->to; at = end) {
        const size_t block = at / NIS_BLOCK_POSITIONS, slot = at % NIS_BLOCK_POSITIONS;
        end = smaller(s->to, (block + 1) * NIS_BLOCK_POSITIONS);
        const nis_kv_place place = nis_kv_at(layout, r->cache->blocks[block], layer, kv_head);
        float *of = weights + (at - s->from);
        for (size_t i = 0; place.value_factors && i < end - at; i++) of[i] *= place.value_factors[slot + i];
        floats->weighted_sum(of, place.values + slot * value_bytes, layout->dtype, dim, end - at, dim, out);
    }
}

/* One head of one token attends to its own position and those before it. */
static bool attend(const pass *p, size_t token, size_t h, float *scores) {
    const nis_model *model = p->model;
    const nis_float_kernels *floats = model->kernels->floats;
    const nis_architecture *a = &model->a;
    const row *r = &p->rows[token];
    const size_t dim = a->head_dim, kv_head = h / (a->heads / a->kv_heads), at = (token * a->heads + h) * dim;
    const size_t end = r->position + 1, sinks = r->session->sinks, window = r->session->window;
    const float *q = model->buffers.q + at;    /* [head_dim] */
    float *out = model->buffers.attended + at; /* [head_dim] */
    const float temperature = (float)(1.0 / sqrt((double)dim));

    stretch stretches[2] = {{0, end, q}, {0, 0, q}};
    if (r->sink_cosines) {
        stretches[0] = (stretch){0, sinks, model->buffers.q_sinks + at};
        stretches[1] = (stretch){end - window, end, q};
    }
    const size_t first = stretches[0].to, seen = first + (stretches[1].to - stretches[1].from);
    score(floats, r, p->layer_index, kv_head, &stretches[0], scores);
    score(floats, r, p->layer_index, kv_head, &stretches[1], scores + first);
    for (size_t i = 0; i < seen; i++) scores[i] *= temperature; /* scores [seen] */
    if (floats->magnitude_bits(scores, seen) >= NIS_NOT_FINITE_BITS) return false;
    const float sum = floats->exponentials(scores, seen, floats->maximum(scores, seen));
    for (size_t i = 0; i < dim; i++) out[i] = 0.0f;
    add_values(floats, r, p->layer_index, kv_head, &stretches[0], scores, out);
    add_values(floats, r, p->layer_index, kv_head, &stretches[1], scores + first, out);
    const float inverse = 1.0f / sum;
    for (size_t i = 0; i < dim; i++) out[i] *= inverse;
    return true;
}

/* Items: groups of tokens as a product's; in each heads first, then tokens, so that a run stays with few heads, whose keys
 * and values stay in the cache. */
static void attend_items(void *argument, size_t thread, size_t item, size_t end) {
    pass *p = argument;
    const size_t heads = p->model->a.heads, group = group_of(p, p->tokens - p->first);
    float *scores = p->model->buffers.scores + thread * p->model->a.context;
    for (; item < end; item++) {
        const size_t begin = p->first + item / (group * heads) * group, tokens = smaller(group, p->tokens - begin);
        const size_t within = item % (group * heads), token = begin + within % tokens;
        if (!attend(p, token, within / tokens, scores)) mark_not_finite(p, token);
    }
}

/* ---- ffn --------------------------------------------------------------------------------------------------------- */

/* gate becomes activation(gate) * up. */
static void activate(const nis_model *model, float *gate, const float *up, size_t n) {
    if (model->a.activation == NIS_SILU) {
        model->kernels->floats->silu_times(gate, up, n);
    } else {
        model->kernels->floats->relu2_times(gate, up, n);
    }
}

/* Gate and up together, so that the activation needs no barrier in between. */
static void gate_and_up_tile(const pass *p, const void *argument, const tile *t) {
    (void)argument;
    const buffers *b = &p->model->buffers;
    const size_t ffn = p->model->a.ffn;
    linear_tile(p, &p->layer->gate, t, b->gate, false);
    linear_tile(p, &p->layer->up, t, b->up, false);
    const size_t row = t->block * NIS_BLOCK_ROWS, row_end = smaller(t->block_end * NIS_BLOCK_ROWS, ffn);
    for (size_t token = t->token; token < t->token_end; token++) {
        activate(p->model, b->gate + token * ffn + row, b->up + token * ffn + row, row_end - row);
    }
}

/* ---- one layer, one stack ---------------------------------------------------------------------------------------- */

/* x [tokens, hidden] in place, from token p->first on; keys and values of every token. */
static void run_layer(pass *p) {
    nis_model *model = p->model;
    const layer *l = p->layer;
    const nis_architecture *a = &model->a;
    buffers *b = &model->buffers;
    const size_t attended = (size_t)a->heads * a->head_dim;

    norm_and_quantise(p, b->x, l->attn_norm, a->hidden, 0);
    run_linears(p, (linear[]){{&l->q, b->q, p->first, false}, {&l->k, b->k, 0, false}, {&l->v, b->v, 0, false}}, 3, 0);
    nis_pool_run(model->pool, rotate_and_store_tokens, p, p->tokens);
    if (p->first == p->tokens) return;

    nis_pool_run(model->pool, attend_items, p, a->heads * (p->tokens - p->first));
    norm_and_quantise(p, b->attended, l->attn_sub_norm, attended, p->first);
    run_linears(p, &(linear){&l->o, b->x, p->first, true}, 1, p->first);

    norm_and_quantise(p, b->x, l->ffn_norm, a->hidden, p->first);
    run_product(p, gate_and_up_tile, NULL, nis_row_blocks(a->ffn), p->first);
    norm_and_quantise(p, b->gate, l->ffn_sub_norm, a->ffn, p->first);
    run_linears(p, &(linear){&l->down, b->x, p->first, true}, 1, p->first);
}

/* The row at fault, as an item of the batch. */
static size_t item_at_fault(const pass *p) {
    const uint64_t rows = atomic_load(&p->not_finite);
    return p->rows[__builtin_ctzll(rows)].item;
}

/* Runs buffers.x [tokens, hidden] through a stack. Of the last layer only the outputs of rows p->needed.. are computed.
 * On failure *failed is the item at fault. */
static nis_status run_stack(pass *p, const stack *stack, size_t *failed) {
    for (size_t i = 0; i < stack->layer_count; i++) {
        for (size_t item = 0; item < p->item_count; item++) {
            *failed = item;
            if (atomic_exchange(&p->items[item].session->cancelled, false)) return NIS_CANCELLED;
        }
        p->layer = &stack->layers[i];
        p->layer_index = i;
        p->first = i + 1 == stack->layer_count ? p->needed : 0;
        run_layer(p);
        p->model->layer_tokens += p->tokens;
        if (atomic_load(&p->not_finite)) {
            *failed = item_at_fault(p);
            return NIS_NOT_FINITE;
        }
    }
    return NIS_OK;
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void embed(const nis_model *model, const row *rows, size_t count) {
    const size_t hidden = model->a.hidden, bytes = hidden * nis_element_bytes(model->embed_dtype);
    for (size_t i = 0; i < count; i++) {
        const char *stored = (const char *)model->embed + (size_t)rows[i].token * bytes;
        model->kernels->floats->to_float(stored, model->embed_dtype, hidden, model->buffers.x + i * hidden);
    }
}

static void prepare_angles(nis_model *model, size_t positions) {
    const size_t half = model->a.head_dim / 2, end = smaller(positions, model->a.context);
    for (; model->angles_ready < end; model->angles_ready++) {
        const size_t at = model->angles_ready * half;
        nis_rope_angles(model->frequencies, half, model->angles_ready, model->cosines + at, model->sines + at);
    }
}

/* Row `index` of the chunk: a token at a position. */
static void set_row(pass *p, size_t index, row r) {
    nis_model *model = p->model;
    const size_t half = model->a.head_dim / 2, window = r.session->window, kept = r.session->sinks + window;
    prepare_angles(model, larger(r.position + 1, kept));
    if (r.position < model->a.context) {
        r.cosines = model->cosines + r.position * half;
        r.sines = model->sines + r.position * half;
    } else { /* a rolling window far out: only distances count, but they must be exact */
        float *cosines = model->late_cosines + index * half, *sines = model->late_sines + index * half;
        nis_rope_late_angles(model->frequencies, half, r.position, cosines, sines);
        r.cosines = cosines;
        r.sines = sines;
    }
    if (window > 0 && r.position >= kept) {
        r.sink_cosines = model->cosines + (kept - 1) * half;
        r.sink_sines = model->sines + (kept - 1) * half;
    }
    p->rows[index] = r;
}

typedef struct {
    pass *pass;
    const float *normed;             /* [tokens, hidden] */
    size_t rows[NIS_CHUNK_TOKENS];   /* of the pass, ascending */
    size_t tokens;
} head_work;

/* Items: rows of the head. */
static void head_rows(void *argument, size_t thread, size_t first, size_t end) {
    (void)thread;
    head_work *work = argument;
    const nis_model *model = work->pass->model;
    const nis_float_kernels *floats = model->kernels->floats;
    const size_t hidden = model->a.hidden;
    const size_t row_bytes = hidden * nis_element_bytes(model->head_dtype);
    /* With several tokens a tile of rows stays in the cache for all of them; for one there is no reuse. */
    const size_t tile = work->tokens > 1 ? HEAD_TILE_ROWS : end - first;
    for (size_t at = first; at < end; at += tile) {
        const size_t rows = smaller(tile, end - at);
        for (size_t token = 0; token < work->tokens; token++) {
            float *logits = work->pass->rows[work->rows[token]].logits + at;
            floats->dot_rows(work->normed + token * hidden, (const char *)model->head + at * row_bytes,
                             model->head_dtype, hidden, rows, hidden, logits);
            const uint32_t bits = floats->magnitude_bits(logits, rows);
            if (bits >= NIS_NOT_FINITE_BITS) mark_not_finite(work->pass, work->rows[token]);
        }
    }
}

/* Logits [vocab] of every row that wants them. On failure *failed is the item at fault. */
static nis_status run_head(pass *p, size_t *failed) {
    nis_model *model = p->model;
    const size_t hidden = model->a.hidden;
    buffers *b = &model->buffers;
    head_work work = {.pass = p, .normed = b->normed};
    for (size_t token = p->needed; token < p->tokens; token++) {
        const row *r = &p->rows[token];
        if (!r->logits) continue;
        const bool only_normed = p->items[r->item].wanted == NIS_LAST_NORMED;
        float *normed = only_normed ? r->logits : b->normed + work.tokens * hidden;
        if (!rms_norm(model, b->x + token * hidden, model->norm, hidden, normed)) mark_not_finite(p, token);
        if (!only_normed) work.rows[work.tokens++] = token;
    }
    if (work.tokens > 0 && !atomic_load(&p->not_finite)) {
        nis_head_expect(model, false);
        nis_pool_run(model->pool, head_rows, &work, model->a.vocab);
    }
    if (!atomic_load(&p->not_finite)) return NIS_OK;
    *failed = item_at_fault(p);
    return NIS_NOT_FINITE;
}

/* Where token `index` of an item has its logits put; NULL: not wanted. */
static float *logits_of(const nis_batch_item *item, size_t index, size_t vocab) {
    if (item->wanted == NIS_ALL_LOGITS) return item->logits + index * vocab;
    const bool last = item->wanted == NIS_LAST_LOGITS || item->wanted == NIS_LAST_NORMED;
    return last && index + 1 == item->count ? item->logits : NULL;
}

/* The next chunk of the items' tokens, of which done [count] are through: first the rows whose last layer's output nobody
 * reads, then the others. Task heads read every position's residual. */
static void fill_chunk(pass *p, size_t *done) {
    p->tokens = 0;
    size_t take[NIS_BATCH_MAX], room = NIS_CHUNK_TOKENS;
    for (size_t i = 0; i < p->item_count; i++) {
        take[i] = smaller(room, p->items[i].count - done[i]);
        room -= take[i];
    }
    for (int needed = 0; needed <= 1; needed++) {
        if (needed) p->needed = p->tokens;
        for (size_t i = 0; i < p->item_count; i++) {
            const nis_batch_item *item = &p->items[i];
            nis_session *session = item->session;
            for (size_t index = done[i]; index < done[i] + take[i]; index++) {
                float *logits = logits_of(item, index, p->model->a.vocab);
                if ((logits || session->trunk.layout.hidden) != needed) continue;
                set_row(p, p->tokens++, (row){.session = session, .cache = &session->trunk, .item = i,
                                              .position = session->position + index, .token = item->tokens[index],
                                              .logits = logits});
            }
        }
    }
    for (size_t i = 0; i < p->item_count; i++) done[i] += take[i];
}

static float *residual_of(const row *r, size_t hidden) {
    const nis_kv_cache *trunk = &r->session->trunk;
    float *residuals = nis_kv_residuals(&trunk->layout, trunk->blocks[r->position / NIS_BLOCK_POSITIONS]);
    return residuals + r->position % NIS_BLOCK_POSITIONS * hidden;
}

nis_status nis_pass_items(nis_model *model, const nis_batch_item *items, size_t count, size_t *failed) {
    const size_t hidden = model->a.hidden;
    pass p = {.model = model, .items = items, .item_count = count};
    size_t done[NIS_BATCH_MAX] = {0};
    for (fill_chunk(&p, done); p.tokens > 0; fill_chunk(&p, done)) {
        embed(model, p.rows, p.tokens);
        TRY(run_stack(&p, &model->trunk, failed));
        for (size_t i = 0; i < p.tokens; i++) {
            if (!p.rows[i].session->trunk.layout.hidden) continue;
            memcpy(residual_of(&p.rows[i], hidden), model->buffers.x + i * hidden, hidden * sizeof(float));
        }
        TRY(run_head(&p, failed));
    }
    return NIS_OK;
}

nis_status nis_pass_task_head(nis_session *session, size_t index) {
    nis_model *model = session->model;
    const task_head *head = &model->task_heads[index];
    task_state *state = &session->tasks[index];
    const nis_float_kernels *floats = model->kernels->floats;
    const size_t hidden = model->a.hidden;
    buffers *b = &model->buffers;
    if (state->seen == session->position && state->answered) return NIS_OK;
    if (state->seen == session->position) state->seen--; /* rewound to here: the last position is run again */
    state->answered = false;
    if (!nis_kv_reserve(&state->cache, state->seen, session->position)) return NIS_NO_MEMORY;

    const nis_batch_item item = {.session = session};
    pass p = {.model = model, .items = &item, .item_count = 1};
    for (; state->seen < session->position; state->seen += p.tokens) {
        p.tokens = smaller(NIS_CHUNK_TOKENS, session->position - state->seen);
        const bool last = state->seen + p.tokens == session->position;
        p.needed = last ? p.tokens - 1 : p.tokens;
        for (size_t i = 0; i < p.tokens; i++) {
            set_row(&p, i, (row){.session = session, .cache = &state->cache, .position = state->seen + i});
            memcpy(b->x + i * hidden, residual_of(&p.rows[i], hidden), hidden * sizeof(float));
        }
        size_t failed;
        TRY(run_stack(&p, &head->stack, &failed));
        if (!last) continue;

        const float *x = b->x + (p.tokens - 1) * hidden;
        if (!rms_norm(model, x, head->norm, hidden, b->normed)) return NIS_NOT_FINITE;
        floats->dot_rows(b->normed, head->projection, NIS_F32, hidden, head->outputs, hidden, state->outputs);
        for (size_t i = 0; i < head->outputs; i++) state->outputs[i] += head->bias[i];
        if (floats->magnitude_bits(state->outputs, head->outputs) >= NIS_NOT_FINITE_BITS) return NIS_NOT_FINITE;
    }
    state->answered = true;
    return NIS_OK;
}
