/* Products with several vectors in tiles of 8, 4 and 2, the last one alone. An instruction set's file includes this behind
 * its block_times_tile, with its names as GEMV and GEMM, so that it is compiled for that instruction set. */
void GEMM(const uint8_t *packed, size_t row_blocks, size_t column_groups, const int8_t *activations,
          size_t activation_stride, const int32_t *activation_sums, size_t tokens, int32_t *sums, size_t sums_stride) {
    size_t token = 0;
#define EACH_BLOCK(tile)                                                                                       \
    for (size_t block = 0; block < row_blocks; block++) {                                                      \
        block_times_tile(packed + block * column_groups * NIS_BLOCK_BYTES, column_groups,                      \
                         activations + token * activation_stride, activation_stride, activation_sums + token,  \
                         sums + token * sums_stride + block * NIS_BLOCK_ROWS, sums_stride, tile);              \
    }
    for (; token + 8 <= tokens; token += 8) EACH_BLOCK(8)
    if (token + 4 <= tokens) {
        EACH_BLOCK(4)
        token += 4;
    }
    if (token + 2 <= tokens) {
        EACH_BLOCK(2)
        token += 2;
    }
#undef EACH_BLOCK
    if (token < tokens) {
        GEMV(packed, row_blocks, column_groups, activations + token * activation_stride, activation_sums[token],
             sums + token * sums_stride);
    }
}
#undef GEMV
#undef GEMM
