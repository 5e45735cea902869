/* dispatch.h: choice of an ISA variant. */
#ifndef LSPAN_DISPATCH_H
#define LSPAN_DISPATCH_H

#include "kernels/kernels.h"

/* The supported variant of that name, or the best one for NULL; NULL if there is none. */
const lspan_kernels *lspan_find_kernels(const char *name);

#endif
