/* One definition of a screen's bytes: screen_row (float_kernels.h) chooses scale, codes and bounds, pack_nibbles and
 * pack_bits lay the codes out as screen.h says. Nothing depends on the instruction set, so that a package has one hash everywhere. */
#include "screen_making.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "float_environment.h"
#include "head.h"

enum { ROWS_TRIED = 8 };

size_t nis_screen_scratch_bytes(size_t hidden) {
    return nis_screen_groups(hidden) * NIS_SCREEN_GROUP_COLUMNS * (sizeof(float) + 1); /* a row, its codes */
}

/* Eight codes at a time in one word: a compiler makes wide registers of that, whatever the instruction set. */
static uint64_t eight(const int8_t *codes) {
    uint64_t word;
    memcpy(&word, codes, sizeof word);
    return word;
}

static void pack_nibbles(const int8_t *codes, size_t groups, uint8_t *nibbles) {
    const uint64_t each = UINT64_C(0x0101010101010101);
    for (size_t half = 0; half < 2 * groups; half++, codes += 128, nibbles += 64) {
        for (size_t j = 0; j < 64; j += 8) {
            const uint64_t low = eight(codes + j) >> 2 & 15 * each, high = eight(codes + j + 64) >> 2 & 15 * each;
            const uint64_t both = low | high << 4;
            memcpy(nibbles + j, &both, sizeof both);
        }
    }
}

static void pack_bits(const int8_t *codes, size_t groups, int shift, uint8_t *bits) {
    const uint64_t each = UINT64_C(0x0101010101010101);
    for (size_t group = 0; group < groups; group++, codes += NIS_SCREEN_GROUP_COLUMNS, bits += NIS_SCREEN_BIT_BYTES) {
        for (size_t j = 0; j < 32; j += 8) {
            uint64_t packed = 0;
            for (int k = 0; k < 8; k++) packed |= (eight(codes + j + 32 * (size_t)k) >> shift & each) << k;
            memcpy(bits + j, &packed, sizeof packed);
        }
    }
}

bool nis_screen_make_row(const nis_float_kernels *floats, const void *row, nis_dtype dtype, size_t hidden,
                         void *scratch, size_t at, const nis_screen_places *to) {
    const size_t groups = nis_screen_groups(hidden), columns = groups * NIS_SCREEN_GROUP_COLUMNS;
    float *x = scratch;
    int8_t *codes = (int8_t *)(x + columns);
    nis_screen_row about;
    if (!floats->screen_row(row, dtype, hidden, x, codes, &about)) return false;
    memset(codes + hidden, 0, columns - hidden);
    pack_nibbles(codes, groups, to->nibbles + at * groups * NIS_SCREEN_NIBBLE_BYTES);
    pack_bits(codes, groups, 1, to->ones + at * groups * NIS_SCREEN_BIT_BYTES);
    pack_bits(codes, groups, 0, to->halves + at * groups * NIS_SCREEN_BIT_BYTES);
    to->scales[at] = about.scale;
    to->norms[at] = about.norm;
    for (size_t level = 0; level < NIS_SCREEN_LEVELS; level++) to->errors[level][at] = about.error[level];
    return true;
}

double nis_screen_longest(const nis_float_kernels *floats, const nis_screen_planes *s, size_t first, size_t count) {
    /* A stand-in is at most 32 scales long in each of at most 65536 columns. */
    const struct {
        const float *values;
        double worth;
    } parts[] = {{s->scales, 32.0 * 256.0}, {s->norms, 1.0}, {s->errors[0], 1.0}, {s->errors[1], 1.0}, {s->errors[2], 1.0}};
    double longest = 0.0;
    for (size_t part = 0; part < sizeof parts / sizeof parts[0]; part++) {
        const float *values = parts[part].values + first;
        uint32_t signs = 0;
        for (size_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, values + i, sizeof bits);
            signs |= bits;
        }
        const uint32_t bits = floats->magnitude_bits(values, count);
        if (signs >> 31 || bits >= NIS_NOT_FINITE_BITS) return INFINITY;
        float largest;
        memcpy(&largest, &bits, sizeof largest);
        longest += parts[part].worth * (double)largest;
    }
    return longest;
}

/* ---- one row against what a package says of it ------------------------------------------------------------------- */

static bool same_row(const nis_screen_planes *packed, const nis_screen_places *made, size_t row, size_t groups) {
    const size_t nibbles = groups * NIS_SCREEN_NIBBLE_BYTES, bits = groups * NIS_SCREEN_BIT_BYTES;
    bool same = !memcmp(made->nibbles, packed->nibbles + row * nibbles, nibbles) &&
                !memcmp(made->ones, packed->bits[0] + row * bits, bits) &&
                !memcmp(made->halves, packed->bits[1] + row * bits, bits) &&
                made->scales[0] == packed->scales[row] && made->norms[0] == packed->norms[row];
    for (size_t level = 0; level < NIS_SCREEN_LEVELS; level++) {
        same = same && made->errors[level][0] == packed->errors[level][row];
    }
    return same;
}

nis_status nis_screen_try(const nis_model *model) {
    const size_t hidden = model->a.hidden, groups = nis_screen_groups(hidden), last = model->a.vocab - 1;
    const size_t plane_bytes = groups * (NIS_SCREEN_NIBBLE_BYTES + 2 * NIS_SCREEN_BIT_BYTES);
    uint8_t *planes = malloc(plane_bytes);
    void *scratch = malloc(nis_screen_scratch_bytes(hidden));
    float scale, norm, errors[NIS_SCREEN_LEVELS];
    nis_status status = planes && scratch ? NIS_OK : NIS_NO_MEMORY;
    const unsigned long environment = nis_float_standard();
    for (size_t i = 0; status == NIS_OK && i < ROWS_TRIED; i++) {
        const size_t row = last * i / (ROWS_TRIED - 1);
        uint8_t *ones = planes + groups * NIS_SCREEN_NIBBLE_BYTES;
        const nis_screen_places made = {planes, ones, ones + groups * NIS_SCREEN_BIT_BYTES,
                                        &scale, &norm,  {&errors[0], &errors[1], &errors[2]}};
        if (!nis_screen_make_row(model->kernels->floats, nis_head_row(model, row), model->head_dtype, hidden, scratch, 0,
                                 &made)) {
            status = NIS_NOT_FINITE;
        } else if (!same_row(&model->packed_screen, &made, row, groups)) {
            status = NIS_FORMAT;
        }
    }
    nis_float_restore(environment);
    free(planes);
    free(scratch);
    return status;
}

/* ---- for whoever packs ------------------------------------------------------------------------------------------- */

nis_status nis_screen_make(const char *isa, const void *rows, uint32_t dtype, size_t count, uint32_t hidden,
                           const nis_screen_places *to, size_t *failed) {
    if (!rows || !to || !to->nibbles || !to->ones || !to->halves || !to->scales || !to->norms || !to->errors[0] ||
        !to->errors[1] || !to->errors[2] || dtype > NIS_BF16) {
        return NIS_ARGUMENT;
    }
    if (hidden < NIS_SCREEN_COLUMNS_MIN || hidden > NIS_SCREEN_COLUMNS_MAX || count > NIS_ROWS_MAX) return NIS_SHAPE;
    const size_t element = dtype == NIS_F32 ? 4 : 2;
    if ((uintptr_t)rows % element) return NIS_ARGUMENT;
    const nis_kernels *kernels = nis_kernels_named(isa);
    if (!kernels) return NIS_NO_KERNEL;
    void *scratch = malloc(nis_screen_scratch_bytes(hidden));
    if (!scratch) return NIS_NO_MEMORY;
    const unsigned long environment = nis_float_standard();
    nis_status status = NIS_OK;
    for (size_t row = 0; status == NIS_OK && row < count; row++) {
        const char *at = (const char *)rows + row * hidden * element;
        if (!nis_screen_make_row(kernels->floats, at, (nis_dtype)dtype, hidden, scratch, row, to)) {
            status = NIS_NOT_FINITE;
            if (failed) *failed = row;
        }
    }
    nis_float_restore(environment);
    free(scratch);
    return status;
}
