/* pthread_executor.c: an engine's own threads run the kernels' tasks, and with a fixed split to the same bits as
 * OpenMP's. */
#include "example.h"
#include <pthread.h>
#include <stdatomic.h>

#define WORKERS 4
#define TOKENS 5000
#define CALLS 200

/* The threads that wait, and the tasks of the call at hand. Worker 0 is the caller. */
typedef struct pool {
    pthread_t threads[WORKERS - 1];
    size_t started;
    pthread_mutex_t callers; /* one call at a time: callers wait for each other */
    pthread_mutex_t lock;
    pthread_cond_t begin, end;
    unsigned long call; /* counts calls, so that a thread knows a new one */
    size_t working;     /* threads that have not finished the call */
    int stop;
    lspan_task_function function;
    void *argument;
    size_t count;
    atomic_size_t next;
    atomic_size_t tasks_of[WORKERS];
} pool;

typedef struct member {
    pool *pool;
    size_t worker;
} member;

static void take_tasks(pool *p, size_t worker)
{
    size_t task;
    while ((task = atomic_fetch_add(&p->next, 1)) < p->count) {
        p->function(p->argument, task, worker);
        atomic_fetch_add(&p->tasks_of[worker], 1);
    }
}

static void *serve(void *argument)
{
    member *m = argument;
    pool *p = m->pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->call == seen && !p->stop) pthread_cond_wait(&p->begin, &p->lock);
        if (p->stop) break;
        seen = p->call;
        pthread_mutex_unlock(&p->lock);
        take_tasks(p, m->worker);
        pthread_mutex_lock(&p->lock);
        if (--p->working == 0) pthread_cond_signal(&p->end);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* lspan_executor.run */
static int run(void *user, size_t count, lspan_task_function function, void *argument)
{
    pool *p = user;
    pthread_mutex_lock(&p->callers);
    pthread_mutex_lock(&p->lock);
    p->function = function;
    p->argument = argument;
    p->count = count;
    atomic_store(&p->next, 0);
    p->working = p->started;
    p->call++;
    pthread_cond_broadcast(&p->begin);
    pthread_mutex_unlock(&p->lock);
    take_tasks(p, 0);
    pthread_mutex_lock(&p->lock);
    while (p->working > 0) pthread_cond_wait(&p->end, &p->lock);
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_unlock(&p->callers);
    return 0;
}

static void pool_start(pool *p, member *members)
{
    pthread_mutex_init(&p->callers, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->begin, NULL);
    pthread_cond_init(&p->end, NULL);
    for (size_t i = 0; i < WORKERS - 1; i++) {
        members[i].pool = p;
        members[i].worker = i + 1;
        if (pthread_create(&p->threads[i], NULL, serve, &members[i]) != 0) break;
        p->started++;
    }
}

static void pool_stop(pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = 1;
    pthread_cond_broadcast(&p->begin);
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < p->started; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->end);
    pthread_cond_destroy(&p->begin);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->callers);
}

int main(void)
{
    static pool p;
    static member members[WORKERS - 1];
    const size_t bytes = EXAMPLE_HEADS * EXAMPLE_DIM * sizeof(float);
    float first[EXAMPLE_HEADS * EXAMPLE_DIM];
    lspan_context *openmp = NULL, *ours = NULL;
    lspan_context_options options = {0};
    int wrong = 0;
    example e;
    example_make(&e, TOKENS, 1);
    pool_start(&p, members);

    /* work is cut as for so many workers in either context */
    options.fixed_split = WORKERS;
    options.threads = 2;
    wrong += example_failed("lspan_context_create", lspan_context_create(&options, &openmp));
    lspan_executor executor = {run, &p, WORKERS};
    options.executor = &executor;
    wrong += example_failed("lspan_context_create", lspan_context_create(&options, &ours));

    if (!wrong) {
        wrong += example_run(&e, openmp);
        memcpy(first, e.output, bytes);
        for (int i = 0; i < CALLS; i++) {
            memset(e.output, 0, bytes);
            wrong += example_run(&e, ours);
            wrong += memcmp(first, e.output, bytes) != 0;
        }
        wrong += !(example_error(&e) < 1e-5);
        printf("%d calls on %d workers of our own: %d wrong, largest difference %.1e, tasks of each worker", CALLS,
               (int)lspan_context_workers(ours), wrong, example_error(&e));
        for (int i = 0; i < WORKERS; i++) printf(" %d", (int)atomic_load(&p.tasks_of[i]));
        printf("\n");
    }
    lspan_context_destroy(ours);
    lspan_context_destroy(openmp);
    pool_stop(&p);
    example_free(&e);
    return wrong != 0;
}
