/* kv_fuzz.c: targets of kv.h. */
#include "fuzz.h"
#include <string.h>

/* ---- Lag-relative scores ------------------------------------------------------------------------------- */

static void fuzz_lag_scores(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    lspan_lag_scores c = {.heads = fuzz_dim(f, 1, 4), .head_dim = fuzz_dim(f, 1, 70), .window = fuzz_dim(f, 1, 8),
        .windows = fuzz_dim(f, 0, 6), .value_weight = fuzz_float(f, 1.0f)};
    int64_t scored = fuzz_product(c.windows, c.window);
    int64_t tokens;
    if (c.windows == 0 || __builtin_add_overflow(scored, c.window, &tokens)) tokens = scored;
    c.keys.dtype = fuzz_dtype(f);
    c.values.dtype = fuzz_wild(f, 8) ? fuzz_dtype(f) : c.keys.dtype;
    fuzz_heads_input(f, &c.keys, tokens, c.heads, c.head_dim);
    fuzz_heads_input(f, &c.values, tokens, c.heads, c.head_dim);
    lspan_matrix_out scores = {.dtype = lspan_dtype_f32};
    fuzz_matrix_output(f, &scores, c.heads, scored);
    fuzz_place(f);
    c.scores = scores.data;
    c.score_head_stride = scores.row_stride;
    const lspan_lag_scores *call = fuzz_wild(f, 64) ? NULL : &c;
    FUZZ_RUN(f, context, call, lspan_lag_scores_workspace_size, lspan_lag_scores_run);
}

/* ---- Selection ----------------------------------------------------------------------------------------- */

/* Ranges that ascend, and how many tokens they hold. */
static int64_t draw_forced(fuzz *f, lspan_selection *s)
{
    int64_t end = 0, count = 0;
    s->forced_count = fuzz_dim(f, 0, 3);
    lspan_token_range *forced = fuzz_indices(f, s->forced_count, sizeof *forced);
    s->forced = forced;
    if (!fuzz_usable(forced, 8)) return 0;
    for (int64_t i = 0; i < s->forced_count; i++) {
        int64_t room = s->tokens >= end && s->tokens <= 300 ? s->tokens - end : 0;
        forced[i].begin = end + (int64_t)fuzz_below(f, (uint32_t)(room / 4) + 1);
        forced[i].end = forced[i].begin + (int64_t)fuzz_below(f, (uint32_t)(room / 4) + 1);
        end = forced[i].end;
        count += end - forced[i].begin;
        if (fuzz_wild(f, 40)) forced[i].end = fuzz_bad_number(f);
    }
    return count;
}

static void draw_offsets(fuzz *f, lspan_selection *s)
{
    if (fuzz_below(f, 2) || (s->scope == lspan_select_scope_shared && !fuzz_wild(f, 8))) return;
    int32_t *offsets = fuzz_indices(f, s->rows, sizeof *offsets);
    s->row_offsets = offsets;
    for (int64_t r = 0; fuzz_usable(offsets, 4) && r < s->rows; r++) {
        offsets[r] = (int32_t)fuzz_below(f, 1000);
        if (fuzz_wild(f, 40)) offsets[r] = (int32_t)fuzz_bad_number(f);
    }
}

static void fuzz_select(fuzz *f)
{
    static const int32_t scopes[] = {lspan_select_scope_row, lspan_select_scope_shared, lspan_select_scope_joint,
        lspan_select_scope_threshold};
    const lspan_context *context = fuzz_context(f);
    lspan_selection s = {.scope = (lspan_select_scope)fuzz_code(f, scopes, 4), .rows = fuzz_dim(f, 0, 6),
        .tokens = fuzz_dim(f, 0, 300), .threshold = fuzz_float(f, 0.5f)};
    int64_t forced = draw_forced(f, &s), copies = 1;
    draw_offsets(f, &s);
    if (s.scope == lspan_select_scope_joint) copies = s.rows;
    int64_t least = fuzz_product(copies, forced), most = fuzz_product(copies, s.tokens);
    s.keep = least >= 0 && most >= least && most < 2000 ? fuzz_dim(f, least, most) : fuzz_dim(f, 0, 40);
    int shared = s.scope == lspan_select_scope_shared;
    int64_t needed = s.scope == lspan_select_scope_row       ? fuzz_product(s.rows, s.keep)
                     : s.scope == lspan_select_scope_threshold ? fuzz_product(s.rows, s.tokens)
                                                             : s.keep;
    s.capacity = fuzz_stride(f, needed);
    lspan_matrix scores = {.dtype = lspan_dtype_f32};
    fuzz_matrix_input(f, &scores, s.rows, s.tokens);
    fuzz_operand_at(f, &s.indices, fuzz_count(s.capacity, 1, 1, 4), 4, fuzz_bytes, 1);
    fuzz_operand_at(f, &s.indptr, shared ? 16 : s.rows < 0 ? -1 : ((long double)s.rows + 1) * 8, 8, fuzz_bytes, 1);
    fuzz_alone(f);
    fuzz_place(f);
    s.scores = scores.data;
    s.score_row_stride = scores.row_stride;
    const lspan_selection *call = fuzz_wild(f, 64) ? NULL : &s;
    FUZZ_RUN(f, context, call, lspan_select_workspace_size, lspan_select);
}

/* ---- Compaction ---------------------------------------------------------------------------------------- */

/* Lists that ascend from the destination to the tail. */
static void draw_lists(fuzz *f, lspan_compaction *c)
{
    int64_t limit = c->tail_end > c->tail_begin ? c->tail_begin : c->slots, total;
    int64_t room = limit > c->destination && limit <= 50 && c->destination >= 0 ? limit - c->destination : 0;
    c->indptr = fuzz_indptr(f, c->lists, room < 6 ? room : 6, &total);
    int32_t *indices = fuzz_indices(f, total, sizeof *indices);
    c->indices = indices;
    if (!fuzz_usable(indices, 4) || !fuzz_usable(c->indptr, 8)) return;
    for (int64_t l = 0; l < c->lists; l++) {
        int64_t begin = c->indptr[l], end = c->indptr[l + 1], slot = room > 0 ? c->destination : 0;
        if (begin < 0 || end > total) continue;
        for (int64_t i = begin; i < end; i++) {
            int64_t gap = room > 0 ? limit - slot - (end - i) : 0;
            slot += gap > 0 && gap <= 50 ? (int64_t)fuzz_below(f, (uint32_t)gap + 1) : 0;
            indices[i] = fuzz_wild(f, 60) ? (int32_t)fuzz_bad_number(f) : (int32_t)slot;
            slot++;
        }
    }
}

static void draw_side(fuzz *f, lspan_compaction *c)
{
    static const int32_t sizes[] = {1, 2, 4, 8, 16};
    c->side_count = fuzz_dim(f, 0, 3);
    lspan_side_array *side = fuzz_indices(f, c->side_count, sizeof *side);
    c->side = side;
    if (!fuzz_usable(side, 8)) return;
    /* zeroed, which are no arrays that can be moved */
    if (c->side_count > 40) return;
    for (int64_t i = 0; i < c->side_count; i++) {
        side[i].element_bytes = fuzz_code(f, sizes, 5);
        side[i].head_stride = fuzz_stride(f, c->slots);
        size_t size = side[i].element_bytes >= 1 && side[i].element_bytes <= 16 ? (size_t)side[i].element_bytes : 16;
        fuzz_operand_at(f, &side[i].data, fuzz_span(c->heads, side[i].head_stride, 1, 0, c->slots, size), 16,
            fuzz_bytes, 1);
    }
}

static void fuzz_compact(fuzz *f)
{
    const lspan_context *context = fuzz_context(f);
    lspan_compaction c = {.heads = fuzz_dim(f, 1, 4), .head_dim = fuzz_dim(f, 1, 40), .slots = fuzz_dim(f, 0, 50)};
    int64_t slots = c.slots >= 0 && c.slots <= 50 ? c.slots : 50;
    c.lists = fuzz_wild(f, 8) ? fuzz_dim(f, 0, 5) : fuzz_below(f, 2) ? 1 : c.heads;
    c.destination = fuzz_dim(f, 0, slots);
    c.tail_begin = fuzz_below(f, 2) ? slots : fuzz_dim(f, 0, slots);
    c.tail_end = c.tail_begin >= 0 && c.tail_begin <= slots ? fuzz_dim(f, c.tail_begin, slots) : fuzz_dim(f, 0, slots);
    draw_lists(f, &c);
    draw_side(f, &c);
    c.keys.dtype = fuzz_dtype(f);
    c.values.dtype = fuzz_dtype(f);
    fuzz_work(f, c.heads, fuzz_product(c.slots, 4), c.head_dim, 1);
    fuzz_heads_output(f, &c.keys, c.slots, c.heads, c.head_dim);
    fuzz_heads_output(f, &c.values, c.slots, c.heads, c.head_dim);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_compact(context, fuzz_wild(f, 64) ? NULL : &c));
}

/* ---- Keys at other positions --------------------------------------------------------------------------- */

static void draw_shifts(fuzz *f, lspan_rope_shifting *s)
{
    s->shift_head_stride = fuzz_below(f, 4) ? fuzz_stride(f, s->tokens) : 0;
    long double bytes = fuzz_span(
        s->heads == 0 || s->shift_head_stride == 0 ? 1 : s->heads, s->shift_head_stride, 1, 0, s->tokens, 4);
    int64_t count = bytes < 0 ? -1 : bytes > 18446744073709551615.0L ? INT64_MAX : (int64_t)(bytes / 4);
    int32_t *shifts = fuzz_indices(f, count, sizeof *shifts);
    s->shifts = shifts;
    for (int64_t i = 0; fuzz_usable(shifts, 4) && i < count; i++) {
        int64_t row = (int64_t)(fuzz_bits(f) % (uint64_t)(s->table_rows > 0 ? s->table_rows : 1));
        int64_t shift;
        if (__builtin_add_overflow(s->table_first, row, &shift)) shift = 0;
        shifts[i] = fuzz_wild(f, 200) ? (int32_t)fuzz_bad_number(f) : (int32_t)shift;
    }
}

static void fuzz_rope_shift(fuzz *f)
{
    static const int32_t layouts[] = {lspan_rope_layout_halves, lspan_rope_layout_interleaved};
    const lspan_context *context = fuzz_context(f);
    lspan_rope_shifting s = {.layout = (lspan_rope_layout)fuzz_code(f, layouts, 2), .tokens = fuzz_dim(f, 0, 12),
        .heads = fuzz_dim(f, 0, 4), .head_dim = fuzz_dim(f, 2, 60), .inverse = fuzz_flag(f),
        .table_first = fuzz_dim(f, 0, 20), .table_rows = fuzz_dim(f, 1, 40)};
    s.pairs = s.head_dim >= 2 && s.head_dim <= 60 ? fuzz_dim(f, 1, s.head_dim / 2) : fuzz_dim(f, 1, 8);
    if (s.table_first >= 0 && s.table_first <= 20) s.table_first = -s.table_first;
    draw_shifts(f, &s);
    s.keys.dtype = fuzz_dtype(f);
    fuzz_input(f, &s.cosine, fuzz_count(s.table_rows, s.pairs, 1, 4), fuzz_f32);
    fuzz_input(f, &s.sine, fuzz_count(s.table_rows, s.pairs, 1, 4), fuzz_f32);
    fuzz_heads_output(f, &s.keys, s.tokens, s.heads, s.head_dim);
    fuzz_place(f);
    fuzz_finish(f, context, lspan_rope_shift(context, fuzz_wild(f, 64) ? NULL : &s));
}

/* ---- Memory -------------------------------------------------------------------------------------------- */

static int is_filled(const char *at, size_t bytes, char value)
{
    for (size_t i = 0; i < bytes; i++) {
        if (at[i] != value) return 0;
    }
    return 1;
}

/* A reservation of a few pages, or of some huge ones. */
static char *reserve(fuzz *f, size_t *bytes)
{
    void *memory = NULL;
    *bytes = 1 + fuzz_below(f, 8 * (uint32_t)lspan_kv_page_bytes());
    if (fuzz_below(f, 8) == 0) *bytes += (size_t)fuzz_below(f, 3) << 21;
    if (lspan_kv_reserve(*bytes, &memory) != lspan_status_ok) fuzz_fail("a reservation was refused");
    size_t page = lspan_kv_page_bytes();
    if (!memory || (uintptr_t)memory % page != 0) fuzz_fail("a reservation is not aligned");
    *bytes = (*bytes + page - 1) / page * page;
    if (!is_filled(memory, *bytes < 4 * page ? *bytes : 4 * page, 0) || ((char *)memory)[*bytes - 1] != 0) {
        fuzz_fail("a reservation is not zeroed");
    }
    return memory;
}

static void refuse_reservation(fuzz *f)
{
    void *memory = f;
    size_t bytes = fuzz_below(f, 2) ? 0 : (size_t)fuzz_bad_number(f);
    /* AddressSanitizer writes an eighth of what is mapped */
    if (bytes < (size_t)1 << 47) bytes &= ((size_t)1 << 30) - 1;
    lspan_status status = lspan_kv_reserve(bytes, fuzz_below(f, 8) ? &memory : NULL);
    if (status != lspan_status_ok && memory != f) fuzz_fail("a refused reservation wrote a pointer");
    if (status == lspan_status_ok && lspan_kv_release(memory, bytes) != lspan_status_ok) {
        fuzz_fail("a reservation could not be released");
    }
}

/* Pointers that are no pages, missing, or counts that are no whole pages. */
static void refuse_move(fuzz *f, char *to, char *from, size_t page)
{
    size_t bytes = page;
    switch (fuzz_below(f, 5)) {
    case 0: to = NULL; break;
    case 1: from = NULL; break;
    case 2: to += 1 + fuzz_below(f, 255); break;
    case 3: from += 1 + fuzz_below(f, 255); break;
    default: bytes = ((size_t)fuzz_bad_number(f) & ~(page - 1)) + 1 + fuzz_below(f, 255);
    }
    if (lspan_kv_move(to, from, bytes) == lspan_status_ok) fuzz_fail("a move of no pages was made");
}

static void fuzz_kv_memory(fuzz *f)
{
    size_t page = lspan_kv_page_bytes(), first_bytes, second_bytes;
    if (f->wild) refuse_reservation(f);
    char *first = reserve(f, &first_bytes), *second = reserve(f, &second_bytes);
    for (uint32_t moves = fuzz_below(f, 5); moves > 0; moves--) {
        if (fuzz_wild(f, 4)) refuse_move(f, first, second, page);
        size_t from = fuzz_below(f, (uint32_t)(first_bytes / page)), to = fuzz_below(f, (uint32_t)(second_bytes / page));
        size_t most = first_bytes / page - from < second_bytes / page - to ? first_bytes / page - from
                                                                         : second_bytes / page - to;
        size_t pages = fuzz_below(f, (uint32_t)(most < 6 ? most : 6) + 1);
        char value = (char)fuzz_byte(f), *source = first + from * page, *destination = second + to * page;
        memset(source, value, pages * page);
        if (lspan_kv_move(destination, source, pages * page) != lspan_status_ok) fuzz_fail("pages were not moved");
        if (!is_filled(destination, pages * page, value)) fuzz_fail("moved pages have other content");
        memset(source, 0, pages * page);
        if (!is_filled(destination, pages * page, value)) fuzz_fail("moved pages are still shared");
    }
    lspan_status status = lspan_kv_release(fuzz_below(f, 8) ? first + 1 + fuzz_below(f, 255) : NULL, first_bytes);
    if (status != lspan_status_bad_alignment && status != lspan_status_ok) fuzz_fail("not the status that a header names");
    if (fuzz_wild(f, 4) && lspan_kv_release(first, fuzz_below(f, 2) ? SIZE_MAX - fuzz_below(f, 4096) : 0) !=
            lspan_status_bad_value) {
        fuzz_fail("more than an address space was released");
    }
    if (lspan_kv_release(first, first_bytes) != lspan_status_ok) fuzz_fail("a reservation could not be released");
    if (lspan_kv_release(second, second_bytes) != lspan_status_ok) fuzz_fail("a reservation could not be released");
}

const fuzz_target fuzz_kv_targets[] = {
    {"lag_scores", fuzz_lag_scores, "lspan_lag_scores_workspace_size lspan_lag_scores_run"},
    {"select", fuzz_select, "lspan_select_workspace_size lspan_select"},
    {"compact", fuzz_compact, "lspan_compact"},
    {"rope_shift", fuzz_rope_shift, "lspan_rope_shift"},
    {"kv_memory", fuzz_kv_memory, "lspan_kv_page_bytes lspan_kv_reserve lspan_kv_release lspan_kv_move"},
    {NULL, NULL, NULL}};
