/* attention_fuzz.c: targets of attention.h and sparse.h. */
#include "fuzz.h"
#include <string.h>

/* A call and what its pointers point to. */
typedef struct drawn_attention {
    lspan_attention a;
    lspan_key_rotation rotation;
    int64_t tokens;
    int64_t slots;
} drawn_attention;

static void draw_kv_lengths(fuzz *f, lspan_attention *a)
{
    a->kv_lengths = NULL;
    if (fuzz_below(f, 4) != 0 || a->sequences < 0 || a->sequences > 6 || a->kv_heads < 0 || a->kv_heads > 8) return;
    int64_t *lengths = fuzz_indices(f, a->sequences * a->kv_heads, sizeof *lengths);
    a->kv_lengths = lengths;
    if (!fuzz_usable(lengths, sizeof *lengths) || !fuzz_usable(a->kv_indptr, 8)) return;
    for (int64_t b = 0; b < a->sequences; b++) {
        uint64_t slots = (uint64_t)a->kv_indptr[b + 1] - (uint64_t)a->kv_indptr[b];
        for (int64_t h = 0; h < a->kv_heads; h++) {
            lengths[b * a->kv_heads + h] = slots < 1000 ? (int64_t)(fuzz_bits(f) % (slots + 1)) : 0;
            if (fuzz_wild(f, 40)) lengths[b * a->kv_heads + h] = fuzz_bad_number(f);
        }
    }
}

static void draw_rotation(fuzz *f, drawn_attention *d)
{
    static const int32_t layouts[] = {lspan_rope_layout_halves, lspan_rope_layout_interleaved};
    lspan_attention *a = &d->a;
    a->key_rotation = NULL;
    if (fuzz_below(f, 4) != 0) return;
    lspan_key_rotation *r = &d->rotation;
    a->key_rotation = r;
    r->layout = (lspan_rope_layout)fuzz_code(f, layouts, 2);
    r->pairs = fuzz_dim(f, 1, 4);
    r->rows = fuzz_dim(f, 0, 100);
    r->positions = NULL;
    if (fuzz_below(f, 2) && d->slots >= 0 && d->slots < 1000) {
        int32_t *positions = fuzz_indices(f, d->slots, sizeof *positions);
        r->positions = positions;
        for (int64_t s = 0; fuzz_usable(positions, 4) && s < d->slots; s++) {
            positions[s] = (int32_t)(fuzz_bits(f) % (uint64_t)(r->rows > 0 ? r->rows : 1));
            if (fuzz_wild(f, 60)) positions[s] = (int32_t)fuzz_bad_number(f);
        }
    }
    fuzz_input(f, &r->cosine, fuzz_count(r->rows, r->pairs, 1, 4), fuzz_f32);
    fuzz_input(f, &r->sine, fuzz_count(r->rows, r->pairs, 1, 4), fuzz_f32);
}

/* `decode`: few query tokens a sequence. */
static void draw_attention(fuzz *f, drawn_attention *d, int64_t sequences, int64_t most_tokens)
{
    lspan_attention *a = &d->a;
    memset(d, 0, sizeof *d);
    int64_t group = 1 + (int64_t)fuzz_below(f, 4);
    a->sequences = fuzz_dim(f, 0, sequences);
    a->kv_heads = fuzz_dim(f, 1, 3);
    a->query_heads = a->kv_heads >= 1 && a->kv_heads <= 3 && !fuzz_wild(f, 12) ? a->kv_heads * group : fuzz_dim(f, 1, 8);
    a->head_dim = fuzz_dim(f, 1, 32);
    if (a->head_dim >= 1 && a->head_dim <= 32) a->head_dim = 8 * (fuzz_below(f, 8) ? 1 + a->head_dim % 4 : a->head_dim);
    a->query_indptr = fuzz_indptr(f, a->sequences, fuzz_below(f, 4) ? 4 : most_tokens, &d->tokens);
    a->kv_indptr = fuzz_indptr(f, a->sequences, fuzz_below(f, 4) ? 12 : 40, &d->slots);
    draw_kv_lengths(f, a);
    a->queries.dtype = fuzz_dtype(f);
    a->keys.dtype = fuzz_dtype(f);
    a->values.dtype = fuzz_wild(f, 8) ? fuzz_dtype(f) : a->keys.dtype;
    fuzz_work(f, d->tokens, a->query_heads, a->head_dim, d->slots / 8 + 1);
    fuzz_heads_input(f, &a->queries, d->tokens, a->query_heads, a->head_dim);
    fuzz_heads_input(f, &a->keys, d->slots, a->kv_heads, a->head_dim);
    fuzz_heads_input(f, &a->values, d->slots, a->kv_heads, a->head_dim);
    draw_rotation(f, d);
    a->scale = fuzz_float(f, 0.25f);
    a->softcap = fuzz_float(f, fuzz_below(f, 4) ? 0.0f : 3.0f);
    a->causal = fuzz_flag(f);
    a->window = fuzz_below(f, 2) ? 0 : fuzz_dim(f, 0, 20);
    a->sinks = fuzz_below(f, 2) ? 0 : fuzz_dim(f, 0, 20);
}

/* Places all operands. The output's view is kept apart because the call names its parts. */
static void place_attention(fuzz *f, drawn_attention *d)
{
    lspan_attention *a = &d->a;
    lspan_heads_out output = {.dtype = lspan_dtype_f32};
    fuzz_heads_output(f, &output, d->tokens, a->query_heads, a->head_dim);
    fuzz_optional(f, &a->log_sum_exp, fuzz_count(d->tokens, a->query_heads, 1, 4), fuzz_f32, 1);
    fuzz_place(f);
    a->output = output.data;
    a->output_token_stride = output.token_stride;
    a->output_head_stride = output.head_stride;
}

static void fuzz_attention_prefill(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    drawn_attention d;
    draw_attention(f, &d, 4, 30);
    place_attention(f, &d);
    const lspan_attention *call = fuzz_wild(f, 64) ? NULL : &d.a;
    FUZZ_RUN(f, context, call, lspan_attention_prefill_workspace_size, lspan_attention_prefill);
}

static void fuzz_attention_decode(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    drawn_attention d;
    draw_attention(f, &d, 4, fuzz_wild(f, 16) ? 10 : 8);
    place_attention(f, &d);
    const lspan_attention *call = fuzz_wild(f, 64) ? NULL : &d.a;
    FUZZ_RUN(f, context, call, lspan_attention_decode_workspace_size, lspan_attention_decode);
}

static void fuzz_attention_merge(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    int64_t parts = fuzz_dim(f, 0, 6), rows = fuzz_dim(f, 0, 12), head_dim = fuzz_dim(f, 1, 70);
    const float *outputs, *sums;
    float *output, *sum;
    fuzz_work(f, parts, rows, head_dim, 1);
    fuzz_work(f, 1, rows, head_dim, 1);
    fuzz_input(f, &outputs, fuzz_count(parts, rows, head_dim, 4), fuzz_f32);
    fuzz_input(f, &sums, fuzz_count(parts, rows, 1, 4), fuzz_f32);
    fuzz_output(f, &output, fuzz_count(rows, head_dim, 1, 4), fuzz_f32);
    fuzz_optional(f, &sum, fuzz_count(rows, 1, 1, 4), fuzz_f32, 1);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_attention_merge(context, parts, rows, head_dim, outputs, sums, output, sum));
}

/* ---- Index lists --------------------------------------------------------------------------------------- */

/* Entries of all lists, good ones but for the wild. */
static void draw_lists(fuzz *f, lspan_sparse_attention *s)
{
    const lspan_attention *a = &s->attention;
    int good = a->sequences >= 0 && a->sequences < 10 && fuzz_usable(a->query_indptr, 8) && fuzz_usable(a->kv_indptr, 8);
    int64_t lists = 0, heads = s->list_heads == 1 ? 1 : a->kv_heads, entries = 0, owner[512];
    for (int64_t b = 0; good && b < a->sequences; b++) {
        __int128 tokens = (__int128)a->query_indptr[b + 1] - a->query_indptr[b];
        if (tokens < 0 || tokens > 1000 || s->query_tokens < 0 || heads < 0 || heads > 8) {
            good = 0;
            break;
        }
        int64_t tiles = s->query_tokens == 0 ? 1 : (int64_t)tokens / s->query_tokens +
                (int64_t)(tokens % s->query_tokens != 0);
        for (int64_t l = 0; l < tiles * heads; l++) {
            if (lists == 512) {
                good = 0;
                break;
            }
            owner[lists++] = b;
        }
    }
    /* calls with shapes like these are refused at the latest because of it */
    if (!good) return;
    s->indptr = fuzz_indptr(f, lists, 6, &entries);
    int32_t *indices = fuzz_indices(f, entries, sizeof *indices);
    s->indices = indices;
    if (!fuzz_usable(indices, 4) || !fuzz_usable(s->indptr, 8)) return;
    for (int64_t l = 0; l < lists; l++) {
        int64_t begin = s->indptr[l], end = s->indptr[l + 1], b = owner[l];
        if (begin < 0 || end > entries) continue;
        uint64_t slots = (uint64_t)a->kv_indptr[b + 1] - (uint64_t)a->kv_indptr[b];
        uint64_t block = s->block > 0 ? (uint64_t)s->block : 1, limit = slots / block + (slots % block != 0);
        for (int64_t i = begin; i < end; i++) {
            indices[i] = limit > 0 && limit < 1000 ? (int32_t)(fuzz_bits(f) % limit) : 0;
            if (fuzz_wild(f, 60)) indices[i] = (int32_t)fuzz_bad_number(f);
        }
    }
}

static void draw_sparse(fuzz *f, drawn_attention *d, lspan_sparse_attention *s, int64_t most_tokens)
{
    draw_attention(f, d, 3, most_tokens);
    *s = (lspan_sparse_attention){.attention = d->a, .block = fuzz_dim(f, 1, 9)};
    s->list_heads = fuzz_wild(f, 8) ? fuzz_dim(f, 0, 4) : fuzz_below(f, 2) ? 1 : d->a.kv_heads;
    s->query_tokens = fuzz_below(f, 2) ? 0 : fuzz_dim(f, most_tokens == 8 ? 8 : 1, 40);
    draw_lists(f, s);
    place_attention(f, d);
    s->attention = d->a;
}

static void fuzz_sparse_prefill(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    drawn_attention d;
    lspan_sparse_attention s;
    draw_sparse(f, &d, &s, 20);
    const lspan_sparse_attention *call = fuzz_wild(f, 64) ? NULL : &s;
    FUZZ_RUN(f, context, call, lspan_sparse_prefill_workspace_size, lspan_sparse_prefill);
}

static void fuzz_sparse_decode(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    drawn_attention d;
    lspan_sparse_attention s;
    draw_sparse(f, &d, &s, 8);
    const lspan_sparse_attention *call = fuzz_wild(f, 64) ? NULL : &s;
    FUZZ_RUN(f, context, call, lspan_sparse_decode_workspace_size, lspan_sparse_decode);
}

/* ---- Lag windows --------------------------------------------------------------------------------------- */

static void draw_kept(fuzz *f, lspan_lag_attention *l)
{
    long double count = fuzz_count(l->attention.kv_heads, l->kept_windows, l->keep, 1);
    int64_t entries = count > 1e9L ? 1000000000 : (int64_t)count;
    int32_t *kept = fuzz_indices(f, entries, sizeof *kept);
    l->kept = kept;
    if (!fuzz_usable(kept, 4) || entries < 1 || entries > FUZZ_MOST_BYTES / 4) return;
    for (int64_t i = 0; i < entries; i++) {
        int64_t window = i / l->keep % l->kept_windows, entry = i % l->keep, slot;
        if (__builtin_mul_overflow(window, l->lag, &slot) || __builtin_add_overflow(slot, l->leading, &slot)) slot = 0;
        if (__builtin_add_overflow(slot, entry, &slot)) slot = 0;
        kept[i] = fuzz_wild(f, 60) ? (int32_t)fuzz_bad_number(f) : (int32_t)slot;
    }
}

static void fuzz_lag_prefill(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    drawn_attention d;
    draw_attention(f, &d, 1, 40);
    if (!fuzz_wild(f, 4)) {
        d.a.causal = 1;
        d.a.window = 0;
        d.a.kv_lengths = NULL;
    }
    lspan_lag_attention l = {.attention = d.a};
    l.leading = d.slots >= 0 && d.slots < 1000 ? fuzz_dim(f, 0, d.slots / 2) : fuzz_dim(f, 0, 4);
    l.lag = fuzz_dim(f, 1, 12);
    l.raw_windows = fuzz_dim(f, 1, 3);
    l.keep = l.lag >= 1 && l.lag <= 12 ? fuzz_dim(f, 0, l.lag) : fuzz_dim(f, 0, 4);
    l.kept_windows = l.lag > 0 && d.slots >= 0 && d.slots < 1000 && !fuzz_wild(f, 8) ? d.slots / l.lag + 1
                                                                                     : fuzz_dim(f, 0, 8);
    draw_kept(f, &l);
    place_attention(f, &d);
    l.attention = d.a;
    const lspan_lag_attention *call = fuzz_wild(f, 64) ? NULL : &l;
    FUZZ_RUN(f, context, call, lspan_lag_prefill_workspace_size, lspan_lag_prefill);
}

const fuzz_target fuzz_attention_targets[] = {
    {"attention_prefill", fuzz_attention_prefill, "lspan_attention_prefill_workspace_size lspan_attention_prefill"},
    {"attention_decode", fuzz_attention_decode, "lspan_attention_decode_workspace_size lspan_attention_decode"},
    {"attention_merge", fuzz_attention_merge, "lspan_attention_merge"},
    {"sparse_prefill", fuzz_sparse_prefill, "lspan_sparse_prefill_workspace_size lspan_sparse_prefill"},
    {"sparse_decode", fuzz_sparse_decode, "lspan_sparse_decode_workspace_size lspan_sparse_decode"},
    {"lag_prefill", fuzz_lag_prefill, "lspan_lag_prefill_workspace_size lspan_lag_prefill"},
    {NULL, NULL, NULL}};
