/* A pool of threads that do one job at a time, run by run, as they get to it. */
#ifndef NIS_THREADS_H
#define NIS_THREADS_H

#include <stddef.h>

#include "nis_engine.h"

typedef struct nis_pool nis_pool;

/* Computes items first..end - 1 of a job. `thread` is below nis_pool_threads and tells scratch memory apart; which thread
 * computes an item must not matter to its value. */
typedef void nis_job(void *argument, size_t thread, size_t first, size_t end);

nis_status nis_pool_create(size_t threads, nis_pool **pool);
void nis_pool_free(nis_pool *pool);
size_t nis_pool_threads(const nis_pool *pool);
/* Whether this process started the workers; after fork() they are in the parent only. */
int nis_pool_is_ours(const nis_pool *pool);
/* Has the items 0..count - 1 computed, each once, by the caller and whichever workers get to it in time, and returns
 * when all are done. One caller at a time. */
void nis_pool_run(nis_pool *pool, nis_job *job, void *argument, size_t count);

#endif
