/* attention.c: attention with every mask, and the merge of partial results. */
#include "reference.h"
#include <math.h>
#include <stdlib.h>

/* The mask of attention.h, as it is written there. */
static int sees(const lspan_attention *a, int64_t row, int64_t key, int64_t tokens, int64_t keys)
{
    int64_t position = keys - tokens + row;
    if (a->causal && key > position) return 0;
    if (a->window == 0 || key < a->sinks) return 1;
    /* key > position - window, without the difference that may overflow */
    return position - key < a->window;
}

#include "precision_f64.h"
#include "attention_body.h"

#include "precision_f32.h"
#include "attention_body.h"
