/* The public calls: every argument is checked here, so that forward.c may trust what it is given. */
#include "nis_engine.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "choosing.h"
#include "float_environment.h"
#include "head.h"
#include "model.h"
#include "rope.h"
#include "saved.h"
#include "screen_making.h"

uint32_t nis_abi(void) { return NIS_ABI; }

const char *nis_status_text(nis_status status) {
    switch (status) {
        case NIS_OK: return "done";
        case NIS_ARGUMENT: return "an argument is not acceptable";
        case NIS_SHAPE: return "an architecture or tensor size is not acceptable";
        case NIS_NO_MEMORY: return "not enough memory";
        case NIS_NO_KERNEL: return "the instruction set is not compiled in or not offered by this CPU";
        case NIS_TOKEN: return "a token is outside the vocabulary";
        case NIS_FULL: return "more positions than the session holds";
        case NIS_NOT_FINITE: return "the activations are not finite: the weights are damaged or unusable";
        case NIS_BUSY: return "in use by another thread, or by sessions that are still open";
        case NIS_CANCELLED: return "cancelled";
        case NIS_EMPTY: return "the session holds no position yet";
        case NIS_FORKED: return "the model was opened before fork(); open it in this process";
        case NIS_GONE: return "a rolling session gave back the positions that this needs";
        case NIS_FORMAT: return "the bytes are damaged, or of another model or version";
        case NIS_NO_THREAD: return "the operating system refused a thread";
    }
    return "unknown status";
}

/* ---- checking a model -------------------------------------------------------------------------------------------- */

/* Where a check stands, so that a message can name the tensor: "layer 3 of the trunk: gate". */
typedef struct {
    char *message;
    size_t message_bytes;
    char where[64];
} complaint;

__attribute__((format(printf, 3, 4))) static nis_status refuse(const complaint *c, nis_status status,
                                                               const char *format, ...) {
    if (c->message && c->message_bytes > 0) {
        const int used = snprintf(c->message, c->message_bytes, "%s%s", c->where, c->where[0] ? ": " : "");
        if (used >= 0 && (size_t)used < c->message_bytes) {
            va_list arguments;
            va_start(arguments, format);
            vsnprintf(c->message + used, c->message_bytes - (size_t)used, format, arguments);
            va_end(arguments);
        }
    }
    return status;
}

static nis_status check_architecture(const nis_architecture *a, const complaint *c) {
    const struct {
        const char *name;
        uint32_t value, highest;
    } sizes[] = {
        {"hidden", a->hidden, NIS_COLUMNS_MAX}, {"ffn", a->ffn, NIS_COLUMNS_MAX},
        {"layers", a->layers, NIS_LAYERS_MAX},  {"heads", a->heads, NIS_HEADS_MAX},
        {"kv_heads", a->kv_heads, NIS_HEADS_MAX}, {"head_dim", a->head_dim, NIS_HEAD_DIM_MAX},
        {"vocab", a->vocab, NIS_ROWS_MAX},      {"context", a->context, NIS_CONTEXT_MAX},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].highest) {
            return refuse(c, NIS_SHAPE, "%s is %u, must be 1 to %u", sizes[i].name, sizes[i].value, sizes[i].highest);
        }
    }
    if (a->heads % a->kv_heads) {
        return refuse(c, NIS_SHAPE, "%u heads are no multiple of %u kv_heads", a->heads, a->kv_heads);
    }
    if (a->head_dim % 2) return refuse(c, NIS_SHAPE, "head_dim %u is odd, rotation needs pairs", a->head_dim);
    if ((uint64_t)a->heads * a->head_dim > NIS_COLUMNS_MAX) {
        return refuse(c, NIS_SHAPE, "heads * head_dim exceeds %d", NIS_COLUMNS_MAX);
    }
    if (a->activation > NIS_SILU) return refuse(c, NIS_SHAPE, "activation %u is unknown", a->activation);
    if (a->sub_norms > 1) return refuse(c, NIS_SHAPE, "sub_norms is %u, must be 0 or 1", a->sub_norms);
    if (!(a->norm_eps > 0.0f && a->norm_eps <= 1.0f)) {
        return refuse(c, NIS_SHAPE, "norm_eps must lie above 0 and at most at 1");
    }
    if (!(a->rope_theta > 1.0 && a->rope_theta <= 1e12)) {
        return refuse(c, NIS_SHAPE, "rope_theta must lie above 1 and at most at 1e12");
    }
    return NIS_OK;
}

static nis_status take_floats(const nis_tensor *t, size_t count, const char *name, const float **floats,
                              const complaint *c) {
    if (!t->data) return refuse(c, NIS_SHAPE, "%s is missing", name);
    if (t->bytes != (uint64_t)count * sizeof(float)) {
        return refuse(c, NIS_SHAPE, "%s has %llu bytes, needs %zu float32", name, (unsigned long long)t->bytes, count);
    }
    if ((uintptr_t)t->data % sizeof(float)) return refuse(c, NIS_SHAPE, "%s is not aligned to 4 bytes", name);
    *floats = t->data;
    return NIS_OK;
}

static nis_status take_rows(const nis_tensor *t, uint32_t dtype, size_t rows, size_t columns, const char *name,
                            const complaint *c) {
    if (dtype > NIS_BF16) return refuse(c, NIS_SHAPE, "%s has unknown dtype %u", name, dtype);
    const size_t size = nis_element_bytes(dtype);
    if (!t->data) return refuse(c, NIS_SHAPE, "%s is missing", name);
    if (t->bytes != (uint64_t)rows * columns * size) {
        return refuse(c, NIS_SHAPE, "%s has %llu bytes, needs [%zu, %zu] of %zu bytes", name,
                      (unsigned long long)t->bytes, rows, columns, size);
    }
    if ((uintptr_t)t->data % size) return refuse(c, NIS_SHAPE, "%s is not aligned to %zu bytes", name, size);
    return NIS_OK;
}

static nis_status take_matrix(const nis_ternary *t, size_t rows, size_t columns, const char *name, matrix *m,
                              const complaint *c) {
    const uint64_t bytes = (uint64_t)nis_row_blocks(rows) * nis_column_groups(columns) * NIS_BLOCK_BYTES;
    if (!t->codes.data) return refuse(c, NIS_SHAPE, "%s is missing", name);
    if (t->codes.bytes != bytes) {
        return refuse(c, NIS_SHAPE, "%s has %llu bytes, [%zu, %zu] packs into %llu", name,
                      (unsigned long long)t->codes.bytes, rows, columns, (unsigned long long)bytes);
    }
    if ((uintptr_t)t->codes.data % NIS_UNIT_BYTES) {
        return refuse(c, NIS_SHAPE, "%s is not aligned to %d bytes", name, NIS_UNIT_BYTES);
    }
    if (!isfinite(t->scale)) return refuse(c, NIS_SHAPE, "the scale of %s is not finite", name);
    *m = (matrix){t->codes.data, rows, columns, t->scale};
    return NIS_OK;
}

static nis_status take_plane(const nis_tensor *t, size_t rows, size_t row_bytes, const char *name, const uint8_t **plane,
                             const complaint *c) {
    if (!t->data) return refuse(c, NIS_SHAPE, "%s are missing", name);
    if (t->bytes != (uint64_t)rows * row_bytes) {
        return refuse(c, NIS_SHAPE, "%s have %llu bytes, need [%zu, %zu]", name, (unsigned long long)t->bytes, rows,
                      row_bytes);
    }
    if ((uintptr_t)t->data % NIS_UNIT_BYTES) {
        return refuse(c, NIS_SHAPE, "%s are not aligned to %d bytes", name, NIS_UNIT_BYTES);
    }
    *plane = t->data;
    return NIS_OK;
}

/* The screen that the package brings, once it can be that of the head. */
static nis_status take_screen(const nis_head_screen *from, nis_model *model, complaint *c) {
    const size_t vocab = model->a.vocab, hidden = model->a.hidden, groups = nis_screen_groups(hidden);
    nis_screen_planes *to = &model->packed_screen;
    if (!from->nibbles.data) return NIS_OK;
    snprintf(c->where, sizeof c->where, "screen");
    if (hidden < NIS_SCREEN_COLUMNS_MIN || hidden > NIS_SCREEN_COLUMNS_MAX) {
        return refuse(c, NIS_SHAPE, "a head of width %zu has none, it takes %d to %d", hidden, NIS_SCREEN_COLUMNS_MIN,
                      NIS_SCREEN_COLUMNS_MAX);
    }
    TRY(take_plane(&from->nibbles, vocab, groups * NIS_SCREEN_NIBBLE_BYTES, "nibbles", &to->nibbles, c));
    TRY(take_plane(&from->ones, vocab, groups * NIS_SCREEN_BIT_BYTES, "ones", &to->bits[0], c));
    TRY(take_plane(&from->halves, vocab, groups * NIS_SCREEN_BIT_BYTES, "halves", &to->bits[1], c));
    TRY(take_floats(&from->scales, vocab, "scales", &to->scales, c));
    TRY(take_floats(&from->norms, vocab, "norms", &to->norms, c));
    TRY(take_floats(&from->errors, NIS_SCREEN_LEVELS * vocab, "errors", &to->errors[0], c));
    for (size_t level = 1; level < NIS_SCREEN_LEVELS; level++) to->errors[level] = to->errors[0] + level * vocab;
    if (!isfinite(nis_screen_longest(model->kernels->floats, to, 0, vocab))) {
        return refuse(c, NIS_SHAPE, "a scale, norm or error is not finite or below zero");
    }
    nis_head_expect(model, true);
    const nis_status status = nis_screen_try(model);
    if (status != NIS_OK) {
        return refuse(c, status, status == NIS_FORMAT ? "is that of another head" : "%s", nis_status_text(status));
    }
    c->where[0] = '\0';
    return NIS_OK;
}

static nis_status take_layer(const nis_architecture *a, const nis_layer *from, layer *to, const complaint *c) {
    const size_t attended = (size_t)a->heads * a->head_dim, kv = (size_t)a->kv_heads * a->head_dim;
    TRY(take_floats(&from->attn_norm, a->hidden, "attn_norm", &to->attn_norm, c));
    TRY(take_floats(&from->ffn_norm, a->hidden, "ffn_norm", &to->ffn_norm, c));
    if (a->sub_norms) {
        TRY(take_floats(&from->attn_sub_norm, attended, "attn_sub_norm", &to->attn_sub_norm, c));
        TRY(take_floats(&from->ffn_sub_norm, a->ffn, "ffn_sub_norm", &to->ffn_sub_norm, c));
    }
    TRY(take_matrix(&from->q, attended, a->hidden, "q", &to->q, c));
    TRY(take_matrix(&from->k, kv, a->hidden, "k", &to->k, c));
    TRY(take_matrix(&from->v, kv, a->hidden, "v", &to->v, c));
    TRY(take_matrix(&from->o, a->hidden, attended, "o", &to->o, c));
    TRY(take_matrix(&from->gate, a->ffn, a->hidden, "gate", &to->gate, c));
    TRY(take_matrix(&from->up, a->ffn, a->hidden, "up", &to->up, c));
    return take_matrix(&from->down, a->hidden, a->ffn, "down", &to->down, c);
}

static nis_status take_stack(const nis_architecture *a, const nis_layer *layers, size_t count, const char *name,
                             stack *to, complaint *c) {
    if (count > NIS_LAYERS_MAX) return refuse(c, NIS_SHAPE, "%s has more than %d layers", name, NIS_LAYERS_MAX);
    if (count > 0 && !layers) return refuse(c, NIS_ARGUMENT, "the layers of %s are missing", name);
    to->layers = calloc(count ? count : 1, sizeof *to->layers);
    if (!to->layers) return refuse(c, NIS_NO_MEMORY, "not enough memory for %zu layers", count);
    to->layer_count = count;
    for (size_t i = 0; i < count; i++) {
        snprintf(c->where, sizeof c->where, "layer %zu of %s", i, name);
        TRY(take_layer(a, &layers[i], &to->layers[i], c));
    }
    c->where[0] = '\0';
    return NIS_OK;
}

static nis_status take_task_head(const nis_architecture *a, const nis_task_head *from, size_t index, task_head *to,
                                 complaint *c) {
    char name[32];
    snprintf(name, sizeof name, "task head %zu", index);
    TRY(take_stack(a, from->layers, from->layer_count, name, &to->stack, c));
    snprintf(c->where, sizeof c->where, "%s", name);
    if (from->outputs < 1 || from->outputs > NIS_OUTPUTS_MAX) {
        return refuse(c, NIS_SHAPE, "%u outputs, must be 1 to %d", from->outputs, NIS_OUTPUTS_MAX);
    }
    to->outputs = from->outputs;
    TRY(take_floats(&from->norm, a->hidden, "norm", &to->norm, c));
    TRY(take_floats(&from->projection, to->outputs * a->hidden, "projection", &to->projection, c));
    TRY(take_floats(&from->bias, to->outputs, "bias", &to->bias, c));
    c->where[0] = '\0';
    return NIS_OK;
}

static nis_status take_weights(const nis_weights *w, nis_model *model, complaint *c) {
    const nis_architecture *a = &w->architecture;
    TRY(check_architecture(a, c));
    model->a = *a;
    TRY(take_rows(&w->embed, w->embed_dtype, a->vocab, a->hidden, "embed", c));
    model->embed = w->embed.data;
    model->embed_dtype = (nis_dtype)w->embed_dtype;
    if (w->head.data) {
        TRY(take_rows(&w->head, w->head_dtype, a->vocab, a->hidden, "head", c));
        model->head = w->head.data;
        model->head_dtype = (nis_dtype)w->head_dtype;
    } else {
        model->head = model->embed;
        model->head_dtype = model->embed_dtype;
    }
    TRY(take_screen(&w->screen, model, c));
    TRY(take_floats(&w->norm, a->hidden, "norm", &model->norm, c));
    TRY(take_stack(a, w->layers, a->layers, "the trunk", &model->trunk, c));
    if (w->task_head_count > NIS_TASK_HEADS_MAX) {
        return refuse(c, NIS_SHAPE, "more than %d task heads", NIS_TASK_HEADS_MAX);
    }
    if (w->task_head_count > 0 && !w->task_heads) return refuse(c, NIS_ARGUMENT, "the task heads are missing");
    model->task_heads = calloc(w->task_head_count + 1, sizeof *model->task_heads);
    if (!model->task_heads) return refuse(c, NIS_NO_MEMORY, "not enough memory for the task heads");
    for (size_t i = 0; i < w->task_head_count; i++) {
        model->task_head_count = i + 1; /* counted first, so that a half-taken one is freed too */
        TRY(take_task_head(a, &w->task_heads[i], i, &model->task_heads[i], c));
    }
    return NIS_OK;
}

/* ---- a model's own memory ---------------------------------------------------------------------------------------- */

/* count * size zeroed bytes on a cache line; NULL when they don't exist or their number overflows. */
static void *zeroed(size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count ? count : 1, size, &bytes)) return NULL;
    return calloc(1, bytes);
}

static size_t largest_of(size_t a, size_t b, size_t c) {
    const size_t larger = a > b ? a : b;
    return larger > c ? larger : c;
}

static nis_status make_buffers(nis_model *model, size_t threads, const complaint *c) {
    const nis_architecture *a = &model->a;
    const size_t chunk = NIS_CHUNK_TOKENS, attended = (size_t)a->heads * a->head_dim;
    const size_t kv = (size_t)a->kv_heads * a->head_dim, half = a->head_dim / 2;
    const size_t widest = largest_of(a->hidden, attended, a->ffn);
    buffers *b = &model->buffers;
    b->x = zeroed(chunk * a->hidden, sizeof(float));
    b->normed = zeroed(chunk * widest, sizeof(float));
    b->q = zeroed(chunk * attended, sizeof(float));
    b->q_sinks = zeroed(chunk * attended, sizeof(float));
    b->k = zeroed(chunk * kv, sizeof(float));
    b->v = zeroed(chunk * kv, sizeof(float));
    b->attended = zeroed(chunk * attended, sizeof(float));
    b->gate = zeroed(chunk * a->ffn, sizeof(float));
    b->up = zeroed(chunk * a->ffn, sizeof(float));
    b->quantised.stride = nis_padded_columns(widest);
    b->quantised.values = zeroed(chunk * b->quantised.stride, 1);
    b->quantised.scales = zeroed(chunk, sizeof(float));
    b->quantised.sums = zeroed(chunk, sizeof(int32_t));
    b->scores = zeroed(threads * a->context, sizeof(float));
    model->frequencies = zeroed(half, sizeof(float));
    model->cosines = zeroed(half * a->context, sizeof(float));
    model->sines = zeroed(half * a->context, sizeof(float));
    model->late_cosines = zeroed(chunk * half, sizeof(float));
    model->late_sines = zeroed(chunk * half, sizeof(float));
    if (!b->x || !b->normed || !b->q || !b->q_sinks || !b->k || !b->v || !b->attended || !b->gate || !b->up ||
        !b->quantised.values || !b->quantised.scales || !b->quantised.sums || !b->scores || !model->frequencies ||
        !model->cosines || !model->sines || !model->late_cosines || !model->late_sines) {
        return refuse(c, NIS_NO_MEMORY, "not enough memory for the buffers of a pass");
    }
    const unsigned long environment = nis_float_standard();
    nis_rope_frequencies(a->rope_theta, a->head_dim, model->frequencies);
    nis_float_restore(environment);
    return NIS_OK;
}

static void free_model(nis_model *model) {
    buffers *b = &model->buffers;
    void *owned[] = {b->x,    b->normed,           b->q,                b->k,          b->v,      b->attended,
                     b->gate, b->up,               b->quantised.values, b->quantised.scales, b->quantised.sums,
                     b->scores, model->frequencies, model->cosines,     model->sines,  model->trunk.layers,
                     b->q_sinks, model->late_cosines, model->late_sines};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) free(owned[i]);
    for (size_t i = 0; i < model->task_head_count; i++) free(model->task_heads[i].stack.layers);
    free(model->task_heads);
    nis_head_free(model);
    nis_pool_free(model->pool);
    pthread_mutex_destroy(&model->pass_lock);
    free(model);
}

static nis_status build_model(nis_model *model, const nis_weights *weights, const char *isa, uint32_t threads,
                              complaint *c) {
    if (threads < 1 || threads > NIS_THREADS_MAX) {
        return refuse(c, NIS_ARGUMENT, "%u threads, must be 1 to %d", threads, NIS_THREADS_MAX);
    }
    model->kernels = nis_kernels_named(isa);
    if (!model->kernels) return refuse(c, NIS_NO_KERNEL, "instruction set %s: not compiled in or not offered", isa);
    TRY(take_weights(weights, model, c));
    TRY(make_buffers(model, threads, c));
    const nis_status status = nis_pool_create(threads, &model->pool);
    return status == NIS_OK ? NIS_OK : refuse(c, status, "%u threads: %s", threads, nis_status_text(status));
}

nis_status nis_model_create(const nis_weights *weights, const char *isa, uint32_t threads, nis_model **created,
                            char *message, size_t message_bytes) {
    complaint c = {message, message_bytes, ""};
    if (!weights || !created) return refuse(&c, NIS_ARGUMENT, "weights or model is NULL");
    *created = NULL;
    nis_model *model = calloc(1, sizeof *model);
    if (!model) return refuse(&c, NIS_NO_MEMORY, "not enough memory");
    pthread_mutex_init(&model->pass_lock, NULL);
    model->screen_from_bytes = NIS_SCREEN_FROM_BYTES;
    const nis_status status = build_model(model, weights, isa, threads, &c);
    if (status != NIS_OK) {
        free_model(model);
        return status;
    }
    *created = model;
    return NIS_OK;
}

nis_status nis_model_head_stats(nis_model *model, nis_head_stats *stats) {
    if (!model || !stats) return NIS_ARGUMENT;
    pthread_mutex_lock(&model->pass_lock);
    *stats = model->head_stats;
    pthread_mutex_unlock(&model->pass_lock);
    return NIS_OK;
}

nis_status nis_model_screen_from(nis_model *model, uint64_t bytes) {
    if (!model) return NIS_ARGUMENT;
    pthread_mutex_lock(&model->pass_lock);
    model->screen_from_bytes = bytes;
    pthread_mutex_unlock(&model->pass_lock);
    return NIS_OK;
}

const char *nis_model_isa(const nis_model *model) { return model ? model->kernels->name : NULL; }

nis_status nis_model_free(nis_model *model) {
    if (!model) return NIS_OK;
    if (atomic_load(&model->session_count) > 0) return NIS_BUSY;
    free_model(model);
    return NIS_OK;
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

static bool keeps_residuals(const nis_session *session) {
    return session->model->task_head_count > 0 && session->window == 0;
}

static bool make_cache(const nis_session *session, size_t layers, size_t hidden, nis_kv_cache *cache) {
    const nis_architecture *a = &session->model->a;
    return nis_kv_create(cache, session->kv_dtype, layers, a->kv_heads, a->head_dim, hidden, session->max_positions);
}

static nis_status create_session(nis_model *model, size_t max_positions, size_t sinks, size_t window,
                                 nis_dtype kv_dtype, nis_session **created) {
    nis_session *session = calloc(1, sizeof *session);
    if (!session) return NIS_NO_MEMORY;
    session->model = model;
    session->max_positions = max_positions;
    session->sinks = session->oldest = sinks;
    session->window = window;
    session->kv_dtype = kv_dtype;
    atomic_fetch_add(&model->session_count, 1);
    session->tasks = calloc(model->task_head_count + 1, sizeof *session->tasks);
    const size_t hidden = keeps_residuals(session) ? model->a.hidden : 0;
    if (!session->tasks || !make_cache(session, model->trunk.layer_count, hidden, &session->trunk)) {
        nis_session_free(session);
        return NIS_NO_MEMORY;
    }
    *created = session;
    return NIS_OK;
}

static bool is_kv_dtype(nis_dtype dtype) { return dtype == NIS_F32 || dtype == NIS_F16 || dtype == NIS_I8; }

nis_status nis_session_create(nis_model *model, uint32_t max_positions, nis_dtype kv_dtype, nis_session **created) {
    if (!created) return NIS_ARGUMENT;
    *created = NULL;
    if (!model || !is_kv_dtype(kv_dtype)) return NIS_ARGUMENT;
    if (max_positions < 1 || max_positions > model->a.context) return NIS_FULL;
    return create_session(model, max_positions, 0, 0, kv_dtype, created);
}

nis_status nis_session_create_rolling(nis_model *model, uint32_t sinks, uint32_t window, nis_dtype kv_dtype,
                                      nis_session **created) {
    if (!created) return NIS_ARGUMENT;
    *created = NULL;
    if (!model || !is_kv_dtype(kv_dtype) || window < 1) return NIS_ARGUMENT;
    if ((uint64_t)sinks + window > model->a.context) return NIS_FULL;
    return create_session(model, NIS_CONTEXT_MAX, sinks, window, kv_dtype, created);
}

void nis_session_free(nis_session *session) {
    if (!session) return;
    nis_model *model = session->model;
    for (size_t i = 0; session->tasks && i < model->task_head_count; i++) {
        nis_kv_free(&session->tasks[i].cache);
        free(session->tasks[i].outputs);
    }
    free(session->tasks);
    nis_kv_free(&session->trunk);
    free(session);
    atomic_fetch_sub(&model->session_count, 1);
}

/* A pass: its sessions are marked busy, the model's buffers are ours, floats behave as they must. */
typedef struct {
    unsigned long float_environment;
} entered;

static void enter_model(nis_model *model, entered *e) {
    pthread_mutex_lock(&model->pass_lock);
    e->float_environment = nis_float_standard();
}

static void leave_model(nis_model *model, const entered *e) {
    nis_float_restore(e->float_environment);
    pthread_mutex_unlock(&model->pass_lock);
}

static nis_status enter(nis_session *session, entered *e) {
    if (!nis_pool_is_ours(session->model->pool)) return NIS_FORKED;
    if (atomic_exchange(&session->busy, true)) return NIS_BUSY;
    enter_model(session->model, e);
    return NIS_OK;
}

static void leave(nis_session *session, const entered *e) {
    leave_model(session->model, e);
    atomic_store(&session->busy, false);
}

static nis_status check_tokens(const nis_session *session, const int32_t *tokens, size_t count) {
    if (count > session->max_positions - session->position) return NIS_FULL;
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= session->model->a.vocab) return NIS_TOKEN;
    }
    return NIS_OK;
}

/* Gives back what no later token attends to. */
static void roll(nis_session *session) {
    if (session->window == 0 || session->position < session->sinks + session->window) return;
    const size_t still_needed = session->position + 1 - session->window;
    const size_t oldest = nis_kv_drop(&session->trunk, session->sinks, still_needed);
    if (oldest > session->oldest) session->oldest = oldest;
}

/* Runs the items, whose sessions are ours, and moves them; none has moved on failure. The caller has them roll. */
static nis_status append_items(nis_model *model, const nis_batch_item *items, size_t count, size_t *failed) {
    for (size_t i = 0; i < count; i++) {
        nis_session *session = items[i].session;
        *failed = i;
        TRY(check_tokens(session, items[i].tokens, items[i].count));
        if (!nis_kv_reserve(&session->trunk, session->position, session->position + items[i].count)) {
            return NIS_NO_MEMORY;
        }
    }
    TRY(nis_pass_items(model, items, count, failed));
    for (size_t i = 0; i < count; i++) items[i].session->position += items[i].count;
    return NIS_OK;
}

static nis_status check_item(const nis_batch_item *item, const nis_model *model) {
    if (!item->session || item->session->model != model || !item->tokens || item->count < 1) return NIS_ARGUMENT;
    if (item->wanted > NIS_ALL_LOGITS) return NIS_ARGUMENT;
    return item->wanted != NIS_NO_LOGITS && !item->logits ? NIS_ARGUMENT : NIS_OK;
}

nis_status nis_batch_forward(const nis_batch_item *items, size_t count, size_t *failed) {
    size_t unused;
    if (!failed) failed = &unused;
    *failed = 0;
    if (!items || count < 1 || count > NIS_BATCH_MAX || !items[0].session) return NIS_ARGUMENT;
    nis_model *model = items[0].session->model;
    for (size_t i = 0; i < count; i++) {
        *failed = i;
        TRY(check_item(&items[i], model));
    }
    if (!nis_pool_is_ours(model->pool)) return NIS_FORKED;
    nis_status status = NIS_OK;
    size_t marked = 0;
    for (; marked < count; marked++) {
        *failed = marked;
        if (atomic_exchange(&items[marked].session->busy, true)) { /* also a session that the batch names twice */
            status = NIS_BUSY;
            break;
        }
    }
    if (status == NIS_OK) {
        entered e;
        enter_model(model, &e);
        status = append_items(model, items, count, failed);
        for (size_t i = 0; status == NIS_OK && i < count; i++) roll(items[i].session);
        leave_model(model, &e);
    }
    while (marked > 0) atomic_store(&items[--marked].session->busy, false);
    return status;
}

nis_status nis_session_forward(nis_session *session, const int32_t *tokens, size_t count, nis_wanted wanted,
                               float *logits) {
    return nis_batch_forward(&(nis_batch_item){session, tokens, count, wanted, logits}, 1, NULL);
}

/* `into` has no blocks yet and stands at the start. */
static nis_status share(const nis_session *source, size_t position, nis_session *into) {
    nis_kv_share(&into->trunk, &source->trunk, position);
    into->position = position;
    into->oldest = source->oldest;
    for (size_t i = 0; i < source->model->task_head_count; i++) {
        const task_state *from = &source->tasks[i];
        if (!from->outputs) continue;
        task_state *to = &into->tasks[i];
        to->outputs = zeroed(source->model->task_heads[i].outputs, sizeof(float));
        if (!to->outputs || !make_cache(into, from->cache.layout.layers, 0, &to->cache)) return NIS_NO_MEMORY;
        to->seen = from->seen < position ? from->seen : position;
        nis_kv_share(&to->cache, &from->cache, to->seen);
    }
    return NIS_OK;
}

/* Whether a rolling session still holds what the token at `position` will attend to. */
static bool can_stand_at(const nis_session *session, size_t position) {
    if (session->window == 0 || session->oldest == session->sinks) return true;
    return position + 1 >= session->oldest + session->window;
}

nis_status nis_session_fork(nis_session *source, size_t position, nis_session **created) {
    if (!created) return NIS_ARGUMENT;
    *created = NULL;
    if (!source) return NIS_ARGUMENT;
    entered e;
    TRY(enter(source, &e));
    nis_status status = NIS_FULL;
    if (position <= source->position) status = can_stand_at(source, position) ? NIS_OK : NIS_GONE;
    nis_session *session = NULL;
    if (status == NIS_OK) {
        status = create_session(source->model, source->max_positions, source->sinks, source->window,
                                source->kv_dtype, &session);
    }
    if (status == NIS_OK) status = share(source, position, session);
    leave(source, &e);
    if (status == NIS_OK) {
        *created = session;
    } else {
        nis_session_free(session);
    }
    return status;
}

/* The final norm's output after the last token comes to stand in model->head_normed. */
static nis_status append_normed(nis_session *session, const int32_t *tokens, size_t count) {
    nis_model *model = session->model;
    if (!model->head_normed) model->head_normed = zeroed(model->a.hidden, sizeof(float));
    if (!model->head_normed) return NIS_NO_MEMORY;
    const nis_batch_item item = {session, tokens, count, NIS_LAST_NORMED, model->head_normed};
    size_t failed;
    return append_items(model, &item, 1, &failed);
}

static nis_status append_best(nis_session *session, const int32_t *tokens, size_t count, size_t wanted, float gap,
                              nis_candidate *best, size_t *found) {
    nis_model *model = session->model;
    const size_t before = session->position;
    TRY(append_normed(session, tokens, count));
    const nis_status status = nis_head_best(model, model->head_normed, wanted, gap, best, found);
    if (status != NIS_OK) session->position = before;
    return status;
}

nis_status nis_session_best(nis_session *session, const int32_t *tokens, size_t count, size_t wanted, float gap,
                            nis_candidate *best, size_t *found) {
    if (!session || !tokens || count < 1 || !best || !found || !(gap >= 0.0f)) return NIS_ARGUMENT;
    if (wanted < 1 || wanted > session->model->a.vocab) return NIS_ARGUMENT;
    *found = 0;
    entered e;
    TRY(enter(session, &e));
    const nis_status status = append_best(session, tokens, count, wanted, gap, best, found);
    if (status == NIS_OK) roll(session);
    leave(session, &e);
    return status;
}

/* The most likely tokens through the screen if they decide, otherwise all logits. */
static nis_status choose(nis_model *model, nis_sampler *sampler, const int32_t *recent, size_t recent_count,
                         int32_t *token) {
    float gap;
    const size_t wanted = nis_sampler_wanted(sampler, recent_count, &gap);
    if (wanted > 0 && nis_head_is_screened(model, wanted)) {
        nis_candidate *found = nis_sampler_room(sampler);
        size_t count;
        bool sure;
        TRY(nis_head_best(model, model->head_normed, wanted, gap, found, &count));
        nis_sampler_choose_among(sampler, found, count, wanted, gap, recent, recent_count, token, &sure);
        if (sure) return NIS_OK;
    }
    const float *logits;
    TRY(nis_head_all(model, model->head_normed, &logits));
    return nis_sampler_choose(sampler, logits, NULL, recent, recent_count, token);
}

nis_status nis_session_choose(nis_session *session, const int32_t *tokens, size_t count, nis_sampler *sampler,
                              const int32_t *recent, size_t recent_count, int32_t *token) {
    if (!session || !tokens || count < 1 || !sampler || !token || (recent_count > 0 && !recent)) return NIS_ARGUMENT;
    if (nis_sampler_vocab(sampler) != session->model->a.vocab) return NIS_ARGUMENT;
    if (!nis_sampler_knows(sampler, recent, recent_count)) return NIS_TOKEN;
    entered e;
    TRY(enter(session, &e));
    const size_t before = session->position;
    nis_status status = append_normed(session, tokens, count);
    if (status == NIS_OK) {
        status = choose(session->model, sampler, recent, recent_count, token);
        if (status != NIS_OK) session->position = before;
    }
    if (status == NIS_OK) roll(session);
    leave(session, &e);
    return status;
}

static nis_status greedy(nis_session *session, int32_t token, int32_t stop, size_t count, int32_t *generated,
                         size_t *generated_count) {
    while (*generated_count < count) {
        nis_candidate best;
        size_t found;
        TRY(append_best(session, &token, 1, 1, INFINITY, &best, &found));
        token = best.token;
        generated[(*generated_count)++] = token;
        if (token == stop) break;
    }
    return NIS_OK;
}

nis_status nis_session_greedy(nis_session *session, int32_t first, int32_t stop, size_t count, int32_t *generated,
                              size_t *generated_count) {
    if (!session || !generated || !generated_count || count < 1) return NIS_ARGUMENT;
    *generated_count = 0;
    entered e;
    TRY(enter(session, &e));
    const size_t before = session->position;
    const nis_status status = count > session->max_positions - before
                                  ? NIS_FULL
                                  : greedy(session, first, stop, count, generated, generated_count);
    if (status != NIS_OK) session->position = before;
    roll(session);
    leave(session, &e);
    return status;
}

static nis_status answer(nis_session *session, uint32_t index, float *outputs) {
    const task_head *head = &session->model->task_heads[index];
    task_state *state = &session->tasks[index];
    if (session->window > 0) return NIS_GONE;
    if (session->position == 0) return NIS_EMPTY;
    if (!state->outputs) {
        state->outputs = zeroed(head->outputs, sizeof(float));
        if (!state->outputs) return NIS_NO_MEMORY;
        if (!make_cache(session, head->stack.layer_count, 0, &state->cache)) {
            free(state->outputs);
            *state = (task_state){0};
            return NIS_NO_MEMORY;
        }
    }
    TRY(nis_pass_task_head(session, index));
    memcpy(outputs, state->outputs, head->outputs * sizeof(float));
    return NIS_OK;
}

nis_status nis_session_head(nis_session *session, uint32_t task_head, float *outputs) {
    if (!session || !outputs || task_head >= session->model->task_head_count) return NIS_ARGUMENT;
    entered e;
    TRY(enter(session, &e));
    const nis_status status = answer(session, task_head, outputs);
    leave(session, &e);
    return status;
}

nis_status nis_session_rewind(nis_session *session, size_t position) {
    if (!session) return NIS_ARGUMENT;
    entered e;
    TRY(enter(session, &e));
    nis_status status = NIS_FULL;
    if (position <= session->position && !can_stand_at(session, position)) status = NIS_GONE;
    if (position <= session->position && status != NIS_GONE) {
        status = NIS_OK;
        session->position = position;
        for (size_t i = 0; i < session->model->task_head_count; i++) {
            task_state *state = &session->tasks[i];
            if (state->seen <= position) continue;
            state->seen = position;
            state->answered = false;
        }
    }
    leave(session, &e);
    return status;
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

size_t nis_session_saved_bytes(nis_session *session) {
    entered e;
    if (!session || enter(session, &e) != NIS_OK) return 0;
    const size_t bytes = nis_saved_bytes(session);
    leave(session, &e);
    return bytes;
}

nis_status nis_session_save(nis_session *session, void *saved, size_t bytes) {
    if (!session || !saved) return NIS_ARGUMENT;
    entered e;
    TRY(enter(session, &e));
    const nis_status status = nis_write_saved(session, saved, bytes);
    leave(session, &e);
    return status;
}

nis_status nis_session_restore(nis_model *model, const void *saved, size_t bytes, nis_session **created) {
    if (!created) return NIS_ARGUMENT;
    *created = NULL;
    if (!model || !saved) return NIS_ARGUMENT;
    if (!nis_pool_is_ours(model->pool)) return NIS_FORKED;
    nis_saved header;
    entered e;
    enter_model(model, &e);
    nis_status status = nis_read_saved(model, saved, bytes, &header);
    leave_model(model, &e);
    if (status != NIS_OK) return status;
    nis_session *session;
    status = create_session(model, header.max_positions, header.sinks, header.window, (nis_dtype)header.kv_dtype,
                            &session);
    if (status != NIS_OK) return status;
    status = nis_fill_from_saved(session, saved, &header);
    if (status == NIS_OK) {
        *created = session;
    } else {
        nis_session_free(session);
    }
    return status;
}

size_t nis_session_position(const nis_session *session) { return session ? session->position : 0; }

size_t nis_session_max_positions(const nis_session *session) { return session ? session->max_positions : 0; }

void nis_session_cancel(nis_session *session) {
    if (session) atomic_store(&session->cancelled, true);
}
