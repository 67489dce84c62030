/* A session's keys and values as bytes: a header that says what they are, then the numbers, in one order. */
#ifndef NIS_SAVED_H
#define NIS_SAVED_H

#include "model.h"

/* Little-endian, no padding between fields. What follows, per stretch of positions that the session still holds (all of
 * them; of a rolling window the sinks, then the rest): per layer and kv head the keys [positions, head_dim], the values,
 * with int8 the factors of both; then the residuals [positions, hidden] if there are any. */
typedef struct {
    char magic[8];
    uint32_t version, kv_dtype;
    uint32_t max_positions, sinks, window;
    uint32_t layers, kv_heads, head_dim, hidden; /* hidden 0: no residuals */
    uint32_t position, oldest, reserved;         /* reserved 0 */
    uint64_t model;                              /* fingerprint of the weights */
    uint64_t payload_bytes;
    uint64_t checksum; /* of the header, this field zero, then the payload */
} nis_saved;

_Static_assert(sizeof(nis_saved) == 80, "the header has no padding");

size_t nis_saved_bytes(const nis_session *session);
nis_status nis_write_saved(nis_session *session, void *saved, size_t bytes);
/* Checks everything but the numbers and copies the header. */
nis_status nis_read_saved(nis_model *model, const void *saved, size_t bytes, nis_saved *header);
/* `session` is fresh and made by the header. NIS_FORMAT if a number is not finite. */
nis_status nis_fill_from_saved(nis_session *session, const void *saved, const nis_saved *header);

#endif
