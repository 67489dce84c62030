/* The float parts in plain C: the truth, compiled without the auto-vectoriser. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-vectorize")
#endif
#include "lanes_scalar.h"

#include "float_kernels.h"
