/* selective.c: the selective scan of Mamba. */
#include "reference.h"
#include <math.h>
#include <stdlib.h>

#include "precision_f64.h"
#include "selective_body.h"

#include "precision_f32.h"
#include "selective_body.h"
