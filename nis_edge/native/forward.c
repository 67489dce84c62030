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

#include "model.h"
#include "rope.h"

#if defined(__FAST_MATH__)
#error "the promise of equal bits needs IEEE arithmetic: build without -ffast-math"
#endif

enum {
    /* Row blocks whose 32-bit sums are kept between product and use: 32 rows times 64 tokens are 8 KiB of stack. */
    PIECE_BLOCKS = 4,
    PIECE_ROWS = PIECE_BLOCKS * NIS_BLOCK_ROWS,
    /* Rows of the output head per tile: 16 rows of 2b4t in f16 are 80 KiB, within an L2 cache. */
    HEAD_TILE_ROWS = 16,
};

/* From these bits on a float is infinite or NaN. */
#define NOT_FINITE_BITS 0x7f800000u

/* One stack's run over a chunk. */
typedef struct {
    nis_model *model;
    const nis_session *session;
    const layer *layer;
    char *keys, *values;  /* this layer's [kv_heads][max_positions][head_dim] */
    size_t tokens;        /* in the chunk */
    size_t first;         /* tokens before this one need no output of this layer, only keys and values */
    size_t position;      /* of the chunk's first token */
    atomic_bool not_finite;
} pass;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* ---- norm and quantise ------------------------------------------------------------------------------------------- */

/* y [n] = rmsnorm(x) * weight; false if x is not finite or too large to square. */
static bool rms_norm(const nis_model *model, const float *x, const float *weight, size_t n, float *y) {
    const float squares = model->kernels->floats->sum_of_squares(x, n);
    if (!(squares <= 3.4028234e38f)) return false;
    const float r = 1.0f / sqrtf(squares / (float)n + model->a.norm_eps);
    for (size_t i = 0; i < n; i++) y[i] = (x[i] * r) * weight[i];
    return true;
}

/* Row `token` of the quantised activations from x [n]; false if x is not finite. */
static bool quantise_token(nis_model *model, const float *x, size_t n, size_t token) {
    const nis_float_kernels *floats = model->kernels->floats;
    quantised *to = &model->buffers.quantised;
    const uint32_t bits = floats->magnitude_bits(x, n);
    if (bits >= NOT_FINITE_BITS) return false;
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
        if (!finite) atomic_store(&work->pass->not_finite, true);
    }
}

/* quantised [first..tokens, n] = quantise(norm(x)), or quantise(x) without a weight. */
static void norm_and_quantise(pass *p, const float *x, const float *weight, size_t n, size_t first) {
    norm_work work = {p, x, weight, n, first};
    nis_pool_run(p->model->pool, norm_and_quantise_tokens, &work, p->tokens - first);
}

/* ---- linear ------------------------------------------------------------------------------------------------------ */

/* Exact sums of up to PIECE_BLOCKS row blocks from `block` on, for tokens first..p->tokens:
 * sums [token - first][PIECE_ROWS]. */
static void piece_sums(const pass *p, const matrix *w, size_t block, size_t blocks, size_t first, int32_t *sums) {
    const quantised *a = &p->model->buffers.quantised;
    const size_t groups = nis_column_groups(w->columns);
    const uint8_t *codes = w->codes + block * groups * NIS_BLOCK_BYTES;
    const int8_t *values = a->values + first * a->stride;
    if (p->tokens - first == 1) {
        p->model->kernels->gemv(codes, blocks, groups, values, a->sums[first], sums);
    } else {
        p->model->kernels->gemm(codes, blocks, groups, values, a->stride, a->sums + first, p->tokens - first, sums,
                                PIECE_ROWS);
    }
}

/* y [tokens, rows] for the row blocks block..end; `add` adds to what stands there. */
static void linear_rows(const pass *p, const matrix *w, size_t block, size_t end, size_t first, float *y, bool add) {
    const float *scales = p->model->buffers.quantised.scales;
    int32_t sums[NIS_CHUNK_TOKENS * PIECE_ROWS];
    for (; block < end; block += PIECE_BLOCKS) {
        const size_t row = block * NIS_BLOCK_ROWS, rows = smaller(PIECE_ROWS, w->rows - row);
        piece_sums(p, w, block, smaller(PIECE_BLOCKS, end - block), first, sums);
        for (size_t token = first; token < p->tokens; token++) {
            const float factor = w->scale / scales[token];
            const int32_t *sum = sums + (token - first) * PIECE_ROWS;
            float *out = y + token * w->rows + row;
            const size_t count = smaller(rows, (end - block) * NIS_BLOCK_ROWS);
            if (add) {
                for (size_t i = 0; i < count; i++) out[i] += (float)sum[i] * factor;
            } else {
                for (size_t i = 0; i < count; i++) out[i] = (float)sum[i] * factor;
            }
        }
    }
}

/* Matrices that read the same activations are one job: their row blocks form one list that the threads share. */
typedef struct {
    const matrix *w;
    float *y;
    size_t first;
    bool add;
} linear;

typedef struct {
    const pass *pass;
    const linear *linears;
    size_t count;
} linear_work;

/* Items: row blocks of the list. */
static void linear_blocks(void *argument, size_t thread, size_t first, size_t end) {
    (void)thread;
    const linear_work *work = argument;
    size_t offset = 0;
    for (size_t i = 0; i < work->count; i++) {
        const linear *l = &work->linears[i];
        const size_t here = nis_row_blocks(l->w->rows);
        const size_t from = larger(first, offset), to = smaller(end, offset + here);
        if (from < to && l->first < work->pass->tokens) {
            linear_rows(work->pass, l->w, from - offset, to - offset, l->first, l->y, l->add);
        }
        offset += here;
    }
}

static void run_linears(const pass *p, const linear *linears, size_t count) {
    linear_work work = {p, linears, count};
    size_t blocks = 0;
    for (size_t i = 0; i < count; i++) blocks += nis_row_blocks(linears[i].w->rows);
    nis_pool_run(p->model->pool, linear_blocks, &work, blocks);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

static size_t kv_element_bytes(const nis_session *session) { return session->kv_dtype == NIS_F16 ? 2 : 4; }

/* x [head_dim] rotated in place by the angles of one position. */
static void rotate(float *x, const float *cosines, const float *sines, size_t half) {
    for (size_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

static void store_kv(const pass *p, char *to, const float *x, size_t n) {
    if (p->session->kv_dtype == NIS_F16) {
        p->model->kernels->floats->to_half(x, n, (uint16_t *)(void *)to);
    } else {
        memcpy(to, x, n * sizeof *x);
    }
}

/* Items: tokens. Rotates q [heads, head_dim] and k [kv_heads, head_dim]; keys and values go into the cache. */
static void rotate_and_store_tokens(void *argument, size_t thread, size_t token, size_t end) {
    (void)thread;
    const pass *p = argument;
    const nis_model *model = p->model;
    const nis_architecture *a = &model->a;
    const size_t half = a->head_dim / 2, bytes = kv_element_bytes(p->session);
    for (; token < end; token++) {
        const size_t position = p->position + token;
        const float *cosines = model->cosines + position * half, *sines = model->sines + position * half;
        for (size_t h = 0; token >= p->first && h < a->heads; h++) {
            rotate(model->buffers.q + (token * a->heads + h) * a->head_dim, cosines, sines, half);
        }
        for (size_t h = 0; h < a->kv_heads; h++) {
            float *k = model->buffers.k + (token * a->kv_heads + h) * a->head_dim;
            const float *v = model->buffers.v + (token * a->kv_heads + h) * a->head_dim;
            const size_t at = (h * p->session->max_positions + position) * a->head_dim * bytes;
            rotate(k, cosines, sines, half);
            store_kv(p, p->keys + at, k, a->head_dim);
            store_kv(p, p->values + at, v, a->head_dim);
        }
    }
}

/* One head of one token attends to positions 0..its own. */
static bool attend(const pass *p, size_t token, size_t h, float *scores) {
    const nis_model *model = p->model;
    const nis_float_kernels *floats = model->kernels->floats;
    const nis_architecture *a = &model->a;
    const size_t seen = p->position + token + 1, dim = a->head_dim, kv_head = h / (a->heads / a->kv_heads);
    const size_t at = kv_head * p->session->max_positions * dim * kv_element_bytes(p->session);
    const float *q = model->buffers.q + (token * a->heads + h) * dim;     /* [head_dim] */
    float *out = model->buffers.attended + (token * a->heads + h) * dim; /* [head_dim] */
    const float temperature = (float)(1.0 / sqrt((double)dim));

    floats->dot_rows(q, p->keys + at, p->session->kv_dtype, dim, seen, dim, scores); /* scores [seen] */
    for (size_t i = 0; i < seen; i++) scores[i] *= temperature;
    if (floats->magnitude_bits(scores, seen) >= NOT_FINITE_BITS) return false;
    const float sum = floats->exponentials(scores, seen, floats->maximum(scores, seen));
    floats->weighted_sum(scores, p->values + at, p->session->kv_dtype, dim, seen, dim, out);
    const float inverse = 1.0f / sum;
    for (size_t i = 0; i < dim; i++) out[i] *= inverse;
    return true;
}

/* Items: heads first, then tokens, so that a run stays with few heads, whose keys and values stay in the cache. */
static void attend_items(void *argument, size_t thread, size_t item, size_t end) {
    pass *p = argument;
    const size_t tokens = p->tokens - p->first;
    float *scores = p->model->buffers.scores + thread * p->model->a.context;
    for (; item < end; item++) {
        if (!attend(p, p->first + item % tokens, item / tokens, scores)) atomic_store(&p->not_finite, true);
    }
}

/* ---- ffn --------------------------------------------------------------------------------------------------------- */

/* gate becomes activation(gate) * up. */
static void activate(const nis_model *model, float *gate, const float *up, size_t n) {
    if (model->a.activation == NIS_SILU) {
        model->kernels->floats->silu_times(gate, up, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const float positive = gate[i] > 0.0f ? gate[i] : 0.0f;
        gate[i] = (positive * positive) * up[i];
    }
}

/* Items: row blocks of gate and of up together, so that the activation needs no barrier in between. */
static void gate_and_up_blocks(void *argument, size_t thread, size_t first, size_t end) {
    (void)thread;
    const pass *p = argument;
    const buffers *b = &p->model->buffers;
    const size_t ffn = p->model->a.ffn;
    linear_rows(p, &p->layer->gate, first, end, p->first, b->gate, false);
    linear_rows(p, &p->layer->up, first, end, p->first, b->up, false);
    const size_t row = first * NIS_BLOCK_ROWS, row_end = smaller(end * NIS_BLOCK_ROWS, ffn);
    for (size_t token = p->first; token < p->tokens; token++) {
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
    run_linears(p, (linear[]){{&l->q, b->q, p->first, false}, {&l->k, b->k, 0, false}, {&l->v, b->v, 0, false}}, 3);
    nis_pool_run(model->pool, rotate_and_store_tokens, p, p->tokens);
    if (p->first == p->tokens) return;

    nis_pool_run(model->pool, attend_items, p, a->heads * (p->tokens - p->first));
    norm_and_quantise(p, b->attended, l->attn_sub_norm, attended, p->first);
    run_linears(p, &(linear){&l->o, b->x, p->first, true}, 1);

    norm_and_quantise(p, b->x, l->ffn_norm, a->hidden, p->first);
    nis_pool_run(model->pool, gate_and_up_blocks, p, nis_row_blocks(a->ffn));
    norm_and_quantise(p, b->gate, l->ffn_sub_norm, a->ffn, p->first);
    run_linears(p, &(linear){&l->down, b->x, p->first, true}, 1);
}

/* Runs buffers.x [tokens, hidden] at `position` through a stack. Of the last layer only the outputs of tokens
 * `needed`.. are computed. */
static nis_status run_stack(nis_session *session, const stack *stack, const kv_cache *cache, size_t tokens,
                            size_t position, size_t needed) {
    const nis_architecture *a = &session->model->a;
    const size_t layer_bytes =
        (size_t)a->kv_heads * session->max_positions * a->head_dim * kv_element_bytes(session);
    pass p = {.model = session->model, .session = session, .tokens = tokens, .position = position};
    for (size_t i = 0; i < stack->layer_count; i++) {
        if (atomic_exchange(&session->cancelled, false)) return NIS_CANCELLED;
        p.layer = &stack->layers[i];
        p.keys = (char *)cache->keys + i * layer_bytes;
        p.values = (char *)cache->values + i * layer_bytes;
        p.first = i + 1 == stack->layer_count ? needed : 0;
        run_layer(&p);
        if (atomic_load(&p.not_finite)) return NIS_NOT_FINITE;
    }
    return NIS_OK;
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void embed(const nis_model *model, const int32_t *tokens, size_t count) {
    const size_t hidden = model->a.hidden, bytes = hidden * (model->embed_dtype == NIS_F32 ? 4 : 2);
    for (size_t i = 0; i < count; i++) {
        const char *row = (const char *)model->embed + (size_t)tokens[i] * bytes;
        model->kernels->floats->to_float(row, model->embed_dtype, hidden, model->buffers.x + i * hidden);
    }
}

static void prepare_angles(nis_model *model, size_t positions) {
    const size_t half = model->a.head_dim / 2;
    for (; model->angles_ready < positions; model->angles_ready++) {
        const size_t at = model->angles_ready * half;
        nis_rope_angles(model->frequencies, half, model->angles_ready, model->cosines + at, model->sines + at);
    }
}

typedef struct {
    nis_model *model;
    const float *normed; /* [tokens, hidden] */
    size_t tokens;
    float *logits; /* [tokens, vocab] */
    atomic_bool not_finite;
} head_work;

/* Items: rows of the head. */
static void head_rows(void *argument, size_t thread, size_t first, size_t end) {
    (void)thread;
    head_work *work = argument;
    const nis_model *model = work->model;
    const nis_float_kernels *floats = model->kernels->floats;
    const size_t hidden = model->a.hidden, vocab = model->a.vocab;
    const size_t row_bytes = hidden * (model->head_dtype == NIS_F32 ? 4 : 2);
    /* With all positions wanted, a tile of rows stays in the cache for every token; for one token there is no reuse. */
    const size_t tile = work->tokens > 1 ? HEAD_TILE_ROWS : end - first;
    for (size_t row = first; row < end; row += tile) {
        const size_t rows = smaller(tile, end - row);
        for (size_t token = 0; token < work->tokens; token++) {
            float *logits = work->logits + token * vocab + row;
            floats->dot_rows(work->normed + token * hidden, (const char *)model->head + row * row_bytes,
                             model->head_dtype, hidden, rows, hidden, logits);
            const uint32_t bits = floats->magnitude_bits(logits, rows);
            if (bits >= NOT_FINITE_BITS) atomic_store(&work->not_finite, true);
        }
    }
}

/* logits [tokens - first, vocab] of buffers.x's tokens first..tokens. */
static nis_status run_head(nis_model *model, size_t first, size_t tokens, float *logits) {
    const size_t hidden = model->a.hidden;
    buffers *b = &model->buffers;
    for (size_t token = first; token < tokens; token++) {
        if (!rms_norm(model, b->x + token * hidden, model->norm, hidden, b->normed + token * hidden)) {
            return NIS_NOT_FINITE;
        }
    }
    head_work work = {model, b->normed + first * hidden, tokens - first, logits, false};
    nis_pool_run(model->pool, head_rows, &work, model->a.vocab);
    return atomic_load(&work.not_finite) ? NIS_NOT_FINITE : NIS_OK;
}

nis_status nis_pass_tokens(nis_session *session, const int32_t *tokens, size_t count, nis_wanted wanted,
                           float *logits) {
    nis_model *model = session->model;
    const size_t hidden = model->a.hidden;
    prepare_angles(model, session->position + count);
    for (size_t done = 0; done < count;) {
        const size_t chunk = smaller(NIS_CHUNK_TOKENS, count - done), position = session->position + done;
        const bool last = done + chunk == count;
        /* Task heads read every position's residual; otherwise only those whose logits are wanted matter. */
        size_t needed = chunk;
        if (session->residuals || wanted == NIS_ALL_LOGITS) needed = 0;
        else if (last && wanted == NIS_LAST_LOGITS) needed = chunk - 1;

        embed(model, tokens + done, chunk);
        nis_status status = run_stack(session, &model->trunk, &session->trunk, chunk, position, needed);
        if (status != NIS_OK) return status;
        if (session->residuals) {
            memcpy(session->residuals + position * hidden, model->buffers.x, chunk * hidden * sizeof(float));
        }
        if (wanted == NIS_ALL_LOGITS) {
            status = run_head(model, 0, chunk, logits + done * model->a.vocab);
        } else if (last && wanted == NIS_LAST_LOGITS) {
            status = run_head(model, chunk - 1, chunk, logits);
        }
        if (status != NIS_OK) return status;
        done += chunk;
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

    prepare_angles(model, session->position);
    for (size_t chunk; state->seen < session->position; state->seen += chunk) {
        chunk = smaller(NIS_CHUNK_TOKENS, session->position - state->seen);
        const bool last = state->seen + chunk == session->position;
        memcpy(b->x, session->residuals + state->seen * hidden, chunk * hidden * sizeof(float));
        const nis_status status =
            run_stack(session, &head->stack, &state->cache, chunk, state->seen, last ? chunk - 1 : chunk);
        if (status != NIS_OK) return status;
        if (!last) continue;

        const float *x = b->x + (chunk - 1) * hidden;
        if (!rms_norm(model, x, head->norm, hidden, b->normed)) return NIS_NOT_FINITE;
        floats->dot_rows(b->normed, head->projection, NIS_F32, hidden, head->outputs, hidden, state->outputs);
        for (size_t i = 0; i < head->outputs; i++) state->outputs[i] += head->bias[i];
        if (floats->magnitude_bits(state->outputs, head->outputs) >= NOT_FINITE_BITS) return NIS_NOT_FINITE;
    }
    state->answered = true;
    return NIS_OK;
}
