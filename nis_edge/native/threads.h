/* A pool of threads that split one job at a time by a static rule. */
#ifndef NIS_THREADS_H
#define NIS_THREADS_H

#include <stddef.h>

#include "nis_engine.h"

typedef struct nis_pool nis_pool;

/* Runs as thread `thread` of `threads`; splits its work by these two numbers only. */
typedef void nis_job(void *argument, size_t thread, size_t threads);

nis_status nis_pool_create(size_t threads, nis_pool **pool);
void nis_pool_free(nis_pool *pool);
size_t nis_pool_threads(const nis_pool *pool);
/* Whether this process started the workers; after fork() they are in the parent only. */
int nis_pool_is_ours(const nis_pool *pool);
/* Calls job on every thread, the caller's included, and returns when all are done. One caller at a time. */
void nis_pool_run(nis_pool *pool, nis_job *job, void *argument);

/* The share of thread `thread` in `count` items: [*first, *end), consecutive and as equal as possible. */
static inline void nis_share(size_t count, size_t thread, size_t threads, size_t *first, size_t *end) {
    *first = count * thread / threads;
    *end = count * (thread + 1) / threads;
}

#endif
