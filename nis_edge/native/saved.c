#include "saved.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packages and saved sessions are little-endian and read in place"
#endif

enum { VERSION = 1 };
static const char MAGIC[8] = {'N', 'I', 'S', '-', 'K', 'V', '\r', '\n'};

/* ---- checksums --------------------------------------------------------------------------------------------------- */

/* Eight bytes at a time, FNV-1a's step with a rotation: against accidents, not against forgers. */
static uint64_t mixed(uint64_t hash, const void *data, size_t bytes) {
    const unsigned char *p = data;
    for (uint64_t word = 0; bytes > 0; p += sizeof word, word = 0) {
        const size_t n = bytes < sizeof word ? bytes : sizeof word;
        memcpy(&word, p, n);
        hash = (hash ^ word) * 0x100000001b3;
        hash = hash << 29 | hash >> 35;
        bytes -= n;
    }
    return hash;
}

static uint64_t checksum(const nis_saved *header, const void *payload) {
    nis_saved without = *header;
    without.checksum = 0;
    return mixed(mixed(0xcbf29ce484222325, &without, sizeof without), payload, header->payload_bytes);
}

/* Of a matrix its scale and its first row blocks: enough to tell models apart, little enough to read at once. */
static uint64_t mix_matrix(uint64_t hash, const matrix *m) {
    hash = mixed(hash, &m->scale, sizeof m->scale);
    return mixed(hash, m->codes, nis_column_groups(m->columns) * NIS_BLOCK_BYTES);
}

static uint64_t fingerprint(nis_model *model) {
    const nis_architecture *a = &model->a;
    if (model->fingerprint) return model->fingerprint;
    const uint64_t sizes[] = {a->hidden, a->ffn, a->layers, a->heads, a->kv_heads, a->head_dim, a->vocab, a->context,
                              a->activation, a->sub_norms};
    uint64_t hash = mixed(mixed(0xcbf29ce484222325, sizes, sizeof sizes), &a->rope_theta, sizeof a->rope_theta);
    hash = mixed(mixed(hash, &a->norm_eps, sizeof a->norm_eps), model->norm, a->hidden * sizeof(float));
    hash = mixed(hash, model->embed, (size_t)a->hidden * nis_element_bytes(model->embed_dtype));
    for (size_t i = 0; i < model->trunk.layer_count; i++) {
        const layer *l = &model->trunk.layers[i];
        hash = mixed(hash, l->attn_norm, a->hidden * sizeof(float));
        hash = mixed(hash, l->ffn_norm, a->hidden * sizeof(float));
        const matrix *matrices[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t m = 0; m < sizeof matrices / sizeof *matrices; m++) hash = mix_matrix(hash, matrices[m]);
    }
    return model->fingerprint = hash ? hash : 1;
}

/* ---- what is held ------------------------------------------------------------------------------------------------ */

typedef struct {
    size_t from, to;
} stretch;

static void stretches_of(size_t position, size_t sinks, size_t oldest, stretch held[2]) {
    held[0] = (stretch){0, oldest > sinks && sinks < position ? sinks : position};
    held[1] = oldest > sinks ? (stretch){oldest, position} : (stretch){0, 0};
}

/* Bytes of one position. */
static size_t position_bytes(const nis_kv_layout *l) {
    const size_t head = 2 * (l->head_dim * nis_element_bytes(l->dtype) + (l->dtype == NIS_I8 ? sizeof(float) : 0));
    return l->layers * l->kv_heads * head + l->hidden * sizeof(float);
}

static size_t payload_bytes(const nis_session *s) {
    stretch held[2];
    stretches_of(s->position, s->sinks, s->oldest, held);
    return (held[0].to + (held[1].to - held[1].from)) * position_bytes(&s->trunk.layout);
}

/* A place in the payload, and which way numbers go. */
typedef struct {
    char *out;      /* NULL: they go from `in` into the cache */
    const char *in;
    bool finite;
} stream;

static bool all_finite(const void *numbers, nis_dtype dtype, size_t count) {
    uint32_t word;
    uint16_t half;
    const char *p = numbers;
    for (size_t i = 0; dtype == NIS_F32 && i < count; i++) {
        memcpy(&word, p + i * sizeof word, sizeof word);
        if ((word & NIS_NOT_FINITE_BITS) == NIS_NOT_FINITE_BITS) return false;
    }
    for (size_t i = 0; dtype == NIS_F16 && i < count; i++) {
        memcpy(&half, p + i * sizeof half, sizeof half);
        if ((half & 0x7c00) == 0x7c00) return false;
    }
    return true;
}

static void move(stream *s, void *numbers, nis_dtype dtype, size_t count) {
    const size_t bytes = count * nis_element_bytes(dtype);
    if (s->out) {
        memcpy(s->out, numbers, bytes);
        s->out += bytes;
    } else {
        memcpy(numbers, s->in, bytes);
        s->in += bytes;
        s->finite = s->finite && all_finite(numbers, dtype, count);
    }
}

/* One kind of number of a stretch, block after block. `plane` 0: keys, 1: values, 2 and 3: their factors. */
static void move_plane(stream *s, const nis_kv_cache *cache, const stretch *held, size_t layer, size_t kv_head,
                       int plane) {
    const nis_kv_layout *l = &cache->layout;
    const size_t row = l->head_dim * nis_element_bytes(l->dtype);
    for (size_t at = held->from, count; at < held->to; at += count) {
        const size_t slot = at % NIS_BLOCK_POSITIONS, left = held->to - at, room = NIS_BLOCK_POSITIONS - slot;
        count = left < room ? left : room;
        const nis_kv_place place = nis_kv_at(l, cache->blocks[at / NIS_BLOCK_POSITIONS], layer, kv_head);
        if (plane == 0) move(s, place.keys + slot * row, l->dtype, count * l->head_dim);
        if (plane == 1) move(s, place.values + slot * row, l->dtype, count * l->head_dim);
        if (plane == 2) move(s, place.key_factors + slot, NIS_F32, count);
        if (plane == 3) move(s, place.value_factors + slot, NIS_F32, count);
    }
}

static void move_stretch(stream *s, const nis_kv_cache *cache, const stretch *held) {
    const nis_kv_layout *l = &cache->layout;
    const int planes = l->dtype == NIS_I8 ? 4 : 2;
    for (size_t layer = 0; layer < l->layers; layer++) {
        for (size_t head = 0; head < l->kv_heads; head++) {
            for (int plane = 0; plane < planes; plane++) move_plane(s, cache, held, layer, head, plane);
        }
    }
    for (size_t at = held->from; l->hidden && at < held->to; at++) {
        float *residuals = nis_kv_residuals(l, cache->blocks[at / NIS_BLOCK_POSITIONS]);
        move(s, residuals + at % NIS_BLOCK_POSITIONS * l->hidden, NIS_F32, l->hidden);
    }
}

/* ---- writing and reading ----------------------------------------------------------------------------------------- */

static nis_saved header_of(nis_model *model, const nis_session *s) {
    const nis_kv_layout *l = &s->trunk.layout;
    nis_saved h = {.version = VERSION,
                   .kv_dtype = s->kv_dtype,
                   .max_positions = (uint32_t)s->max_positions,
                   .sinks = (uint32_t)s->sinks,
                   .window = (uint32_t)s->window,
                   .layers = (uint32_t)l->layers,
                   .kv_heads = (uint32_t)l->kv_heads,
                   .head_dim = (uint32_t)l->head_dim,
                   .hidden = (uint32_t)l->hidden,
                   .position = (uint32_t)s->position,
                   .oldest = (uint32_t)s->oldest,
                   .model = fingerprint(model),
                   .payload_bytes = payload_bytes(s)};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    return h;
}

size_t nis_saved_bytes(const nis_session *s) { return sizeof(nis_saved) + payload_bytes(s); }

nis_status nis_write_saved(nis_session *s, void *saved, size_t bytes) {
    nis_saved header = header_of(s->model, s);
    if (bytes != sizeof header + header.payload_bytes) return NIS_ARGUMENT;
    char *payload = (char *)saved + sizeof header;
    stretch held[2];
    stretches_of(s->position, s->sinks, s->oldest, held);
    stream out = {.out = payload};
    move_stretch(&out, &s->trunk, &held[0]);
    move_stretch(&out, &s->trunk, &held[1]);
    header.checksum = checksum(&header, payload);
    memcpy(saved, &header, sizeof header);
    return NIS_OK;
}

/* Whether a session of this model could look like that. */
static bool is_possible(const nis_model *model, const nis_saved *h) {
    const nis_architecture *a = &model->a;
    const bool rolling = h->window > 0;
    if (h->version != VERSION || h->reserved != 0) return false;
    if (h->kv_dtype != NIS_F32 && h->kv_dtype != NIS_F16 && h->kv_dtype != NIS_I8) return false;
    if (h->layers != a->layers || h->kv_heads != a->kv_heads || h->head_dim != a->head_dim) return false;
    if (h->hidden != (model->task_head_count > 0 && !rolling ? a->hidden : 0)) return false;
    if (h->max_positions < 1 || h->max_positions > (rolling ? (uint32_t)NIS_CONTEXT_MAX : a->context)) return false;
    if (h->position > h->max_positions) return false;
    if (!rolling) return h->sinks == 0 && h->oldest == 0;
    if ((uint64_t)h->sinks + h->window > a->context || h->max_positions != NIS_CONTEXT_MAX) return false;
    if (h->oldest == h->sinks) return true;
    /* Blocks are given back whole, and never one that the next token attends to. */
    return h->oldest > h->sinks && h->oldest % NIS_BLOCK_POSITIONS == 0 &&
           (uint64_t)h->oldest + h->window <= (uint64_t)h->position + 1;
}

nis_status nis_read_saved(nis_model *model, const void *saved, size_t bytes, nis_saved *header) {
    if (bytes < sizeof *header) return NIS_FORMAT;
    memcpy(header, saved, sizeof *header);
    if (memcmp(header->magic, MAGIC, sizeof MAGIC) || !is_possible(model, header)) return NIS_FORMAT;
    if (header->model != fingerprint(model)) return NIS_FORMAT;
    const nis_kv_layout l = {.dtype = (nis_dtype)header->kv_dtype, .layers = header->layers,
                             .kv_heads = header->kv_heads, .head_dim = header->head_dim, .hidden = header->hidden};
    stretch held[2];
    stretches_of(header->position, header->sinks, header->oldest, held);
    const uint64_t positions = held[0].to + (held[1].to - held[1].from);
    if (header->payload_bytes != positions * position_bytes(&l)) return NIS_FORMAT;
    if (header->payload_bytes != bytes - sizeof *header) return NIS_FORMAT;
    return checksum(header, (const char *)saved + sizeof *header) == header->checksum ? NIS_OK : NIS_FORMAT;
}

nis_status nis_fill_from_saved(nis_session *s, const void *saved, const nis_saved *header) {
    stretch held[2];
    stretches_of(header->position, header->sinks, header->oldest, held);
    stream in = {.in = (const char *)saved + sizeof *header, .finite = true};
    for (int i = 0; i < 2; i++) {
        if (!nis_kv_reserve(&s->trunk, held[i].from, held[i].to)) return NIS_NO_MEMORY;
        move_stretch(&in, &s->trunk, &held[i]);
    }
    s->position = header->position;
    s->oldest = header->oldest;
    return in.finite ? NIS_OK : NIS_FORMAT;
}
