/* Asks the CPU what it can do: CPUID and XGETBV on x86, the auxiliary vector on aarch64. */
#include "cpu.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdint.h>

/* XCR0 says which registers the operating system saves on a context switch; without it AVX2 would corrupt silently. */
static uint64_t extended_control_register(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

/* Bits: Intel SDM volume 2A, CPUID leaf 1 ECX and leaf 7 EBX; volume 1, section 13.3 for XCR0. */
nis_cpu nis_cpu_detect(void) {
    nis_cpu cpu = {0};
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return cpu;
    const bool fma = c & (1u << 12), osxsave = c & (1u << 27), avx = c & (1u << 28), f16c = c & (1u << 29);
    if (!osxsave || !avx || (extended_control_register() & 0x6) != 0x6) return cpu;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return cpu;
    const bool avx2 = b & (1u << 5);
    cpu.avx2_fma_f16c = avx2 && fma && f16c;
    return cpu;
}

#elif defined(__aarch64__)

#include <sys/auxv.h>

/* linux/arch/arm64/include/uapi/asm/hwcap.h: HWCAP_ASIMDDP is bit 20. */
#define NIS_HWCAP_ASIMDDP (1ul << 20)

nis_cpu nis_cpu_detect(void) {
    nis_cpu cpu = {0};
    cpu.neon = true; /* Advanced SIMD is part of every ARMv8-A Linux */
    cpu.dotprod = (getauxval(AT_HWCAP) & NIS_HWCAP_ASIMDDP) != 0;
    return cpu;
}

#else

nis_cpu nis_cpu_detect(void) {
    nis_cpu cpu = {0};
    return cpu;
}

#endif
