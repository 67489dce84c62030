/* The floating-point environment in which the same bits come out: round to nearest, subnormals kept, no traps.
 *
 * A host program may have set flush-to-zero. nis_float_standard returns what nis_float_restore must be given back. */
#ifndef NIS_FLOAT_ENVIRONMENT_H
#define NIS_FLOAT_ENVIRONMENT_H

#if defined(__x86_64__)

#include <xmmintrin.h>

/* MXCSR at reset: all exceptions masked, round to nearest, no flush to zero (Intel SDM volume 1, section 10.2.3). */
#define STANDARD_MXCSR 0x1f80u

static inline unsigned long nis_float_standard(void) {
    const unsigned before = _mm_getcsr();
    if (before != STANDARD_MXCSR) _mm_setcsr(STANDARD_MXCSR);
    return before;
}

static inline void nis_float_restore(unsigned long environment) { _mm_setcsr((unsigned)environment); }

#elif defined(__aarch64__)

/* FPCR zero: round to nearest, subnormals kept, default NaN off, no traps (Arm ARM, C5.2.8). */
static inline unsigned long nis_float_standard(void) {
    unsigned long before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    if (before != 0) __asm__ volatile("msr fpcr, %0" : : "r"(0ul));
    return before;
}

static inline void nis_float_restore(unsigned long environment) { __asm__ volatile("msr fpcr, %0" : : "r"(environment)); }

#else

static inline unsigned long nis_float_standard(void) { return 0; }
static inline void nis_float_restore(unsigned long environment) { (void)environment; }

#endif

#endif
