"""Packing holds one matrix and one chunk at a time, whatever the model's size. A folder of 2B-4T's shape in bf16
(4.8 GB) took 680 MiB of resident memory at its peak, pages of the mapped source included."""

import tracemalloc

from nis_edge import limits
from nis_edge.pack.gguf_checkpoint import read_gguf_checkpoint
from nis_edge.pack.writer import write_package
from tests.support.gguf_files import gguf_of, random_model

LAYERS = 16
MATRIX_BYTES = 4 * 384 * 384
"""The largest in float32."""


def test_packing_allocates_a_matrix_and_a_chunk_not_the_model(tmp_path):
    model = random_model(1, hidden=384, ffn=384, layers=LAYERS)
    path = gguf_of(model, "F32").write(tmp_path / "a.gguf")
    tracemalloc.start()
    try:
        source = read_gguf_checkpoint(path)
        write_package(tmp_path / "a.nis", source.manifest, source.tensors)
        source.close()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < limits.PACK_CHUNK_BYTES + 4 * MATRIX_BYTES
    assert 6 * peak_bytes < 7 * LAYERS * MATRIX_BYTES  # the model is far larger
