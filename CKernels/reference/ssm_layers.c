/* ssm_layers.c: steps, causal convolution and gated norm of state-space layers. */
#include "reference.h"
#include <math.h>

#include "precision_f64.h"
#include "ssm_layers_body.h"

#include "precision_f32.h"
#include "ssm_layers_body.h"
