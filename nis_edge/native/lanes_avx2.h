/* Eight float lanes in one AVX2 register; lanes_scalar.h says what each operation means. */
#ifndef NIS_LANES_H
#define NIS_LANES_H

#include <immintrin.h>
#include <stdint.h>

#define LANES_NAME(stem) stem##_avx2
#define LANES_INLINE static inline __attribute__((always_inline))

typedef __m256 f32x8;
typedef __m256i u32x8;

LANES_INLINE f32x8 f32x8_set(float x) { return _mm256_set1_ps(x); }
LANES_INLINE f32x8 f32x8_load(const float *p) { return _mm256_loadu_ps(p); }
LANES_INLINE f32x8 f32x8_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
LANES_INLINE f32x8 f32x8_load_i32(const int32_t *p) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)p));
}
LANES_INLINE f32x8 f32x8_load_bf16(const uint16_t *p) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}
LANES_INLINE f32x8 f32x8_load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
LANES_INLINE void f32x8_store(float *p, f32x8 a) { _mm256_storeu_ps(p, a); }
LANES_INLINE void f32x8_store_f16(uint16_t *p, f32x8 a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
LANES_INLINE void f32x8_store_i8(int8_t *p, f32x8 a) {
    const __m256i words = _mm256_cvttps_epi32(a);
    const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(halves, halves));
}
LANES_INLINE f32x8 f32x8_add(f32x8 a, f32x8 b) { return _mm256_add_ps(a, b); }
LANES_INLINE f32x8 f32x8_sub(f32x8 a, f32x8 b) { return _mm256_sub_ps(a, b); }
LANES_INLINE f32x8 f32x8_mul(f32x8 a, f32x8 b) { return _mm256_mul_ps(a, b); }
LANES_INLINE f32x8 f32x8_div(f32x8 a, f32x8 b) { return _mm256_div_ps(a, b); }
LANES_INLINE f32x8 f32x8_fma(f32x8 a, f32x8 b, f32x8 c) { return _mm256_fmadd_ps(a, b, c); }
LANES_INLINE f32x8 f32x8_max(f32x8 a, f32x8 b) { return _mm256_max_ps(a, b); }
LANES_INLINE f32x8 f32x8_min(f32x8 a, f32x8 b) { return _mm256_min_ps(a, b); }
LANES_INLINE f32x8 f32x8_where_ge(f32x8 x, f32x8 y, f32x8 a) {
    return _mm256_and_ps(_mm256_cmp_ps(x, y, _CMP_GE_OQ), a);
}
LANES_INLINE f32x8 f32x8_power_of_two(f32x8 n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
LANES_INLINE float f32x8_sum(f32x8 a) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)); /* 0+4 1+5 2+6 3+7 */
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
LANES_INLINE u32x8 u32x8_zero(void) { return _mm256_setzero_si256(); }
LANES_INLINE u32x8 u32x8_max_magnitude(u32x8 a, f32x8 x) {
    return _mm256_max_epu32(a, _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff)));
}
LANES_INLINE void u32x8_store(uint32_t *p, u32x8 a) { _mm256_storeu_si256((__m256i *)p, a); }

#endif
