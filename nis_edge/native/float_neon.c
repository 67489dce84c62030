/* The float parts with ARMv8-A Advanced SIMD, which every aarch64 Linux has. */
#if defined(__aarch64__)

#include "lanes_neon.h"

#include "float_kernels.h"

#else
typedef int nis_float_neon_is_for_aarch64;
#endif
