/* longspan_engine.h: what rows of attention (longspan_engine.c) and of state-space layers (longspan_ssm.c) share. */
#ifndef LONGSPAN_ENGINE_H
#define LONGSPAN_ENGINE_H

#include "serve.h"
#include <longspan/longspan.h>

extern lspan_context *context;

/* A row of run.py's table; the first member of what makes it. */
typedef struct served {
    lspan_status (*call)(struct served *, long copy);
    void (*output)(struct served *, float *values);
    void (*drop)(struct served *);
} served;

int parse_dtype(const char *name, lspan_dtype *dtype);
/* Values that are exact in the dtype. */
void convert(char *to, const float *from, size_t count, lspan_dtype dtype);

/* NULL, or what went wrong. */
const char *prepare_ssm(const serve_case *c, served **row);

#endif
