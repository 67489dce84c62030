/* Keys and values of a stack of layers, in blocks of positions that sessions share until one of them writes.
 *
 * A block holds NIS_BLOCK_POSITIONS positions of every layer, so that a conversation grows without moving, a fork copies
 * pointers, and a rolling window gives blocks back. A position's numbers are the same wherever its block lies, and
 * attention walks blocks in ascending order with the sums carried over: its bits are those of one contiguous array. */
#ifndef NIS_CACHE_H
#define NIS_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "nis_engine.h"

enum { NIS_BLOCK_POSITIONS = 64 };

/* What a block holds. Per layer: keys, then values, each [kv_heads][NIS_BLOCK_POSITIONS][head_dim] elements; with int8
 * also [kv_heads][NIS_BLOCK_POSITIONS] float factors of keys and of values. After the layers: residuals
 * [NIS_BLOCK_POSITIONS, hidden], or nothing. */
typedef struct {
    nis_dtype dtype;
    size_t layers, kv_heads, head_dim, hidden; /* hidden 0: no residuals */
    size_t layer_bytes, bytes;
} nis_kv_layout;

typedef struct {
    atomic_size_t references;
    _Alignas(64) char data[];
} nis_kv_block;

typedef struct {
    nis_kv_layout layout;
    nis_kv_block **blocks; /* [block_count]; NULL: not filled yet, or given back */
    size_t block_count;
} nis_kv_cache;

/* Where one head of one layer starts in a block: slot i is position i of the block. */
typedef struct {
    char *keys, *values;                /* [NIS_BLOCK_POSITIONS][head_dim] */
    float *key_factors, *value_factors; /* [NIS_BLOCK_POSITIONS]; NULL unless int8 */
} nis_kv_place;

nis_kv_place nis_kv_at(const nis_kv_layout *layout, nis_kv_block *block, size_t layer, size_t kv_head);
/* [NIS_BLOCK_POSITIONS, hidden] */
float *nis_kv_residuals(const nis_kv_layout *layout, nis_kv_block *block);

/* An empty cache for `positions`; false when memory is short or the sizes overflow. */
bool nis_kv_create(nis_kv_cache *cache, nis_dtype dtype, size_t layers, size_t kv_heads, size_t head_dim, size_t hidden,
                   size_t positions);
void nis_kv_free(nis_kv_cache *cache);
/* Makes positions from..to - 1 writable: missing blocks are made, shared ones copied. False when memory is short; what
 * was there stays as it was. */
bool nis_kv_reserve(nis_kv_cache *cache, size_t from, size_t to);
/* Shares the blocks of `source` that hold positions 0..positions - 1. `cache` is fresh and of the same layout. */
void nis_kv_share(nis_kv_cache *cache, const nis_kv_cache *source, size_t positions);
/* Gives back blocks that lie wholly in from..to - 1; returns the first position after `from` that is still there. */
size_t nis_kv_drop(nis_kv_cache *cache, size_t from, size_t to);

#endif
