/* What a model and a session hold (internal). Shapes stand beside each tensor. */
#ifndef NIS_MODEL_H
#define NIS_MODEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "cache.h"
#include "kernels.h"
#include "nis_engine.h"
#include "threads.h"

enum {
    /* Tokens that travel through the layers together: each weight is read from memory once per chunk. 64 make the
     * stream of weights a twentieth of the arithmetic and the buffers below a few megabytes. */
    NIS_CHUNK_TOKENS = 64,

    /* Bounds of an architecture: generous against every published model, small enough that no product below overflows
     * 64 bits and that a position's angle stays inside rope.c's range. */
    NIS_LAYERS_MAX = 1024,
    NIS_HEADS_MAX = 1024,
    NIS_HEAD_DIM_MAX = 1024,
    NIS_CONTEXT_MAX = 1 << 20,
    NIS_TASK_HEADS_MAX = 64,
    NIS_OUTPUTS_MAX = 4096,
    NIS_THREADS_MAX = 256,

    /* Sessions in one call: more gain nothing once a chunk is full. */
    NIS_BATCH_MAX = 256,
};

#define TRY(call)                                    \
    do {                                             \
        const nis_status try_status = (call);        \
        if (try_status != NIS_OK) return try_status; \
    } while (0)

/* A packed matrix that was checked. */
typedef struct {
    const uint8_t *codes; /* [row blocks][column groups] blocks of ternary.h */
    size_t rows, columns;
    float scale;
} matrix;

typedef struct {
    const float *attn_norm, *attn_sub_norm, *ffn_norm, *ffn_sub_norm; /* [hidden] [heads*head_dim] [hidden] [ffn] */
    matrix q, k, v, o, gate, up, down;
} layer;

typedef struct {
    layer *layers; /* [layer_count] */
    size_t layer_count;
} stack;

typedef struct {
    stack stack;
    size_t outputs;
    const float *norm, *projection, *bias; /* [hidden] [outputs, hidden] [outputs] */
} task_head;

/* Activations quantised per token, padded with zeros to whole column groups. */
typedef struct {
    int8_t *values; /* [NIS_CHUNK_TOKENS, stride] */
    size_t stride;
    float *scales; /* [NIS_CHUNK_TOKENS]: value = round(x * scale) */
    int32_t *sums; /* [NIS_CHUNK_TOKENS] */
} quantised;

/* One pass's buffers; a model runs one pass at a time. Rows are tokens of the chunk. */
typedef struct {
    float *x;        /* [chunk, hidden]: the residual stream */
    float *normed;   /* [chunk, max(hidden, heads*head_dim, ffn)] */
    float *q;        /* [chunk, heads*head_dim] */
    float *q_sinks;  /* [chunk, heads*head_dim]: as q, rotated for the sinks of a rolling window */
    float *k, *v;    /* [chunk, kv_heads*head_dim] */
    float *attended; /* [chunk, heads*head_dim] */
    float *gate, *up; /* [chunk, ffn] */
    quantised quantised;
    float *scores; /* [threads, context] */
} buffers;

struct nis_model {
    nis_architecture a;
    const nis_kernels *kernels;
    const void *embed, *head; /* [vocab, hidden] */
    nis_dtype embed_dtype, head_dtype;
    const float *norm; /* [hidden] */
    stack trunk;
    task_head *task_heads; /* [task_head_count] */
    size_t task_head_count;

    nis_pool *pool;
    pthread_mutex_t pass_lock; /* held during a pass; guards what follows */
    buffers buffers;
    float *frequencies;        /* [head_dim / 2] */
    float *cosines, *sines;    /* [context, head_dim / 2], filled up to angles_ready */
    size_t angles_ready;
    float *late_cosines, *late_sines; /* [chunk, head_dim / 2]: of positions beyond the context (rolling windows) */
    uint64_t layer_tokens;     /* tokens that went through a layer, layer by layer, since the model was created */
    uint64_t fingerprint;      /* of the weights; 0: not computed yet */
    atomic_size_t session_count;

    nis_screen_planes packed_screen; /* [vocab], of the package; nibbles NULL: it has none */

    /* head.c: the output head's screen, made when it is first worth it. */
    struct nis_screen *screen;
    float *head_values; /* [vocab] */
    float *head_normed; /* [hidden] */
    nis_head_stats head_stats;
    uint64_t screen_from_bytes; /* smaller heads are computed in full */
    bool head_here_and_there;   /* what the system was told of the head's pages */
};

typedef struct {
    nis_kv_cache cache; /* made when first asked */
    size_t seen;        /* positions whose keys and values are in the cache */
    float *outputs;     /* [outputs] */
    bool answered;      /* outputs belong to position seen - 1 */
} task_state;

struct nis_session {
    nis_model *model;
    size_t max_positions;
    size_t sinks, window; /* window 0: nothing rolls */
    nis_dtype kv_dtype;
    nis_kv_cache trunk;   /* with residuals, the trunk's output before the final norm, if task heads read them */
    task_state *tasks;    /* [task_head_count] */
    size_t position;
    size_t oldest;        /* rolling: the first position after the sinks that is still there */
    atomic_bool busy;
    atomic_bool cancelled;
};

/* forward.c: the transformer step. The caller holds pass_lock, has checked the tokens and reserved the positions. */

/* Runs each item's tokens at its session's positions from session->position on, all through one pass over the weights;
 * logits as nis_batch_forward says. Leaves session->position alone. On failure *failed is the item at fault. */
enum {
    /* Beside nis_wanted: `logits` [hidden] gets the final norm of the item's last token instead, for head.c. */
    NIS_LAST_NORMED = 3,
};
nis_status nis_pass_items(nis_model *model, const nis_batch_item *items, size_t count, size_t *failed);
/* Brings task head `index` up to session->position and leaves its outputs in session->tasks[index].outputs. */
nis_status nis_pass_task_head(nis_session *session, size_t index);

#endif
