/* gang.h: an lspan_executor made of the threads that are inside one custom operator of ggml.
 *
 * ggml calls an operator on all its threads at once and has a barrier only behind it. Thread 0 makes the Longspan call; the
 * others wait inside the operator, take tasks whenever the call has some (it may run several batches of them), and leave
 * when thread 0 says that the call is over. */
#ifndef LSPAN_GGML_GANG_H
#define LSPAN_GGML_GANG_H

#include <longspan/context.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define GANG_LINE 64

/* The operator that a thread other than 0 has seen end last. */
typedef struct gang_member {
    _Alignas(GANG_LINE) uint64_t seen;
} gang_member;

typedef struct gang {
    size_t workers;
    gang_member *members; /* [workers] */
    size_t team;          /* threads of the operator that runs */
    /* the batch that runs; tasks read these while they hold one of its tickets */
    lspan_task_function function;
    void *argument;
    size_t count;
    uint32_t batch;
    _Alignas(GANG_LINE) _Atomic uint64_t tickets; /* batch << 32 | tasks that nobody has taken */
    _Alignas(GANG_LINE) atomic_size_t finished;   /* tasks of the batch */
    _Alignas(GANG_LINE) _Atomic uint64_t ended;   /* operators of more than one thread */
} gang;

/* The executor's `run`; `user` is the gang. Thread 0 only, between gang_open and gang_close. */
int gang_run(void *user, size_t count, lspan_task_function function, void *argument);

/* Thread 0 of `threads`, around a call. */
void gang_open(gang *g, size_t threads);
void gang_close(gang *g);

/* Thread 1 .. threads-1: helps until thread 0 closes. A thread that is no worker returns at once. */
void gang_help(gang *g, size_t thread);

#endif
