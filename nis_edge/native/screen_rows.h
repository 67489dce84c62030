/* All rows of the screen's first plane, ROWS_IN_FLIGHT at a time. An instruction set's file includes this behind its own
 * rows_in_flight, so that it is compiled for that instruction set. */
static void nibbles(const uint8_t *codes, size_t rows, size_t groups, const int8_t *activations, int32_t *dots) {
    const size_t row_bytes = groups * NIS_SCREEN_NIBBLE_BYTES;
    size_t row = 0;
    for (; row + ROWS_IN_FLIGHT <= rows; row += ROWS_IN_FLIGHT) {
        rows_in_flight(codes + row * row_bytes, groups, activations, dots + row, ROWS_IN_FLIGHT);
    }
    for (; row < rows; row++) rows_in_flight(codes + row * row_bytes, groups, activations, dots + row, 1);
}
