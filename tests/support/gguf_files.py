"""Small GGUF files written from the public description of the format, byte by byte: mainline types and bitnet.cpp's.

A writer of our own beside the `gguf` package, because that one does not know I2_S, and because the fast tests and the
fuzzer run where it is not installed; tests/parity holds the two against each other.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

IDS = {"F32": 0, "F16": 1, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "BF16": 30, "TQ1_0": 34, "TQ2_0": 35, "I2_S": 36}
"""ggml_type."""

PARTS = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


@dataclass(frozen=True)
class U32:
    """A number that stands in the file as an unsigned integer of 32 bits."""

    value: int


@dataclass
class GgufFile:
    """What a file is to hold: keys, and tensors as (shape, type name, bytes)."""

    keys: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[tuple[int, ...], str, bytes]] = field(default_factory=dict)
    version: int = 3

    def add(self, name: str, values: np.ndarray, kind: str = "F32", **options: Any) -> None:
        """A tensor from real numbers."""
        self.tensors[name] = (values.shape, kind, encode(values, kind, **options))

    def to_bytes(self) -> bytes:
        """The file."""
        alignment = max(1, self.keys.get("general.alignment", U32(32)).value)
        head = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.keys))
        head += b"".join(_text(key) + _typed(value) for key, value in self.keys.items())
        offset, table, data = 0, b"", b""
        for name, (shape, kind, raw) in self.tensors.items():
            table += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
            table += struct.pack("<IQ", IDS[kind], offset)
            padded = raw + bytes(-len(raw) % alignment)
            data += padded
            offset += len(padded)
        head += table
        return head + bytes(-len(head) % alignment) + data

    def write(self, path: Path) -> Path:
        """Write the file."""
        path.write_bytes(self.to_bytes())
        return path


def encode(values: np.ndarray, kind: str, order: str = "x86") -> bytes:
    """A tensor's bytes.

    Args:
        values: real numbers [.., columns]; of ternary types -s, 0 and s with one s for the tensor.
        kind: name of the type.
        order: of I2_S codes: x86, arm or x86-rows.
    """
    if kind == "F32":
        return values.astype("<f4").tobytes()
    if kind == "F16":
        return values.astype("<f2").tobytes()
    if kind == "BF16":
        return (np.ascontiguousarray(values, dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()
    scale = np.abs(values).max()
    codes = np.sign(values).astype(np.int64) + 1
    if kind == "I2_S":
        return _i2s(codes, order) + struct.pack("<f", scale) + bytes(28)
    blocks = codes.reshape(-1, 256)
    d = np.abs(values.reshape(-1, 256)).max(axis=1, keepdims=True).astype("<f2").view(np.uint8)
    return np.concatenate([_tq1(blocks) if kind == "TQ1_0" else _tq2(blocks), d], axis=1).tobytes()


def _i2s(codes: np.ndarray, order: str) -> bytes:
    """Four codes in a byte, the first one highest; which four, the order says."""
    row, column = np.indices(codes.shape)
    width = {"x86": 32, "arm": 16}.get(order, 0)
    if width:
        flat = row * codes.shape[1] + column
        place, quarter = flat // (4 * width) * width + flat % width, flat % (4 * width) // width
    else:
        place, quarter = row // 4 * codes.shape[1] + column, row % 4
    packed = np.zeros(codes.size // 4, dtype=np.uint8)
    np.bitwise_or.at(packed, place, (codes << (6 - 2 * quarter)).astype(np.uint8))
    return packed.tobytes()


def _tq2(blocks: np.ndarray) -> np.ndarray:
    """Byte i of each 32 holds the weights i, i+32, i+64 and i+96 of 128 at bits 0-1, 2-3, 4-5 and 6-7."""
    packed = np.zeros((len(blocks), 64), dtype=np.uint8)
    for weight in range(256):
        packed[:, weight // 128 * 32 + weight % 32] |= (blocks[:, weight] << (2 * (weight % 128 // 32))).astype(
            np.uint8
        )
    return packed


def _tq1(blocks: np.ndarray) -> np.ndarray:
    """Five trits in a byte, most significant first: 32 bytes, 16 bytes, then four trits in 4 bytes; scaled to 256."""
    packed = []
    for start, width, count in ((0, 32, 5), (160, 16, 5), (240, 4, 4)):
        for place in range(width):
            value = sum(blocks[:, start + width * step + place] * 3 ** (4 - step) for step in range(count))
            packed.append((value * 256 + 242) // 243)
    return np.stack(packed, axis=1).astype(np.uint8)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case U32(number):
            return struct.pack("<II", 4, number)
        case int():
            return struct.pack("<IQ", 10, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case np.ndarray():
            kind = {"<f4": 6, "<i4": 5, "<u4": 4, "|u1": 0}[value.dtype.str]
            return struct.pack("<IIQ", 9, kind, value.size) + value.tobytes()
        case list():
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    raise AssertionError(value)


def interleave(weights: np.ndarray, heads: int) -> np.ndarray:
    """What llama converters do to q and k: row i and row i + half of a head become neighbours."""
    half = len(weights) // heads // 2
    mixed = np.empty_like(weights)
    for head in range(heads):
        first = head * 2 * half
        mixed[first : first + 2 * half : 2] = weights[first : first + half]
        mixed[first + 1 : first + 2 * half : 2] = weights[first + half : first + 2 * half]
    return mixed


@dataclass(frozen=True)
class RandomModel:
    """A random ternary model: what a GGUF file is made of, and what a package of it must hold.

    Attributes:
        codes: package name of a matrix -> int8 [rows, columns].
        scales: package name of a matrix -> the real weight of code 1, representable in f16.
        real: embedding, head and norms by package name.
    """

    codes: dict[str, np.ndarray]
    scales: dict[str, float]
    real: dict[str, np.ndarray]


def random_model(
    seed: int = 0, *, hidden: int = 256, ffn: int = 256, layers: int = 1, heads: int = 4, kv_heads: int = 2,
    vocab: int = 64, sub_norms: bool = True, tied: bool = True,
) -> RandomModel:  # fmt: skip
    """Draw a model; ``codes`` has no structure, so no statistic shows its order."""
    random = np.random.default_rng(seed)
    keys = hidden // heads * kv_heads
    shapes = {
        "q": (hidden, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, hidden),
        "gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn),
    }  # fmt: skip
    codes, scales = {}, {}
    real = {"embed": (0.1 * random.standard_normal((vocab, hidden))).astype(np.float16).astype(np.float32)}
    if not tied:
        real["head"] = random.standard_normal((vocab, hidden)).astype(np.float16).astype(np.float32)
    real["norm"] = random.uniform(0.5, 1.5, hidden).astype(np.float32)
    for layer in range(layers):
        for part, shape in shapes.items():
            codes[f"trunk.{layer}.{part}"] = random.integers(-1, 2, shape).astype(np.int8)
            scales[f"trunk.{layer}.{part}"] = float(np.float16(random.uniform(0.02, 0.2)))
        norms = {"attn_norm": hidden, "ffn_norm": hidden}
        if sub_norms:
            norms |= {"attn_sub_norm": hidden, "ffn_sub_norm": ffn}
        for part, width in norms.items():
            real[f"trunk.{layer}.{part}"] = random.uniform(0.5, 1.5, width).astype(np.float32)
    return RandomModel(codes, scales, real)


def gguf_of(
    model: RandomModel, kind: str, *, architecture: str = "bitnet-b1.58", embed: str = "F16", order: str = "x86",
    heads: int = 4, kv_heads: int = 2, theta: float = 10_000.0, context: int = 512,
) -> GgufFile:  # fmt: skip
    """The model as converters write it, its matrices of one type; without a tokenizer."""
    hidden = model.real["norm"].size
    layers = 1 + max(int(name.split(".")[1]) for name in model.codes)
    file = GgufFile(
        {
            "general.architecture": architecture,
            "general.name": "random",
            f"{architecture}.block_count": U32(layers),
            f"{architecture}.context_length": U32(context),
            f"{architecture}.embedding_length": U32(hidden),
            f"{architecture}.feed_forward_length": U32(model.codes["trunk.0.gate"].shape[0]),
            f"{architecture}.attention.head_count": U32(heads),
            f"{architecture}.attention.head_count_kv": U32(kv_heads),
            f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
            f"{architecture}.rope.freq_base": theta,
            f"{architecture}.rope.dimension_count": U32(hidden // heads),
        }
    )
    file.add("token_embd.weight", model.real["embed"], embed)
    file.add("output_norm.weight", model.real["norm"])
    if "head" in model.real:
        file.add("output.weight", model.real["head"], embed)
    for name, values in model.real.items():
        if name.startswith("trunk."):
            _, layer, part = name.split(".")
            file.add(f"blk.{layer}.{part}.weight", values)
    for name, codes in model.codes.items():
        _, layer, part = name.split(".")
        weights = codes * np.float32(model.scales[name])
        if architecture == "llama" and part in "qk":
            weights = interleave(weights, heads if part == "q" else kv_heads)
        file.add(f"blk.{layer}.{PARTS[part]}.weight", weights, kind, **({"order": order} if kind == "I2_S" else {}))
    return file


def byte_level_keys(tokenizer_json: bytes, pre: str | None = "gpt-2") -> dict[str, Any]:
    """The keys of a byte-level BPE tokenizer, as converters take them from its tokenizer.json."""
    import json

    fields = json.loads(tokenizer_json)
    ids = dict(fields["model"]["vocab"])
    ids |= {token["content"]: token["id"] for token in fields["added_tokens"]}
    special = {token["id"] for token in fields["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in fields["model"]["merges"]]
    keys = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": sorted(ids, key=ids.__getitem__),
        "tokenizer.ggml.token_type": np.array([3 if n in special else 1 for n in range(len(ids))], dtype="<i4"),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": U32(1),
        "tokenizer.ggml.eos_token_id": U32(2),
    }
    return keys if pre is None else {**keys, "tokenizer.ggml.pre": pre}
