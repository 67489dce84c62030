/* The float parts with AVX2, FMA and F16C. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#include "lanes_avx2.h"

#include "float_kernels.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nis_float_avx2_is_for_x86;
#endif
