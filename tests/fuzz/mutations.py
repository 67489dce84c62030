"""Structure-aware damage: valid inputs of every reader, and seeded ways to change them that keep the rest whole.

One case is (kind, seed): the same two give the same bytes. A change either hits one value of a parsed structure (a
header's JSON, a GGUF key or table row, config.json, tokenizer.json), after which lengths and hashes are made right
again so that it reaches the checks behind them, or it hits the bytes as damage on a disk would.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from nis_edge.pack import layout
from tests.support.gguf_files import IDS, U32, GgufFile, byte_level_keys, gguf_of, random_model
from tests.support.tiny_models import tiny_tokenizer_json, write_tiny_package

Files = dict[str, bytes]
"""File name -> content: one file for packages and GGUF, several for a folder."""

JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 64, 255, 2**16, 2**24 + 1, 2**31, 2**32 - 1, 2**53, 2**63, 10**30,
    0.0, -0.5, 1e-320, 1e308, 1e999, "", "x", "x" * 300, "a\nb", "\u202e\x00", "F32", "F16", "BF16", "U8", "silu",
    [], {}, [0], [1, 2], [[[[]]]], {"a": {"a": {}}}, ["a", "a"], [None] * 40,
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, 31, 32, 33, 63, 64, 255, 256, 257, 320, 2**16, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1)


@functools.cache
def tokenizer_json() -> bytes:
    return tiny_tokenizer_json()


BARE: dict[str, Any] = {"tokenizer": False, "task_heads": {}, "vocab": 32, "tied_head": False, "embed": "F16"}
PACKAGES: dict[str, dict[str, Any]] = {"package": {}, "package-bare": BARE, "package-screen": {**BARE, "screen": True}}


@functools.cache
def package(kind: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        shape = {"hidden": 24, "ffn": 40, "heads": 3, "kv_heads": 1, "head_dim": 8, "layers": 1, "context": 16}
        return write_tiny_package(Path(folder) / "a.nis", **{**shape, **PACKAGES[kind]}).read_bytes()


@functools.cache
def gguf(kind: str) -> GgufFile:
    if kind == "llama":
        pieces = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", "a", "b", "ab", "▁a", "▁ab"]
        file = gguf_of(random_model(1, sub_norms=False, tied=False, vocab=320), "F16", architecture="llama")
        file.keys |= {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.scores": np.arange(len(pieces), dtype="<f4"),
            "tokenizer.ggml.token_type": np.array([2, 3, 3] + [6] * 256 + [1] * 6, dtype="<i4"),
            "tokenizer.chat_template": "{{ messages }}",
        }
        return file
    file = gguf_of(random_model(2, vocab=320), kind)
    file.keys |= byte_level_keys(tokenizer_json())
    return file


@functools.cache
def folder(kind: str) -> Files:
    """A Hugging Face folder of either graph, packed or real."""
    random = np.random.default_rng(3)
    hidden, ffn, vocab = 16, 24, 320
    shapes = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (8, hidden), "self_attn.v_proj": (8, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }  # fmt: skip
    tensors: dict[str, np.ndarray] = {
        "model.embed_tokens.weight": random.standard_normal((vocab, hidden)).astype(np.float32),
        "model.norm.weight": np.ones(hidden, np.float32),
    }
    prefix = "model.layers.0."
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if kind == "bitnet":
        norms |= {"self_attn.attn_sub_norm": hidden, "mlp.ffn_sub_norm": ffn}
    for name, width in norms.items():
        tensors[f"{prefix}{name}.weight"] = np.ones(width, np.float32)
    for name, (rows, columns) in shapes.items():
        if kind == "bitnet":
            tensors[f"{prefix}{name}.weight"] = random.standard_normal((rows, columns)).astype(np.float32)
        else:
            tensors[f"{prefix}{name}.weight"] = np.full((rows // 4, columns), 0b00_01_10_01, np.uint8)
            tensors[f"{prefix}{name}.weight_scale"] = np.array([8.0], np.float32)
    from safetensors.numpy import save

    config = {
        "architectures": ["BitNetForCausalLM" if kind == "bitnet" else "LlamaForCausalLM"],
        "model_type": kind, "hidden_act": "relu2" if kind == "bitnet" else "silu", "hidden_size": hidden,
        "intermediate_size": ffn, "max_position_embeddings": 32, "num_attention_heads": 2, "num_hidden_layers": 1,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True,
        "vocab_size": vocab, "bos_token_id": 1, "eos_token_id": [2],
        "quantization_config": {
            "quant_method": "bitnet", "linear_class": "autobitlinear" if kind == "bitnet" else "bitlinear",
            "quantization_mode": "online" if kind == "bitnet" else "offline",
        },
    }  # fmt: skip
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save(tensors),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": json.dumps({"chat_template": "{{ x }}"}).encode(),
        "generation_config.json": json.dumps({"eos_token_id": [2, 3], "temperature": 0.6, "top_k": 9}).encode(),
    }


def make_case(kind: str, seed: int) -> Files:
    """The damaged input of a case."""
    random = Random(f"{kind} {seed}")
    if kind in PACKAGES:
        return {"a.nis": _damaged_package(package(kind), random)}
    if kind.startswith("gguf-"):
        return {"a.gguf": _damaged_gguf(gguf(kind.removeprefix("gguf-")), random)}
    return _damaged_folder(folder(kind.removeprefix("folder-")), random)


KINDS = (
    *PACKAGES, "gguf-TQ2_0", "gguf-TQ1_0", "gguf-I2_S", "gguf-F16", "gguf-llama",
    "folder-bitnet", "folder-llama",
)  # fmt: skip


# --- JSON -------------------------------------------------------------------------------------------------------------


def change_json(value: Any, random: Random) -> Any:
    """The value with one node replaced, removed, doubled, renamed or nudged."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    pending = [value]
    while pending and len(places) < 20_000:
        node = pending.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in items:
            places.append((node, key))
            pending.append(child)
    if not places:
        return random.choice(JSON_VALUES)
    node, key = random.choice(places)
    old = node[key]
    match random.randrange(6):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[random.choice(("", "x", "__proto__", "nis", "a\n", f"{key}2"))] = node.pop(key)
        case 2 if isinstance(old, int) and not isinstance(old, bool):
            node[key] = old + random.choice((-1, 1, -8, 8, old, -2 * old))
        case 3:
            other, place = random.choice(places)
            node[key] = copy.deepcopy(other[place]) if place in other or isinstance(other, list) else None
        case _:
            node[key] = random.choice(JSON_VALUES)
    return value


def damage(raw: bytes, random: Random) -> bytes:
    """The bytes with a few of them flipped, cut, doubled, overwritten or moved."""
    data = bytearray(raw)
    for _ in range(random.choice((1, 1, 2, 5))):
        if not data:
            break
        at = random.randrange(len(data))
        if random.randrange(2):
            at = min(at, random.randrange(1, 600)) % len(data)  # headers stand at the beginning
        match random.randrange(6):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + random.randrange(1, 64)]
            case 3:
                data[at:at] = data[at : at + random.randrange(1, 64)]
            case 4:
                width = random.choice((1, 2, 4, 8))
                number = random.choice(
                    (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), random.getrandbits(8 * width))
                )
                data[at : at + width] = number.to_bytes(width, "little")
            case 5:
                data[at : at + 16] = random.choice((b"\0", b"\xff", b"\x80", b"{", b"[")) * 16
    return bytes(data)


def _damaged_safetensors(raw: bytes, random: Random, encode: Callable[[dict[str, Any]], bytes]) -> bytes:
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header = change_json(header, random)
    if random.randrange(3) == 0:
        body = damage(body, random)
    text = encode(header)
    return len(text).to_bytes(8, "little") + text + body


def _plain_header(header: Any) -> bytes:
    text = json.dumps(header).encode("utf-8", "replace")
    return text + b" " * (-len(text) % 8)


# --- packages ---------------------------------------------------------------------------------------------------------


def _damaged_package(raw: bytes, random: Random) -> bytes:
    match random.randrange(4):
        case 0:
            return damage(raw, random)
        case 1:
            return _damaged_safetensors(raw, random, _package_header)
    length = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + length]), bytearray(raw[8 + length :])
    metadata = header["__metadata__"]
    if random.randrange(2):  # the manifest, in canonical form again
        changed = change_json(json.loads(metadata["nis"]), random)
        metadata["nis"] = json.dumps(changed, sort_keys=True, separators=(",", ":"))
    else:  # one tensor, with its hash right again
        hashes = json.loads(metadata["nis.tensors"])
        name = random.choice(sorted(hashes))
        start, stop = header[name]["data_offsets"]
        part = damage(bytes(body[start:stop]), random)[: stop - start].ljust(stop - start, b"\0")
        if name == "tokenizer" and random.randrange(2):
            try:
                text = json.dumps(change_json(json.loads(bytes(body[start:stop])), random)).encode("utf-8", "replace")
            except ValueError:
                text = b"{}"
            part = text[: stop - start].ljust(stop - start)
        body[start:stop] = part
        hashes[name] = hashlib.sha256(part).hexdigest()
        metadata["nis.tensors"] = json.dumps(hashes, sort_keys=True, separators=(",", ":"))
    text = _package_header(header)
    return len(text).to_bytes(8, "little") + text + bytes(body)


def _package_header(header: Any) -> bytes:
    """With its own hash right again, where it still is a header."""
    try:
        return layout.encode_header(header)
    except Exception:
        return _plain_header(header)


# --- GGUF -------------------------------------------------------------------------------------------------------------


def _damaged_gguf(file: GgufFile, random: Random) -> bytes:
    changed = GgufFile(dict(file.keys), dict(file.tensors), file.version)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if random.randrange(2):
            _change_key(changed, random)
        else:
            _change_tensor(changed, random)
    raw = changed.to_bytes()
    if random.randrange(3) == 0:
        raw = damage(raw, random)
    return raw


def _change_key(file: GgufFile, random: Random) -> None:
    key = random.choice(sorted(file.keys))
    value = file.keys[key]
    match random.randrange(5):
        case 0:
            del file.keys[key]
        case 1:
            file.keys[random.choice(("", "x" * 70_000, "split.count", f"{key}2"))] = file.keys.pop(key)
        case 2 if isinstance(value, list) and value:
            value = list(value)
            at = random.randrange(len(value))
            value[at] = random.choice(("", value[at - 1], "a b", "a b c", "\u2581" * 600, value[at] + "x"))
            file.keys[key] = value if random.randrange(3) else value[:at]
        case 3 if isinstance(value, np.ndarray) and value.size:
            value = value.copy()
            with np.errstate(all="ignore"):
                value[random.randrange(value.size)] = random.choice((0, 1, 2, 3, 4, 7, 127))
            if value.dtype.kind == "f" and random.randrange(2):
                value[0] = random.choice((np.nan, np.inf, -np.inf))
            file.keys[key] = value if random.randrange(3) else value[:-1]
        case _:
            if key == "general.alignment":
                return
            file.keys[key] = random.choice(
                (U32(random.choice(NUMBERS)), random.choice((0.0, -1.0, 1e30, float("nan"), float("inf"))), "", "llama",
                 "bitnet", "default", "qwen2", True, [], ["a", "b"], np.zeros(3, "<f4"), 2**63)
            )  # fmt: skip


def _change_tensor(file: GgufFile, random: Random) -> None:
    name = random.choice(sorted(file.tensors))
    shape, kind, raw = file.tensors[name]
    match random.randrange(7):
        case 0:
            del file.tensors[name]
        case 1:
            file.tensors[
                random.choice(("", name + "x", "output.weight", "rope_freqs.weight", "blk.0.attn_q.scale"))
            ] = file.tensors.pop(name)
        case 2:
            sides = list(shape)
            sides[random.randrange(len(sides))] = random.choice((*NUMBERS, 2**63 - 1))
            file.tensors[name] = (tuple(sides), kind, raw)
        case 3:
            file.tensors[name] = (shape, random.choice(sorted(IDS)), raw)
        case 4:
            file.tensors[name] = (random.choice((shape[::-1], (*shape, 1), shape[:1], (1, *shape))), kind, raw)
        case 5:
            file.tensors[name] = (shape, kind, raw[: random.randrange(len(raw) + 1)])
        case 6:
            file.tensors[name] = (shape, kind, damage(raw, random)[: len(raw)].ljust(len(raw), b"\0"))


# --- folders ----------------------------------------------------------------------------------------------------------


def _damaged_folder(files: Files, random: Random) -> Files:
    files = dict(files)
    name = random.choice((*sorted(files), "config.json", "model.safetensors"))
    raw = files[name]
    match random.randrange(5):
        case 0:
            files[name] = damage(raw, random)
        case 1 if name != "config.json":
            del files[name]
        case _ if name.endswith(".safetensors"):
            files[name] = _damaged_safetensors(raw, random, _plain_header)
        case _:
            files[name] = json.dumps(change_json(json.loads(raw), random)).encode("utf-8", "replace")
    if random.randrange(8) == 0:
        index = {"weight_map": change_json({"a": "model.safetensors", "b": "model.safetensors"}, random)}
        files["model.safetensors.index.json"] = json.dumps(index).encode()
        if random.randrange(2):
            files.pop("model.safetensors", None)
    return files
