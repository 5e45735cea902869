/* move_rows.c: rows moved down to lie together, in place.
 *
 * Entry i of an ascending list comes from slot destination + i or above, so rows are copied from the lowest up and what
 * is overwritten has been read. Within a copy the target lies below the source too, which makes a copy in ascending
 * order right where the two overlap. */
#include "variants.h"

/* Moved at once: memcpy of a constant size becomes loads and stores of the variant's vectors. */
#define BLOCK 64

V_INLINE void copy_down(char *to, const char *from, int64_t bytes)
{
    int64_t b = 0;
    for (; b + BLOCK <= bytes; b += BLOCK) {
        char block[BLOCK];
        memcpy(block, from + b, BLOCK);
        memcpy(to + b, block, BLOCK);
    }
    for (; b + 8 <= bytes; b += 8) {
        uint64_t word;
        memcpy(&word, from + b, sizeof word);
        memcpy(to + b, &word, sizeof word);
    }
    for (; b < bytes; b++) to[b] = from[b];
}

/* `rows` neighbouring slots. */
V_INLINE void move_run(const lspan_row_move *m, int64_t to, int64_t from, int64_t rows)
{
    char *target = m->data + to * m->stride_bytes;
    const char *source = m->data + from * m->stride_bytes;
    if (m->stride_bytes == m->row_bytes) {
        copy_down(target, source, rows * m->row_bytes);
        return;
    }
    for (int64_t r = 0; r < rows; r++) copy_down(target + r * m->stride_bytes, source + r * m->stride_bytes, m->row_bytes);
}

void LSPAN_VARIANT(move_rows)(const lspan_row_move *move)
{
    const lspan_row_move *m = move;
    int64_t ahead = m->row_bytes < LSPAN_MOVE_AHEAD_BYTES ? LSPAN_MOVE_AHEAD_BYTES / m->row_bytes : 1, i = 0;
    while (i < m->count && m->indices[i] == m->destination + i) i++;
    while (i < m->count) {
        int64_t from = m->indices[i], rows = 1;
        while (rows < ahead && i + rows < m->count && m->indices[i + rows] == from + rows) rows++;
        for (int64_t r = i + ahead; r < i + ahead + rows && r < m->count; r++) {
            const char *row = m->data + m->indices[r] * m->stride_bytes;
            for (int64_t b = 0; b < m->row_bytes; b += BLOCK) v_prefetch_l1(row + b);
        }
        move_run(m, m->destination + i, from, rows);
        i += rows;
    }
    if (m->tail_begin != m->destination + m->count) move_run(m, m->destination + m->count, m->tail_begin, m->tail);
}
