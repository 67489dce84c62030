/* The thread pool.
 *
 * Theory of operation. A job is a number of items, cut into one share per thread. Whoever is inside claims runs of its own
 * share, so that what a thread wrote in one job it finds in its caches in the next, then of the others' until none is left.
 * The `gate` holds, in one word, the job's generation, whether it is open, and how many workers are inside. The caller
 * opens it, claims like everyone else, closes it when nothing is left to claim, and waits for those inside to finish
 * their last run. A worker that the operating system took away, or that wakes too late, finds the gate closed and has
 * cost nothing; a slow core claims fewer runs. No result depends on who claimed what.
 *
 * Whoever waits spins for at most SPIN_NS, because within a pass the next job comes within microseconds, then sleeps on
 * a condition variable: an idle model costs nothing. No wake-up is lost: a worker announces itself in `sleepers` before
 * it looks at the gate for the last time, and the caller opens the gate before it looks at `sleepers`; both are
 * sequentially consistent, so at least one sees the other. The same holds for `caller_sleeps` and the count inside. What is
 * written there is exchanged and not stored: on aarch64 a store-release and the load-acquire behind it are ordered, but
 * qemu-user lets the load go first, and a wake-up was lost. */
#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "float_environment.h"

/* Between two jobs of a pass the caller normalises and quantises one vector: about 5 us for 6912 values. Ten times that
 * is still nothing against the milliseconds of a pass. */
#define SPIN_NS 50000
#define SPINS_PER_CLOCK_READING 64

/* Runs per share: the last ones end together, and a claim costs nothing against a run. */
#define RUNS_PER_SHARE 8

/* Counters that several threads write must not lie in one line of the caches. */
#define CACHE_LINE 64

/* The gate: generation in the upper half, OPEN, and the count of workers inside. */
#define GENERATION (UINT64_C(1) << 32)
#define GENERATIONS (~UINT64_C(0) << 32)
#define OPEN (UINT64_C(1) << 31)
#define INSIDE (OPEN - 1)

/* How far a thread's share of the job is claimed. */
typedef struct {
    _Alignas(CACHE_LINE) atomic_size_t next;
} share;

struct nis_pool {
    size_t threads;
    pid_t process;
    pthread_t *workers; /* [started] */
    size_t started;

    /* The job; written only while the gate is closed and nobody is inside. */
    nis_job *job;
    void *argument;
    size_t count, run;
    share *shares; /* [threads] */

    atomic_uint_fast64_t gate;
    atomic_uint sleepers;
    atomic_bool caller_sleeps;
    atomic_bool stopping;
    pthread_mutex_t lock;
    pthread_cond_t opened, emptied;
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

/* Spins while ((gate & mask) == value) == equal; false when the time is up and it still is. */
static bool spin_while(nis_pool *pool, uint64_t mask, uint64_t value, bool equal) {
    const int64_t end = nanoseconds() + SPIN_NS;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK_READING; i++) {
            if (((atomic_load(&pool->gate) & mask) == value) != equal) return true;
            relax();
        }
    } while (nanoseconds() < end);
    return false;
}

static size_t share_begins(const nis_pool *pool, size_t thread) { return pool->count * thread / pool->threads; }

/* Computes runs until none is left: of its own share, then of the next thread's, and so on. */
static void claim_runs(nis_pool *pool, size_t thread) {
    for (size_t i = 0; i < pool->threads; i++) {
        const size_t of = (thread + i) % pool->threads, share_end = share_begins(pool, of + 1);
        for (;;) {
            const size_t first = atomic_fetch_add_explicit(&pool->shares[of].next, pool->run, memory_order_relaxed);
            if (first >= share_end) break;
            pool->job(pool->argument, thread, first, first + pool->run < share_end ? first + pool->run : share_end);
        }
    }
}

/* ---- the workers' side ------------------------------------------------------------------------------------------- */

/* Waits for another generation than `seen` and returns the gate as it then was. */
static uint64_t wait_for_generation_after(nis_pool *pool, uint64_t seen) {
    if (!spin_while(pool, GENERATIONS, seen, true)) {
        pthread_mutex_lock(&pool->lock);
        atomic_fetch_add(&pool->sleepers, 1);
        while ((atomic_load(&pool->gate) & GENERATIONS) == seen) pthread_cond_wait(&pool->opened, &pool->lock);
        atomic_fetch_sub(&pool->sleepers, 1);
        pthread_mutex_unlock(&pool->lock);
    }
    return atomic_load(&pool->gate);
}

/* Counts this thread inside; false if the gate is closed by now or belongs to a later job. */
static bool enter(nis_pool *pool, uint64_t gate) {
    const uint64_t generation = gate & GENERATIONS;
    while ((gate & OPEN) && (gate & GENERATIONS) == generation) {
        if (atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) return true;
    }
    return false;
}

static void leave(nis_pool *pool) {
    const uint64_t before = atomic_fetch_sub(&pool->gate, 1);
    if ((before & INSIDE) != 1 || !atomic_load(&pool->caller_sleeps)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->emptied);
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *start_argument) {
    const worker_start start = *(worker_start *)start_argument;
    free(start_argument);
    nis_pool *pool = start.pool;
    nis_float_standard();
    for (uint64_t seen = 0;;) {
        const uint64_t gate = wait_for_generation_after(pool, seen);
        if (atomic_load(&pool->stopping)) return NULL;
        seen = gate & GENERATIONS;
        if (!enter(pool, gate)) continue;
        claim_runs(pool, start.thread);
        leave(pool);
    }
}

/* ---- the caller's side ------------------------------------------------------------------------------------------- */

/* Begins the next generation with the gate open or, to let the workers look around, closed. */
static void raise_generation(nis_pool *pool, uint64_t open) {
    atomic_exchange(&pool->gate, (atomic_load(&pool->gate) & GENERATIONS) + GENERATION + open);
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->opened);
    pthread_mutex_unlock(&pool->lock);
}

static void wait_until_empty(nis_pool *pool) {
    if (spin_while(pool, INSIDE, 0, false)) return;
    pthread_mutex_lock(&pool->lock);
    atomic_exchange(&pool->caller_sleeps, true);
    while ((atomic_load(&pool->gate) & INSIDE) != 0) pthread_cond_wait(&pool->emptied, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

void nis_pool_run(nis_pool *pool, nis_job *job, void *argument, size_t count) {
    if (pool->threads == 1 || count <= 1) { /* for a single item, waking the others costs more than it saves */
        if (count > 0) job(argument, 0, 0, count);
        return;
    }
    pool->job = job;
    pool->argument = argument;
    pool->count = count;
    pool->run = count / (RUNS_PER_SHARE * pool->threads) + 1;
    for (size_t i = 0; i < pool->threads; i++) {
        atomic_store_explicit(&pool->shares[i].next, share_begins(pool, i), memory_order_relaxed);
    }
    raise_generation(pool, OPEN);
    claim_runs(pool, 0);
    atomic_fetch_and(&pool->gate, ~OPEN);
    wait_until_empty(pool);
}

/* ---- making and ending ------------------------------------------------------------------------------------------- */

nis_status nis_pool_create(size_t threads, nis_pool **created) {
    *created = NULL;
    nis_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NIS_NO_MEMORY;
    pool->threads = threads;
    pool->process = getpid();
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->opened, NULL);
    pthread_cond_init(&pool->emptied, NULL);
    pool->workers = calloc(threads, sizeof *pool->workers);
    pool->shares = aligned_alloc(CACHE_LINE, threads * sizeof *pool->shares);
    if (!pool->workers || !pool->shares) {
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
        raise_generation(pool, 0);
        for (size_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i], NULL);
        pthread_cond_destroy(&pool->emptied);
        pthread_cond_destroy(&pool->opened);
        pthread_mutex_destroy(&pool->lock);
    }
    free(pool->shares);
    free(pool->workers);
    free(pool);
}

size_t nis_pool_threads(const nis_pool *pool) { return pool->threads; }

int nis_pool_is_ours(const nis_pool *pool) { return pool->process == getpid(); }
