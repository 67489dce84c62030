/* Chooses the kernels: one table, best first. */
#include <string.h>

#include "kernels.h"

static bool everywhere(const nis_cpu *cpu) {
    (void)cpu;
    return true;
}
#if defined(__x86_64__)
static bool avx512vnni(const nis_cpu *cpu) { return cpu->avx512_vnni; }
static bool avxvnni(const nis_cpu *cpu) { return cpu->avx_vnni; }
static bool avx2(const nis_cpu *cpu) { return cpu->avx2_fma_f16c; }
#elif defined(__aarch64__)
static bool neon(const nis_cpu *cpu) { return cpu->neon; }
static bool dotprod(const nis_cpu *cpu) { return cpu->neon && cpu->dotprod; }
#endif

static const nis_kernels table[] = {
#if defined(__x86_64__)
    {"avx512vnni", avx512vnni, nis_gemv_t2_i8_avx512vnni, nis_gemm_t2_i8_avx512vnni, &nis_float_avx2,
     &nis_screen_avx512vnni},
    {"avxvnni", avxvnni, nis_gemv_t2_i8_avxvnni, nis_gemm_t2_i8_avxvnni, &nis_float_avx2,
     &nis_screen_avxvnni},
    {"avx2", avx2, nis_gemv_t2_i8_avx2, nis_gemm_t2_i8_avx2, &nis_float_avx2,
     &nis_screen_avx2},
#elif defined(__aarch64__)
    {"neondot", dotprod, nis_gemv_t2_i8_neondot, nis_gemm_t2_i8_neondot, &nis_float_neon,
     &nis_screen_neondot},
    {"neon", neon, nis_gemv_t2_i8_neon, nis_gemm_t2_i8_neon, &nis_float_neon,
     &nis_screen_neon},
#endif
    {"scalar", everywhere, nis_gemv_t2_i8_scalar, nis_gemm_t2_i8_scalar, &nis_float_scalar,
     &nis_screen_scalar},
};

const nis_kernels *nis_kernels_named(const char *name) {
    const nis_cpu cpu = nis_cpu_detect();
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (!table[i].offered_by(&cpu)) continue;
        if (name == NULL || strcmp(name, table[i].name) == 0) return &table[i];
    }
    return NULL;
}

const char *nis_isa_offered(uint32_t index) {
    const nis_cpu cpu = nis_cpu_detect();
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].offered_by(&cpu) && index-- == 0) return table[i].name;
    }
    return NULL;
}
