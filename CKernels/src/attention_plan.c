/* attention_plan.c: how attention calls are cut into tasks. */
#include "attention_plan.h"
#include "checks.h"
#include "kernels/attention_mask.h"
#include "kernels/attention_scratch.h"

static int64_t quotient_up(int64_t x, int64_t divisor)
{
    return x / divisor + (x % divisor != 0);
}

static int64_t tokens_of(const lspan_attention *a, int64_t b)
{
    return a->query_indptr[b + 1] - a->query_indptr[b];
}

static int64_t slots_of(const lspan_attention *a, int64_t b)
{
    return a->kv_indptr[b + 1] - a->kv_indptr[b];
}

static int64_t longest_query(const lspan_attention *a)
{
    int64_t longest = 0;
    for (int64_t b = 0; b < a->sequences; b++) longest = lspan_max64(longest, tokens_of(a, b));
    return longest;
}

/* ---- Keys ------------------------------------------------------------------------------------------ */

int64_t lspan_list_tiles(const lspan_sparse_attention *sparse, int64_t sequence)
{
    if (sparse->query_tokens == 0) return 1;
    return quotient_up(tokens_of(&sparse->attention, sequence), sparse->query_tokens);
}

int64_t lspan_list_block(const lspan_sparse_attention *sparse, int64_t sequence)
{
    return lspan_min64(sparse->block, lspan_max64(1, slots_of(&sparse->attention, sequence)));
}

/* Numbers begin .. end-1 of a list. */
static lspan_key_segments listed_keys(
    const lspan_sparse_attention *sparse, int64_t sequence, int64_t list, int64_t begin, int64_t end)
{
    lspan_key_segments keys = {.count = 1, .listed = 1};
    keys.at[0] = (lspan_key_segment){
        begin, end, sparse->indices + sparse->indptr[list], lspan_list_block(sparse, sequence)};
    return keys;
}

static int64_t list_length(const lspan_sparse_attention *sparse, int64_t list)
{
    return sparse->indptr[list + 1] - sparse->indptr[list];
}

/* Keys begin .. end-1 of those that a tile of rows sees, counted without the gap between sinks and window. */
static lspan_key_segments seen_keys(lspan_row_keys seen, int64_t begin, int64_t end)
{
    lspan_key_segments keys = {.count = 2};
    int64_t gap = seen.low - seen.sinks;
    keys.at[0] = (lspan_key_segment){begin, lspan_min64(end, seen.sinks), NULL, 1};
    keys.at[1] = (lspan_key_segment){lspan_max64(begin, seen.sinks) + gap, end + gap, NULL, 1};
    return keys;
}

/* Keys of a tile of queries that ends at slot `end` - 1, all in one lag window or before the first. */
static lspan_key_segments lagged_keys(const lspan_lag_attention *lag, int64_t kv_head, int64_t end)
{
    lspan_key_segments keys = {.count = 1};
    int64_t kept = end > lag->leading ? lspan_kept_windows(lag, (end - 1 - lag->leading) / lag->lag) : 0;
    if (kept == 0) {
        keys.at[0] = (lspan_key_segment){0, lspan_max64(0, end), NULL, 1};
        return keys;
    }
    keys.count = 3;
    keys.listed = 1;
    keys.at[0] = (lspan_key_segment){0, lag->leading, NULL, 1};
    keys.at[1] = (lspan_key_segment){0, kept * lag->keep, lag->kept + kv_head * lag->kept_windows * lag->keep, 1};
    keys.at[2] = (lspan_key_segment){lag->leading + kept * lag->lag, end, NULL, 1};
    return keys;
}

/* ---- Prefill --------------------------------------------------------------------------------------- */

/* The query tokens of a sequence: `lead` of them, then periods of which the first lacks its first `skip` tokens. A tile
 * lies in the lead or in one period. */
typedef struct prefill_sections {
    int64_t tokens;
    int64_t lead;
    int64_t skip;
    int64_t period;
} prefill_sections;

static prefill_sections sections_of(const lspan_prefill_plan *plan, int64_t b)
{
    prefill_sections s = {tokens_of(plan->attention, b), 0, 0, INT64_MAX};
    if (plan->sparse && plan->sparse->query_tokens > 0) s.period = plan->sparse->query_tokens;
    if (plan->lag) {
        int64_t behind = slots_of(plan->attention, b) - plan->lag->leading;
        s.period = plan->lag->lag;
        s.lead = lspan_clamp64(s.tokens - behind, 0, s.tokens);
        s.skip = lspan_max64(0, behind - s.tokens) % s.period;
    }
    return s;
}

/* Tiles of `length` tokens from the start of a period on. */
static int64_t tiles_in_periods(int64_t length, int64_t period, int64_t tile)
{
    return length / period * quotient_up(lspan_min64(period, length), tile) + quotient_up(length % period, tile);
}

static int64_t prefill_tiles(const lspan_prefill_plan *plan, int64_t b)
{
    prefill_sections s = sections_of(plan, b);
    int64_t tile = plan->tile_tokens, rest = s.tokens - s.lead;
    int64_t tiles = quotient_up(s.lead, tile);
    if (rest > 0) tiles += tiles_in_periods(s.skip + rest, s.period, tile) - s.skip / tile;
    return tiles;
}

/* Tile `index` of a sequence: its tokens, and the period that they are in. */
static int64_t find_tile(const lspan_prefill_plan *plan, int64_t b, int64_t index, lspan_prefill_task *task)
{
    prefill_sections s = sections_of(plan, b);
    int64_t tile = plan->tile_tokens, lead = quotient_up(s.lead, tile);
    if (index < lead) {
        task->first = index * tile;
        task->count = lspan_min64(tile, s.lead - task->first);
        return 0;
    }
    int64_t length = s.skip + s.tokens - s.lead, in_period = quotient_up(lspan_min64(s.period, length), tile);
    int64_t at = index - lead + s.skip / tile, period = at / in_period;
    int64_t begin = period * s.period + at % in_period * tile;
    int64_t left = lspan_min64(length - begin, s.period - at % in_period * tile);
    int64_t skipped = lspan_max64(0, s.skip - begin);
    task->first = s.lead - s.skip + begin + skipped;
    task->count = lspan_min64(tile, left) - skipped;
    return period;
}

lspan_status lspan_plan_prefill(lspan_prefill_plan *plan)
{
    const lspan_attention *a = plan->attention;
    int64_t group = a->query_heads / a->kv_heads;
    int64_t enough = LSPAN_PREFILL_TASKS_PER_WORKER * (int64_t)plan->context->split;
    int64_t period = plan->lag ? plan->lag->lag : plan->sparse ? plan->sparse->query_tokens : 0;
    int64_t longest = longest_query(a);
    if (period > 0) longest = lspan_min64(longest, period);
    for (int64_t rows = LSPAN_PREFILL_ROWS;; rows /= 2) {
        plan->tile_tokens = lspan_max64(1, lspan_min64(rows / group, longest));
        /* a period in equal tiles, a third longer rather than one more of them: each packs the keys anew */
        if (period > 0 && longest > 0) {
            plan->tile_tokens = quotient_up(longest, quotient_up(longest - longest / 4, plan->tile_tokens));
        }
        plan->tasks = 0;
        for (int64_t b = 0; b < a->sequences; b++) {
            int64_t tasks;
            LSPAN_CHECK(lspan_multiply(prefill_tiles(plan, b), a->kv_heads, &tasks));
            if (__builtin_add_overflow(plan->tasks, tasks, &plan->tasks)) return lspan_status_overflow;
        }
        if (plan->tasks >= enough || rows / 2 < LSPAN_PREFILL_LEAST_ROWS) break;
    }
    plan->scratch_bytes = lspan_cut_scratch(NULL, plan->tile_tokens * group, a->head_dim, LSPAN_PREFILL_KEYS, 1).bytes;
    return lspan_status_ok;
}

size_t lspan_prefill_bytes(const lspan_prefill_plan *plan)
{
    return plan->tasks == 0 ? 0 : plan->scratch_bytes * plan->context->executor.worker_count;
}

static lspan_key_segments prefill_keys(
    const lspan_prefill_plan *plan, const lspan_prefill_task *task, int64_t list_tile)
{
    const lspan_attention *a = plan->attention;
    int64_t tokens = tokens_of(a, task->sequence), keys = lspan_keys_of_head(a, task->sequence, task->kv_head);
    if (plan->lag) return lagged_keys(plan->lag, task->kv_head, keys - tokens + task->first + task->count);
    if (plan->sparse) {
        int64_t list = list_tile * plan->sparse->list_heads + (plan->sparse->list_heads == 1 ? 0 : task->kv_head);
        int64_t length = list_length(plan->sparse, list) * lspan_list_block(plan->sparse, task->sequence);
        return listed_keys(plan->sparse, task->sequence, list, 0, length);
    }
    lspan_row_keys seen = lspan_keys_of_rows(a, task->first, task->first + task->count - 1, tokens, keys);
    return seen_keys(seen, 0, seen.sinks + seen.high - seen.low);
}

/* Later query tiles see more keys when causal, so they go first and the short ones even out the end. */
static void run_prefill_task(void *argument, size_t index, size_t worker)
{
    const lspan_prefill_plan *plan = argument;
    const lspan_attention *a = plan->attention;
    int64_t rest = plan->tasks - 1 - (int64_t)index;
    int64_t b = 0, list_tile = 0, tasks;
    while (rest >= (tasks = prefill_tiles(plan, b) * a->kv_heads)) {
        rest -= tasks;
        if (plan->sparse) list_tile += lspan_list_tiles(plan->sparse, b);
        b++;
    }
    lspan_prefill_task task;
    task.sequence = b;
    task.kv_head = rest % a->kv_heads;
    list_tile += find_tile(plan, b, rest / a->kv_heads, &task);
    task.segments = prefill_keys(plan, &task, list_tile);
    plan->context->kernels->attention_prefill(a, task, plan->scratch + worker * plan->scratch_bytes);
}

lspan_status lspan_run_prefill(lspan_prefill_plan *plan, void *workspace)
{
    plan->scratch = workspace;
    return lspan_run_tasks(plan->context, (size_t)plan->tasks, run_prefill_task, plan);
}

/* ---- Decode ---------------------------------------------------------------------------------------- */

/* A (sequence, head) pair's share of the plan. */
typedef struct decode_unit {
    int64_t tokens;
    int64_t visible; /* keys that at least one of its queries sees, or numbers of its list */
    int64_t parts;   /* tasks */
    int64_t rows;    /* T * G */
} decode_unit;

static int64_t visible_keys(const lspan_decode_plan *plan, int64_t b, int64_t head, int64_t list)
{
    const lspan_attention *a = plan->attention;
    int64_t tokens = tokens_of(a, b);
    if (tokens == 0) return 0;
    if (plan->sparse) return list_length(plan->sparse, list) * lspan_list_block(plan->sparse, b);
    lspan_row_keys seen = lspan_keys_of_rows(a, 0, tokens - 1, tokens, lspan_keys_of_head(a, b, head));
    return seen.sinks + seen.high - seen.low;
}

static decode_unit unit_of(const lspan_decode_plan *plan, int64_t b, int64_t head, int64_t list)
{
    const lspan_attention *a = plan->attention;
    decode_unit u;
    u.tokens = tokens_of(a, b);
    u.visible = visible_keys(plan, b, head, list);
    u.parts = u.tokens == 0 ? 0 : lspan_max64(1, quotient_up(u.visible, plan->chunk));
    u.rows = u.tokens * (a->query_heads / a->kv_heads);
    return u;
}

/* The list of a head of sequence b, whose first list tile is `tile`. */
static int64_t list_of(const lspan_decode_plan *plan, int64_t tile, int64_t head)
{
    if (!plan->sparse) return 0;
    return tile * plan->sparse->list_heads + (plan->sparse->list_heads == 1 ? 0 : head);
}

static lspan_status count_visible(const lspan_decode_plan *plan, int64_t *total)
{
    const lspan_attention *a = plan->attention;
    int64_t tile = 0;
    *total = 0;
    for (int64_t b = 0; b < a->sequences; b++) {
        for (int64_t h = 0; h < a->kv_heads && tokens_of(a, b) > 0; h++) {
            int64_t list = list_of(plan, tile, h), numbers;
            if (plan->sparse) {
                int64_t block = lspan_list_block(plan->sparse, b);
                LSPAN_CHECK(lspan_multiply(list_length(plan->sparse, list), block, &numbers));
            }
            if (__builtin_add_overflow(*total, visible_keys(plan, b, h, list), total)) return lspan_status_overflow;
        }
        if (plan->sparse) tile += lspan_list_tiles(plan->sparse, b);
    }
    return lspan_status_ok;
}

/* Sums up tasks and partial rows, and writes where those of each unit begin, if there are places. */
static int64_t place_units(lspan_decode_plan *plan, lspan_decode_place *places)
{
    const lspan_attention *a = plan->attention;
    int64_t tile = 0, most_rows = 1;
    plan->tasks = 0;
    plan->partial_rows = 0;
    for (int64_t b = 0; b < a->sequences; b++) {
        for (int64_t h = 0; h < a->kv_heads; h++) {
            lspan_decode_place place = {plan->tasks, plan->partial_rows, list_of(plan, tile, h)};
            decode_unit u = unit_of(plan, b, h, place.list);
            if (places) places[b * a->kv_heads + h] = place;
            plan->tasks += u.parts;
            if (u.parts > 1) plan->partial_rows += u.parts * u.rows;
            most_rows = lspan_max64(most_rows, u.rows);
        }
        if (plan->sparse) tile += lspan_list_tiles(plan->sparse, b);
    }
    return most_rows;
}

lspan_status lspan_plan_decode(lspan_decode_plan *plan)
{
    const lspan_attention *a = plan->attention;
    int64_t total, place_bytes;
    if (longest_query(a) > LSPAN_ATTENTION_MAX_DECODE_TOKENS) return lspan_status_bad_shape;
    LSPAN_CHECK(lspan_multiply(a->sequences, a->kv_heads, &plan->units));
    LSPAN_CHECK(lspan_multiply(plan->units, (int64_t)sizeof(lspan_decode_place), &place_bytes));
    LSPAN_CHECK(count_visible(plan, &total));
    int64_t workers = (int64_t)plan->context->split;
    int64_t share = total / (workers * LSPAN_DECODE_TASKS_PER_WORKER) + 1;
    plan->chunk = workers == 1 ? INT64_MAX
                               : lspan_round_up(lspan_max64(share, LSPAN_DECODE_MIN_SPLIT), LSPAN_DECODE_KEYS);
    int64_t most_rows = place_units(plan, NULL);
    plan->scratch_bytes = lspan_cut_scratch(NULL, most_rows, a->head_dim, LSPAN_DECODE_KEYS, 0).bytes;
    /* Memory for one number of keys does for any: a part has at most the keys of a chunk, which are more than the share of
     * a task, so there are fewer full parts than tasks, and each unit that is cut has at most one that is not full. */
    int64_t tasks = workers == 1 ? 0 : workers * LSPAN_DECODE_TASKS_PER_WORKER;
    plan->partial_capacity = (tasks + lspan_min64(tasks, plan->units)) * most_rows;
    return lspan_status_ok;
}

/* Byte offsets of what lies behind the workers' scratch, and the whole size. */
typedef struct decode_layout {
    size_t places;
    size_t outputs;
    size_t log_sum_exps;
    size_t bytes;
} decode_layout;

static decode_layout layout_of(const lspan_decode_plan *plan)
{
    decode_layout l = {0, 0, 0, 0};
    if (plan->tasks == 0) return l;
    size_t rows = (size_t)plan->partial_capacity, places = (size_t)plan->units * sizeof(lspan_decode_place);
    l.places = plan->scratch_bytes * plan->context->executor.worker_count;
    l.outputs = l.places + (size_t)lspan_round_up((int64_t)places, LSPAN_WORKSPACE_ALIGNMENT);
    l.log_sum_exps = l.outputs + rows * (size_t)plan->attention->head_dim * sizeof(float);
    l.bytes = (size_t)lspan_round_up((int64_t)(l.log_sum_exps + rows * sizeof(float)), LSPAN_WORKSPACE_ALIGNMENT);
    return l;
}

size_t lspan_decode_bytes(const lspan_decode_plan *plan)
{
    return layout_of(plan).bytes;
}

/* The unit of a task: the last one that begins at it or before and has tasks. */
static int64_t find_unit(const lspan_decode_plan *plan, int64_t task)
{
    int64_t low = 0, high = plan->units;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (plan->places[middle].task <= task) low = middle;
        else high = middle;
    }
    return low;
}

static lspan_key_segments decode_keys(
    const lspan_decode_plan *plan, const lspan_decode_task *task, int64_t tokens, int64_t list, int64_t begin, int64_t end)
{
    const lspan_attention *a = plan->attention;
    if (plan->sparse) return listed_keys(plan->sparse, task->sequence, list, begin, end);
    int64_t keys = lspan_keys_of_head(a, task->sequence, task->kv_head);
    return seen_keys(lspan_keys_of_rows(a, 0, tokens - 1, tokens, keys), begin, end);
}

static void run_decode_task(void *argument, size_t index, size_t worker)
{
    const lspan_decode_plan *plan = argument;
    const lspan_attention *a = plan->attention;
    const lspan_kernels *kernels = plan->context->kernels;
    int64_t unit = find_unit(plan, (int64_t)index), group = a->query_heads / a->kv_heads;
    lspan_decode_place place = plan->places[unit];
    lspan_decode_task task;
    task.sequence = unit / a->kv_heads;
    task.kv_head = unit % a->kv_heads;
    decode_unit u = unit_of(plan, task.sequence, task.kv_head, place.list);
    int64_t part = (int64_t)index - place.task, query0 = a->query_indptr[task.sequence];
    int64_t begin = part * plan->chunk, end = u.visible - begin > plan->chunk ? begin + plan->chunk : u.visible;
    task.segments = decode_keys(plan, &task, u.tokens, place.list, begin, end);
    if (u.parts == 1) {
        task.output = a->output + query0 * a->output_token_stride + task.kv_head * group * a->output_head_stride;
        task.output_token_stride = a->output_token_stride;
        task.output_head_stride = a->output_head_stride;
        task.log_sum_exp = a->log_sum_exp ? a->log_sum_exp + query0 * a->query_heads + task.kv_head * group : NULL;
        task.log_sum_exp_stride = a->query_heads;
    } else {
        int64_t row = place.partial + part * u.rows;
        task.output = plan->partial_outputs + row * a->head_dim;
        task.output_token_stride = group * a->head_dim;
        task.output_head_stride = a->head_dim;
        task.log_sum_exp = plan->partial_log_sum_exps + row;
        task.log_sum_exp_stride = group;
    }
    int gather = plan->sparse || a->key_rotation;
    void *scratch = plan->scratch + worker * plan->scratch_bytes;
    (gather ? kernels->attention_decode_gather : kernels->attention_decode)(a, task, scratch);
}

/* Merges the parts of one unit. */
static void run_merge_task(void *argument, size_t index, size_t worker)
{
    const lspan_decode_plan *plan = argument;
    const lspan_attention *a = plan->attention;
    (void)worker;
    int64_t group = a->query_heads / a->kv_heads, sequence = (int64_t)index / a->kv_heads;
    int64_t head = (int64_t)index % a->kv_heads;
    lspan_decode_place place = plan->places[index];
    decode_unit u = unit_of(plan, sequence, head, place.list);
    if (u.parts <= 1) return;
    lspan_merge merge = {
        u.parts, u.rows, a->head_dim, plan->partial_outputs + place.partial * a->head_dim,
        plan->partial_log_sum_exps + place.partial};
    for (int64_t r = 0; r < u.rows; r++) {
        int64_t token = a->query_indptr[sequence] + r / group, query_head = head * group + r % group;
        float *output = a->output + token * a->output_token_stride + query_head * a->output_head_stride;
        float *lse = a->log_sum_exp ? a->log_sum_exp + token * a->query_heads + query_head : NULL;
        plan->context->kernels->attention_merge(&merge, r, output, lse);
    }
}

lspan_status lspan_run_decode(lspan_decode_plan *plan, void *workspace)
{
    if (plan->tasks == 0) return lspan_status_ok;
    decode_layout layout = layout_of(plan);
    plan->scratch = workspace;
    plan->places = (lspan_decode_place *)(void *)(plan->scratch + layout.places);
    plan->partial_outputs = (float *)(void *)(plan->scratch + layout.outputs);
    plan->partial_log_sum_exps = (float *)(void *)(plan->scratch + layout.log_sum_exps);
    place_units(plan, plan->places);
    LSPAN_CHECK(lspan_run_tasks(plan->context, (size_t)plan->tasks, run_decode_task, plan));
    if (plan->partial_rows == 0) return lspan_status_ok;
    return lspan_run_tasks(plan->context, (size_t)plan->units, run_merge_task, plan);
}
