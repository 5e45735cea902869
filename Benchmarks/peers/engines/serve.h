/* serve.h: the part that the engines in C and C++ share: commands on stdin, replies on stdout, operands from files.
 *
 * A line is a command, and each gets one line back:
 *
 *     about                                                                              ok TEXT
 *     prepare ID VARIANT DTYPE HQ HK D T S WINDOW COPIES ENTRIES BLOCK B STATE FOLDER    ok
 *     run ID CALLS                                                                       ns NANOSECONDS...
 *     output ID FILE                                                                     ok
 *     drop ID                                                                            ok
 *
 * or `error TEXT`. FOLDER holds q [T, Hq, D], k and v [Hk, S, D] in f32, every value exact in the case's dtype, and
 * FILE receives the last call's output [T, Hq, D] in f32. Calls rotate over COPIES of the operands.
 *
 * Where ENTRIES is not 0, calls rotate over COPIES selections of keys instead, and there is one copy of the operands:
 * FOLDER also holds lists [COPIES, Hk, ENTRIES] in int32. An entry e stands for tokens e*BLOCK .. e*BLOCK+BLOCK-1.
 *
 * STATE is not 0 in state-space cases, and there it counts the values that a channel carries from token to token: N of
 * a scan, W - 1 of a convolution. They have B sequences of T tokens, HQ heads of D channels (E heads of one channel,
 * where there are no heads) and HK groups; ssm_cases.py says what FOLDER holds. Outputs are [B, T, HQ, D].
 */
#ifndef SERVE_H
#define SERVE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct serve_case {
    char variant[32];
    char dtype[8];
    long query_heads, kv_heads, head_dim;
    long tokens, keys;
    long window; /* 0 for none */
    long copies;
    long entries; /* of a list; 0 where every key is seen */
    long block;   /* tokens of an entry */
    long sequences;
    long state; /* 0 in attention */
    char folder[512];
} serve_case;

/* What an engine does; every function but `about` and `drop` returns NULL or what went wrong. */
typedef struct serve_engine {
    const char *(*about)(void);
    const char *(*prepare)(const serve_case *c, void **row);
    const char *(*call)(void *row, long copy);
    const char *(*output)(void *row, float *values);
    void (*drop)(void *row);
} serve_engine;

/* Answers commands until stdin ends; returns the exit status. */
int serve(const serve_engine *engine);

/* One operand file, mapped; NULL if it has another size. */
const void *serve_map(const serve_case *c, const char *name, size_t bytes);
void serve_unmap(const void *values, size_t bytes);

/* Zeroed memory in huge pages, aligned to one; NULL if there is none. */
void *serve_allocate(size_t bytes);
void serve_free(void *memory, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
