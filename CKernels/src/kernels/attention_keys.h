/* attention_keys.h: the keys of a task, one tile after another, and rows of keys rotated as they are read. */
#ifndef LSPAN_ATTENTION_KEYS_H
#define LSPAN_ATTENTION_KEYS_H

#include "attention_mask.h"
#include "kernels.h"
#include "rope_rotate.h"

/* Where a walk over the segments of a task stands. */
typedef struct key_cursor {
    const lspan_key_segments *segments;
    int64_t segment;
    int64_t next;        /* number within the segment */
    lspan_row_keys seen; /* by at least one row of the task: other listed slots are left out */
    int all_seen;        /* every slot that a list may have is seen */
} key_cursor;

V_INLINE key_cursor first_key(
    const lspan_attention *a, const lspan_key_segments *segments, int64_t sequence, lspan_row_keys seen)
{
    int64_t slots = a->kv_indptr[sequence + 1] - a->kv_indptr[sequence];
    key_cursor c = {segments, 0, segments->at[0].begin, seen, seen.low == 0 && seen.high == slots};
    return c;
}

/* Goes on to the next segment while the one at hand is used up; NULL at the end. */
V_INLINE const lspan_key_segment *current_segment(key_cursor *c)
{
    while (c->segment < c->segments->count && c->next >= c->segments->at[c->segment].end) {
        if (++c->segment < c->segments->count) c->next = c->segments->at[c->segment].begin;
    }
    return c->segment < c->segments->count ? &c->segments->at[c->segment] : NULL;
}

/* Takes slots of one entry, or the rest of it, as far as there is room. Returns how many. */
V_INLINE int64_t take_entry(key_cursor *c, const lspan_key_segment *s, int32_t *slots, int64_t room)
{
    int64_t entry = s->block == 1 ? c->next : c->next / s->block, offset = c->next - entry * s->block;
    int64_t left = lspan_min64(s->block - offset, s->end - c->next);
    int64_t slot = s->entries[entry] * s->block + offset, end = lspan_min64(slot + left, c->seen.high);
    int64_t after = c->next + left, count = 0;
    for (; slot < end && count < room; slot++, c->next++) {
        if (slot >= c->seen.low || slot < c->seen.sinks) slots[count++] = (int32_t)slot;
    }
    if (slot >= end) c->next = after;
    return count;
}

/* The next slots of the task, across segments: `most` unless the task has no more. */
V_INLINE int64_t take_slots(key_cursor *c, int32_t *slots, int64_t most)
{
    int64_t count = 0;
    const lspan_key_segment *s;
    while (count < most && (s = current_segment(c))) {
        int64_t room = most - count, some = lspan_min64(room, s->end - c->next);
        if (!s->entries) {
            for (int64_t i = 0; i < some; i++) slots[count + i] = (int32_t)(c->next + i);
        } else if (s->block == 1 && c->all_seen) {
            memcpy(slots + count, s->entries + c->next, (size_t)some * sizeof *slots);
        } else {
            count += take_entry(c, s, slots + count, room);
            continue;
        }
        c->next += some;
        count += some;
    }
    return count;
}

/* Some keys of a task: slots first .. end-1, or those in `slots`, of which `first` is the lowest and end-1 the highest. */
typedef struct key_tile {
    const int32_t *slots;
    int64_t first;
    int64_t end;
    int64_t count;
} key_tile;

V_INLINE key_tile tile_of_slots(const int32_t *slots, int64_t count)
{
    int32_t low = INT32_MAX, high = -1;
    for (int64_t j = 0; j < count; j++) {
        low = slots[j] < low ? slots[j] : low;
        high = slots[j] > high ? slots[j] : high;
    }
    key_tile tile = {slots, low, (int64_t)high + 1, count};
    return tile;
}

V_INLINE int64_t slot_of(const key_tile *tile, int64_t j)
{
    return tile->slots ? tile->slots[j] : tile->first + j;
}

/* The key in slot `slot` of a sequence whose first row is key0, at element `index`, rotated to f32. */
V_INLINE void rotate_key(
    float *out, const lspan_attention *a, int64_t key0, int64_t slot, int64_t index, const lspan_dtype dtype)
{
    const lspan_key_rotation *rotation = a->key_rotation;
    int64_t row = (rotation->positions ? rotation->positions[key0 + slot] : slot) * rotation->pairs;
    rope_row place = {a->keys.data, out, index, 0};
    rotate_row(
        place, rotation->layout, a->head_dim, rotation->pairs, rotation->cosine + row, rotation->sine + row, dtype,
        lspan_dtype_f32);
}

#endif
