/* concurrent_contexts.c: many threads call kernels at the same time: first with a context of one worker each, as an
 * engine does that serves a request a thread, then with one context that they share. */
#include "example.h"
#include <pthread.h>

#define THREADS 8
#define CALLS 50
#define COUNT (EXAMPLE_HEADS * EXAMPLE_DIM)

typedef struct request {
    const lspan_context *context;
    example call;
    float want[COUNT];
    int wrong;
} request;

/* What one thread does: calls again and again, and the bits must be those of a call that ran alone. */
static void *serve(void *argument)
{
    request *r = argument;
    for (int i = 0; i < CALLS; i++) {
        memset(r->call.output, 0, sizeof r->want);
        r->wrong += example_run(&r->call, r->context);
        r->wrong += memcmp(r->call.output, r->want, sizeof r->want) != 0;
    }
    return NULL;
}

static int serve_all(request *requests, lspan_context *const *contexts, size_t count)
{
    pthread_t threads[THREADS];
    int wrong = 0, started = 0;
    for (size_t i = 0; i < THREADS; i++) {
        requests[i].context = contexts[i % count];
        requests[i].wrong = 0;
    }
    while (started < THREADS && pthread_create(&threads[started], NULL, serve, &requests[started]) == 0) started++;
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        wrong += requests[i].wrong;
    }
    return wrong + THREADS - started;
}

int main(void)
{
    static request requests[THREADS];
    lspan_context *own[THREADS] = {0}, *shared = NULL;
    /* a context of two workers gives the bits of one only if both cut the work in the same way */
    lspan_context_options options = {.threads = 1, .fixed_split = 2};
    double worst = 0;
    int wrong = 0, apart = 0, together = 0;

    for (int i = 0; i < THREADS; i++) {
        wrong += example_failed("lspan_context_create", lspan_context_create(&options, &own[i]));
    }
    options.threads = 2;
    wrong += example_failed("lspan_context_create", lspan_context_create(&options, &shared));
    for (int i = 0; i < THREADS && !wrong; i++) {
        example_make(&requests[i].call, 500 + 300 * i, (uint32_t)i);
        wrong += example_run(&requests[i].call, own[0]);
        worst = fmax(worst, example_error(&requests[i].call));
        memcpy(requests[i].want, requests[i].call.output, sizeof requests[i].want);
    }
    if (!wrong) {
        apart = serve_all(requests, own, THREADS);
        together = serve_all(requests, &shared, 1);
        printf("%d threads, %d calls each: %d wrong with contexts of their own, %d with one of %d workers; largest "
               "difference %.1e\n", THREADS, CALLS, apart, together, (int)lspan_context_workers(shared), worst);
    }
    for (int i = 0; i < THREADS; i++) {
        example_free(&requests[i].call);
        lspan_context_destroy(own[i]);
    }
    lspan_context_destroy(shared);
    return wrong || apart || together || !(worst < 1e-5);
}
