/* concurrency_test.c: threads that run all kinds of kernels at the same time, on contexts of their own and on one that
 * they share, get the bits that one thread gets. */
#include "context_internal.h"
#include "kernel_calls.h"
#include <pthread.h>

#define CALLERS 4
#define ROUNDS 2
/* OpenBLAS is shared by the whole process, and what goes wrong with it goes wrong rarely. */
#define OPENBLAS_ROUNDS 20

/* Calls first, first + CALLERS ... of the list, whose outputs no other caller touches. */
typedef struct caller {
    const kernel_call *calls;
    size_t count, first;
    const lspan_context *context;
    unsigned char *const *want;
    void *workspace;
    size_t bytes;
    int wrong;
    const kernel_call *first_wrong;
    lspan_status status; /* of the first wrong call */
    int team_changed;    /* whether the thread's own OpenMP teams would have another size than before */
} caller;

static void *call_kernels(void *argument)
{
    caller *c = argument;
    int team = lspan_openmp_threads();
    for (int round = 0; round < OPENBLAS_ROUNDS; round++) {
        for (size_t i = c->first; i < c->count; i += CALLERS) {
            const kernel_call *call = &c->calls[i];
            if (round >= ROUNDS && !call->uses_openblas) continue;
            size_t bytes = 0;
            kernel_call_reset(call, round);
            lspan_status status = call->size ? call->size(c->context, call->arguments, &bytes) : lspan_status_ok;
            if (status == lspan_status_ok && bytes > c->bytes) status = lspan_status_workspace_too_small;
            if (status == lspan_status_ok) status = call->run(c->context, call->arguments, c->workspace, bytes);
            if (status == lspan_status_ok && kernel_call_equals(call, c->want[i])) continue;
            if (c->wrong++ > 0) continue;
            c->first_wrong = call;
            c->status = status;
        }
    }
    c->team_changed = lspan_openmp_threads() != team;
    return NULL;
}

static void run_callers(const kernel_call *calls, size_t count, lspan_context *const *contexts, unsigned char *const *want)
{
    caller callers[CALLERS];
    test_buffer workspaces[CALLERS];
    pthread_t threads[CALLERS];
    for (size_t t = 0; t < CALLERS; t++) {
        size_t most = 0;
        for (size_t i = 0; i < count; i++) {
            size_t bytes = kernel_call_bytes(&calls[i], contexts[t]);
            most = bytes > most ? bytes : most;
        }
        workspaces[t] = test_allocate(most, LSPAN_WORKSPACE_ALIGNMENT);
        callers[t] = (caller){calls, count, t, contexts[t], want, workspaces[t].data, most, 0, NULL, lspan_status_ok, 0};
    }
    for (size_t t = 0; t < CALLERS; t++) CHECK(pthread_create(&threads[t], NULL, call_kernels, &callers[t]) == 0);
    for (size_t t = 0; t < CALLERS; t++) {
        pthread_join(threads[t], NULL);
        CHECK_MESSAGE(
            callers[t].wrong == 0, "caller %zu: %d calls went wrong, %s first, with status %s", t, callers[t].wrong,
            callers[t].first_wrong ? callers[t].first_wrong->name : "none", lspan_status_name(callers[t].status));
        CHECK_MESSAGE(!callers[t].team_changed, "caller %zu: calls changed the size of its OpenMP teams", t);
        test_release(&workspaces[t]);
    }
}

/* Team of two or a context alone; the split is fixed, so both give the same bits, but for OpenBLAS. */
static lspan_context *make_context(const char *isa, int32_t threads)
{
    lspan_context_options options = {threads, isa, NULL, 3};
    lspan_context *context = NULL;
    CHECK_OK(lspan_context_create(&options, &context));
    return context;
}

int main(void)
{
    size_t count, isas;
    const kernel_call *calls = kernel_calls(&count);
    const char *const *names = test_isas(&isas);
    unsigned char **want = test_malloc((int64_t)count, sizeof *want);
    for (size_t v = 0; v < isas; v++) {
        for (int32_t threads = 1; threads <= 2; threads++) {
            lspan_context *contexts[CALLERS + 1], *shared[CALLERS];
            for (int t = 0; t <= CALLERS; t++) contexts[t] = make_context(names[v], threads);
            for (int t = 0; t < CALLERS; t++) shared[t] = contexts[CALLERS];
            for (size_t i = 0; i < count; i++) {
                CHECK_OK(kernel_call_run(&calls[i], contexts[0], 0xFF));
                want[i] = kernel_call_results(&calls[i]);
            }
            test_case("contexts of their own, %s, %d threads a call", names[v], (int)threads);
            run_callers(calls, count, contexts, want);
            test_case("a shared context, %s, %d threads a call", names[v], (int)threads);
            run_callers(calls, count, shared, want);
            for (size_t i = 0; i < count; i++) free(want[i]);
            for (int t = 0; t <= CALLERS; t++) lspan_context_destroy(contexts[t]);
        }
    }
    free(want);
    return test_finish("concurrency_test");
}
