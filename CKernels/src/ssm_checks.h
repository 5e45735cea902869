/* ssm_checks.h: validation that the calls of ssm.h share. */
#ifndef LSPAN_SSM_CHECKS_H
#define LSPAN_SSM_CHECKS_H

#include "checks.h"
#include <longspan/ssm.h>

/* What the dt of `channels` channels (or heads) of each sequence goes through. */
lspan_status lspan_check_dt_rule(const lspan_dt_rule *rule, int64_t sequences, int64_t channels);

/* States of `elements` floats a sequence; each may be NULL. */
lspan_status lspan_check_states(
    const float *initial_state, const float *final_state, int64_t state_stride, int64_t sequences, int64_t elements);

/* `count` floats that are finite and not above 0. */
lspan_status lspan_check_decays(const float *a, int64_t count);

#endif
