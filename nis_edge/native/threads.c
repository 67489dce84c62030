/* The thread pool.
 *
 * Theory of operation. A job is published by raising `generation`; each worker runs it once and lowers `unfinished`;
 * the caller works too and then waits for zero. Whoever waits first spins for at most SPIN_NS, because within a pass the
 * next job comes within microseconds, then sleeps on a condition variable: an idle model costs nothing.
 *
 * No wake-up is lost: a worker announces itself in `sleepers` before it looks at `generation` for the last time, and the
 * caller raises `generation` before it looks at `sleepers`; both are sequentially consistent, so at least one of them
 * sees the other. The same holds for `caller_sleeps` and `unfinished`. */
#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "float_environment.h"

/* Between two jobs of a pass the caller normalises and quantises one vector: about 5 us for 6912 values. Ten times that
 * is still nothing against the milliseconds of a pass. */
#define SPIN_NS 50000
#define SPINS_PER_CLOCK_READING 64

struct nis_pool {
    size_t threads;
    pid_t process;
    pthread_t *workers; /* [started] */
    size_t started;
    nis_job *job;
    void *argument;
    atomic_uint generation;
    atomic_uint unfinished;
    atomic_uint sleepers;
    atomic_bool caller_sleeps;
    atomic_bool stopping;
    pthread_mutex_t lock;
    pthread_cond_t published, finished;
};

typedef struct {
    nis_pool *pool;
    size_t thread;
} worker_start;

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Spins until (*value == operand) == equal; false when the time is up. */
static bool spin_until(atomic_uint *value, unsigned operand, bool equal) {
    const int64_t end = nanoseconds() + SPIN_NS;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK_READING; i++) {
            if ((atomic_load(value) == operand) == equal) return true;
            relax();
        }
    } while (nanoseconds() < end);
    return false;
}

static void wait_for_generation_after(nis_pool *pool, unsigned seen) {
    if (spin_until(&pool->generation, seen, false)) return;
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->generation) == seen) pthread_cond_wait(&pool->published, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void publish(nis_pool *pool) {
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->published);
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *start_argument) {
    const worker_start start = *(worker_start *)start_argument;
    free(start_argument);
    nis_pool *pool = start.pool;
    nis_float_standard();
    for (unsigned seen = 0;; seen++) {
        wait_for_generation_after(pool, seen);
        if (atomic_load(&pool->stopping)) return NULL;
        pool->job(pool->argument, start.thread, pool->threads);
        if (atomic_fetch_sub(&pool->unfinished, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->finished);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

void nis_pool_run(nis_pool *pool, nis_job *job, void *argument) {
    if (pool->threads > 1) {
        pool->job = job;
        pool->argument = argument;
        atomic_store(&pool->unfinished, (unsigned)(pool->threads - 1));
        publish(pool);
    }
    job(argument, 0, pool->threads);
    if (pool->threads == 1 || spin_until(&pool->unfinished, 0, true)) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->unfinished) != 0) pthread_cond_wait(&pool->finished, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

nis_status nis_pool_create(size_t threads, nis_pool **created) {
    *created = NULL;
    nis_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NIS_NO_MEMORY;
    pool->threads = threads;
    pool->process = getpid();
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->published, NULL);
    pthread_cond_init(&pool->finished, NULL);
    pool->workers = calloc(threads, sizeof *pool->workers);
    if (!pool->workers) {
        nis_pool_free(pool);
        return NIS_NO_MEMORY;
    }
    /* Signals belong to the host program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    nis_status status = NIS_OK;
    for (size_t thread = 1; thread < threads && status == NIS_OK; thread++) {
        worker_start *start = malloc(sizeof *start);
        if (!start) {
            status = NIS_NO_MEMORY;
            break;
        }
        *start = (worker_start){pool, thread};
        if (pthread_create(&pool->workers[pool->started], NULL, work, start) == 0) {
            pool->started++;
        } else {
            free(start);
            status = NIS_NO_THREAD;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != NIS_OK) {
        nis_pool_free(pool);
        return status;
    }
    *created = pool;
    return NIS_OK;
}

void nis_pool_free(nis_pool *pool) {
    if (!pool) return;
    if (nis_pool_is_ours(pool)) {
        atomic_store(&pool->stopping, true);
        publish(pool);
        for (size_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i], NULL);
        pthread_cond_destroy(&pool->finished);
        pthread_cond_destroy(&pool->published);
        pthread_mutex_destroy(&pool->lock);
    }
    free(pool->workers);
    free(pool);
}

size_t nis_pool_threads(const nis_pool *pool) { return pool->threads; }

int nis_pool_is_ours(const nis_pool *pool) { return pool->process == getpid(); }
