/* What this CPU and this operating system offer, asked once. */
#ifndef NIS_CPU_H
#define NIS_CPU_H

#include <stdbool.h>

typedef struct {
    bool avx2_fma_f16c; /* x86: all three, with the operating system saving the wide registers */
    bool avx512_vnni;   /* x86: F, BW, VL and VNNI, with the operating system saving the 512-bit registers */
    bool avx_vnni;      /* x86: AVX2, FMA, F16C and the 256-bit VNNI that needs no AVX-512 */
    bool neon;          /* aarch64: always */
    bool dotprod;       /* aarch64: SDOT, absent on Cortex-A72 */
} nis_cpu;

nis_cpu nis_cpu_detect(void);

#endif
