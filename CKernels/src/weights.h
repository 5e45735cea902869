/* weights.h: validation and addressing of weight matrices, shared by dequantization, embedding and products. */
#ifndef LSPAN_WEIGHTS_H
#define LSPAN_WEIGHTS_H

#include <longspan/dense.h>

/* Shape, type, alignment and presence of a weight matrix; *row_bytes gets the bytes of a row. */
lspan_status lspan_check_weights(const lspan_weights *weights, int64_t *row_bytes);

#endif
