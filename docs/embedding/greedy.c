/* The engine without Python: one header, one library, a model in memory that this program owns.
 *
 *     cc -std=c11 greedy.c -I nis_edge/native -o greedy nis_edge/native/libnis_engine.so -Wl,-rpath,nis_edge/native
 *     ./greedy [ISA]
 *
 * The weights are random, so the tokens say nothing; that they and the hash of the logits are the same on every machine,
 * instruction set and compiler is the engine's promise. A real program points the descriptors at the tensors of a
 * memory-mapped `.nis` file: models/FORMAT.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nis_engine.h"

enum { HIDDEN = 64, FFN = 128, LAYERS = 2, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 16, VOCAB = 96, CONTEXT = 64, NEW = 12 };

/* splitmix64: the same numbers on every machine. */
static uint64_t state = 1;
static uint64_t next64(void) {
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static void *allocate(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!memory) exit(1);
    return memory;
}

/* Packed codes 0, 1, 2 of [rows, columns], both whole blocks of 8 rows and 64 columns here. */
static nis_ternary random_matrix(size_t rows, size_t columns) {
    const size_t bytes = rows * columns / 4;
    uint8_t *codes = allocate(bytes);
    for (size_t i = 0; i < bytes; i++) {
        codes[i] = 0;
        for (int plane = 0; plane < 4; plane++) codes[i] |= (uint8_t)(next64() % 3 << (2 * plane));
    }
    return (nis_ternary){{codes, bytes}, 0.125f};
}

static nis_tensor ones(size_t count) {
    float *values = allocate(count * sizeof(float));
    for (size_t i = 0; i < count; i++) values[i] = 1.0f;
    return (nis_tensor){values, count * sizeof(float)};
}

static int failed(const char *what, nis_status status) {
    fprintf(stderr, "%s: %s\n", what, nis_status_text(status));
    return 1;
}

int main(int count, char **words) {
    nis_layer layers[LAYERS];
    for (int i = 0; i < LAYERS; i++) {
        layers[i] = (nis_layer){
            .attn_norm = ones(HIDDEN), .attn_sub_norm = ones(HEADS * HEAD_DIM), .ffn_norm = ones(HIDDEN), .ffn_sub_norm = ones(FFN),
            .q = random_matrix(HEADS * HEAD_DIM, HIDDEN), .k = random_matrix(KV_HEADS * HEAD_DIM, HIDDEN),
            .v = random_matrix(KV_HEADS * HEAD_DIM, HIDDEN), .o = random_matrix(HIDDEN, HEADS * HEAD_DIM),
            .gate = random_matrix(FFN, HIDDEN), .up = random_matrix(FFN, HIDDEN), .down = random_matrix(HIDDEN, FFN),
        };
    }
    float *embed = allocate(VOCAB * HIDDEN * sizeof(float));
    for (int i = 0; i < VOCAB * HIDDEN; i++) embed[i] = (float)((int32_t)(next64() >> 40) - (1 << 23)) * 0x1p-23f;

    nis_weights weights = {0};
    weights.architecture = (nis_architecture){
        .hidden = HIDDEN, .ffn = FFN, .layers = LAYERS, .heads = HEADS, .kv_heads = KV_HEADS, .head_dim = HEAD_DIM,
        .vocab = VOCAB, .context = CONTEXT, .activation = NIS_RELU2, .sub_norms = 1, .norm_eps = 1e-5f, .rope_theta = 1e4,
    };
    weights.embed = (nis_tensor){embed, VOCAB * HIDDEN * sizeof(float)}; /* weights.head stays empty: tied */
    weights.embed_dtype = NIS_F32;
    weights.norm = ones(HIDDEN);
    weights.layers = layers;

    char message[256];
    nis_model *model;
    nis_session *session;
    nis_status status = nis_model_create(&weights, count > 1 ? words[1] : NULL, 2, &model, message, sizeof message);
    if (status != NIS_OK) return failed(message, status);
    status = nis_session_create(model, CONTEXT, NIS_F16, &session);
    if (status != NIS_OK) return failed("session", status);

    const int32_t prompt[] = {5, 40, 7, 91};
    float logits[VOCAB];
    status = nis_session_forward(session, prompt, 3, NIS_NO_LOGITS, NULL);
    if (status != NIS_OK) return failed("prompt", status);
    int32_t tokens[NEW];
    size_t made;
    status = nis_session_greedy(session, prompt[3], -1, NEW, tokens, &made);
    if (status != NIS_OK) return failed("greedy", status);
    status = nis_session_forward(session, &tokens[made - 1], 1, NIS_LAST_LOGITS, logits);
    if (status != NIS_OK) return failed("logits", status);

    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    unsigned char bytes[sizeof logits];
    memcpy(bytes, logits, sizeof logits);
    for (size_t i = 0; i < sizeof bytes; i++) hash = (hash ^ bytes[i]) * 0x100000001b3;
    printf("tokens");
    for (size_t i = 0; i < made; i++) printf(" %d", tokens[i]);
    printf("\nlogits %016llx\n", (unsigned long long)hash);
    fprintf(stderr, "instruction set %s\n", nis_model_isa(model));

    nis_session_free(session);
    return nis_model_free(model) == NIS_OK ? 0 : 1;
}
