/* Checks the C engine on the machine it runs on, without Python: natively, under qemu-user, under the sanitizers.
 *
 *   ternary   every offered instruction set against sums counted one weight at a time in 64 bits
 *   float     every offered instruction set against scalar, bit for bit
 *   forward   logits and task heads of random models: one hash for every instruction set, number of threads, chunking
 *   head      the best tokens are those that sorting all logits gives, over heads made to mislead a screen, with a screen
 *             that the engine makes and with one that it is given
 *   screen    one hash of the screens' bytes for every instruction set
 *   host      a host program that rounds downwards gets the same bits, and its rounding back
 *   sessions  rewinding, refusals, cancelling, two threads on one session
 *   sharing   forks, batches, saved and restored sessions: the bits of one session alone; hostile bytes refused
 *   choosing  one hash of drawn tokens for every instruction set
 *   constraint  allowed tokens against every token tried byte by byte
 *   rolling   windows with sinks: one hash for every instruction set, number of threads and chunking
 *
 * Usage: check_engine [--absent NAME]... [--quick] [--threads-only]
 * --threads-only leaves out the kernels and all models but one: for ThreadSanitizer, which is slow.
 * --absent demands that NAME is refused (a Cortex-A72 must never meet an SDOT). Prints what it ran and the hashes of
 * the forward passes, which must be the same on every machine: tests/golden/forward_hashes.txt. Exit code 0: all right. */
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../nis_edge/native/nis_engine.h"
#include "../../nis_edge/native/nis_probe.h"

static unsigned long checks, failures;

#define CHECK(condition, ...)                              \
    do {                                                   \
        checks++;                                          \
        if (!(condition)) {                                \
            failures++;                                    \
            if (failures <= 20) {                          \
                printf("FAILED line %d: ", __LINE__);      \
                printf(__VA_ARGS__);                       \
                printf("\n");                              \
            }                                              \
        }                                                  \
    } while (0)

/* ---- random numbers and memory, the same on every machine ------------------------------------------------------- */

/* splitmix64 (S. Vigna): integers only. */
static uint64_t state;
static uint64_t next64(void) {
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}
static uint32_t below(uint32_t n) { return (uint32_t)((next64() >> 32) * n >> 32); }
/* -1 .. 1 in steps of 2^-23: exact. */
static float next_float(void) { return (float)((int32_t)(next64() >> 40) - (1 << 23)) * 0x1p-23f; }

static void *allocate(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!p) abort();
    memset(p, 0, bytes);
    return p;
}

static uint64_t fnv1a(uint64_t hash, const void *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3;
    return hash;
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* ---- ternary ----------------------------------------------------------------------------------------------------- */

static size_t padded(size_t n, size_t to) { return (n + to - 1) / to * to; }

static uint8_t *pack(const int8_t *weights, size_t rows, size_t columns, size_t *bytes) {
    const size_t groups = padded(columns, 64) / 64, blocks = padded(rows, 8) / 8;
    *bytes = blocks * groups * 128;
    uint8_t *packed = allocate(*bytes);
    memset(packed, 0x55, *bytes); /* code 1 everywhere: weight zero */
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c++) {
            uint8_t *byte = packed + ((r / 8) * groups + c / 64) * 128 + (r % 8) * 16 + c % 16;
            const int shift = (int)(c % 64 / 16) * 2;
            *byte = (uint8_t)((*byte & ~(3 << shift)) | (weights[r * columns + c] + 1) << shift);
        }
    }
    return packed;
}

enum pattern { RANDOM, ALL_PLUS, ALL_MINUS, ALL_THREE, PATTERNS };

/* Weights and activations at their extremes find an overflow that random ones hide. */
static void check_matmul(const char *isa, size_t rows, size_t columns, size_t tokens, enum pattern pattern,
                         int activation) {
    const size_t stride = padded(columns, 64), row_stride = padded(rows, 8);
    int8_t *weights = allocate(rows * columns), *activations = allocate(tokens * stride);
    for (size_t i = 0; i < rows * columns; i++) {
        const int8_t fixed[] = {0, 1, -1, 2};
        weights[i] = pattern == RANDOM ? (int8_t)((int)below(3) - 1) : fixed[pattern];
    }
    for (size_t t = 0; t < tokens; t++) {
        for (size_t c = 0; c < columns; c++) {
            activations[t * stride + c] = (int8_t)(activation ? activation : (int)below(256) - 128);
        }
    }
    size_t bytes;
    uint8_t *packed = pack(weights, rows, columns, &bytes);
    int32_t *sums = allocate(tokens * row_stride * sizeof *sums), *gemm = allocate(tokens * row_stride * sizeof *gemm);
    CHECK(nis_probe_matmul(isa, packed, rows, columns, activations, tokens, sums) == NIS_OK, "%s matmul", isa);
    CHECK(nis_probe_gemm(isa, packed, rows, columns, activations, tokens, gemm) == NIS_OK, "%s gemm", isa);
    for (size_t t = 0; t < tokens; t++) {
        for (size_t r = 0; r < row_stride; r++) {
            int64_t truth = 0;
            for (size_t c = 0; r < rows && c < columns; c++) {
                truth += (int64_t)weights[r * columns + c] * activations[t * stride + c];
            }
            CHECK(sums[t * row_stride + r] == truth && gemm[t * row_stride + r] == truth,
                  "%s [%zu, %zu] x %zu, pattern %d, activation %d, row %zu: %d and %d, not %lld", isa, rows, columns,
                  tokens, pattern, activation, r, sums[t * row_stride + r], gemm[t * row_stride + r],
                  (long long)truth);
        }
    }
    free(weights);
    free(activations);
    free(packed);
    free(sums);
    free(gemm);
}

static void check_ternary(const char *isa, int quick) {
    const size_t row_counts[] = {1, 7, 8, 9, 24, 33}, column_counts[] = {1, 63, 64, 65, 512, 513, 576, 640, 1000};
    const size_t token_counts[] = {1, 2, 3, 5, 8, 15, 4, 9}; /* the first six meet every tile */
    const int activations[] = {0, 127, -128};
    for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++) {
        for (size_t c = 0; c < sizeof column_counts / sizeof *column_counts; c++) {
            for (size_t t = 0; t < (quick ? 6 : 8); t++) {
                check_matmul(isa, row_counts[r], column_counts[c], token_counts[t], RANDOM, 0);
            }
        }
    }
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
        for (size_t a = 0; a < 3; a++) {
            check_matmul(isa, 9, 4096, 1, (enum pattern)pattern, activations[a]);
            check_matmul(isa, 9, 16384 + 65, 3, (enum pattern)pattern, activations[a]);
            if (!quick) check_matmul(isa, 2, 1 << 20, 2, (enum pattern)pattern, activations[a]);
        }
    }
}

/* ---- float ------------------------------------------------------------------------------------------------------- */

enum { FLOATS = 1003, ROWS = 19 };

#define SAME_FLOAT(call_isa, call_scalar, result, what)                                                      \
    do {                                                                                                     \
        float result = 0.0f;                                                                                 \
        CHECK((call_scalar) == NIS_OK, "scalar %s", what);                                                   \
        const float truth = result;                                                                          \
        CHECK((call_isa) == NIS_OK, "%s %s", isa, what);                                                     \
        CHECK(bits_of(result) == bits_of(truth), "%s %s, %zu: %a, not %a", isa, what, n, (double)result,     \
              (double)truth);                                                                                \
    } while (0)

static void check_float_length(const char *isa, size_t n, float magnitude) {
    float x[FLOATS], y[FLOATS], dots[2][ROWS], sums[2][FLOATS];
    static float rows[ROWS * FLOATS];
    static uint16_t halves[2][ROWS * FLOATS];
    int8_t q[2][FLOATS];
    for (size_t i = 0; i < n; i++) x[i] = next_float() * magnitude, y[i] = next_float() * magnitude;
    for (size_t i = 0; i < n * ROWS; i++) rows[i] = next_float();

    SAME_FLOAT(nis_probe_sum_of_squares(isa, x, n, &v), nis_probe_sum_of_squares("scalar", x, n, &v), v, "squares");
    SAME_FLOAT(nis_probe_maximum(isa, x, n, &v), nis_probe_maximum("scalar", x, n, &v), v, "maximum");
    int32_t q_sums[2];
    float scales[2];
    CHECK(nis_probe_quantise("scalar", x, n, q[0], &scales[0], &q_sums[0]) == NIS_OK, "quantise");
    CHECK(nis_probe_quantise(isa, x, n, q[1], &scales[1], &q_sums[1]) == NIS_OK, "quantise");
    CHECK(!memcmp(q[0], q[1], n) && q_sums[0] == q_sums[1] && scales[0] == scales[1], "%s quantise %zu", isa, n);

    const char *isas[2] = {"scalar", isa};
    float exps[2][FLOATS], silus[2][FLOATS], exp_sums[2];
    for (int k = 0; k < 2; k++) {
        memcpy(exps[k], x, n * sizeof(float));
        memcpy(silus[k], x, n * sizeof(float));
        CHECK(nis_probe_exponentials(isas[k], exps[k], n, magnitude, &exp_sums[k]) == NIS_OK, "exponentials");
        CHECK(nis_probe_silu_times(isas[k], silus[k], y, n) == NIS_OK, "silu");
        CHECK(nis_probe_dot_rows(isas[k], x, rows, NIS_F32, ROWS, n, dots[k]) == NIS_OK, "dots");
        CHECK(nis_probe_weighted_sum(isas[k], x, rows, NIS_F32, n < ROWS ? n : ROWS, n, sums[k]) == NIS_OK, "sum");
        CHECK(nis_probe_to_half(isas[k], rows, n * ROWS, halves[k]) == NIS_OK, "halves");
    }
    CHECK(!memcmp(exps[0], exps[1], n * 4) && exp_sums[0] == exp_sums[1], "%s exponentials %zu", isa, n);
    CHECK(!memcmp(silus[0], silus[1], n * 4), "%s silu %zu", isa, n);
    CHECK(!memcmp(dots[0], dots[1], sizeof dots[0]), "%s dot_rows %zu", isa, n);
    CHECK(!memcmp(sums[0], sums[1], n * 4), "%s weighted_sum %zu", isa, n);
    CHECK(!memcmp(halves[0], halves[1], n * ROWS * 2), "%s to_half %zu", isa, n);
    for (int dtype = NIS_F16; dtype <= NIS_I8; dtype++) {
        for (int k = 0; k < 2; k++) {
            nis_probe_dot_rows(isas[k], x, halves[0], (nis_dtype)dtype, ROWS, n, dots[k]);
            nis_probe_weighted_sum(isas[k], x, halves[0], (nis_dtype)dtype, n < ROWS ? n : ROWS, n, sums[k]);
        }
        CHECK(!memcmp(dots[0], dots[1], sizeof dots[0]), "%s dot_rows dtype %d, %zu", isa, dtype, n);
        CHECK(!memcmp(sums[0], sums[1], n * 4), "%s weighted_sum dtype %d, %zu", isa, dtype, n);
    }
}

/* Every binary16 to binary32 and back, and binary32 at every rounding boundary between neighbouring binary16. */
static void check_halves(const char *isa) {
    static uint16_t all[65536], back[2][65536];
    static float floats[2][65536];
    for (size_t i = 0; i < 65536; i++) all[i] = (uint16_t)((i & 0x7fff) > 0x7c00 ? 0 : i); /* no NaN */
    nis_probe_to_float("scalar", all, NIS_F16, 65536, floats[0]);
    nis_probe_to_float(isa, all, NIS_F16, 65536, floats[1]);
    CHECK(!memcmp(floats[0], floats[1], sizeof floats[0]), "%s binary16 to binary32", isa);
    nis_probe_to_half(isa, floats[0], 65536, back[1]);
    CHECK(!memcmp(all, back[1], sizeof all), "%s binary16 there and back", isa);
    for (int offset = -1; offset <= 1; offset++) {
        for (size_t i = 0; i < 65536; i++) {
            uint32_t bits = bits_of(floats[0][i]);
            bits = (bits & 0x7f800000) == 0x7f800000 ? 0 : bits + 0x1000 + (uint32_t)offset;
            memcpy(&floats[1][i], &bits, 4);
        }
        nis_probe_to_half("scalar", floats[1], 65536, back[0]);
        nis_probe_to_half(isa, floats[1], 65536, back[1]);
        CHECK(!memcmp(back[0], back[1], sizeof back[0]), "%s binary32 to binary16 at boundaries", isa);
    }
}

static void check_float(const char *isa) {
    for (size_t n = 1; n <= 80; n++) check_float_length(isa, n, 3.0f);
    const size_t lengths[] = {127, 128, 256, 511, 1000, FLOATS};
    const float magnitudes[] = {1e-30f, 1e-5f, 1.0f, 40.0f, 1000.0f, 1e15f};
    for (size_t i = 0; i < 6; i++) {
        for (size_t k = 0; k < 6; k++) check_float_length(isa, lengths[i], magnitudes[k]);
    }
    check_halves(isa);
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    nis_architecture a;
    nis_dtype embed, head;
    int tied;
    uint32_t task_layers[2], task_count;
} recipe;

static const recipe recipes[] = {
    {"bitnet", {96, 200, 3, 6, 2, 20, 333, 160, NIS_RELU2, 1, 1e-5f, 500000.0}, NIS_F32, NIS_F32, 1, {3, 2}, 2},
    {"llama", {128, 320, 2, 4, 4, 64, 257, 160, NIS_SILU, 0, 1e-6f, 10000.0}, NIS_BF16, NIS_F16, 0, {0, 0}, 0},
    {"wide", {64, 1300, 1, 1, 1, 2, 64, 160, NIS_RELU2, 0, 1e-5f, 10000.0}, NIS_F16, NIS_BF16, 0, {0, 1}, 2},
};

enum { TOKENS = 80, LAYERS_MAX = 8, KV_DTYPES = 3 };
static const nis_dtype kv_dtypes[KV_DTYPES] = {NIS_F32, NIS_F16, NIS_I8};
static const char *const kv_names[KV_DTYPES] = {"f32", "f16", "i8"};

typedef struct {
    nis_weights w;
    nis_layer layers[LAYERS_MAX];
    nis_task_head heads[2];
    void *owned[256];
    size_t owned_count;
} test_model;

static void *keep(test_model *m, void *p) {
    m->owned[m->owned_count++] = p;
    return p;
}

static nis_tensor random_floats(test_model *m, size_t n, float middle, float spread) {
    float *x = keep(m, allocate(n * sizeof *x));
    for (size_t i = 0; i < n; i++) x[i] = middle + next_float() * spread;
    return (nis_tensor){x, n * sizeof *x};
}

/* float32 as it is, float16 rounded, bfloat16 cut off. */
static void store_rows(const float *values, size_t n, nis_dtype dtype, void *to) {
    if (dtype == NIS_F32) memcpy(to, values, n * sizeof *values);
    if (dtype == NIS_F16) nis_probe_to_half("scalar", values, n, to);
    for (size_t i = 0; dtype == NIS_BF16 && i < n; i++) ((uint16_t *)to)[i] = (uint16_t)(bits_of(values[i]) >> 16);
}

static nis_tensor random_rows(test_model *m, size_t n, nis_dtype dtype) {
    if (dtype == NIS_F32) return random_floats(m, n, 0.0f, 1.0f);
    uint16_t *x = keep(m, allocate(n * sizeof *x));
    float *values = allocate(n * sizeof *values);
    for (size_t i = 0; i < n; i++) values[i] = next_float();
    store_rows(values, n, dtype, x);
    free(values);
    return (nis_tensor){x, n * sizeof *x};
}

static nis_ternary random_ternary(test_model *m, size_t rows, size_t columns) {
    int8_t *weights = allocate(rows * columns);
    for (size_t i = 0; i < rows * columns; i++) weights[i] = (int8_t)((int)below(3) - 1);
    size_t bytes;
    uint8_t *packed = keep(m, pack(weights, rows, columns, &bytes));
    free(weights);
    return (nis_ternary){{packed, bytes}, 1.0f / sqrtf((float)columns)};
}

static nis_layer random_layer(test_model *m, const nis_architecture *a) {
    const size_t attended = (size_t)a->heads * a->head_dim, kv = (size_t)a->kv_heads * a->head_dim;
    nis_layer l = {0};
    l.attn_norm = random_floats(m, a->hidden, 1.0f, 0.5f);
    l.ffn_norm = random_floats(m, a->hidden, 1.0f, 0.5f);
    if (a->sub_norms) {
        l.attn_sub_norm = random_floats(m, attended, 1.0f, 0.5f);
        l.ffn_sub_norm = random_floats(m, a->ffn, 1.0f, 0.5f);
    }
    l.q = random_ternary(m, attended, a->hidden);
    l.k = random_ternary(m, kv, a->hidden);
    l.v = random_ternary(m, kv, a->hidden);
    l.o = random_ternary(m, a->hidden, attended);
    l.gate = random_ternary(m, a->ffn, a->hidden);
    l.up = random_ternary(m, a->ffn, a->hidden);
    l.down = random_ternary(m, a->hidden, a->ffn);
    return l;
}

static void make_test_model(test_model *m, const recipe *r) {
    memset(m, 0, sizeof *m);
    state = 20260000 + (uint64_t)r->a.hidden;
    m->w.architecture = r->a;
    m->w.embed = random_rows(m, (size_t)r->a.vocab * r->a.hidden, r->embed);
    m->w.embed_dtype = r->embed;
    if (!r->tied) {
        m->w.head = random_rows(m, (size_t)r->a.vocab * r->a.hidden, r->head);
        m->w.head_dtype = r->head;
    }
    m->w.norm = random_floats(m, r->a.hidden, 1.0f, 0.5f);
    size_t layer = 0;
    for (; layer < r->a.layers; layer++) m->layers[layer] = random_layer(m, &r->a);
    m->w.layers = m->layers;
    for (uint32_t h = 0; h < r->task_count; h++) {
        nis_task_head *head = &m->heads[h];
        head->layers = &m->layers[layer];
        head->layer_count = r->task_layers[h];
        for (uint32_t i = 0; i < head->layer_count; i++, layer++) m->layers[layer] = random_layer(m, &r->a);
        head->outputs = 18 + h;
        head->norm = random_floats(m, r->a.hidden, 1.0f, 0.5f);
        head->projection = random_floats(m, (size_t)head->outputs * r->a.hidden, 0.0f, 0.1f);
        head->bias = random_floats(m, head->outputs, 0.0f, 1.0f);
    }
    m->w.task_heads = m->heads;
    m->w.task_head_count = r->task_count;
}

static void free_test_model(test_model *m) {
    for (size_t i = 0; i < m->owned_count; i++) free(m->owned[i]);
}

static nis_model *open_model(const test_model *m, const char *isa, uint32_t threads) {
    char message[256] = "";
    nis_model *model = NULL;
    const nis_status status = nis_model_create(&m->w, isa, threads, &model, message, sizeof message);
    CHECK(status == NIS_OK, "model: %s", message);
    if (!model) exit(1);
    return model;
}

/* One pass over TOKENS tokens in chunks, with the task heads asked at the end of each chunk when `eager`. */
static uint64_t forward_hash(const test_model *m, const char *isa, uint32_t threads, size_t chunk, nis_dtype kv,
                             int eager) {
    const size_t vocab = m->w.architecture.vocab;
    nis_model *model = open_model(m, isa, threads);
    nis_session *session = NULL;
    CHECK(nis_session_create(model, TOKENS + 7, kv, &session) == NIS_OK, "session");
    float *logits = allocate(TOKENS * vocab * sizeof *logits);
    float outputs[2][32] = {{0}};
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = (int32_t)((i * 7919 + 13) % (int)vocab);
    for (size_t done = 0; done < TOKENS; done += chunk) {
        const size_t count = TOKENS - done < chunk ? TOKENS - done : chunk;
        const nis_status status =
            nis_session_forward(session, tokens + done, count, NIS_ALL_LOGITS, logits + done * vocab);
        CHECK(status == NIS_OK, "forward: %s", nis_status_text(status));
        for (uint32_t h = 0; eager && h < m->w.task_head_count; h++) {
            CHECK(nis_session_head(session, h, outputs[h]) == NIS_OK, "head");
        }
    }
    uint64_t hash = fnv1a(0xcbf29ce484222325, logits, TOKENS * vocab * sizeof *logits);
    for (uint32_t h = 0; h < m->w.task_head_count; h++) {
        CHECK(nis_session_head(session, h, outputs[h]) == NIS_OK, "head");
        hash = fnv1a(hash, outputs[h], m->w.task_heads[h].outputs * sizeof(float));
    }

    /* The last logits alone, after feeding without any, are the last of all logits. */
    float *last = allocate(vocab * sizeof *last);
    CHECK(nis_session_rewind(session, 3) == NIS_OK, "rewind");
    const int32_t elsewhere[4] = {9, 8, 7, 6}; /* another continuation first, seen by the heads too */
    CHECK(nis_session_forward(session, elsewhere, 4, NIS_NO_LOGITS, NULL) == NIS_OK, "another continuation");
    for (uint32_t h = 0; h < m->w.task_head_count; h++) {
        float other[32];
        CHECK(nis_session_head(session, h, other) == NIS_OK, "head");
        CHECK(memcmp(other, outputs[h], m->w.task_heads[h].outputs * sizeof(float)), "the head answers as before");
    }
    CHECK(nis_session_rewind(session, 3) == NIS_OK, "rewind");
    CHECK(nis_session_forward(session, tokens + 3, 60, NIS_NO_LOGITS, NULL) == NIS_OK, "feed");
    CHECK(nis_session_forward(session, tokens + 63, TOKENS - 63, NIS_LAST_LOGITS, last) == NIS_OK, "last");
    CHECK(!memcmp(last, logits + (TOKENS - 1) * vocab, vocab * sizeof *last), "rewound logits differ");
    for (uint32_t h = 0; h < m->w.task_head_count; h++) {
        float again[32];
        CHECK(nis_session_head(session, h, again) == NIS_OK, "head");
        CHECK(!memcmp(again, outputs[h], m->w.task_heads[h].outputs * sizeof(float)), "rewound head differs");
    }
    free(last);
    free(logits);
    nis_session_free(session);
    CHECK(nis_model_free(model) == NIS_OK, "free");
    return hash;
}

static void check_forward(const recipe *r, int quick) {
    test_model m;
    make_test_model(&m, r);
    for (int k = 0; k < KV_DTYPES; k++) {
        const nis_dtype kv = kv_dtypes[k];
        const uint64_t truth = forward_hash(&m, "scalar", 1, TOKENS, kv, 0);
        const char *isa;
        for (uint32_t i = 0; (isa = nis_isa_offered(i)) != NULL; i++) {
            for (uint32_t threads = 1; threads <= 3; threads++) {
                const size_t chunks[] = {TOKENS, 7, 65, 1};
                for (size_t c = 0; c < 4; c++) {
                    if (quick && c + 1 != threads) continue; /* the diagonal instead of the square */
                    const uint64_t hash = forward_hash(&m, isa, threads, chunks[c], kv, c % 2);
                    CHECK(hash == truth, "%s %s, %u threads, chunks of %zu: %016llx, not %016llx", r->name, isa,
                          threads, chunks[c], (unsigned long long)hash, (unsigned long long)truth);
                }
            }
        }
        printf("forward %s %s %016llx\n", r->name, kv_names[k], (unsigned long long)truth);
    }
    free_test_model(&m);
}

/* ---- head -------------------------------------------------------------------------------------------------------- */

enum head_pattern {
    HEAD_RANDOM,
    HEAD_EQUAL,       /* every row the same: only the token decides */
    HEAD_REPEATED,    /* eight rows over and over */
    HEAD_NEAR_TIES,   /* one row, each time with one element moved by the smallest step */
    HEAD_NORMS,       /* norms from 2^-12 to 2^12 */
    HEAD_ZERO_ROWS,   /* most rows zero, the others all unlikely */
    HEAD_ONE_HOT,     /* a single large element */
    HEAD_OUTLIERS,    /* bell-shaped but for two columns */
    HEAD_TINY,        /* float32 that float16 could not hold, subnormals among them */
    HEAD_ERRORS,      /* what the first bits miss points along the activations: Cauchy and Schwarz meet */
    HEAD_STEPS,       /* the rows point along what rounding the activations misses */
    HEAD_PATTERNS,
};

/* For HEAD_ERRORS every h is 1 or -1. Rows have scale 1/32, one element being 1; every tenth lies 1.9 quarter cells off
 * its first stand-in along h, so that its logit is 1.9 / 32 |h|^2 above the estimate, which the bound just allows; the
 * other rows lie as far off, but across. For HEAD_STEPS h is one element and below half a step of int8 elsewhere: every
 * third row leans along what is rounded to nothing and has a small share in the one element. */
static void shape_misleading_head(const test_model *m, enum head_pattern pattern, const float *h, float *rows) {
    const size_t vocab = m->w.architecture.vocab, hidden = m->w.architecture.hidden;
    float largest = 0.0f;
    for (size_t c = 0; c < hidden; c++) largest = fabsf(h[c]) > largest ? fabsf(h[c]) : largest;
    for (size_t row = 0; row < vocab; row++) {
        for (size_t c = 0; c < hidden; c++) {
            const float step = largest / 127.0f, miss = h[c] - nearbyintf(h[c] / step) * step;
            const float along = h[c] < 0.0f ? -1.0f : 1.0f, across = below(2) ? 1.0f : -1.0f;
            float value = 4.0f * (float)((int)below(15) - 7) + 2.0f + 1.9f * (row % 10 ? across : along);
            if (pattern == HEAD_STEPS) {
                value = (4.0f * (float)below(8) + 2.0f) * (row % 3 ? across : miss < 0.0f ? -1.0f : 1.0f);
                if (c == 77) value = (row % 3 ? 30.0f : 12.0f) * along;
            }
            rows[row * hidden + c] = (c == 0 ? 32.0f : value) / 32.0f;
        }
    }
}

static void shape_head(test_model *m, enum head_pattern pattern, const float *h) {
    const size_t vocab = m->w.architecture.vocab, hidden = m->w.architecture.hidden;
    float *base = allocate(8 * hidden * sizeof *base), *rows = allocate(vocab * hidden * sizeof *rows);
    for (size_t i = 0; i < 8 * hidden; i++) base[i] = next_float();
    for (size_t row = 0; row < vocab; row++) {
        const int exponent = (int)below(25) - 12;
        const size_t hot = below((uint32_t)hidden);
        for (size_t c = 0; c < hidden; c++) {
            float value = next_float();
            if (pattern == HEAD_EQUAL) value = base[c];
            if (pattern == HEAD_REPEATED) value = base[row % 8 * hidden + c];
            if (pattern == HEAD_NEAR_TIES) value = base[c] * (c == hot ? 1.0f + 0x1p-7f * (float)exponent : 1.0f);
            if (pattern == HEAD_NORMS) value = ldexpf(value, exponent);
            if (pattern == HEAD_ZERO_ROWS) value = row % 5 ? 0.0f : value;
            if (pattern == HEAD_ONE_HOT) value = c == hot ? ldexpf(value, exponent) : 0.0f;
            if (pattern == HEAD_OUTLIERS) value = c % (hidden / 2) == 3 ? 40.0f * value : value;
            if (pattern == HEAD_TINY) value = ldexpf(value, row % 3 ? -60 : -140);
            rows[row * hidden + c] = value;
        }
    }
    if (pattern == HEAD_ERRORS || pattern == HEAD_STEPS) shape_misleading_head(m, pattern, h, rows);
    store_rows(rows, vocab * hidden, (nis_dtype)m->w.head_dtype, (void *)(uintptr_t)m->w.head.data);
    free(base);
    free(rows);
}

/* What the head meets after `token`: the logits of a head of unit vectors. */
static void read_normed(const test_model *m, int32_t token, float *h) {
    const size_t vocab = m->w.architecture.vocab, hidden = m->w.architecture.hidden;
    test_model unit = *m;
    float *rows = allocate(vocab * hidden * sizeof *rows), *logits = allocate(vocab * sizeof *logits);
    for (size_t c = 0; c < hidden; c++) rows[c * hidden + c] = 1.0f;
    unit.w.layers = unit.layers;
    unit.w.head = (nis_tensor){rows, vocab * hidden * sizeof *rows};
    unit.w.head_dtype = NIS_F32;
    nis_model *model = open_model(&unit, "scalar", 1);
    nis_session *session;
    CHECK(nis_session_create(model, 8, NIS_F32, &session) == NIS_OK, "session");
    CHECK(nis_session_forward(session, &token, 1, NIS_LAST_LOGITS, logits) == NIS_OK, "forward");
    memcpy(h, logits, hidden * sizeof *h);
    nis_session_free(session);
    nis_model_free(model);
    free(rows);
    free(logits);
}

static int by_logit(const void *a, const void *b) {
    const nis_candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->token > y->token) - (x->token < y->token);
}

/* The truth: all logits, sorted. */
static void check_best(nis_session *session, nis_session *plain, const char *isa, int pattern, size_t wanted, float gap,
                       int32_t token) {
    enum { VOCAB = 1501 };
    static float logits[VOCAB];
    static nis_candidate sorted[VOCAB], best[VOCAB];
    size_t found = 0, truth = 0;
    CHECK(nis_session_rewind(session, 0) == NIS_OK && nis_session_rewind(plain, 0) == NIS_OK, "rewind");
    CHECK(nis_session_forward(plain, &token, 1, NIS_LAST_LOGITS, logits) == NIS_OK, "forward");
    for (int32_t i = 0; i < VOCAB; i++) sorted[i] = (nis_candidate){i, logits[i]};
    qsort(sorted, VOCAB, sizeof *sorted, by_logit);
    while (truth < wanted && sorted[truth].logit >= sorted[0].logit - gap) truth++;
    CHECK(nis_session_best(session, &token, 1, wanted, gap, best, &found) == NIS_OK, "best");
    int same = found == truth;
    for (size_t i = 0; same && i < truth; i++) {
        same = best[i].token == sorted[i].token && bits_of(best[i].logit) == bits_of(sorted[i].logit);
    }
    CHECK(same, "%s, head pattern %d, best %zu within %g after token %d: %zu found, not %zu", isa, pattern, wanted,
          (double)gap, token, found, truth);
}

/* Chosen through the screened head or from all logits: the same tokens, draw by draw. */
static void check_choice(nis_session *session, nis_session *plain, const nis_model *model, const char *isa, int pattern,
                         int32_t only) {
    enum { VOCAB = 1501 };
    static float logits[VOCAB];
    const nis_sampling hows[] = {
        {0.0f, 1.0f, 0.0f, 1.0f, 0, 1}, {0.8f, 1.0f, 0.0f, 1.0f, 40, 2}, {0.5f, 0.9f, 0.05f, 1.3f, 7, 3},
    };
    for (size_t h = 0; h < sizeof hows / sizeof *hows; h++) {
        nis_sampler *ours, *theirs;
        CHECK(nis_sampler_create(model, &hows[h], &ours) == NIS_OK, "sampler");
        CHECK(nis_sampler_create(model, &hows[h], &theirs) == NIS_OK, "sampler");
        for (int32_t i = 0; i < 5; i++) {
            const int32_t token = only >= 0 ? only : i * 97 % VOCAB, recent[2] = {3, token};
            int32_t chosen = -1, truth = -2;
            CHECK(nis_session_rewind(session, 0) == NIS_OK && nis_session_rewind(plain, 0) == NIS_OK, "rewind");
            CHECK(nis_session_choose(session, &token, 1, ours, recent, 2, &chosen) == NIS_OK, "choose");
            CHECK(nis_session_forward(plain, &token, 1, NIS_LAST_LOGITS, logits) == NIS_OK, "forward");
            CHECK(nis_sampler_choose(theirs, logits, NULL, recent, 2, &truth) == NIS_OK, "choose");
            CHECK(chosen == truth, "%s, head pattern %d: chose %d, not %d", isa, pattern, chosen, truth);
        }
        nis_sampler_free(ours);
        nis_sampler_free(theirs);
    }
}

enum { HEAD_WIDTH = 328, HEAD_ROWS = 1501, HEAD_GROUPS = 2 };

static recipe head_recipe(nis_dtype dtype) {
    return (recipe){"head", {HEAD_WIDTH, 64, 1, 2, 1, 32, HEAD_ROWS, 64, NIS_RELU2, 0, 1e-5f, 10000.0}, NIS_F32, dtype, 0,
                    {0}, 0};
}

/* The screen of a model's head as a package would bring it. */
static nis_status give_screen(test_model *m, const char *isa, size_t *failed) {
    const size_t planes[3] = {HEAD_GROUPS * 128, HEAD_GROUPS * 32, HEAD_GROUPS * 32};
    nis_tensor *const tensors[6] = {&m->w.screen.nibbles, &m->w.screen.ones,  &m->w.screen.halves,
                                    &m->w.screen.scales,  &m->w.screen.norms, &m->w.screen.errors};
    for (size_t i = 0; i < 6; i++) {
        const size_t bytes = HEAD_ROWS * (i < 3 ? planes[i] : i == 5 ? 3 * sizeof(float) : sizeof(float));
        uint8_t *memory = keep(m, allocate(bytes));
        memset(memory, 0xa5, bytes); /* every byte must be written */
        *tensors[i] = (nis_tensor){memory, bytes};
    }
    float *errors = (float *)(uintptr_t)m->w.screen.errors.data;
    const nis_screen_places to = {
        (uint8_t *)(uintptr_t)m->w.screen.nibbles.data, (uint8_t *)(uintptr_t)m->w.screen.ones.data,
        (uint8_t *)(uintptr_t)m->w.screen.halves.data,  (float *)(uintptr_t)m->w.screen.scales.data,
        (float *)(uintptr_t)m->w.screen.norms.data,     {errors, errors + HEAD_ROWS, errors + 2 * HEAD_ROWS}};
    return nis_screen_make(isa, m->w.head.data, m->w.head_dtype, HEAD_ROWS, HEAD_WIDTH, &to, failed);
}

static void check_head_pattern(const char *isa, nis_dtype dtype, enum head_pattern pattern, uint32_t threads, int hot,
                               int packed, nis_head_stats *total) {
    const recipe r = head_recipe(dtype);
    test_model m;
    make_test_model(&m, &r);
    const int misleading = pattern == HEAD_ERRORS || pattern == HEAD_STEPS; /* for one token only */
    float *norm = (float *)(uintptr_t)m.w.norm.data, h[328]; /* what the head meets: bell-shaped, or nearly one-hot */
    for (size_t i = 0; hot && i < r.a.hidden; i++) norm[i] = i == 77 ? 100.0f : 1e-4f * norm[i];
    if (misleading) read_normed(&m, 5, h);
    for (size_t i = 0; misleading && i < r.a.hidden; i++) {
        norm[i] *= (pattern == HEAD_ERRORS ? 1.0f : i == 77 ? 1.27f : 0.0045f) / fabsf(h[i]);
        h[i] = copysignf(pattern == HEAD_ERRORS ? 1.0f : i == 77 ? 1.27f : 0.0045f, h[i]);
    }
    shape_head(&m, pattern, h);
    nis_model *other = open_model(&m, isa, 1);
    if (packed) CHECK(give_screen(&m, isa, NULL) == NIS_OK, "screen of head pattern %d", pattern);
    nis_model *model = open_model(&m, isa, threads);
    nis_session *session, *plain;
    CHECK(nis_session_create(model, 8, NIS_F32, &session) == NIS_OK, "session");
    CHECK(nis_session_create(other, 8, NIS_F32, &plain) == NIS_OK, "session");
    CHECK(nis_model_screen_from(model, 0) == NIS_OK, "screen from 0 bytes");
    const size_t wanted[] = {1, 1, 40, 2, 93, 1501, 1, 5, 40, 1, 93, 1, 7, 1, 1};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const float gap = i % 4 == 3 ? 0.5f * (float)i : i == 7 ? 0.0f : INFINITY;
        check_best(session, plain, isa, pattern, wanted[i], gap, misleading ? 5 : (int32_t)(i * 97 % 1501));
    }
    check_choice(session, plain, model, isa, pattern, misleading ? 5 : -1);
    nis_head_stats stats;
    CHECK(nis_model_head_stats(model, &stats) == NIS_OK && stats.evaluations > 0, "statistics");
    CHECK(stats.rows_screened > 0, "the screen was not used");
    CHECK(!packed || stats.rows_screened == stats.evaluations * HEAD_ROWS, "a packed screen serves from the first token on");
    total->rows += stats.rows;
    total->rows_screened += stats.rows_screened;
    total->rows_refined += stats.rows_refined;
    total->rows_computed += stats.rows_computed;
    nis_session_free(session);
    nis_session_free(plain);
    nis_model_free(model);
    nis_model_free(other);
    free_test_model(&m);
}

/* Bytes of all screens: one hash, whoever makes them. */
static uint64_t screen_hash(const char *isa) {
    uint64_t hash = 0xcbf29ce484222325;
    for (int pattern = 0; pattern < HEAD_ERRORS; pattern++) {
        for (int dtype = NIS_F32; dtype <= NIS_BF16; dtype++) {
            const recipe r = head_recipe((nis_dtype)dtype);
            test_model m;
            make_test_model(&m, &r);
            shape_head(&m, (enum head_pattern)pattern, NULL);
            CHECK(give_screen(&m, isa, NULL) == NIS_OK, "screen of head pattern %d", pattern);
            const nis_tensor tensors[6] = {m.w.screen.nibbles, m.w.screen.ones,  m.w.screen.halves,
                                           m.w.screen.scales,  m.w.screen.norms, m.w.screen.errors};
            for (size_t i = 0; i < 6; i++) hash = fnv1a(hash, tensors[i].data, tensors[i].bytes);
            free_test_model(&m);
        }
    }
    return hash;
}

static void check_screens(void) {
    const uint64_t truth = screen_hash("scalar");
    const char *isa;
    for (uint32_t i = 0; (isa = nis_isa_offered(i)) != NULL; i++) {
        CHECK(screen_hash(isa) == truth, "%s makes other screens", isa);
    }
    printf("screen %016llx\n", (unsigned long long)truth);
}

/* A screen that can't be the head's is refused when the model is made. */
static void check_screen_refusals(void) {
    const recipe r = head_recipe(NIS_F16);
    test_model m;
    make_test_model(&m, &r);
    CHECK(give_screen(&m, NULL, NULL) == NIS_OK, "screen");
    nis_model *model = NULL;
    char message[256];
#define SCREEN_REFUSED(change, status)                                                                       \
    do {                                                                                                     \
        nis_weights w = m.w;                                                                                 \
        nis_head_screen *const s = &w.screen;                                                                \
        (void)s;                                                                                             \
        change;                                                                                              \
        const nis_status got = nis_model_create(&w, NULL, 1, &model, message, sizeof message);               \
        CHECK(got == (status) && model == NULL, "%s: status %d, %s", #change, got, message);                 \
    } while (0)
    SCREEN_REFUSED(s->nibbles.bytes -= 64, NIS_SHAPE);
    SCREEN_REFUSED(s->ones.data = NULL, NIS_SHAPE);
    SCREEN_REFUSED(s->halves.data = (const char *)s->halves.data + 1, NIS_SHAPE);
    SCREEN_REFUSED(s->norms.bytes += 4, NIS_SHAPE);
    SCREEN_REFUSED(s->errors.bytes = s->norms.bytes, NIS_SHAPE);
    SCREEN_REFUSED(s->scales = s->norms, NIS_FORMAT);
    SCREEN_REFUSED(s->ones = s->halves, NIS_FORMAT);
    SCREEN_REFUSED(w.head = w.embed; w.head_dtype = NIS_F32, NIS_FORMAT);
    float *errors = (float *)(uintptr_t)m.w.screen.errors.data, kept = errors[4000];
    const float wild[] = {NAN, -NAN, INFINITY, -INFINITY, -1.0f, -0.0f};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        errors[4000] = wild[i];
        SCREEN_REFUSED((void)s, NIS_SHAPE);
    }
    errors[4000] = kept;
    /* Huge numbers that are finite turn the screen off, as nothing can be said of such rows. */
    const float huge = 3e38f;
    memcpy(&errors[4000], &huge, sizeof huge);
    nis_model *other = open_model(&m, NULL, 2);
    nis_session *session;
    nis_candidate best;
    nis_head_stats stats;
    size_t found;
    const int32_t token = 1;
    CHECK(nis_model_screen_from(other, 0) == NIS_OK, "screen from 0 bytes");
    CHECK(nis_session_create(other, 8, NIS_F32, &session) == NIS_OK, "session");
    CHECK(nis_session_best(session, &token, 1, 1, INFINITY, &best, &found) == NIS_OK && found == 1, "best");
    CHECK(nis_model_head_stats(other, &stats) == NIS_OK && stats.rows_screened == 0, "beyond what can be screened");
    nis_session_free(session);
    nis_model_free(other);

    const nis_screen_places none = {0};
    size_t failed = 0;
    CHECK(nis_screen_make(NULL, m.w.head.data, NIS_F16, 1, HEAD_WIDTH, &none, NULL) == NIS_ARGUMENT, "nowhere to go");
    ((uint16_t *)(uintptr_t)m.w.head.data)[1400 * HEAD_WIDTH + 5] = 0x7c00; /* infinity */
    CHECK(give_screen(&m, NULL, &failed) == NIS_NOT_FINITE && failed == 1400, "row %zu is not finite", failed);
    free_test_model(&m);
    CHECK(nis_screen_pays(128256, 2560, NIS_F16) == 1 && nis_screen_pays(4096, 192, NIS_F16) == 0, "what pays");
    CHECK(nis_screen_pays(2097152, 2, NIS_F32) == 0 && nis_screen_pays(15, 1 << 20, NIS_F32) == 0, "what can't be");
    CHECK(nis_screen_pays(16384, 256, NIS_BF16) == 1 && nis_screen_pays(16383, 256, NIS_BF16) == 0, "8 MiB");
}

static void check_head(const char *isa, int quick) {
    nis_head_stats total = {0};
    const unsigned long before = checks;
    for (int pattern = 0; pattern < HEAD_PATTERNS; pattern++) {
        for (int dtype = NIS_F32; dtype <= NIS_BF16; dtype++) {
            if (pattern == HEAD_TINY && dtype == NIS_F16) continue;
            for (int hot = 0; hot < 2; hot++) {
                if (hot && (pattern == HEAD_ERRORS || pattern == HEAD_STEPS)) continue;
                for (int packed = 0; packed < 2; packed++) {
                    if (quick && (pattern + dtype + hot + packed) % 2) continue;
                    check_head_pattern(isa, (nis_dtype)dtype, (enum head_pattern)pattern, hot ? 1 : 3, hot, packed,
                                       &total);
                }
            }
        }
    }
    printf("head %s: %lu checks; of %llu rows %llu were screened, %llu refined, %llu computed\n", isa, checks - before,
           (unsigned long long)total.rows, (unsigned long long)total.rows_screened,
           (unsigned long long)total.rows_refined, (unsigned long long)total.rows_computed);

    /* Damage in the head is an error in whichever row it is, as soon as the row's slice of the screen is made. */
    const recipe r = head_recipe(NIS_F32);
    test_model m;
    make_test_model(&m, &r);
    ((float *)(uintptr_t)m.w.head.data)[1400 * 328 + 5] = NAN;
    nis_model *model = open_model(&m, isa, 2);
    nis_session *session;
    CHECK(nis_session_create(model, 64, NIS_F32, &session) == NIS_OK, "session");
    CHECK(nis_model_screen_from(model, 0) == NIS_OK, "screen from 0 bytes");
    nis_candidate best;
    size_t found;
    const int32_t token = 1;
    for (int i = 0; i < 12; i++) {
        CHECK(nis_session_best(session, &token, 1, 1, INFINITY, &best, &found) == NIS_NOT_FINITE, "NaN in the head");
    }
    CHECK(nis_session_best(session, &token, 1, 0, INFINITY, &best, &found) == NIS_ARGUMENT, "none wanted");
    CHECK(nis_session_best(session, &token, 1, 1502, INFINITY, &best, &found) == NIS_ARGUMENT, "too many wanted");
    CHECK(nis_session_best(session, &token, 1, 1, NAN, &best, &found) == NIS_ARGUMENT, "gap is no number");
    CHECK(nis_session_best(session, &token, 1, 1, -1.0f, &best, &found) == NIS_ARGUMENT, "gap below zero");
    CHECK(nis_session_position(session) == 0, "refusals must not move the session");
    nis_session_free(session);
    nis_model_free(model);
    free_test_model(&m);
}

/* The rounding direction stands for the whole floating-point environment: flush-to-zero lives in the same register. */
static void check_host_environment(void) {
    test_model m;
    make_test_model(&m, &recipes[0]);
    const uint64_t truth = forward_hash(&m, NULL, 2, 7, NIS_F32, 0);
    CHECK(fesetround(FE_DOWNWARD) == 0, "this machine can round downwards");
    const uint64_t hash = forward_hash(&m, NULL, 2, 7, NIS_F32, 0);
    CHECK(fegetround() == FE_DOWNWARD, "the host's rounding must come back");
    fesetround(FE_TONEAREST);
    CHECK(hash == truth, "the host's rounding changes the logits");
    free_test_model(&m);
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

typedef struct {
    nis_session *session;
    int passes_wanted;
    unsigned long passes, refused;
} talker;

/* Two of these on one session must meet NIS_BUSY or succeed, and never race. */
static void *talk(void *argument) {
    talker *t = argument;
    float outputs[32];
    while (t->passes < (unsigned long)t->passes_wanted) {
        const int32_t tokens[3] = {1, 2, 3};
        nis_status status = nis_session_forward(t->session, tokens, 3, NIS_NO_LOGITS, NULL);
        if (status == NIS_FULL) status = nis_session_rewind(t->session, 0);
        if (status == NIS_OK) status = nis_session_head(t->session, 0, outputs);
        t->passes += status == NIS_OK || status == NIS_EMPTY;
        t->refused += status == NIS_BUSY;
        if (status == NIS_BUSY) sched_yield();
    }
    return NULL;
}

static void check_sessions(void) {
    test_model m;
    make_test_model(&m, &recipes[0]);
    nis_model *model = open_model(&m, NULL, 2);
    nis_session *one, *two;
    CHECK(nis_session_create(model, 16, NIS_F32, &one) == NIS_OK, "session");
    CHECK(nis_session_create(model, 16, NIS_F32, &two) == NIS_OK, "session");
    float logits[333], outputs[32];
    int32_t tokens[20] = {0};
    CHECK(nis_session_head(one, 0, outputs) == NIS_EMPTY, "head before tokens");
    CHECK(nis_session_head(one, 2, outputs) == NIS_ARGUMENT, "head out of range");
    CHECK(nis_session_forward(one, tokens, 17, NIS_LAST_LOGITS, logits) == NIS_FULL, "too many tokens");
    tokens[3] = 333;
    CHECK(nis_session_forward(one, tokens, 8, NIS_LAST_LOGITS, logits) == NIS_TOKEN, "token too large");
    tokens[3] = -1;
    CHECK(nis_session_forward(one, tokens, 8, NIS_LAST_LOGITS, logits) == NIS_TOKEN, "token negative");
    tokens[3] = 0;
    CHECK(nis_session_position(one) == 0, "refusals must not move the session");
    nis_session_cancel(one);
    CHECK(nis_session_forward(one, tokens, 8, NIS_LAST_LOGITS, logits) == NIS_CANCELLED, "cancel");
    CHECK(nis_session_position(one) == 0, "cancelling must not move the session");
    CHECK(nis_session_forward(one, tokens, 8, NIS_LAST_LOGITS, logits) == NIS_OK, "after cancelling");
    CHECK(nis_session_rewind(one, 9) == NIS_FULL, "rewinding forward");
    CHECK(nis_model_free(model) == NIS_BUSY, "a model with sessions is not freed");

    int32_t made[8], token = 5;
    size_t made_count;
    CHECK(nis_session_greedy(two, token, -1, 8, made, &made_count) == NIS_OK && made_count == 8, "greedy");
    CHECK(nis_session_rewind(two, 0) == NIS_OK, "rewind");
    for (size_t i = 0; i < 8; i++) {
        CHECK(nis_session_forward(two, &token, 1, NIS_LAST_LOGITS, logits) == NIS_OK, "forward");
        size_t best = 0;
        for (size_t k = 1; k < 333; k++) best = logits[k] > logits[best] ? k : best;
        token = (int32_t)best;
        CHECK(token == made[i], "greedy token %zu", i);
    }
    CHECK(nis_session_greedy(two, 5, -1, 9, (int32_t[9]){0}, &made_count) == NIS_FULL, "greedy beyond the end");
    CHECK(nis_session_position(two) == 8, "a failed greedy must not move the session");

    talker talkers[4] = {{one, 50, 0, 0}, {one, 50, 0, 0}, {two, 50, 0, 0}, {two, 50, 0, 0}};
    pthread_t threads[4];
    unsigned long passes = 0, refused = 0;
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, talk, &talkers[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        passes += talkers[i].passes;
        refused += talkers[i].refused;
    }
    CHECK(passes == 200, "every thread must get its turns");
    printf("sessions: 4 threads on 2 sessions, %lu passes, %lu refused as busy\n", passes, refused);
    nis_session_free(one);
    nis_session_free(two);
    CHECK(nis_model_free(model) == NIS_OK, "free");

    /* Damaged weights are an error, never a result. */
    ((float *)m.layers[1].ffn_norm.data)[5] = NAN;
    model = open_model(&m, NULL, 1);
    CHECK(nis_session_create(model, 16, NIS_F32, &one) == NIS_OK, "session");
    CHECK(nis_session_forward(one, tokens, 8, NIS_LAST_LOGITS, logits) == NIS_NOT_FINITE, "NaN in a norm");
    CHECK(nis_session_position(one) == 0, "a failed pass must not move the session");
    nis_session_free(one);
    nis_model_free(model);
    free_test_model(&m);
}

/* ---- sharing and rolling ----------------------------------------------------------------------------------------- */

static int32_t token_at(size_t i, size_t vocab) { return (int32_t)((i * 7919 + 13) % vocab); }

static void feed(nis_session *session, size_t from, size_t to, size_t chunk, size_t vocab, float *logits) {
    int32_t tokens[512];
    for (size_t at = from, count; at < to; at += count) {
        count = to - at < chunk ? to - at : chunk;
        for (size_t i = 0; i < count; i++) tokens[i] = token_at(at + i, vocab);
        const nis_status status = nis_session_forward(session, tokens, count, NIS_ALL_LOGITS, logits + (at - from) * vocab);
        CHECK(status == NIS_OK, "forward at %zu: %s", at, nis_status_text(status));
    }
}

/* Logits of 200 tokens through a window of 70 with 5 sinks: beyond the model's context of 160 positions. */
static uint64_t rolling_hash(const test_model *m, const char *isa, uint32_t threads, size_t chunk, nis_dtype kv) {
    const size_t vocab = m->w.architecture.vocab;
    nis_model *model = open_model(m, isa, threads);
    nis_session *session, *plain;
    CHECK(nis_session_create_rolling(model, 5, 70, kv, &session) == NIS_OK, "rolling session");
    float *logits = allocate(200 * vocab * sizeof *logits), *same = allocate(75 * vocab * sizeof *same);
    feed(session, 0, 200, chunk, vocab, logits);
    CHECK(nis_session_create(model, 160, kv, &plain) == NIS_OK, "session");
    feed(plain, 0, 75, 9, vocab, same);
    CHECK(!memcmp(logits, same, 75 * vocab * sizeof *same), "a window that has not moved is an ordinary session");
    const uint64_t hash = fnv1a(0xcbf29ce484222325, logits, 200 * vocab * sizeof *logits);
    nis_session_free(session);
    nis_session_free(plain);
    free(logits);
    free(same);
    nis_model_free(model);
    return hash;
}

static void check_rolling(const recipe *r, int quick) {
    test_model m;
    make_test_model(&m, r);
    for (int k = 0; k < KV_DTYPES; k++) {
        const uint64_t truth = rolling_hash(&m, "scalar", 1, 200, kv_dtypes[k]);
        const char *isa;
        for (uint32_t i = 0; (isa = nis_isa_offered(i)) != NULL; i++) {
            const size_t chunks[] = {1, 7, 65};
            for (uint32_t c = 0; c < (quick ? 2 : 3); c++) {
                const uint64_t hash = rolling_hash(&m, isa, c + 1, chunks[c], kv_dtypes[k]);
                CHECK(hash == truth, "rolling %s %s %s, chunks of %zu", r->name, kv_names[k], isa, chunks[c]);
            }
        }
        printf("rolling %s %s %016llx\n", r->name, kv_names[k], (unsigned long long)truth);
    }
    free_test_model(&m);
}

static nis_session *save_and_restore(nis_model *model, nis_session *session) {
    const size_t bytes = nis_session_saved_bytes(session);
    char *saved = allocate(bytes);
    CHECK(nis_session_save(session, saved, bytes) == NIS_OK, "save");
    nis_session *restored = NULL;
    const nis_status status = nis_session_restore(model, saved, bytes, &restored);
    CHECK(status == NIS_OK, "restore: %s", nis_status_text(status));
    if (!restored) exit(1);
    char *again = allocate(bytes);
    CHECK(nis_session_saved_bytes(restored) == bytes && nis_session_save(restored, again, bytes) == NIS_OK, "save again");
    CHECK(!memcmp(saved, again, bytes), "saving what was restored gives the same bytes");
    free(again);
    free(saved);
    return restored;
}

static void check_fork_and_save(nis_model *model, const test_model *m, nis_dtype kv, const float *truth) {
    const size_t vocab = m->w.architecture.vocab, row = vocab * sizeof(float);
    float *logits = allocate(150 * row), heads[3][2][32] = {{{0}}};
    nis_session *one, *two, *three;
    CHECK(nis_session_create(model, 160, kv, &one) == NIS_OK, "session");
    feed(one, 0, 100, 33, vocab, logits);
    for (uint32_t h = 0; h < m->w.task_head_count; h++) CHECK(!nis_session_head(one, h, heads[0][h]), "head");
    CHECK(nis_session_fork(one, 101, &two) == NIS_FULL && !two, "a fork beyond the end");
    CHECK(nis_session_fork(one, 70, &two) == NIS_OK, "fork");
    /* The parent goes elsewhere and comes back; neither sees the other. */
    CHECK(nis_session_rewind(one, 66) == NIS_OK, "rewind");
    const int32_t elsewhere[5] = {3, 1, 4, 1, 5};
    CHECK(nis_session_forward(one, elsewhere, 5, NIS_NO_LOGITS, NULL) == NIS_OK, "another continuation");
    feed(two, 70, 150, 11, vocab, logits);
    CHECK(!memcmp(logits, truth + 70 * vocab, 80 * row), "a fork computes other bits");
    CHECK(nis_session_rewind(one, 66) == NIS_OK, "rewind");
    feed(one, 66, 100, 1, vocab, logits);
    CHECK(!memcmp(logits, truth + 66 * vocab, 34 * row), "a parent computes other bits");
    CHECK(nis_session_fork(two, 100, &three) == NIS_OK, "fork of a fork");
    nis_session_free(one);
    one = save_and_restore(model, three);
    feed(one, 100, 150, 50, vocab, logits);
    CHECK(!memcmp(logits, truth + 100 * vocab, 50 * row), "a restored session computes other bits");
    CHECK(nis_session_rewind(one, 100) == NIS_OK, "rewind");
    for (uint32_t h = 0; h < m->w.task_head_count; h++) {
        CHECK(!nis_session_head(one, h, heads[1][h]) && !nis_session_head(three, h, heads[2][h]), "head");
        for (int k = 1; k < 3; k++) CHECK(!memcmp(heads[0][h], heads[k][h], sizeof heads[0][h]), "head differs, %d", k);
    }
    nis_session_free(one);
    nis_session_free(two);
    nis_session_free(three);
    free(logits);
}

/* Five sessions of different lengths and dtypes in one pass, then one token each. */
static void check_batch(nis_model *model, const test_model *m, float *const truth[KV_DTYPES]) {
    enum { SESSIONS = 5 };
    const size_t vocab = m->w.architecture.vocab, counts[SESSIONS] = {1, 40, 97, 3, 20};
    nis_session *sessions[SESSIONS];
    float *logits[SESSIONS];
    int32_t tokens[SESSIONS][128];
    nis_batch_item items[SESSIONS];
    for (int i = 0; i < SESSIONS; i++) {
        CHECK(nis_session_create(model, 160, kv_dtypes[i % KV_DTYPES], &sessions[i]) == NIS_OK, "session");
        logits[i] = allocate(128 * vocab * sizeof *logits[i]);
        for (size_t k = 0; k < 128; k++) tokens[i][k] = token_at(k, vocab);
        const nis_wanted wanted = i == 1 ? NIS_LAST_LOGITS : i == 3 ? NIS_NO_LOGITS : NIS_ALL_LOGITS;
        items[i] = (nis_batch_item){sessions[i], tokens[i], counts[i], wanted, logits[i]};
    }
    size_t failed = 99;
    CHECK(nis_batch_forward(items, SESSIONS, &failed) == NIS_OK, "batch");
    for (int i = 0; i < SESSIONS; i++) {
        const float *expected = truth[i % KV_DTYPES];
        if (i == 1) CHECK(!memcmp(logits[i], expected + 39 * vocab, vocab * sizeof(float)), "batch, last of item 1");
        if (i != 1 && i != 3) CHECK(!memcmp(logits[i], expected, counts[i] * vocab * sizeof(float)), "batch, item %d", i);
    }
    for (size_t step = 0; step < 30; step++) {
        for (int i = 0; i < SESSIONS; i++) {
            items[i] = (nis_batch_item){sessions[i], &tokens[i][counts[i] + step], 1, NIS_LAST_LOGITS, logits[i]};
        }
        CHECK(nis_batch_forward(items, SESSIONS, NULL) == NIS_OK, "batch");
        for (int i = 0; i < SESSIONS; i++) {
            const float *expected = truth[i % KV_DTYPES] + (counts[i] + step) * vocab;
            CHECK(!memcmp(logits[i], expected, vocab * sizeof(float)), "batch step %zu, item %d", step, i);
        }
    }
    items[2].session = sessions[1];
    CHECK(nis_batch_forward(items, SESSIONS, &failed) == NIS_BUSY && failed == 2, "a session named twice");
    items[2].session = sessions[2];
    nis_session_cancel(sessions[3]);
    CHECK(nis_batch_forward(items, SESSIONS, &failed) == NIS_CANCELLED && failed == 3, "one of a batch cancelled");
    tokens[4][127] = -1;
    items[4].tokens = &tokens[4][127];
    CHECK(nis_batch_forward(items, SESSIONS, &failed) == NIS_TOKEN && failed == 4, "a bad token in a batch");
    items[4].count = 0;
    CHECK(nis_batch_forward(items, SESSIONS, &failed) == NIS_ARGUMENT && failed == 4, "nothing to do in a batch");
    for (int i = 0; i < SESSIONS; i++) {
        CHECK(nis_session_position(sessions[i]) == counts[i] + 30, "a failed batch must move nobody");
        nis_session_free(sessions[i]);
        free(logits[i]);
    }
}

static void check_rolling_refusals(nis_model *model, size_t vocab) {
    nis_session *session, *other;
    float *logits = allocate(300 * vocab * sizeof *logits), *again = allocate(300 * vocab * sizeof *again), outputs[32];
    CHECK(nis_session_create_rolling(model, 91, 70, NIS_F32, &session) == NIS_FULL, "a window beyond the context");
    CHECK(nis_session_create_rolling(model, 4, 0, NIS_F32, &session) == NIS_ARGUMENT, "no window");
    CHECK(nis_session_create_rolling(model, 4, 70, NIS_F16, &session) == NIS_OK, "rolling session");
    feed(session, 0, 250, 10, vocab, logits);
    CHECK(nis_session_head(session, 0, outputs) == NIS_GONE, "a head of a rolling session");
    CHECK(nis_session_rewind(session, 100) == NIS_GONE, "rewinding behind the window");
    CHECK(nis_session_fork(session, 100, &other) == NIS_GONE && !other, "forking behind the window");
    CHECK(nis_session_fork(session, 250, &other) == NIS_OK, "forking at the end");
    feed(session, 250, 300, 10, vocab, logits);
    feed(other, 250, 300, 3, vocab, again);
    CHECK(!memcmp(logits, again, 50 * vocab * sizeof *logits), "a rolling fork computes other bits");
    nis_session_free(session);
    session = save_and_restore(model, other);
    feed(session, 300, 320, 4, vocab, logits);
    feed(other, 300, 320, 1, vocab, again);
    CHECK(!memcmp(logits, again, 20 * vocab * sizeof *logits), "a restored rolling session computes other bits");
    nis_session_free(session);
    nis_session_free(other);
    free(logits);
    free(again);
}

/* Every header byte changed, lengths cut, numbers that are not finite under a right checksum: refused, and nothing read
 * beyond the bytes (the sanitizers watch). */
static void check_hostile_saves(nis_model *model, nis_model *another, size_t vocab) {
    for (int k = 0; k < KV_DTYPES; k++) {
        nis_session *session, *restored;
        float *logits = allocate(3 * vocab * sizeof *logits);
        CHECK(nis_session_create(model, 160, kv_dtypes[k], &session) == NIS_OK, "session");
        feed(session, 0, 3, 3, vocab, logits);
        const size_t bytes = nis_session_saved_bytes(session);
        unsigned char *saved = malloc(bytes), *changed = malloc(bytes);
        CHECK(nis_session_save(session, saved, bytes - 1) == NIS_ARGUMENT, "too little room");
        CHECK(nis_session_save(session, saved, bytes) == NIS_OK, "save");
        CHECK(nis_session_restore(another, saved, bytes, &restored) == NIS_FORMAT, "another model's session");
        for (size_t i = 0; i < 80 + 64; i++) {
            const unsigned char values[] = {0, 0xff, 0x7f, (unsigned char)(saved[i] + 1), (unsigned char)(saved[i] ^ 0x80)};
            for (size_t v = 0; v < sizeof values; v++) {
                if (values[v] == saved[i]) continue;
                memcpy(changed, saved, bytes);
                changed[i] = values[v];
                CHECK(nis_session_restore(model, changed, bytes, &restored) == NIS_FORMAT && !restored, "byte %zu", i);
            }
        }
        for (size_t cut = 0; cut < 200; cut++) {
            const size_t length = cut < 100 ? cut : bytes - (cut - 99);
            unsigned char *exact = malloc(length + 1);
            memcpy(exact, saved, length);
            CHECK(nis_session_restore(model, exact, length, &restored) == NIS_FORMAT, "cut to %zu", length);
            free(exact);
        }
        free(saved);
        free(changed);
        free(logits);
        nis_session_free(session);
    }
}

static void check_sharing(void) {
    test_model m, other;
    make_test_model(&m, &recipes[0]);
    make_test_model(&other, &recipes[0]);
    ((float *)other.layers[2].ffn_norm.data)[7] += 1.0f;
    const size_t vocab = m.w.architecture.vocab;
    nis_model *model = open_model(&m, NULL, 2), *another = open_model(&other, NULL, 1);
    float *truth[KV_DTYPES];
    for (int k = 0; k < KV_DTYPES; k++) {
        nis_session *session;
        truth[k] = allocate(150 * vocab * sizeof *truth[k]);
        CHECK(nis_session_create(model, 150, kv_dtypes[k], &session) == NIS_OK, "session");
        feed(session, 0, 150, 150, vocab, truth[k]);
        nis_session_free(session);
        check_fork_and_save(model, &m, kv_dtypes[k], truth[k]);
    }
    check_batch(model, &m, truth);
    check_rolling_refusals(model, vocab);
    check_hostile_saves(model, another, vocab);
    for (int k = 0; k < KV_DTYPES; k++) free(truth[k]);
    CHECK(nis_model_free(model) == NIS_OK && nis_model_free(another) == NIS_OK, "no session is left");
    free_test_model(&m);
    free_test_model(&other);
    printf("sharing: forks, batches, saved sessions\n");
}

/* ---- choosing tokens and constraints ----------------------------------------------------------------------------- */

static uint64_t choosing_hash(const test_model *m, const char *isa) {
    enum { VOCAB = 333 };
    const nis_sampling hows[] = {
        {0.0f, 1.0f, 0.0f, 1.0f, 0, 1},   {1.0f, 1.0f, 0.0f, 1.0f, 0, 2},    {0.7f, 0.9f, 0.0f, 1.0f, 0, 3},
        {2.0f, 1.0f, 0.02f, 1.0f, 0, 4},  {1.3f, 0.5f, 0.001f, 1.3f, 40, 5}, {100.0f, 0.99f, 0.0f, 0.5f, 7, 6},
    };
    nis_model *model = open_model(m, isa, 1);
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t h = 0; h < sizeof hows / sizeof *hows; h++) {
        nis_sampler *sampler;
        CHECK(nis_sampler_create(model, &hows[h], &sampler) == NIS_OK, "sampler");
        state = 99 + h;
        for (int i = 0; i < 60; i++) {
            float logits[VOCAB], mine;
            uint64_t allowed[(VOCAB + 63) / 64];
            int32_t token, recent[2] = {(int32_t)below(VOCAB), (int32_t)below(VOCAB)};
            nis_likely likely[5];
            for (size_t t = 0; t < VOCAB; t++) logits[t] = next_float() * 8.0f;
            for (size_t w = 0; w < sizeof allowed / sizeof *allowed; w++) allowed[w] = next64() & next64();
            logits[77] = logits[300] = 8.5f; /* equals */
            const nis_status status = nis_sampler_choose(sampler, logits, i % 2 ? allowed : NULL, recent, 2, &token);
            CHECK(status == NIS_OK && token >= 0 && token < VOCAB, "choose: %s", nis_status_text(status));
            CHECK(i % 2 == 0 || (allowed[token / 64] >> (token % 64) & 1), "token %d is not allowed", token);
            CHECK(nis_sampler_log_probabilities(sampler, logits, token, &mine, likely, 5) == NIS_OK, "logarithms");
            CHECK(mine <= 0.0f && likely[0].token == 77 && likely[1].token == 300, "the most likely");
            hash = fnv1a(fnv1a(hash, &token, sizeof token), &mine, sizeof mine);
            hash = fnv1a(hash, likely, sizeof likely);
        }
        nis_sampler_free(sampler);
    }
    nis_model_free(model);
    return hash;
}

static void check_choosing(void) {
    test_model m;
    make_test_model(&m, &recipes[0]);
    const uint64_t truth = choosing_hash(&m, "scalar");
    const char *isa;
    for (uint32_t i = 0; (isa = nis_isa_offered(i)) != NULL; i++) {
        CHECK(choosing_hash(&m, isa) == truth, "%s chooses other tokens", isa);
    }
    printf("choosing %016llx\n", (unsigned long long)truth);
    free_test_model(&m);
}

/* Random tables over four letters, random tokens of them: what is allowed against each token tried by itself. */
static void check_constraints(void) {
    enum { STATES = 9, WORDS = 150 };
    state = 4711;
    for (int round = 0; round < 60; round++) {
        uint8_t bytes[WORDS * 6], accepting[STATES];
        uint64_t offsets[WORDS + 1] = {0}, scratch[(WORDS + 63) / 64];
        static uint16_t next[STATES * 256];
        for (size_t i = 0; i < WORDS; i++) {
            const uint32_t length = below(6);
            for (uint32_t k = 0; k < length; k++) bytes[offsets[i] + k] = (uint8_t)('a' + below(4));
            offsets[i + 1] = offsets[i] + length;
        }
        for (size_t i = 0; i < STATES * 256; i++) next[i] = NIS_DEAD_STATE;
        for (size_t s = 0; s < STATES; s++) {
            accepting[s] = below(4) == 0;
            for (size_t b = 0; b < 4; b++) next[s * 256 + 'a' + b] = (uint16_t)(below(3) ? below(STATES) : NIS_DEAD_STATE);
        }
        nis_vocabulary *v = NULL;
        nis_constraint *c = NULL;
        CHECK(nis_vocabulary_create(bytes, offsets, WORDS, &v) == NIS_OK, "vocabulary");
        CHECK(nis_constraint_create(v, next, accepting, STATES, &c) == NIS_OK, "constraint");
        for (uint32_t s = 0; s < STATES; s++) {
            const uint32_t distance = nis_constraint_distance(c, s);
            CHECK((distance == 0) == accepting[s], "distance of an accepting state");
            for (uint32_t left = 1; left < 6; left++) {
                const uint64_t *allowed = nis_constraint_allowed(c, s, left, scratch);
                CHECK((allowed != NULL) == (distance <= left), "state %u, %u left", s, left);
                for (int32_t t = 0; allowed && t < WORDS; t++) {
                    const uint32_t to = nis_constraint_next(c, s, t);
                    const int expected = to != NIS_DEAD_STATE && nis_constraint_distance(c, to) < left;
                    CHECK((int)(allowed[t / 64] >> (t % 64) & 1) == expected, "state %u, %u left, token %d", s, left, t);
                }
            }
        }
        next[5] = STATES;
        nis_constraint *refused;
        CHECK(nis_constraint_create(v, next, accepting, STATES, &refused) == NIS_ARGUMENT && !refused, "a wild state");
        offsets[3] = 1u << 31;
        nis_vocabulary *wild;
        CHECK(nis_vocabulary_create(bytes, offsets, WORDS, &wild) == NIS_ARGUMENT && !wild, "wild offsets");
        nis_constraint_free(c);
        nis_vocabulary_free(v);
    }
    printf("constraints: 60 random tables\n");
}

static void check_refusals(void) {
    test_model m;
    make_test_model(&m, &recipes[0]);
    nis_model *model = NULL;
    char message[256];
#define REFUSED(change, status)                                                                              \
    do {                                                                                                     \
        test_model changed = m;                                                                              \
        changed.w.layers = changed.layers;                                                                   \
        changed.w.task_heads = changed.heads;                                                                \
        changed.heads[0].layers = changed.layers + 3;                                                        \
        change;                                                                                              \
        const nis_status got = nis_model_create(&changed.w, NULL, 1, &model, message, sizeof message);       \
        CHECK(got == (status) && model == NULL, "%s: status %d, %s", #change, got, message);                 \
    } while (0)
    REFUSED(changed.w.architecture.hidden = 0, NIS_SHAPE);
    REFUSED(changed.w.architecture.hidden = 97, NIS_SHAPE);
    REFUSED(changed.w.architecture.kv_heads = 4, NIS_SHAPE);
    REFUSED(changed.w.architecture.head_dim = 19, NIS_SHAPE);
    REFUSED(changed.w.architecture.vocab = 0xffffffff, NIS_SHAPE);
    REFUSED(changed.w.architecture.context = 1 << 21, NIS_SHAPE);
    REFUSED(changed.w.architecture.norm_eps = NAN, NIS_SHAPE);
    REFUSED(changed.w.architecture.rope_theta = INFINITY, NIS_SHAPE);
    REFUSED(changed.w.architecture.activation = 2, NIS_SHAPE);
    REFUSED(changed.w.architecture.sub_norms = 2, NIS_SHAPE);
    REFUSED(changed.w.embed.bytes--, NIS_SHAPE);
    REFUSED(changed.w.embed_dtype = 3, NIS_SHAPE);
    REFUSED(changed.w.norm.data = NULL, NIS_SHAPE);
    REFUSED(changed.layers[2].down.codes.bytes += 128, NIS_SHAPE);
    REFUSED(changed.layers[0].q.codes.data = (const char *)changed.layers[0].q.codes.data + 1, NIS_SHAPE);
    REFUSED(changed.layers[0].q.scale = INFINITY, NIS_SHAPE);
    REFUSED(changed.layers[4].attn_sub_norm.data = NULL, NIS_SHAPE);
    REFUSED(changed.heads[1].outputs = 0, NIS_SHAPE);
    REFUSED(changed.heads[1].bias.bytes = 4, NIS_SHAPE);
    REFUSED(changed.w.task_head_count = 65, NIS_SHAPE);
    CHECK(nis_model_create(&m.w, NULL, 0, &model, NULL, 0) == NIS_ARGUMENT, "no threads");
    CHECK(nis_model_create(&m.w, "mmx", 1, &model, NULL, 0) == NIS_NO_KERNEL, "an instruction set nobody wrote");
    CHECK(nis_model_create(NULL, NULL, 1, &model, NULL, 0) == NIS_ARGUMENT, "no weights");
    free_test_model(&m);
}

int main(int argc, char **argv) {
    int quick = 0, threads_only = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            quick = 1;
        } else if (strcmp(argv[i], "--threads-only") == 0) {
            threads_only = 1;
        } else if (strcmp(argv[i], "--absent") == 0 && i + 1 < argc) {
            int32_t sums[8];
            const uint8_t packed[128] = {0};
            const int8_t activations[64] = {0};
            CHECK(nis_probe_matmul(argv[++i], packed, 8, 64, activations, 1, sums) == NIS_NO_KERNEL,
                  "%s must be refused here", argv[i]);
            printf("absent, and refused when forced: %s\n", argv[i]);
        } else {
            fprintf(stderr, "usage: check_engine [--absent NAME]... [--quick] [--threads-only]\n");
            return 2;
        }
    }
    const char *isa;
    for (uint32_t i = 0; !threads_only && (isa = nis_isa_offered(i)) != NULL; i++) {
        state = 7;
        const unsigned long before = checks;
        check_ternary(isa, quick);
        check_float(isa);
        printf("kernels %s: %lu checks\n", isa, checks - before);
        check_head(isa, quick);
    }
#if defined(__x86_64__)
    const char *const compiled[] = {"avx512vnni", "avxvnni", "avx2"};
#elif defined(__aarch64__)
    const char *const compiled[] = {"neondot", "neon"};
#else
    const char *const compiled[] = {"scalar"};
#endif
    for (size_t i = 0; i < sizeof compiled / sizeof compiled[0]; i++) {
        int offered = 0;
        for (uint32_t k = 0; (isa = nis_isa_offered(k)) != NULL; k++) offered |= strcmp(isa, compiled[i]) == 0;
        if (!offered) printf("NOT RUN: kernels %s: compiled, this CPU does not offer them\n", compiled[i]);
    }
    const size_t recipe_count = threads_only ? 1 : sizeof recipes / sizeof recipes[0];
    for (size_t i = 0; i < recipe_count; i++) check_forward(&recipes[i], quick);
    check_rolling(&recipes[0], quick);
    check_choosing();
    check_constraints();
    if (threads_only) {
        nis_head_stats total = {0};
        for (int packed = 0; packed < 2; packed++) check_head_pattern(NULL, NIS_F32, HEAD_RANDOM, 3, 0, packed, &total);
    }
    if (!threads_only) check_screens();
    check_host_environment();
    check_sharing();
    check_refusals();
    check_screen_refusals();
    check_sessions();
    printf("%lu checks, %lu failed\n", checks, failures);
    return failures != 0;
}
