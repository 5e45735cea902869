/** @file
 * The whole C interface of Longspan, long-context inference kernels for CPUs.
 *
 * Functions that can fail return an lspan_status; nothing aborts, prints, allocates in a kernel call, or keeps a pointer
 * (but an executor's, and the events of a profile while it is on). Scratch memory comes from the caller, sized by a
 * ..._workspace_size query. Each header is the manual of its family. */
#ifndef LONGSPAN_H
#define LONGSPAN_H

#include "attention.h"
#include "context.h"
#include "dense.h"
#include "kv.h"
#include "measure.h"
#include "product.h"
#include "profile.h"
#include "sparse.h"
#include "ssm.h"
#include "status.h"
#include "types.h"

#endif
