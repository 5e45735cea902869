/* cost_product.c: bytes, FLOPs and exponentials of products with packed weights. */
#include "cost.h"

/* Bytes of the blocks that were packed, without padding. */
static int64_t block_bytes(const lspan_packed_weights *weights)
{
    int64_t elements, bytes;
    lspan_block_type_layout(weights->type, &elements, &bytes);
    return weights->rows * (weights->columns / elements) * bytes;
}

lspan_cost lspan_product_cost(const lspan_product *p)
{
    lspan_cost cost = {0, 0, 0};
    int64_t outputs = 0;
    for (int64_t i = 0; i < p->output_count; i++) {
        const lspan_product_output *o = &p->outputs[i];
        int64_t elements = p->rows * o->weights.rows, matrices = o->gate.data ? 2 : 1;
        if (elements == 0) continue;
        outputs += elements;
        cost.bytes += matrices * block_bytes(&o->weights) + elements * (o->accumulate ? 2 : 1) * (int64_t)sizeof(float);
        cost.flops += 2 * matrices * elements * p->columns;
        if (o->gate.data) {
            cost.flops += elements * lspan_activation_flops(o->activation);
            cost.exponentials += elements;
        }
    }
    if (outputs > 0) cost.bytes += p->rows * p->columns * (int64_t)sizeof(float);
    return cost;
}
