/* Which tokens may come next so that the text stays in a regular language, and can still be finished in time.
 *
 * The language is a table of states over bytes. A token leads from a state wherever its bytes do; the vocabulary is a
 * tree of bytes in preorder, so that one walk over it with a state per depth finds every token that leads somewhere, and
 * skips a whole branch at its first forbidden byte. Each state's set is computed once. The distance of a state is the
 * least number of tokens to an accepting one; a token is allowed only if what it leads to can still be finished. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "nis_engine.h"

enum {
    TOKEN_BYTES_MAX = 256,        /* longer tokens are never allowed: none of a real vocabulary's is */
    VOCABULARY_MAX = 1 << 24,
    STATES_MAX = NIS_CONSTRAINT_STATES_MAX,
    SETS_BYTES_MAX = 128 << 20,
};

#define DEAD NIS_DEAD_STATE
#define FAR UINT32_MAX

typedef struct {
    uint8_t byte;
    uint16_t depth;   /* of the byte in its token, from 0 */
    int32_t token;    /* that ends here; -1: none */
    uint32_t end;     /* the next node outside the branch */
} node;

struct nis_vocabulary {
    size_t count;
    uint8_t *bytes;
    uint64_t *offsets; /* [count + 1] */
    int32_t *same;     /* [count]: the next token with the same bytes; -1: none */
    node *nodes;
    size_t node_count;
};

typedef struct {
    const uint8_t *bytes;
    uint32_t length;
    int32_t token;
} word;

static int by_bytes(const void *left, const void *right) {
    const word *a = left, *b = right;
    const int order = memcmp(a->bytes, b->bytes, a->length < b->length ? a->length : b->length);
    if (order) return order;
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    return a->token < b->token ? -1 : 1;
}

/* Lays out the tree of sorted words. */
static void grow(nis_vocabulary *v, const word *words, size_t count) {
    uint32_t open[TOKEN_BYTES_MAX]; /* the node at each depth of the last word */
    uint32_t length = 0;
    const uint8_t *last = NULL;
    for (size_t i = 0; i < count; i++) {
        const word *w = &words[i];
        uint32_t shared = 0;
        while (shared < length && shared < w->length && last[shared] == w->bytes[shared]) shared++;
        if (shared == w->length && length == w->length) { /* the same bytes again */
            v->same[w->token] = v->nodes[open[length - 1]].token;
            v->nodes[open[length - 1]].token = w->token;
            continue;
        }
        while (length > shared) v->nodes[open[--length]].end = (uint32_t)v->node_count;
        for (; length < w->length; length++) {
            open[length] = (uint32_t)v->node_count;
            v->nodes[v->node_count++] = (node){w->bytes[length], (uint16_t)length, -1, 0};
        }
        v->nodes[open[length - 1]].token = w->token;
        last = w->bytes;
    }
    while (length > 0) v->nodes[open[--length]].end = (uint32_t)v->node_count;
}

static bool take_words(nis_vocabulary *v, const uint8_t *bytes, const uint64_t *offsets, size_t count) {
    const uint64_t total = offsets[count];
    v->count = count;
    v->bytes = malloc(total + 1);
    v->offsets = malloc((count + 1) * sizeof *v->offsets);
    v->same = malloc(count * sizeof *v->same);
    v->nodes = malloc((total + 1) * sizeof *v->nodes);
    word *words = malloc(count * sizeof *words);
    const bool enough = v->bytes && v->offsets && v->same && v->nodes && words;
    if (enough) {
        if (total) memcpy(v->bytes, bytes, total);
        memcpy(v->offsets, offsets, (count + 1) * sizeof *offsets);
        size_t kept = 0;
        for (size_t i = 0; i < count; i++) {
            const uint64_t length = offsets[i + 1] - offsets[i];
            v->same[i] = -1;
            if (length < 1 || length > TOKEN_BYTES_MAX) continue;
            words[kept++] = (word){v->bytes + offsets[i], (uint32_t)length, (int32_t)i};
        }
        qsort(words, kept, sizeof *words, by_bytes);
        grow(v, words, kept);
    }
    free(words);
    return enough;
}

nis_status nis_vocabulary_create(const uint8_t *bytes, const uint64_t *offsets, size_t count,
                                 nis_vocabulary **created) {
    if (!created) return NIS_ARGUMENT;
    *created = NULL;
    if (!bytes || !offsets || count < 1 || count > VOCABULARY_MAX || offsets[0] != 0) return NIS_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        if (offsets[i + 1] < offsets[i] || offsets[i + 1] > (uint64_t)1 << 30) return NIS_ARGUMENT;
    }
    nis_vocabulary *v = calloc(1, sizeof *v);
    if (!v) return NIS_NO_MEMORY;
    if (!take_words(v, bytes, offsets, count)) {
        nis_vocabulary_free(v);
        return NIS_NO_MEMORY;
    }
    *created = v;
    return NIS_OK;
}

void nis_vocabulary_free(nis_vocabulary *v) {
    if (!v) return;
    free(v->bytes);
    free(v->offsets);
    free(v->same);
    free(v->nodes);
    free(v);
}

/* ---- constraints ------------------------------------------------------------------------------------------------- */

struct nis_constraint {
    const nis_vocabulary *vocabulary;
    size_t states, words;  /* words of 64 bits in a set */
    uint16_t *next;        /* [states, 256] */
    uint32_t *distance;    /* [states]: tokens to the nearest accepting state */
    uint32_t *farthest;    /* [states]: the largest distance that an allowed token leads to */
    uint64_t *sets;        /* [states, words] */
};

typedef struct {
    uint64_t *set;     /* of tokens; may be NULL */
    uint32_t *reached; /* [states]: mark when a token led there */
    uint32_t mark;
    uint32_t distance_max;
} walked;

/* Every token that leads from `state` to one no farther than w->distance_max. */
static void walk(const nis_constraint *c, uint32_t state, const walked *w) {
    const nis_vocabulary *v = c->vocabulary;
    uint16_t stack[TOKEN_BYTES_MAX + 1];
    stack[0] = (uint16_t)state;
    for (size_t i = 0; i < v->node_count;) {
        const node *n = &v->nodes[i];
        const uint16_t to = c->next[(size_t)stack[n->depth] * 256 + n->byte];
        if (to == DEAD) {
            i = n->end;
            continue;
        }
        stack[n->depth + 1] = to;
        if (n->token >= 0 && c->distance[to] <= w->distance_max) {
            if (w->reached) w->reached[to] = w->mark;
            for (int32_t token = n->token; w->set && token >= 0; token = v->same[token]) {
                w->set[token / 64] |= (uint64_t)1 << (token % 64);
            }
        }
        i++;
    }
}

/* Distances by breadth-first search backwards over [states, states] bits of "some token leads there". */
static void measure(nis_constraint *c, const uint8_t *accepting, const uint64_t *leads, size_t row_words) {
    uint64_t *frontier = calloc(row_words, 8);
    for (uint32_t s = 0; frontier && s < c->states; s++) {
        c->distance[s] = accepting[s] ? 0 : FAR;
        if (accepting[s]) frontier[s / 64] |= (uint64_t)1 << (s % 64);
    }
    for (uint32_t distance = 1, grown = 1; frontier && grown; distance++) {
        grown = 0;
        for (uint32_t s = 0; s < c->states; s++) {
            if (c->distance[s] != FAR) continue;
            for (size_t w = 0; w < row_words; w++) {
                if (!(leads[s * row_words + w] & frontier[w])) continue;
                c->distance[s] = distance;
                grown = 1;
                break;
            }
        }
        for (uint32_t s = 0; s < c->states; s++) {
            if (c->distance[s] == distance) frontier[s / 64] |= (uint64_t)1 << (s % 64);
        }
    }
    free(frontier);
}

static bool build(nis_constraint *c, const uint8_t *accepting) {
    const size_t row_words = (c->states + 63) / 64;
    uint64_t *leads = calloc(c->states * row_words, 8);
    uint32_t *reached = calloc(c->states, sizeof *reached);
    const bool enough = leads && reached;
    for (uint32_t s = 0; enough && s < c->states; s++) {
        walk(c, s, &(walked){c->sets + s * c->words, reached, s + 1, FAR});
        for (uint32_t to = 0; to < c->states; to++) {
            if (reached[to] == s + 1) leads[s * row_words + to / 64] |= (uint64_t)1 << (to % 64);
        }
    }
    if (enough) measure(c, accepting, leads, row_words);
    for (uint32_t s = 0; enough && s < c->states; s++) {
        bool astray = false; /* some token leads to where no token leads on: those are taken out */
        for (uint32_t to = 0; to < c->states; to++) {
            if (!(leads[s * row_words + to / 64] >> (to % 64) & 1)) continue;
            if (c->distance[to] == FAR) {
                astray = true;
            } else if (c->distance[to] > c->farthest[s]) {
                c->farthest[s] = c->distance[to];
            }
        }
        if (!astray) continue;
        memset(c->sets + s * c->words, 0, c->words * 8);
        walk(c, s, &(walked){c->sets + s * c->words, NULL, 0, FAR - 1});
    }
    free(leads);
    free(reached);
    return enough;
}

static nis_status check_table(const uint16_t *next, size_t states) {
    for (size_t i = 0; i < states * 256; i++) {
        if (next[i] != DEAD && next[i] >= states) return NIS_ARGUMENT;
    }
    return NIS_OK;
}

nis_status nis_constraint_create(const nis_vocabulary *v, const uint16_t *next, const uint8_t *accepting, size_t states,
                                 nis_constraint **created) {
    if (!created) return NIS_ARGUMENT;
    *created = NULL;
    if (!v || !next || !accepting || states < 1 || states > STATES_MAX) return NIS_ARGUMENT;
    const size_t words = (v->count + 63) / 64;
    if (states * words * 8 > SETS_BYTES_MAX) return NIS_SHAPE;
    const nis_status status = check_table(next, states);
    if (status != NIS_OK) return status;
    nis_constraint *c = calloc(1, sizeof *c);
    if (!c) return NIS_NO_MEMORY;
    c->vocabulary = v;
    c->states = states;
    c->words = words;
    c->next = malloc(states * 256 * sizeof *next);
    c->distance = calloc(states, sizeof *c->distance);
    c->farthest = calloc(states, sizeof *c->farthest);
    c->sets = calloc(states * words, 8);
    const bool enough = c->next && c->distance && c->farthest && c->sets;
    if (enough) memcpy(c->next, next, states * 256 * sizeof *next);
    if (!enough || !build(c, accepting)) {
        nis_constraint_free(c);
        return NIS_NO_MEMORY;
    }
    *created = c;
    return NIS_OK;
}

void nis_constraint_free(nis_constraint *c) {
    if (!c) return;
    free(c->next);
    free(c->distance);
    free(c->farthest);
    free(c->sets);
    free(c);
}

uint32_t nis_constraint_distance(const nis_constraint *c, uint32_t state) {
    return c && state < c->states ? c->distance[state] : FAR;
}

const uint64_t *nis_constraint_allowed(const nis_constraint *c, uint32_t state, uint32_t left, uint64_t *scratch) {
    if (!c || !scratch || state >= c->states || left < 1 || c->distance[state] > left) return NULL;
    if (c->farthest[state] < left) return c->sets + state * c->words;
    memset(scratch, 0, c->words * 8);
    walk(c, state, &(walked){scratch, NULL, 0, left - 1});
    return scratch;
}

uint32_t nis_constraint_next(const nis_constraint *c, uint32_t state, int32_t token) {
    if (!c || state >= c->states || token < 0 || (size_t)token >= c->vocabulary->count) return DEAD;
    const nis_vocabulary *v = c->vocabulary;
    uint64_t at = v->offsets[token];
    const uint64_t end = v->offsets[token + 1];
    if (at == end || end - at > TOKEN_BYTES_MAX) return DEAD;
    uint16_t to = (uint16_t)state;
    for (; at < end && to != DEAD; at++) to = c->next[(size_t)to * 256 + v->bytes[at]];
    return to;
}
