/* attention_plan.h: checks of attention calls and how they are cut into tasks, shared by attention.c and sparse.c. */
#ifndef LSPAN_ATTENTION_PLAN_H
#define LSPAN_ATTENTION_PLAN_H

#include "context_internal.h"
#include <longspan/sparse.h>

/* What concerns shapes, and so what planning needs. */
lspan_status lspan_check_attention_shapes(const lspan_context *context, const lspan_attention *attention);
/* Everything. */
lspan_status lspan_check_attention(const lspan_context *context, const lspan_attention *attention);

/* Slots are int32 where they are listed or looked up. */
lspan_status lspan_check_slots(const lspan_attention *attention);

/* Lists of tile `tile` of a sequence begin at the sum of lists of earlier sequences plus tile * list_heads. */
int64_t lspan_list_tiles(const lspan_sparse_attention *sparse, int64_t sequence);
/* The slots of an entry, no more than the sequence has. */
int64_t lspan_list_block(const lspan_sparse_attention *sparse, int64_t sequence);

/* Windows of a lag call whose kept slots a query in window `window` sees. */
static inline int64_t lspan_kept_windows(const lspan_lag_attention *lag, int64_t window)
{
    return window >= lag->raw_windows ? window - lag->raw_windows + 1 : 0;
}

/* ---- Prefill --------------------------------------------------------------------------------------- */

typedef struct lspan_prefill_plan {
    const lspan_context *context;
    const lspan_attention *attention;
    const lspan_sparse_attention *sparse; /* or NULL */
    const lspan_lag_attention *lag;       /* or NULL */
    int64_t tile_tokens; /* most query tokens of a task */
    int64_t tasks;
    char *scratch;
    size_t scratch_bytes; /* of one worker */
} lspan_prefill_plan;

/* plan->context, attention, sparse and lag are set. */
lspan_status lspan_plan_prefill(lspan_prefill_plan *plan);
size_t lspan_prefill_bytes(const lspan_prefill_plan *plan);
lspan_status lspan_run_prefill(lspan_prefill_plan *plan, void *workspace);

/* ---- Decode ---------------------------------------------------------------------------------------- */

/* A (sequence, head) pair's first task, first row of partial results, and list. */
typedef struct lspan_decode_place {
    int64_t task;
    int64_t partial;
    int64_t list;
} lspan_decode_place;

typedef struct lspan_decode_plan {
    const lspan_context *context;
    const lspan_attention *attention;
    const lspan_sparse_attention *sparse; /* or NULL */
    int64_t chunk; /* keys of a task */
    int64_t tasks;
    int64_t units;        /* (sequence, head) pairs */
    int64_t partial_rows; /* rows of partial results, over all units whose keys are split */
    int64_t partial_capacity; /* the most that there are with any number of keys */
    char *scratch;
    size_t scratch_bytes; /* of one worker */
    float *partial_outputs;
    float *partial_log_sum_exps;
    lspan_decode_place *places; /* [units] */
} lspan_decode_plan;

/* plan->context, attention and sparse are set. */
lspan_status lspan_plan_decode(lspan_decode_plan *plan);
size_t lspan_decode_bytes(const lspan_decode_plan *plan);
lspan_status lspan_run_decode(lspan_decode_plan *plan, void *workspace);

#endif
