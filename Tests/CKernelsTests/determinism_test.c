/* determinism_test.c: the same call gives the same bits again, with one number of threads always, and with a fixed split
 * whatever the threads, the executor and the order in which it runs tasks. */
#include "kernel_calls.h"

/* ---- Executors that run tasks in another order ------------------------------------------------------------ */

/* From the last to the first, on three workers in turn. */
static int run_reversed(void *user, size_t count, lspan_task_function function, void *argument)
{
    (void)user;
    for (size_t i = count; i > 0; i--) function(argument, i - 1, i % 3);
    return 0;
}

/* In an order of chance, on workers of chance. */
static int run_shuffled(void *user, size_t count, lspan_task_function function, void *argument)
{
    size_t *order = test_malloc((int64_t)count, sizeof *order);
    (void)user;
    for (size_t i = 0; i < count; i++) {
        size_t j = (size_t)test_random_int(0, (int64_t)i);
        order[i] = order[j];
        order[j] = i;
    }
    for (size_t i = 0; i < count; i++) function(argument, order[i], (size_t)test_random_int(0, 3));
    free(order);
    return 0;
}

static const lspan_executor reversed = {run_reversed, NULL, 3}, shuffled = {run_shuffled, NULL, 4};

/* Teams that must agree; those with an executor take its workers. */
static const struct {
    int32_t threads;
    const lspan_executor *executor;
    const char *name;
} teams[] = {{1, NULL, "1 thread"}, {2, NULL, "2 threads"},   {3, NULL, "3 threads"},
             {5, NULL, "5 threads"}, {0, &reversed, "3 workers in reverse"}, {0, &shuffled, "4 workers in any order"}};
#define TEAM_COUNT (sizeof teams / sizeof teams[0])

static const int32_t splits[] = {1, 2, 3, 7};
#define SPLIT_COUNT (sizeof splits / sizeof splits[0])

static lspan_context *make_context(const char *isa, size_t team, int32_t split)
{
    lspan_context_options options = {teams[team].threads, isa, teams[team].executor, split};
    lspan_context *context = NULL;
    CHECK_OK(lspan_context_create(&options, &context));
    return context;
}

/* ---- Tests ------------------------------------------------------------------------------------------------- */

/* Without a fixed split, each team agrees with itself. Returns how many calls differ between one thread and two. */
static int check_teams(const char *isa, const kernel_call *calls, size_t count)
{
    lspan_context *contexts[TEAM_COUNT];
    int differing = 0;
    for (size_t t = 0; t < TEAM_COUNT; t++) contexts[t] = make_context(isa, t, 0);
    for (size_t i = 0; i < count; i++) {
        unsigned char *of_one = NULL;
        for (size_t t = 0; t < TEAM_COUNT; t++) {
            test_case("%s, %s, %s", calls[i].name, isa, teams[t].name);
            CHECK_OK(kernel_call_run(&calls[i], contexts[t], 0xFF));
            unsigned char *first = kernel_call_results(&calls[i]);
            CHECK_OK(kernel_call_run(&calls[i], contexts[t], 0x00));
            CHECK_MESSAGE(kernel_call_equals(&calls[i], first), "a second call differs");
            if (t == 1 && !calls[i].uses_openblas) differing += !kernel_call_equals(&calls[i], of_one);
            if (t == 0) of_one = first;
            else free(first);
        }
        free(of_one);
    }
    for (size_t t = 0; t < TEAM_COUNT; t++) lspan_context_destroy(contexts[t]);
    return differing;
}

/* With a split, the results of one thread are those of every team. Returns how many calls differ from those of the first
 * split, which are kept. */
static int check_split(
    const char *isa, const kernel_call *calls, size_t count, int32_t split, unsigned char **of_first_split)
{
    lspan_context *contexts[TEAM_COUNT];
    int differing = 0;
    for (size_t t = 0; t < TEAM_COUNT; t++) contexts[t] = make_context(isa, t, split);
    for (size_t i = 0; i < count; i++) {
        if (calls[i].uses_openblas) continue;
        test_case("%s, %s, split %d", calls[i].name, isa, (int)split);
        CHECK_OK(kernel_call_run(&calls[i], contexts[0], 0xFF));
        unsigned char *want = kernel_call_results(&calls[i]);
        for (size_t t = 1; t < TEAM_COUNT; t++) {
            CHECK_OK(kernel_call_run(&calls[i], contexts[t], t % 2 ? 0x00 : 0xFF));
            CHECK_MESSAGE(kernel_call_equals(&calls[i], want), "%s differ from 1 thread", teams[t].name);
        }
        if (of_first_split[i]) {
            differing += !kernel_call_equals(&calls[i], of_first_split[i]);
            free(want);
        } else {
            of_first_split[i] = want;
        }
    }
    for (size_t t = 0; t < TEAM_COUNT; t++) lspan_context_destroy(contexts[t]);
    return differing;
}

int main(void)
{
    size_t count, isas;
    const kernel_call *calls = kernel_calls(&count);
    const char *const *names = test_isas(&isas);
    for (size_t v = 0; v < isas; v++) {
        int differing = check_teams(names[v], calls, count);
        /* else this test could not fail */
        test_case("%s", names[v]);
        CHECK_MESSAGE(differing > 0, "no call of %zu gives other bits with 2 threads than with 1", count);
        unsigned char **of_first_split = test_malloc((int64_t)count, sizeof *of_first_split);
        for (size_t s = 0; s < SPLIT_COUNT; s++) {
            int others = check_split(names[v], calls, count, splits[s], of_first_split);
            CHECK_MESSAGE(s == 0 || others > 0, "a split of %d changes no call", (int)splits[s]);
        }
        for (size_t i = 0; i < count; i++) free(of_first_split[i]);
        free(of_first_split);
        printf("determinism_test: %s: %d of %zu calls give other bits with 2 threads than with 1\n", names[v], differing, count);
    }
    return test_finish("determinism_test");
}
