"""Writes a GGUF file of a shape with random ternary weights, so that llama.cpp runs the same matrices as we do.

TQ2_0 (ggml): blocks of 256 weights, 64 bytes of 2-bit codes and one f16 scale; TQ1_0: the same in 52 bytes of base 3,
where every byte is valid. The head is F16, or Q6_K as the smallest head llama.cpp is commonly run with. The vocabulary
is declared without a tokenizer: token ids go in, logits come out.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from bench.engine.random_codes import random_code_bytes
from bench.engine.shapes import Shape

BLOCK_WEIGHTS = 256


def random_blocks(rng: np.random.Generator, rows: int, columns: int, weights: str) -> np.ndarray:
    """Random TQ2_0 or TQ1_0 bytes, uint8 [rows, blocks * block bytes], scaled so that a unit vector keeps its size."""
    blocks = columns // BLOCK_WEIGHTS
    if weights == "tq2_0":
        codes = random_code_bytes(rng, (rows, blocks, 64))
    else:
        codes = rng.integers(0, 256, (rows, blocks, 52), dtype=np.uint8)
    scale = np.array([(1.5 / columns) ** 0.5], dtype=np.float16).view(np.uint8)
    return np.concatenate((codes, np.broadcast_to(scale, (rows, blocks, 2))), axis=2).reshape(rows, -1)


def write_random_gguf(path: Path, shape: Shape, weights: str = "tq2_0", head: str = "f16", seed: int = 0) -> None:
    """Write the file.

    Args:
        path: where to.
        shape: the dimensions.
        weights: "tq2_0" or "tq1_0", the type of the ternary matrices.
        head: "f16" or "q6_k", the type of the tied embedding and output head.
        seed: of the random weights.
    """
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "bitnet")
    writer.add_block_count(shape.layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("none")

    embedding = rng.standard_normal((shape.vocab, shape.hidden), dtype=np.float32).astype(np.float16)
    if head == "f16":
        writer.add_tensor("token_embd.weight", embedding)
    else:
        # The values of a random head do not matter, its bytes do: valid Q6_K blocks of 210 bytes per 256 weights.
        blocks = rng.integers(0, 256, (shape.vocab, shape.hidden // 256, 210), dtype=np.uint8)
        blocks[:, :, 208:] = np.array([0.001], dtype=np.float16).view(np.uint8)
        writer.add_tensor(
            "token_embd.weight", blocks.reshape(shape.vocab, -1), raw_dtype=gguf.GGMLQuantizationType.Q6_K
        )

    def norm(name: str, size: int) -> None:
        writer.add_tensor(name, np.ones(size, dtype=np.float32))

    def ternary(name: str, rows: int, columns: int) -> None:
        kind = gguf.GGMLQuantizationType[weights.upper()]
        writer.add_tensor(name, random_blocks(rng, rows, columns, weights), raw_dtype=kind)

    norm("output_norm.weight", shape.hidden)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for i in range(shape.layers):
        block = f"blk.{i}"
        norm(f"{block}.attn_norm.weight", shape.hidden)
        norm(f"{block}.attn_sub_norm.weight", queries)
        norm(f"{block}.ffn_norm.weight", shape.hidden)
        norm(f"{block}.ffn_sub_norm.weight", shape.ffn)
        ternary(f"{block}.attn_q.weight", queries, shape.hidden)
        ternary(f"{block}.attn_k.weight", keys, shape.hidden)
        ternary(f"{block}.attn_v.weight", keys, shape.hidden)
        ternary(f"{block}.attn_output.weight", shape.hidden, queries)
        ternary(f"{block}.ffn_gate.weight", shape.ffn, shape.hidden)
        ternary(f"{block}.ffn_up.weight", shape.ffn, shape.hidden)
        ternary(f"{block}.ffn_down.weight", shape.hidden, shape.ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
