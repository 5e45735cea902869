/* kv_select.c: lspan_select: which tokens to keep.
 *
 * A token's rank is a 64-bit number that is the higher the earlier the token is taken: its score as an integer of the
 * same order above, and its token number, counted down, below. No two tokens of a row have the same rank, so a row's
 * list is every token from some rank up, its cut, and finding the cut is a radix selection: count the leading digits,
 * find the digit in which the cut falls, go on with the tokens that have it. Where rows compete with one another, equal
 * ranks of several rows are left at the end, and go to the lowest rows. The shared scope ranks by f64 sums, which leave
 * no room for a token number: there equal ranks go to the lowest tokens as the list is written.
 *
 * Counting and writing lists are chains of scalar operations on any CPU, so there are no ISA variants. */
#include "checks.h"
#include "integers.h"
#include "profile_internal.h"
#include "tuning.h"
#include <longspan/kv.h>
#include <math.h>
#include <string.h>

#define WIDE_BITS 11
#define NARROW_BITS 8
#define DIGITS (1 << WIDE_BITS)

/* What is kept: ranks above `least`, and of those equal to it the first `equal`. */
typedef struct cut {
    uint64_t least;
    int64_t equal;
} cut;

static const cut everything = {0, INT64_MAX};
static const cut nothing = {UINT64_MAX, 0};

typedef struct select_plan {
    const lspan_context *context;
    const lspan_selection *s;
    int64_t forced; /* tokens */
    int64_t lists;
    int64_t tasks;         /* over rows */
    uint64_t *ranks;       /* [tasks, N] of the row in hand; shared: [N] */
    double *sums;          /* [N], shared */
    uint64_t *cuts;        /* [rows], joint and threshold: a row keeps ranks from here up */
    int64_t *digit_counts; /* [tasks, DIGITS], joint */
    size_t bytes;
    /* of the pass over all rows that runs in the joint scope */
    uint64_t prefix;
    int shift;
    int bits;
} select_plan;

/* ---- Ranks ------------------------------------------------------------------------------------------- */

/* NaN below minus infinity, and -0 as 0. */
static inline uint32_t order_of(float score)
{
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    uint32_t ordered = bits >> 31 ? ~bits : bits | UINT32_C(0x80000000);
    return score == score ? ordered : 0;
}

static inline uint64_t rank_of(float score, int64_t token)
{
    return (uint64_t)order_of(score) << 32 | (UINT32_MAX - (uint32_t)token);
}

static inline uint64_t rank_of_sum(double sum)
{
    uint64_t bits;
    sum += 0.0;
    memcpy(&bits, &sum, sizeof bits);
    uint64_t ordered = bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
    return sum == sum ? ordered : 0;
}

static const float *row_of(const lspan_selection *s, int64_t row)
{
    return s->tokens > 0 ? s->scores + row * s->score_row_stride : NULL;
}

/* The tokens between forced ranges: gap g is before range g, or behind the last. */
static lspan_token_range gap_of(const lspan_selection *s, int64_t g)
{
    lspan_token_range gap = {g > 0 ? s->forced[g - 1].end : 0, g < s->forced_count ? s->forced[g].begin : s->tokens};
    return gap;
}

/* ---- Radix selection --------------------------------------------------------------------------------- */

/* The digit in which the *wanted-th highest falls; *wanted becomes what is still to be taken of that digit. */
static int64_t find_digit(const int64_t *counts, int bits, int64_t *wanted)
{
    int64_t digit = (INT64_C(1) << bits) - 1;
    while (counts[digit] < *wanted) *wanted -= counts[digit--];
    return digit;
}

static int next_bits(int shift, int bits)
{
    return shift < bits ? shift : bits;
}

/* The cut that keeps the `wanted` highest of `count` ranks, 0 < wanted < count. Destroys them. */
static cut select_ranks(uint64_t *ranks, int64_t count, int64_t wanted)
{
    int64_t counts[DIGITS];
    /* the shares of a softmax begin with the same sign and exponent, or nearly: the first digit is one that differs */
    uint64_t differing = 0, least = 0;
    for (int64_t i = 1; i < count; i++) differing |= ranks[i] ^ ranks[0];
    int first = 64 - __builtin_clzll(differing | 1);
    if (first < 64) least = ranks[0] >> first << first;
    for (int shift = first; shift > 0;) {
        int bits = next_bits(shift, count < LSPAN_SELECT_WIDE ? NARROW_BITS : WIDE_BITS);
        uint64_t mask = (UINT64_C(1) << bits) - 1;
        shift -= bits;
        memset(counts, 0, sizeof *counts << bits);
        for (int64_t i = 0; i < count; i++) counts[ranks[i] >> shift & mask]++;
        uint64_t digit = (uint64_t)find_digit(counts, bits, &wanted);
        least |= digit << shift;
        if (counts[digit] == wanted) return (cut){least, INT64_MAX};
        int64_t left = 0;
        for (int64_t i = 0; i < count; i++) {
            uint64_t rank = ranks[i];
            ranks[left] = rank;
            left += (rank >> shift & mask) == digit;
        }
        count = left;
    }
    return (cut){least, wanted};
}

static cut cut_of(uint64_t *ranks, int64_t count, int64_t wanted)
{
    if (wanted <= 0) return nothing;
    return wanted >= count ? everything : select_ranks(ranks, count, wanted);
}

/* ---- Lists ------------------------------------------------------------------------------------------- */

/* `length` is never reached before the range's end, unless scores lie in the list and change with it. */
static int64_t write_range(int32_t *list, int64_t entries, int64_t length, lspan_token_range range, int32_t offset)
{
    int64_t end = lspan_min64(range.end, range.begin + length - entries);
    for (int64_t t = range.begin; t < end; t++) list[entries++] = (int32_t)t + offset;
    return entries;
}

/* The list of a row, of known length: forced tokens and those from `least` up. An entry is written before it is known
 * whether it stays, which no branch has to guess. */
static void write_row(const lspan_selection *s, int64_t row, uint64_t least, int32_t *list, int64_t length)
{
    const float *scores = row_of(s, row);
    int32_t offset = s->row_offsets ? s->row_offsets[row] : 0;
    int64_t entries = 0;
    for (int64_t g = 0; g <= s->forced_count; g++) {
        lspan_token_range gap = gap_of(s, g);
        for (int64_t t = gap.begin; t < gap.end && entries < length; t++) {
            list[entries] = (int32_t)t + offset;
            entries += rank_of(scores[t], t) >= least;
        }
        if (g < s->forced_count) entries = write_range(list, entries, length, s->forced[g], offset);
    }
}

static void write_shared(const select_plan *plan, cut kept)
{
    const lspan_selection *s = plan->s;
    int64_t entries = 0;
    for (int64_t g = 0; g <= s->forced_count; g++) {
        lspan_token_range gap = gap_of(s, g);
        for (int64_t t = gap.begin; t < gap.end && entries < s->keep; t++) {
            uint64_t rank = rank_of_sum(plan->sums[t]);
            int equal = rank == kept.least && kept.equal > 0;
            kept.equal -= equal;
            s->indices[entries] = (int32_t)t;
            entries += rank > kept.least || equal;
        }
        if (g < s->forced_count) entries = write_range(s->indices, entries, s->keep, s->forced[g], 0);
    }
}

/* ---- Rows by themselves ------------------------------------------------------------------------------ */

/* Ranks of a row's tokens that are not forced. */
static int64_t rank_row(const lspan_selection *s, int64_t row, uint64_t *ranks)
{
    const float *scores = row_of(s, row);
    int64_t count = 0;
    for (int64_t g = 0; g <= s->forced_count; g++) {
        lspan_token_range gap = gap_of(s, g);
        for (int64_t t = gap.begin; t < gap.end; t++) ranks[count++] = rank_of(scores[t], t);
    }
    return count;
}

/* Rows of a task: equal ranges. */
static lspan_token_range rows_of(const select_plan *plan, size_t task)
{
    int64_t index = (int64_t)task, share = plan->s->rows / plan->tasks, extra = plan->s->rows % plan->tasks;
    int64_t first = index * share + lspan_min64(index, extra);
    lspan_token_range rows = {first, first + share + (index < extra)};
    return rows;
}

static void select_rows(void *argument, size_t task, size_t worker)
{
    const select_plan *plan = argument;
    const lspan_selection *s = plan->s;
    uint64_t *ranks = plan->ranks + (int64_t)task * s->tokens;
    (void)worker;
    lspan_token_range rows = rows_of(plan, task);
    for (int64_t r = rows.begin; r < rows.end; r++) {
        int64_t count = rank_row(s, r, ranks);
        write_row(s, r, cut_of(ranks, count, s->keep - plan->forced).least, s->indices + r * s->keep, s->keep);
    }
}

/* Writes lists whose cuts and lengths are known. */
static void write_rows(void *argument, size_t task, size_t worker)
{
    const select_plan *plan = argument;
    const lspan_selection *s = plan->s;
    (void)worker;
    lspan_token_range rows = rows_of(plan, task);
    for (int64_t r = rows.begin; r < rows.end; r++) {
        write_row(s, r, plan->cuts[r], s->indices + s->indptr[r], s->indptr[r + 1] - s->indptr[r]);
    }
}

/* Lengths in indptr[1 ..] become offsets. */
static void add_up(int64_t *indptr, int64_t lists)
{
    indptr[0] = 0;
    for (int64_t l = 0; l < lists; l++) indptr[l + 1] += indptr[l];
}

/* ---- Threshold --------------------------------------------------------------------------------------- */

static void cut_at_threshold(void *argument, size_t task, size_t worker)
{
    const select_plan *plan = argument;
    const lspan_selection *s = plan->s;
    uint64_t *ranks = plan->ranks + (int64_t)task * s->tokens;
    uint64_t least = (uint64_t)order_of(s->threshold) << 32;
    (void)worker;
    lspan_token_range rows = rows_of(plan, task);
    for (int64_t r = rows.begin; r < rows.end; r++) {
        int64_t count = rank_row(s, r, ranks), above = 0;
        for (int64_t i = 0; i < count; i++) above += ranks[i] >= least;
        int enough = above + plan->forced >= s->keep;
        plan->cuts[r] = enough ? least : cut_of(ranks, count, s->keep - plan->forced).least;
        s->indptr[r + 1] = enough ? above + plan->forced : s->keep;
    }
}

static lspan_status select_by_threshold(select_plan *plan)
{
    LSPAN_CHECK(lspan_run_tasks(plan->context, (size_t)plan->tasks, cut_at_threshold, plan));
    add_up(plan->s->indptr, plan->lists);
    return lspan_run_tasks(plan->context, (size_t)plan->tasks, write_rows, plan);
}

/* ---- Shared ------------------------------------------------------------------------------------------ */

static void add_scores(const lspan_context *context, const void *argument, int64_t first, int64_t end)
{
    const select_plan *plan = argument;
    (void)context;
    for (int64_t t = first; t < end; t++) plan->sums[t] = 0;
    for (int64_t r = 0; r < plan->s->rows; r++) {
        const float *scores = row_of(plan->s, r);
        for (int64_t t = first; t < end; t++) plan->sums[t] += (double)scores[t];
    }
}

static lspan_status select_shared(select_plan *plan)
{
    const lspan_selection *s = plan->s;
    LSPAN_CHECK(lspan_run_rows(plan->context, s->tokens, s->rows * s->tokens, add_scores, plan));
    int64_t count = 0;
    for (int64_t g = 0; g <= s->forced_count; g++) {
        lspan_token_range gap = gap_of(s, g);
        for (int64_t t = gap.begin; t < gap.end; t++) plan->ranks[count++] = rank_of_sum(plan->sums[t]);
    }
    write_shared(plan, cut_of(plan->ranks, count, s->keep - plan->forced));
    s->indptr[0] = 0;
    s->indptr[1] = s->keep;
    return lspan_status_ok;
}

/* ---- Joint ------------------------------------------------------------------------------------------- */

/* Counts the next digit of the ranks that begin with the prefix, in the task's rows. */
static void count_digits(void *argument, size_t task, size_t worker)
{
    const select_plan *plan = argument;
    const lspan_selection *s = plan->s;
    int64_t *counts = plan->digit_counts + (int64_t)task * DIGITS;
    uint64_t mask = (UINT64_C(1) << plan->bits) - 1;
    int above = plan->shift + plan->bits; /* the prefix lies there; nothing does in the first pass */
    (void)worker;
    memset(counts, 0, sizeof *counts << plan->bits);
    lspan_token_range rows = rows_of(plan, task);
    for (int64_t r = rows.begin; r < rows.end; r++) {
        const float *scores = row_of(s, r);
        for (int64_t g = 0; g <= s->forced_count; g++) {
            lspan_token_range gap = gap_of(s, g);
            for (int64_t t = gap.begin; t < gap.end; t++) {
                uint64_t rank = rank_of(scores[t], t);
                if (above == 64 || rank >> above == plan->prefix) counts[rank >> plan->shift & mask]++;
            }
        }
    }
}

/* The cut that keeps the `wanted` highest of all rows. */
static lspan_status cut_all_rows(select_plan *plan, int64_t wanted, cut *kept)
{
    plan->prefix = 0;
    plan->shift = 64;
    while (plan->shift > 0) {
        plan->bits = next_bits(plan->shift, WIDE_BITS);
        plan->shift -= plan->bits;
        LSPAN_CHECK(lspan_run_tasks(plan->context, (size_t)plan->tasks, count_digits, plan));
        int64_t *counts = plan->digit_counts;
        for (int64_t t = 1; t < plan->tasks; t++) {
            for (int64_t d = 0; d < INT64_C(1) << plan->bits; d++) counts[d] += counts[t * DIGITS + d];
        }
        int64_t digit = find_digit(counts, plan->bits, &wanted);
        plan->prefix = plan->prefix << plan->bits | (uint64_t)digit;
        if (counts[digit] == wanted) {
            *kept = (cut){plan->prefix << plan->shift, INT64_MAX};
            return lspan_status_ok;
        }
    }
    *kept = (cut){plan->prefix, wanted};
    return lspan_status_ok;
}

static void count_kept(void *argument, size_t task, size_t worker)
{
    const select_plan *plan = argument;
    const lspan_selection *s = plan->s;
    (void)worker;
    lspan_token_range rows = rows_of(plan, task);
    for (int64_t r = rows.begin; r < rows.end; r++) {
        const float *scores = row_of(s, r);
        uint64_t least = plan->cuts[r];
        int64_t kept = plan->forced;
        for (int64_t g = 0; g <= s->forced_count; g++) {
            lspan_token_range gap = gap_of(s, g);
            for (int64_t t = gap.begin; t < gap.end; t++) kept += rank_of(scores[t], t) >= least;
        }
        s->indptr[r + 1] = kept;
    }
}

static lspan_status select_jointly(select_plan *plan)
{
    const lspan_selection *s = plan->s;
    int64_t wanted = s->keep - plan->forced * s->rows, candidates = (s->tokens - plan->forced) * s->rows;
    cut kept = wanted == 0 ? nothing : everything;
    if (wanted > 0 && wanted < candidates) LSPAN_CHECK(cut_all_rows(plan, wanted, &kept));
    int64_t token = UINT32_MAX - (int64_t)(kept.least & UINT32_MAX);
    for (int64_t r = 0; r < s->rows; r++) {
        int all_equal = kept.equal == INT64_MAX;
        /* the one token of the row that can have the rank of the cut */
        int has_cut = !all_equal && token < s->tokens && rank_of(row_of(s, r)[token], token) == kept.least;
        int takes_cut = all_equal || (has_cut && kept.equal-- > 0);
        plan->cuts[r] = kept.least + (takes_cut || kept.least == UINT64_MAX ? 0 : 1);
    }
    LSPAN_CHECK(lspan_run_tasks(plan->context, (size_t)plan->tasks, count_kept, plan));
    add_up(s->indptr, plan->lists);
    return lspan_run_tasks(plan->context, (size_t)plan->tasks, write_rows, plan);
}

/* ---- Entry points ------------------------------------------------------------------------------------ */

static lspan_status check_forced(const lspan_selection *s, int64_t *tokens)
{
    int64_t end = 0;
    *tokens = 0;
    if (s->forced_count < 0) return lspan_status_bad_shape;
    if (s->forced_count > 0 && !s->forced) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(s->forced, _Alignof(lspan_token_range)));
    LSPAN_CHECK(lspan_check_count(s->forced_count, sizeof *s->forced));
    for (int64_t i = 0; i < s->forced_count; i++) {
        lspan_token_range range = s->forced[i];
        if (range.begin < end || range.end < range.begin || range.end > s->tokens) return lspan_status_bad_index;
        *tokens += range.end - range.begin;
        end = range.end;
    }
    return lspan_status_ok;
}

/* Where everything lies in a workspace, which may be NULL. */
static void lay_out(select_plan *plan, void *workspace)
{
    const lspan_selection *s = plan->s;
    size_t line = LSPAN_WORKSPACE_ALIGNMENT, at = 0, tokens = (size_t)s->tokens, tasks = (size_t)plan->tasks;
    int shared = s->scope == lspan_select_scope_shared, joint = s->scope == lspan_select_scope_joint;
    size_t sizes[] = {
        joint ? 0 : shared ? tokens * sizeof(uint64_t) : tasks * tokens * sizeof(uint64_t),
        shared ? tokens * sizeof(double) : 0,
        joint || s->scope == lspan_select_scope_threshold ? (size_t)s->rows * sizeof(uint64_t) : 0,
        joint ? tasks * DIGITS * sizeof(int64_t) : 0};
    void *parts[4];
    for (int i = 0; i < 4; i++) {
        parts[i] = workspace ? (char *)workspace + at : NULL;
        at += (sizes[i] + line - 1) / line * line;
    }
    plan->ranks = parts[0];
    plan->sums = parts[1];
    plan->cuts = parts[2];
    plan->digit_counts = parts[3];
    plan->bytes = at;
}

static lspan_status plan_selection(const lspan_context *context, const lspan_selection *s, select_plan *plan)
{
    int64_t elements, room;
    if (!context || !s) return lspan_status_null_pointer;
    if ((int)s->scope < 0 || s->scope > lspan_select_scope_threshold) return lspan_status_bad_value;
    if (s->scope == lspan_select_scope_threshold && isnan(s->threshold)) return lspan_status_bad_value;
    if (s->rows < 0 || s->tokens < 0 || s->tokens > INT32_MAX || s->rows == INT64_MAX) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_multiply(s->rows, s->tokens, &elements));
    LSPAN_CHECK(lspan_multiply(elements, (int64_t)sizeof(uint64_t), &room));
    *plan = (select_plan){.context = context, .s = s};
    LSPAN_CHECK(check_forced(s, &plan->forced));
    int joint = s->scope == lspan_select_scope_joint;
    if (s->keep < (joint ? plan->forced * s->rows : plan->forced) || s->keep > (joint ? elements : s->tokens)) {
        return lspan_status_bad_shape;
    }
    plan->lists = s->scope == lspan_select_scope_shared ? 1 : s->rows;
    plan->tasks = elements < LSPAN_SELECT_SERIAL ? 1 : (int64_t)context->split;
    plan->tasks = lspan_max64(1, lspan_min64(plan->tasks, s->rows));
    lay_out(plan, NULL);
    return lspan_status_ok;
}

static lspan_status check_offsets(const lspan_selection *s)
{
    if (!s->row_offsets) return lspan_status_ok;
    if (s->scope == lspan_select_scope_shared) return lspan_status_bad_value;
    LSPAN_CHECK(lspan_check_aligned(s->row_offsets, sizeof *s->row_offsets));
    for (int64_t r = 0; r < s->rows && s->tokens > 0; r++) {
        if (s->row_offsets[r] < 0 || s->row_offsets[r] > INT32_MAX - (s->tokens - 1)) return lspan_status_overflow;
    }
    return lspan_status_ok;
}

static lspan_status check_selection(const select_plan *plan)
{
    const lspan_selection *s = plan->s;
    int64_t room = s->keep;
    if (s->scope == lspan_select_scope_row) room = s->rows * s->keep;
    if (s->scope == lspan_select_scope_threshold) room = s->rows * s->tokens;
    if (s->capacity < room) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_check_count(s->capacity, sizeof *s->indices));
    lspan_matrix scores = {s->scores, lspan_dtype_f32, s->score_row_stride};
    LSPAN_CHECK(lspan_check_matrix(scores, s->rows, s->tokens));
    if (!s->indptr || (room > 0 && !s->indices)) return lspan_status_null_pointer;
    LSPAN_CHECK(lspan_check_aligned(s->indptr, sizeof *s->indptr));
    LSPAN_CHECK(lspan_check_count(plan->lists, sizeof *s->indptr));
    LSPAN_CHECK(lspan_check_aligned(s->indices, sizeof *s->indices));
    return check_offsets(s);
}

static lspan_status run_selection(select_plan *plan)
{
    const lspan_selection *s = plan->s;
    switch (s->scope) {
    case lspan_select_scope_shared:
        return select_shared(plan);
    case lspan_select_scope_joint:
        return select_jointly(plan);
    case lspan_select_scope_threshold:
        return select_by_threshold(plan);
    default:
        for (int64_t r = 0; r <= s->rows; r++) s->indptr[r] = r * s->keep;
        return lspan_run_tasks(plan->context, (size_t)plan->tasks, select_rows, plan);
    }
}

lspan_status lspan_select_workspace_size(const lspan_context *context, const lspan_selection *selection, size_t *bytes)
{
    select_plan plan;
    if (!bytes) return lspan_status_null_pointer;
    LSPAN_CHECK(plan_selection(context, selection, &plan));
    *bytes = plan.bytes;
    return lspan_status_ok;
}

lspan_status lspan_select(
    const lspan_context *context, const lspan_selection *selection, void *workspace, size_t workspace_bytes)
{
    select_plan plan;
    LSPAN_CHECK(plan_selection(context, selection, &plan));
    LSPAN_CHECK(check_selection(&plan));
    LSPAN_CHECK(lspan_check_workspace(workspace, workspace_bytes, plan.bytes));
    lay_out(&plan, workspace);
    uint64_t began = lspan_profile_begin(context);
    lspan_status status = run_selection(&plan);
    if (lspan_profile_wants(began, status)) {
        lspan_cost cost = lspan_select_cost(selection);
        lspan_profile_record(context, began, lspan_profile_kernel_select, lspan_dtype_f32, cost);
    }
    return status;
}
