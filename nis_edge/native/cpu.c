/* Asks the CPU what it can do: CPUID and XGETBV on x86, the auxiliary vector on aarch64. */
#include "cpu.h"

#include <stdatomic.h>

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdint.h>

/* XCR0 says which registers the operating system saves on a context switch; without it AVX2 would corrupt silently. */
static uint64_t extended_control_register(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

/* Bits: Intel SDM volume 2A, CPUID leaf 1 ECX, leaf 7 EBX and ECX, and its subleaf 1 EAX; volume 1, section 13.3 for XCR0: 1
 * and 2 are the SSE and AVX registers, 5 to 7 the mask and the 512-bit registers. */
static nis_cpu ask(void) {
    nis_cpu cpu = {0};
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return cpu;
    const bool fma = c & (1u << 12), osxsave = c & (1u << 27), avx = c & (1u << 28), f16c = c & (1u << 29);
    if (!osxsave || !avx) return cpu;
    const uint64_t saved = extended_control_register();
    if ((saved & 0x6) != 0x6) return cpu;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return cpu;
    const uint32_t last_subleaf = a;
    const bool avx2 = b & (1u << 5);
    cpu.avx2_fma_f16c = avx2 && fma && f16c;
    const bool avx512f = b & (1u << 16), avx512bw = b & (1u << 30), avx512vl = b & (1u << 31);
    const bool avx512vnni = c & (1u << 11);
    cpu.avx512_vnni = cpu.avx2_fma_f16c && avx512f && avx512bw && avx512vl && avx512vnni && (saved & 0xe0) == 0xe0;
    if (last_subleaf >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        cpu.avx_vnni = cpu.avx2_fma_f16c && (a & (1u << 4)) != 0;
    }
    return cpu;
}

#elif defined(__aarch64__)

#include <sys/auxv.h>

/* linux/arch/arm64/include/uapi/asm/hwcap.h: HWCAP_ASIMDDP is bit 20. */
#define NIS_HWCAP_ASIMDDP (1ul << 20)

static nis_cpu ask(void) {
    nis_cpu cpu = {0};
    cpu.neon = true; /* Advanced SIMD is part of every ARMv8-A Linux */
    cpu.dotprod = (getauxval(AT_HWCAP) & NIS_HWCAP_ASIMDDP) != 0;
    return cpu;
}

#else

static nis_cpu ask(void) {
    nis_cpu cpu = {0};
    return cpu;
}

#endif

/* The answer never changes, so it is kept: under a hypervisor each CPUID takes tens of microseconds. Two threads that
 * both ask first write the same. */
nis_cpu nis_cpu_detect(void) {
    enum { ASKED = 1, AVX2 = 2, AVX512 = 4, NEON = 8, DOTPROD = 16, AVXVNNI = 32 };
    static atomic_uint answer;
    unsigned known = atomic_load_explicit(&answer, memory_order_relaxed);
    if (!(known & ASKED)) {
        const nis_cpu cpu = ask();
        known = ASKED | (cpu.avx2_fma_f16c ? AVX2 : 0u) | (cpu.avx512_vnni ? AVX512 : 0u) | (cpu.neon ? NEON : 0u) |
                (cpu.dotprod ? DOTPROD : 0u) | (cpu.avx_vnni ? AVXVNNI : 0u);
        atomic_store_explicit(&answer, known, memory_order_relaxed);
    }
    return (nis_cpu){.avx2_fma_f16c = (known & AVX2) != 0,
                     .avx512_vnni = (known & AVX512) != 0,
                     .avx_vnni = (known & AVXVNNI) != 0,
                     .neon = (known & NEON) != 0,
                     .dotprod = (known & DOTPROD) != 0};
}
