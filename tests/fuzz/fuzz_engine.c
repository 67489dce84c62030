/* Damaged models against the C engine: descriptors that lie and weights that are noise, under the sanitizers.
 *
 * Each case draws a small valid model, every tensor in memory of its own of exactly the size it states, and then breaks
 * it: sizes, counts, dtypes, scales, pointers, threads, codes, NaN and huge numbers. The engine either refuses it with
 * one line, or runs it: then tokens, counts, positions and heads outside of what it offers are asked of it as well. Any
 * read or write beyond a tensor, undefined arithmetic, leak or crash ends the run with the case's number.
 *
 * The contract of nis_engine.h stands: a tensor's `bytes` is what its `data` holds. Usage: fuzz_engine CASES FIRST_SEED */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../nis_edge/native/nis_engine.h"

/* splitmix64 (S. Vigna). */
static uint64_t state;
static uint64_t next64(void) {
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}
static uint32_t below(uint32_t n) { return (uint32_t)((next64() >> 32) * n >> 32); }
static uint32_t between(uint32_t low, uint32_t high) { return low + below(high - low + 1); }

enum { TENSORS_MAX = 256, LAYERS = 4, HEADS = 2 };
static nis_tensor *tensors[TENSORS_MAX];
static size_t tensor_count;

/* Memory of exactly that size, 16-byte aligned as malloc gives it, full of noise that is mostly tame. */
static void give(nis_tensor *t, size_t bytes, int floats) {
    unsigned char *data = malloc(bytes ? bytes : 1);
    if (!data) abort();
    for (size_t i = 0; i < bytes; i++) data[i] = (unsigned char)next64();
    if (floats) {
        for (size_t i = 0; i + 4 <= bytes; i += 4) {
            const float value = (float)((int32_t)below(2001) - 1000) / 1000.0f;
            memcpy(data + i, &value, 4);
        }
    } else {
        for (size_t i = 0; i < bytes; i++) data[i] &= (unsigned char)~(data[i] >> 1 & 0x55); /* no code 3 */
    }
    t->data = data;
    t->bytes = bytes;
    if (tensor_count < TENSORS_MAX) tensors[tensor_count++] = t;
}

static void give_ternary(nis_ternary *t, size_t rows, size_t columns) {
    give(&t->codes, (rows + 7) / 8 * ((columns + 63) / 64) * 128, 0);
    t->scale = 0.05f;
}

static void give_layer(nis_layer *l, const nis_architecture *a) {
    const size_t wide = (size_t)a->heads * a->head_dim, narrow = (size_t)a->kv_heads * a->head_dim;
    memset(l, 0, sizeof *l);
    give(&l->attn_norm, a->hidden * 4, 1);
    give(&l->ffn_norm, a->hidden * 4, 1);
    if (a->sub_norms) {
        give(&l->attn_sub_norm, wide * 4, 1);
        give(&l->ffn_sub_norm, a->ffn * 4, 1);
    }
    give_ternary(&l->q, wide, a->hidden);
    give_ternary(&l->k, narrow, a->hidden);
    give_ternary(&l->v, narrow, a->hidden);
    give_ternary(&l->o, a->hidden, wide);
    give_ternary(&l->gate, a->ffn, a->hidden);
    give_ternary(&l->up, a->ffn, a->hidden);
    give_ternary(&l->down, a->hidden, a->ffn);
}

/* The head's screen, in half of the cases that can have one: right, so that what breaks it is the case's own. */
static void give_screen(nis_weights *w) {
    const nis_architecture *a = &w->architecture;
    const nis_tensor *head = w->head.data ? &w->head : &w->embed;
    const uint32_t dtype = w->head.data ? w->head_dtype : w->embed_dtype;
    const size_t vocab = a->vocab, columns = (a->hidden + 255) / 256 * 256;
    nis_head_screen *s = &w->screen;
    if (a->hidden < 8 || below(2)) return;
    give(&s->nibbles, vocab * columns / 2, 0);
    give(&s->ones, vocab * columns / 8, 0);
    give(&s->halves, vocab * columns / 8, 0);
    give(&s->scales, vocab * 4, 1);
    give(&s->norms, vocab * 4, 1);
    give(&s->errors, 3 * vocab * 4, 1);
    float *errors = (float *)(uintptr_t)s->errors.data;
    const nis_screen_places to = {(uint8_t *)(uintptr_t)s->nibbles.data, (uint8_t *)(uintptr_t)s->ones.data,
                                  (uint8_t *)(uintptr_t)s->halves.data, (float *)(uintptr_t)s->scales.data,
                                  (float *)(uintptr_t)s->norms.data, {errors, errors + vocab, errors + 2 * vocab}};
    nis_screen_make(NULL, head->data, dtype, vocab, a->hidden, &to, NULL); /* what is not finite is left as it is */
}

static uint32_t strange(uint32_t old) {
    static const uint32_t values[] = {0, 1, 2, 3, 7, 8, 63, 65, 255, 1024, 4097, 1u << 20, 1u << 24, (1u << 24) + 1,
                                      0x7fffffff, 0x80000000, 0xffffffff};
    switch (below(4)) {
        case 0: return old + 1;
        case 1: return old - 1;
        case 2: return old * 2;
        default: return values[below(sizeof values / sizeof values[0])];
    }
}

static float strange_float(void) {
    static const uint32_t bits[] = {0, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f7fffff, 0xff7fffff,
                                    0x00000001, 0x0d800000, 0x5f000000, 0x4f000000, 0xbf800000};
    float value;
    const uint32_t chosen = below(3) ? bits[below(sizeof bits / sizeof bits[0])] : (uint32_t)next64();
    memcpy(&value, &chosen, 4);
    return value;
}

/* Noise in a tensor: any byte, so any code, NaN and infinity of every dtype. */
static void spoil(nis_tensor *t) {
    unsigned char *data = (unsigned char *)(uintptr_t)t->data;
    if (!data || !t->bytes) return;
    for (uint32_t times = 1 + below(16); times > 0; times--) {
        const float value = strange_float();
        const size_t at = (size_t)(next64() % t->bytes) & ~(size_t)3;
        memcpy(data + at, &value, t->bytes - at < 4 ? t->bytes - at : 4);
    }
}

/* Another size for a tensor, and memory of exactly that size. */
static void resize(nis_tensor *t) {
    uint64_t bytes = t->bytes;
    switch (below(5)) {
        case 0: bytes = 0; break;
        case 1: bytes += 1 + below(128); break;
        case 2: bytes -= bytes ? 1 + below((uint32_t)bytes) : 0; break;
        case 3: bytes = bytes * 2; break;
        case 4: bytes = below(1 << 16); break;
    }
    void *data = calloc(1, bytes ? bytes : 1);
    if (!data) abort();
    free((void *)(uintptr_t)t->data);
    t->data = data;
    t->bytes = bytes;
}

typedef struct {
    nis_weights w;
    nis_layer layers[LAYERS], own[HEADS][LAYERS];
    nis_task_head heads[HEADS];
    nis_tensor hidden_pointer; /* a tensor whose address was taken away, to be freed all the same */
    nis_tensor *hidden_from;
} fuzz_model;

static void draw(fuzz_model *m) {
    memset(m, 0, sizeof *m);
    tensor_count = 0;
    nis_architecture *a = &m->w.architecture;
    a->kv_heads = between(1, 3);
    a->heads = a->kv_heads * between(1, 3);
    a->head_dim = 2 * between(1, 9);
    a->hidden = between(1, 90);
    a->ffn = between(1, 150);
    a->layers = between(1, 2);
    a->vocab = between(1, 40);
    a->context = between(1, 24);
    a->activation = below(2);
    a->sub_norms = below(2);
    a->norm_eps = 1e-5f;
    a->rope_theta = 10000.0;
    m->w.embed_dtype = below(3);
    m->w.head_dtype = below(3);
    give(&m->w.embed, (size_t)a->vocab * a->hidden * (m->w.embed_dtype ? 2 : 4), 1);
    if (below(2)) give(&m->w.head, (size_t)a->vocab * a->hidden * (m->w.head_dtype ? 2 : 4), 1);
    give_screen(&m->w);
    give(&m->w.norm, a->hidden * 4, 1);
    for (uint32_t i = 0; i < a->layers; i++) give_layer(&m->layers[i], a);
    m->w.layers = m->layers;
    m->w.task_heads = m->heads;
    m->w.task_head_count = below(HEADS + 1);
    for (uint32_t h = 0; h < m->w.task_head_count; h++) {
        nis_task_head *head = &m->heads[h];
        head->layer_count = below(2);
        head->layers = m->own[h];
        for (uint32_t i = 0; i < head->layer_count; i++) give_layer(&m->own[h][i], a);
        head->outputs = between(1, 9);
        give(&head->norm, a->hidden * 4, 1);
        give(&head->projection, (size_t)head->outputs * a->hidden * 4, 1);
        give(&head->bias, head->outputs * 4, 1);
    }
}

static void break_descriptor(fuzz_model *m) {
    nis_architecture *a = &m->w.architecture;
    uint32_t *sizes[] = {&a->hidden, &a->ffn, &a->heads, &a->kv_heads, &a->head_dim, &a->vocab, &a->context,
                         &a->activation, &a->sub_norms, &m->w.embed_dtype, &m->w.head_dtype};
    nis_tensor *t = tensors[below((uint32_t)tensor_count)];
    switch (below(9)) {
        case 0: case 1: case 2: {
            uint32_t *size = sizes[below(sizeof sizes / sizeof sizes[0])];
            *size = strange(*size);
            break;
        }
        case 3:
            if (t != m->hidden_from) resize(t); /* its memory is kept aside */
            break;
        case 4:
            if (m->hidden_from) break;
            m->hidden_pointer = *t;
            m->hidden_from = t;
            t->data = NULL;
            break;
        case 5: a->norm_eps = strange_float(); break;
        case 6: a->rope_theta = below(2) ? (double)strange_float() : 1e300; break;
        case 7: /* fewer or as many layers as there are, never more: their number is the array's size */
            a->layers = below(a->layers + 1);
            break;
        case 8: {
            nis_layer *l = &m->layers[below(a->layers ? a->layers : 1)];
            nis_ternary *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
            all[below(7)]->scale = strange_float();
            break;
        }
    }
}

static void use(nis_model *model, const fuzz_model *m) {
    const uint32_t vocab = m->w.architecture.vocab, context = m->w.architecture.context;
    nis_session *session = NULL;
    if (below(4)) nis_model_screen_from(model, 0);
    /* Codes that change under the model are noise too; where they lie is checked, and all that they lead to. */
    nis_tensor planes[] = {m->w.screen.nibbles, m->w.screen.ones, m->w.screen.halves};
    for (uint32_t i = below(4); i > 0 && planes[0].data; i--) spoil(&planes[below(3)]);
    const uint32_t positions = below(4) ? context : strange(context);
    if (nis_session_create(model, positions > 4096 && positions <= context ? 4096 : positions, (nis_dtype)below(3),
                           &session) != NIS_OK) {
        return;
    }
    const uint32_t steps = 1 + below(4);
    for (uint32_t step = 0; step < steps; step++) {
        int32_t tokens[32], generated[32];
        const size_t count = below(33);
        for (size_t i = 0; i < count; i++) {
            tokens[i] = below(64) ? (int32_t)below(vocab) : (int32_t)strange(vocab);
        }
        const nis_wanted wanted = (nis_wanted)below(3);
        /* Exactly what the call may write. */
        const size_t room = wanted == NIS_ALL_LOGITS ? count * vocab : vocab;
        float *logits = malloc((room ? room : 1) * sizeof *logits);
        size_t made = 0;
        switch (below(6)) {
            case 0: case 1: nis_session_forward(session, tokens, count, wanted, logits); break;
            case 2: nis_session_greedy(session, tokens[0] = (int32_t)below(vocab), -1, 1 + below(32), generated, &made); break;
            case 3: {
                const uint32_t h = below(HEADS + 1);
                float outputs[16];
                nis_session_head(session, h, outputs);
                break;
            }
            case 4: nis_session_rewind(session, below(40)); break;
            case 5: {
                nis_candidate best[2];
                const nis_status status =
                    nis_session_best(session, tokens, count, 1 + below(2), below(2) ? INFINITY : 1.0f, best, &made);
                for (size_t i = 0; status == NIS_OK && i < made; i++) {
                    if (best[i].token < 0 || (uint32_t)best[i].token >= vocab || !isfinite(best[i].logit)) abort();
                }
                break;
            }
        }
        free(logits);
    }
    nis_session_free(session);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const unsigned long cases = strtoul(argv[1], NULL, 10), first = strtoul(argv[2], NULL, 10);
    static const char *isas[] = {NULL, NULL, NULL, "scalar", "nonsense"};
    unsigned long ran = 0, refused = 0;
    for (unsigned long number = 0; number < cases; number++) {
        state = first + number;
        fprintf(stderr, "\r%lu", first + number); /* the last thing said before a sanitizer's report */
        fuzz_model m;
        draw(&m);
        const uint32_t kind = below(3);
        for (uint32_t i = kind == 0 ? 0 : 1 + below(2); i > 0; i--) break_descriptor(&m);
        for (uint32_t i = kind == 1 ? 0 : below(4); i > 0; i--) spoil(tensors[below((uint32_t)tensor_count)]);
        char message[256];
        memset(message, 1, sizeof message);
        nis_model *model = NULL;
        const size_t room = below(2) ? sizeof message : below(8);
        const uint32_t threads = below(16) ? 1 + below(2) : strange(1);
        const nis_status status = nis_model_create(&m.w, isas[below(5)], threads, &model, message, room);
        if (status == NIS_OK) {
            ran++;
            use(model, &m);
            if (nis_model_free(model) != NIS_OK) abort();
        } else {
            refused++;
            if (model || (room > 0 && !memchr(message, 0, room))) abort();
        }
        if (m.hidden_from) *m.hidden_from = m.hidden_pointer;
        for (size_t i = 0; i < tensor_count; i++) free((void *)(uintptr_t)tensors[i]->data);
    }
    fprintf(stderr, "\r");
    printf("%lu damaged models from seed %lu: %lu ran, %lu were refused, no finding\n", cases, first, ran, refused);
    return 0;
}
