/* gang.c: tasks among the threads of a ggml operator. */
#include "gang.h"
#include <sched.h>

/* Turns of a waiting thread before it gives its core away: some microseconds, longer than the gap between two batches. */
#define SPINS 4096

static void wait_a_turn(unsigned *turns)
{
    if (++*turns > SPINS) {
        sched_yield();
        return;
    }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Runs tasks until none is left to take; returns how many it ran. The batch is in the ticket, so a thread that comes from
 * an earlier batch cannot take a task of a later one without seeing that batch's function. */
static size_t take_tasks(gang *g, size_t worker)
{
    size_t done = 0;
    uint64_t tickets = atomic_load_explicit(&g->tickets, memory_order_acquire);
    while ((uint32_t)tickets > 0) {
        if (!atomic_compare_exchange_weak_explicit(
                &g->tickets, &tickets, tickets - 1, memory_order_acquire, memory_order_acquire)) {
            continue;
        }
        g->function(g->argument, g->count - (uint32_t)tickets, worker);
        done++;
        tickets = atomic_load_explicit(&g->tickets, memory_order_acquire);
    }
    if (done > 0) atomic_fetch_add_explicit(&g->finished, done, memory_order_release);
    return done;
}

int gang_run(void *user, size_t count, lspan_task_function function, void *argument)
{
    gang *g = user;
    if (g->team == 1) {
        for (size_t i = 0; i < count; i++) function(argument, i, 0);
        return 0;
    }
    if (count > UINT32_MAX) return 1;
    g->function = function;
    g->argument = argument;
    g->count = count;
    atomic_store_explicit(&g->finished, 0, memory_order_relaxed);
    atomic_store_explicit(&g->tickets, (uint64_t)++g->batch << 32 | count, memory_order_release);
    take_tasks(g, 0);
    unsigned turns = 0;
    while (atomic_load_explicit(&g->finished, memory_order_acquire) != count) wait_a_turn(&turns);
    return 0;
}

void gang_open(gang *g, size_t threads)
{
    g->team = threads < g->workers ? threads : g->workers;
}

void gang_close(gang *g)
{
    if (g->team == 1) return;
    uint64_t ended = atomic_load_explicit(&g->ended, memory_order_relaxed) + 1;
    /* workers that this operator has no thread for */
    for (size_t i = g->team; i < g->workers; i++) g->members[i].seen = ended;
    atomic_store_explicit(&g->ended, ended, memory_order_release);
}

/* ggml's barrier behind an operator keeps thread 0 from the next one until every helper has left this one, so a helper is
 * never more than one end behind: what it has not seen end is the operator it is in. */
void gang_help(gang *g, size_t thread)
{
    if (thread >= g->workers) return;
    gang_member *member = &g->members[thread];
    unsigned turns = 0;
    uint64_t ended;
    while ((ended = atomic_load_explicit(&g->ended, memory_order_acquire)) == member->seen) {
        if (take_tasks(g, thread) > 0) turns = 0;
        else wait_a_turn(&turns);
    }
    member->seen = ended;
}
