/* dense.c: norms, rotary embedding, activations and losses. */
#include "reference.h"
#include <math.h>

#include "precision_f64.h"
#include "dense_body.h"

#include "precision_f32.h"
#include "dense_body.h"
