/* nis-edge's engine: a ternary (BitNet b1.58) transformer over memory that the caller owns. Plain C; no global state.
 *
 * Promises
 *   - Logits are the same bits for every instruction set, number of threads and chunking of the tokens.
 *   - Every size, token and position is checked before use; NaN and infinity are errors, never results.
 *   - A call that fails leaves the session at the position it had.
 *   - The library never prints, exits, or keeps the weights: they are read in place and must outlive the model. It tells the
 *     system (madvise) how the pages of the output head will be read.
 *
 * A model may be used by several threads: passes of its sessions run one after another. A session belongs to one thread
 * at a time; a second one gets NIS_BUSY.
 */
#ifndef NIS_ENGINE_H
#define NIS_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NIS_API __attribute__((visibility("default")))

/* Raised whenever a struct or a function of this header changes; a binding compares it with the one it was written for. */
#define NIS_ABI 6
NIS_API uint32_t nis_abi(void);

typedef enum {
    NIS_OK = 0,
    NIS_ARGUMENT = 1,    /* a pointer, count or option is not acceptable */
    NIS_SHAPE = 2,       /* an architecture or tensor size is not acceptable */
    NIS_NO_MEMORY = 3,
    NIS_NO_KERNEL = 4,   /* the instruction set is not compiled in or not offered by this CPU */
    NIS_TOKEN = 5,       /* a token is outside the vocabulary */
    NIS_FULL = 6,        /* more positions than the session holds */
    NIS_NOT_FINITE = 7,  /* NaN or infinity in the activations: the weights are damaged or unusable */
    NIS_BUSY = 8,        /* another thread uses the session, or the model still has sessions */
    NIS_CANCELLED = 9,
    NIS_EMPTY = 10,      /* the session has no position to answer for */
    NIS_FORKED = 11,     /* the model was opened before fork(): its threads are in the parent */
    NIS_NO_THREAD = 12,  /* the operating system refused a thread */
    NIS_GONE = 13,       /* a rolling session gave back the positions that this needs */
    NIS_FORMAT = 14,     /* saved bytes or a screen that are damaged, or of another model or version */
} nis_status;

/* One line about a status. */
NIS_API const char *nis_status_text(nis_status status);

/* Names of the instruction sets this CPU offers, best first; NULL beyond the last. */
NIS_API const char *nis_isa_offered(uint32_t index);

/* ---- the model --------------------------------------------------------------------------------------------------- */

typedef enum { NIS_F32 = 0, NIS_F16 = 1, NIS_BF16 = 2, NIS_I8 = 3 } nis_dtype; /* NIS_I8: keys and values only */
typedef enum { NIS_RELU2 = 0, NIS_SILU = 1 } nis_activation;

typedef struct {
    uint32_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab, context;
    uint32_t activation; /* nis_activation */
    uint32_t sub_norms;  /* 0 or 1: RMSNorm before o and before down (BitNet b1.58) */
    float norm_eps;
    double rope_theta;
} nis_architecture;

typedef struct {
    const void *data;
    uint64_t bytes;
} nis_tensor;

/* Packed codes as ternary.h lays them out, 16-byte aligned; the real weight is code * scale. */
typedef struct {
    nis_tensor codes;
    float scale;
} nis_ternary;

/* Norms are float32. Rows x columns: q [heads*head_dim, hidden], k and v [kv_heads*head_dim, hidden],
 * o [hidden, heads*head_dim], gate and up [ffn, hidden], down [hidden, ffn]. */
typedef struct {
    nis_tensor attn_norm;     /* [hidden] */
    nis_tensor attn_sub_norm; /* [heads*head_dim]; empty without sub_norms */
    nis_tensor ffn_norm;      /* [hidden] */
    nis_tensor ffn_sub_norm;  /* [ffn]; empty without sub_norms */
    nis_ternary q, k, v, o, gate, up, down;
} nis_layer;

/* A stack of its own layers on the trunk's residual stream, a norm, and a projection to labels. */
typedef struct {
    const nis_layer *layers;
    uint32_t layer_count;
    uint32_t outputs;
    nis_tensor norm;       /* float32 [hidden] */
    nis_tensor projection; /* float32 [outputs, hidden] */
    nis_tensor bias;       /* float32 [outputs] */
} nis_task_head;

/* The output head once more in a few bits, with bounds: what nis_screen_make makes of its rows, in the planes of screen.h.
 * G is hidden / 256, rounded up; planes are 16-byte aligned. Bounds are float32, finite and not below zero. */
typedef struct {
    nis_tensor nibbles;       /* [vocab, 128 G] */
    nis_tensor ones, halves;  /* [vocab, 32 G] */
    nis_tensor scales, norms; /* [vocab] */
    nis_tensor errors;        /* [3, vocab] */
} nis_head_screen;

typedef struct {
    nis_architecture architecture;
    nis_tensor embed; /* [vocab, hidden] of embed_dtype */
    nis_tensor head;  /* [vocab, hidden] of head_dtype; data NULL: tied to embed */
    nis_head_screen screen; /* nibbles.data NULL: none, the model makes its own when it is first worth it */
    uint32_t embed_dtype, head_dtype;
    nis_tensor norm; /* float32 [hidden] */
    const nis_layer *layers;
    const nis_task_head *task_heads;
    uint32_t task_head_count;
} nis_weights;

typedef struct nis_model nis_model;
typedef struct nis_session nis_session;

/* Checks everything, copies the descriptors, starts threads - 1 workers. `isa` NULL: the best this CPU offers.
 * On failure *model is NULL and `message`, if given, holds one line of at most message_bytes - 1 characters. */
NIS_API nis_status nis_model_create(const nis_weights *weights, const char *isa, uint32_t threads, nis_model **model,
                                    char *message, size_t message_bytes);
NIS_API const char *nis_model_isa(const nis_model *model);

/* How the output head was read by nis_session_best, nis_session_greedy and, as far as it screened, nis_session_choose:
 * rows of the vocabulary in all, those that the first bits ruled on, those that took further bits, those computed in full. */
typedef struct {
    uint64_t evaluations, rows, rows_screened, rows_refined, rows_computed;
} nis_head_stats;
NIS_API nis_status nis_model_head_stats(nis_model *model, nis_head_stats *stats);
/* Heads of fewer bytes are computed in full; 8 MiB unless said otherwise, 0 screens every one. No result depends on it. */
NIS_API nis_status nis_model_screen_from(nis_model *model, uint64_t bytes);

/* NIS_BUSY, and nothing is freed, while the model has sessions. NULL is fine. */
NIS_API nis_status nis_model_free(nis_model *model);

/* ---- packing the output head's screen ---------------------------------------------------------------------------- */

/* 1 if a model reads a head of this shape through a screen unless nis_model_screen_from says otherwise, else 0. */
NIS_API uint32_t nis_screen_pays(uint32_t vocab, uint32_t hidden, uint32_t dtype);

/* Where the parts of nis_head_screen go, for the first of the rows that are made; errors level by level. */
typedef struct {
    uint8_t *nibbles, *ones, *halves;
    float *scales, *norms, *errors[3];
} nis_screen_places;

/* Makes the screen of `count` rows [count, hidden] of a head: the same bytes on every instruction set (`isa` as in
 * nis_model_create). NIS_NOT_FINITE: a row holds NaN or infinity, and *failed, if given, is its index. */
NIS_API nis_status nis_screen_make(const char *isa, const void *rows, uint32_t dtype, size_t count, uint32_t hidden,
                                   const nis_screen_places *to, size_t *failed);

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

/* How keys and values are kept, by `kv_dtype`: NIS_F32; NIS_F16, half the memory, rounded to nearest even; NIS_I8, a
 * quarter, each head's key and value of a position rounded to 127 steps of its largest magnitude. Logits differ between
 * the three, each is the same bits everywhere. Memory is taken as positions fill, 64 at a time. */
NIS_API nis_status nis_session_create(nis_model *model, uint32_t max_positions, nis_dtype kv_dtype,
                                      nis_session **session);
/* A conversation without an end (up to 2^20 positions): a token attends to the first `sinks` positions and to the last
 * `window`, its own included; sinks + window is at most the model's context, window at least 1. What lies between is
 * given back after each call. Distances inside the window are the true ones; towards the sinks a token stands where it
 * would if the positions between had never been (at sinks + window - 1). Logits depend on the tokens alone, not on how
 * they were divided into calls, and equal those of an ordinary session until the window first moves. Task heads, which
 * read every position, answer NIS_GONE. */
NIS_API nis_status nis_session_create_rolling(nis_model *model, uint32_t sinks, uint32_t window, nis_dtype kv_dtype,
                                              nis_session **session);
/* A second session that has read the first `position` tokens of `source`. Nothing is copied until one of the two writes
 * into a block of 64 positions that both hold. */
NIS_API nis_status nis_session_fork(nis_session *source, size_t position, nis_session **session);
/* All that a session holds as bytes: nis_session_saved_bytes says how many. Restored by the same model on any machine,
 * the session goes on with the same bits. Bytes that are damaged or not of this model are refused (NIS_FORMAT); the
 * checksum guards against accidents, so whoever takes bytes from strangers signs them. */
NIS_API size_t nis_session_saved_bytes(nis_session *session);
NIS_API nis_status nis_session_save(nis_session *session, void *saved, size_t bytes);
NIS_API nis_status nis_session_restore(nis_model *model, const void *saved, size_t bytes, nis_session **session);
NIS_API void nis_session_free(nis_session *session);

typedef enum { NIS_NO_LOGITS = 0, NIS_LAST_LOGITS = 1, NIS_ALL_LOGITS = 2 } nis_wanted;

/* Appends tokens. `logits` holds nothing, [vocab], or [count, vocab] floats as `wanted` says. */
NIS_API nis_status nis_session_forward(nis_session *session, const int32_t *tokens, size_t count, nis_wanted wanted,
                                       float *logits);
/* One session's part of a batch: tokens [count] and logits as in nis_session_forward. */
typedef struct {
    nis_session *session;
    const int32_t *tokens;
    size_t count;
    uint32_t wanted; /* nis_wanted */
    float *logits;
} nis_batch_item;
/* Several sessions of one model in one pass over the weights: 1 to 256 items, each session once. Each gets the bits it
 * would get alone. On failure no session has moved and *failed, if given, is the index of the item at fault. */
NIS_API nis_status nis_batch_forward(const nis_batch_item *items, size_t count, size_t *failed);


typedef struct {
    int32_t token;
    float logit;
} nis_candidate;

/* Appends tokens and answers with the `wanted` most likely ones after the last of them, best first (lower token among
 * equals): the tokens, order and logits are exactly those that sorting all logits would give, usually for a fraction of
 * the memory traffic. `gap` INFINITY asks for `wanted` tokens; otherwise only those within `gap` of the best logit
 * count. `best` has room for `wanted`, 1 to vocab; *found is how many there are.
 *
 * For samplers: top-k is wanted = k. Min-p is wanted = the room at hand and gap = -temperature * log(min_p); if
 * *found == wanted there may be more: ask for all logits. A penalty that only lowers the logits of m tokens leaves the
 * best k among the best k + m. Top-p alone needs the sum over the whole vocabulary, hence all logits. */
NIS_API nis_status nis_session_best(nis_session *session, const int32_t *tokens, size_t count, size_t wanted, float gap,
                                    nis_candidate *best, size_t *found);
/* Appends `first`, then the most likely token (lowest index among equals) after each, up to `count` new ones or until
 * `stop` (negative: never) came out. `generated` [count] gets them, *generated_count their number; the last one
 * generated is not appended. */
NIS_API nis_status nis_session_greedy(nis_session *session, int32_t first, int32_t stop, size_t count,
                                      int32_t *generated, size_t *generated_count);
/* Raw outputs [outputs] of a task head at the last position; runs the head's layers over positions it has not seen. */
NIS_API nis_status nis_session_head(nis_session *session, uint32_t task_head, float *outputs);
/* Forgets positions from `position` on. A rolling session can go back only while it still holds what the window needs. */
NIS_API nis_status nis_session_rewind(nis_session *session, size_t position);
NIS_API size_t nis_session_position(const nis_session *session);
NIS_API size_t nis_session_max_positions(const nis_session *session);
/* From any thread: the pass under way, or the next one, ends with NIS_CANCELLED within one layer's time. */
NIS_API void nis_session_cancel(nis_session *session);

/* ---- choosing tokens --------------------------------------------------------------------------------------------- */

typedef struct {
    float temperature;        /* 0 (the most likely) to 100 */
    float top_p;              /* 1e-6 to 1 (all) */
    float min_p;              /* 0 (all) to 1 */
    float repetition_penalty; /* 0.01 to 100; 1: none */
    uint32_t top_k;           /* 0: all */
    uint64_t seed;
} nis_sampling;

typedef struct nis_sampler nis_sampler; /* belongs to one thread at a time */

typedef struct {
    int32_t token;
    float log_probability;
} nis_likely;

/* Draw `number` (from 0) of a seed, 64 bits: splitmix64's finisher m over m(seed + g) + (number + 1) g with
 * g = 0x9e3779b97f4a7c15. */
NIS_API uint64_t nis_draw(uint64_t seed, uint64_t number);

NIS_API nis_status nis_sampler_create(const nis_model *model, const nis_sampling *how, nis_sampler **sampler);
NIS_API void nis_sampler_free(nis_sampler *sampler);
/* One token from logits [vocab], the same on every machine:
 *   1. the logits of `recent` [recent_count], each token once, are divided by the penalty if positive, else multiplied;
 *   2. tokens whose bit in `allowed` [vocab / 64, rounded up] is 0 are out; NULL: all are in; none in: NIS_EMPTY;
 *   3. temperature 0: the largest logit, lowest token among equals. Otherwise a token's weight is the whole part of
 *      2^30 e^((logit - largest) / temperature);
 *   4. weights below 2^30 min_p are out; of the rest the top_k heaviest stay, lower tokens first among equals; of these,
 *      in the same order, the fewest whose weights sum up to top_p of all;
 *   5. sum * draw / 2^64 falls into one token's share, in ascending order of tokens. Draws count from 0. */
NIS_API nis_status nis_sampler_choose(nis_sampler *sampler, const float *logits, const uint64_t *allowed,
                                      const int32_t *recent, size_t recent_count, int32_t *token);
/* Appends tokens and chooses the next one: what nis_session_forward and nis_sampler_choose without `allowed` would, usually
 * for a fraction of the memory traffic. The output head is screened where the most likely tokens provably decide: at
 * temperature 0, with top_k, and with min_p where few tokens pass it; top_p may come on top. Top-p alone and a penalty
 * below 1 need all logits. A call that fails draws nothing. */
NIS_API nis_status nis_session_choose(nis_session *session, const int32_t *tokens, size_t count, nis_sampler *sampler,
                                      const int32_t *recent, size_t recent_count, int32_t *token);
/* Log-probability of a token under the plain logits, and the `count` most likely ones, best first. */
NIS_API nis_status nis_sampler_log_probabilities(nis_sampler *sampler, const float *logits, int32_t token,
                                                 float *of_token, nis_likely *likely, size_t count);

/* ---- constraints ------------------------------------------------------------------------------------------------- */

enum { NIS_CONSTRAINT_STATES_MAX = 8192, NIS_DEAD_STATE = 0xffff };

typedef struct nis_vocabulary nis_vocabulary; /* may be shared by threads */
typedef struct nis_constraint nis_constraint; /* may be shared by threads; reads its vocabulary, which must outlive it */

/* Token i is bytes offsets[i]..offsets[i + 1] - 1; one without bytes is never allowed. */
NIS_API nis_status nis_vocabulary_create(const uint8_t *bytes, const uint64_t *offsets, size_t count,
                                         nis_vocabulary **vocabulary);
NIS_API void nis_vocabulary_free(nis_vocabulary *vocabulary);
/* A regular language over bytes: next [states, 256] leads to a state or to NIS_DEAD_STATE; state 0 is the start. */
NIS_API nis_status nis_constraint_create(const nis_vocabulary *vocabulary, const uint16_t *next,
                                         const uint8_t *accepting, size_t states, nis_constraint **constraint);
NIS_API void nis_constraint_free(nis_constraint *constraint);
/* The least number of tokens from a state to an accepting one; UINT32_MAX: there is none. */
NIS_API uint32_t nis_constraint_distance(const nis_constraint *constraint, uint32_t state);
/* The tokens after which the text can still be finished if `left` may be made, this one included: a set of bits, in
 * `scratch` [vocab / 64, rounded up] or the constraint's own. NULL: `left` is less than the state's distance. */
NIS_API const uint64_t *nis_constraint_allowed(const nis_constraint *constraint, uint32_t state, uint32_t left,
                                               uint64_t *scratch);
/* Where a token leads; NIS_DEAD_STATE: nowhere. */
NIS_API uint32_t nis_constraint_next(const nis_constraint *constraint, uint32_t state, int32_t token);

#ifdef __cplusplus
}
#endif
#endif
