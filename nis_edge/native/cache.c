#include "cache.h"

#include <stdlib.h>
#include <string.h>

static size_t plane_bytes(const nis_kv_layout *l) {
    return l->kv_heads * NIS_BLOCK_POSITIONS * l->head_dim * nis_element_bytes(l->dtype);
}

nis_kv_place nis_kv_at(const nis_kv_layout *l, nis_kv_block *block, size_t layer, size_t kv_head) {
    char *start = block->data + layer * l->layer_bytes;
    const size_t plane = plane_bytes(l), at = plane / l->kv_heads * kv_head;
    nis_kv_place place = {start + at, start + plane + at, NULL, NULL};
    if (l->dtype == NIS_I8) {
        place.key_factors = (float *)(void *)(start + 2 * plane) + kv_head * NIS_BLOCK_POSITIONS;
        place.value_factors = place.key_factors + l->kv_heads * NIS_BLOCK_POSITIONS;
    }
    return place;
}

float *nis_kv_residuals(const nis_kv_layout *l, nis_kv_block *block) {
    return (float *)(void *)(block->data + l->layers * l->layer_bytes);
}

bool nis_kv_create(nis_kv_cache *cache, nis_dtype dtype, size_t layers, size_t kv_heads, size_t head_dim, size_t hidden,
                   size_t positions) {
    nis_kv_layout l = {dtype, layers, kv_heads, head_dim, hidden, 0, 0};
    /* The bounds of an architecture (model.h) keep these products far below 2^64. */
    l.layer_bytes = 2 * plane_bytes(&l) + (dtype == NIS_I8 ? 2 * kv_heads * NIS_BLOCK_POSITIONS * sizeof(float) : 0);
    if (__builtin_mul_overflow(layers, l.layer_bytes, &l.bytes)) return false;
    l.bytes += hidden * NIS_BLOCK_POSITIONS * sizeof(float);
    cache->layout = l;
    cache->block_count = (positions + NIS_BLOCK_POSITIONS - 1) / NIS_BLOCK_POSITIONS;
    cache->blocks = calloc(cache->block_count, sizeof *cache->blocks);
    return cache->blocks != NULL;
}

static nis_kv_block *make_block(const nis_kv_cache *cache) {
    const size_t bytes = (sizeof(nis_kv_block) + cache->layout.bytes + 63) / 64 * 64;
    nis_kv_block *block = aligned_alloc(64, bytes);
    if (!block) return NULL;
    atomic_init(&block->references, 1);
    return block;
}

static void release(nis_kv_block **block) {
    if (*block && atomic_fetch_sub(&(*block)->references, 1) == 1) free(*block);
    *block = NULL;
}

void nis_kv_free(nis_kv_cache *cache) {
    for (size_t i = 0; cache->blocks && i < cache->block_count; i++) release(&cache->blocks[i]);
    free(cache->blocks);
    cache->blocks = NULL;
}

bool nis_kv_reserve(nis_kv_cache *cache, size_t from, size_t to) {
    for (size_t i = from / NIS_BLOCK_POSITIONS; i * NIS_BLOCK_POSITIONS < to; i++) {
        nis_kv_block *old = cache->blocks[i];
        /* With one reference it is ours alone, and only this session's own fork could add another. */
        if (old && atomic_load(&old->references) == 1) continue;
        nis_kv_block *block = make_block(cache);
        if (!block) return false;
        if (old) memcpy(block->data, old->data, cache->layout.bytes);
        release(&cache->blocks[i]);
        cache->blocks[i] = block;
    }
    return true;
}

void nis_kv_share(nis_kv_cache *cache, const nis_kv_cache *source, size_t positions) {
    for (size_t i = 0; i * NIS_BLOCK_POSITIONS < positions; i++) {
        if (!source->blocks[i]) continue;
        atomic_fetch_add(&source->blocks[i]->references, 1);
        cache->blocks[i] = source->blocks[i];
    }
}

size_t nis_kv_drop(nis_kv_cache *cache, size_t from, size_t to) {
    const size_t first = (from + NIS_BLOCK_POSITIONS - 1) / NIS_BLOCK_POSITIONS, end = to / NIS_BLOCK_POSITIONS;
    /* Backwards until a gap: what lies before a gap was given back by an earlier call. */
    for (size_t i = end; i-- > first && cache->blocks[i];) release(&cache->blocks[i]);
    return end > first ? end * NIS_BLOCK_POSITIONS : from;
}
