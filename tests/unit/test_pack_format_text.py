"""models/FORMAT.md against the code: its worked example, built from the text alone, is what the writer writes.

Nothing of nis_edge.pack is used to build it: this is the independent second implementation of the format.
"""

import hashlib
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from nis_edge.pack import layout
from nis_edge.pack.layout import Architecture, Golden, Manifest, ModelIdentity, TaskHead, TokenizerInfo
from nis_edge.pack.ternary import TernaryMatrix
from nis_edge.pack.writer import write_package

TEXT = (Path(__file__).parents[2] / "models" / "FORMAT.md").read_text()

SHAPES = {"q": (2, 2), "k": (2, 2), "v": (2, 2), "o": (2, 2), "gate": (3, 2), "up": (3, 2), "down": (2, 3)}


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def code(row: int, column: int) -> int:
    """The example's weights."""
    return (row + 2 * column) % 3 - 1


def packed(rows: int, columns: int) -> bytes:
    """Section 4, for at most 8 rows and 64 columns: one block of 128 bytes."""
    data = bytearray(128)
    for row in range(8):
        for column in range(64):
            value = code(row, column) if row < rows and column < columns else 0
            data[row * 16 + column % 16] |= (value + 1) << (2 * (column // 16))
    return bytes(data)


def example_manifest() -> dict:
    return {
        "format": 1,
        "model": {"id": "example", "version": "1.0"},
        "architecture": {
            "kind": "bitnet",
            "hidden": 2,
            "ffn": 3,
            "layers": 1,
            "heads": 1,
            "kv_heads": 1,
            "head_dim": 2,
            "vocab": 3,
            "context": 8,
            "rope_theta": 10000.0,
            "norm_eps": 1e-05,
            "activation": "relu2",
            "sub_norms": True,
            "tied_head": True,
            "task_heads": {"alarm": {"layers": 0, "outputs": ["calm", "alert"]}},
        },
        "quantisation": {"scheme": "b1.58", "embed": "F32", "head": None},
        "tokenizer": {"kind": "none", "specials": {}},
        "labels": ["calm"],
        "calibration": None,
        "golden": [],
        "licence": "Apache-2.0",
        "lineage": {"note": "naïve"},
    }


def example_tensors() -> list[tuple[str, str, list[int], bytes]]:
    """Name, dtype, shape and bytes in the order of section 3."""
    tensors = [
        ("trunk.0.attn_norm", "F32", [2], floats(1.0, 0.5)),
        ("trunk.0.attn_sub_norm", "F32", [2], floats(1.0, 0.5)),
        ("trunk.0.ffn_norm", "F32", [2], floats(1.0, 0.5)),
        ("trunk.0.ffn_sub_norm", "F32", [3], floats(1.0, 0.5, 0.25)),
    ]
    tensors += [(f"trunk.0.{name}.scale", "F32", [1], floats(0.5)) for name in SHAPES]
    tensors += [
        ("norm", "F32", [2], floats(1.0, 0.5)),
        ("heads.alarm.norm", "F32", [2], floats(1.0, 0.5)),
        ("heads.alarm.projection", "F32", [2, 2], floats(1.0, 2.0, 3.0, 4.0)),
        ("heads.alarm.bias", "F32", [2], floats(0.0, -1.0)),
        ("embed", "F32", [3, 2], floats(0.0, 1.0, 2.0, 3.0, 4.0, 5.0)),
    ]
    tensors += [(f"trunk.0.{name}", "U8", [1, 1, 128], packed(*shape)) for name, shape in SHAPES.items()]
    return tensors


def dump(value) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def build_from_the_text() -> bytes:
    """Sections 1 to 4, step by step."""
    tensors = example_tensors()
    header: dict = {}
    data = b""
    for number, (name, dtype, shape, content) in enumerate(tensors):
        header[name] = {"data_offsets": [len(data), len(data) + len(content)], "dtype": dtype, "shape": shape}
        data += content
        missing = -len(data) % 64
        if missing and number < len(tensors) - 1:
            header[f"pad.{number:05}"] = {
                "data_offsets": [len(data), len(data) + missing],
                "dtype": "U8",
                "shape": [missing],
            }
            data += bytes(missing)
    header["__metadata__"] = {
        "nis": dump(example_manifest()),
        "nis.header": "0" * 64,
        "nis.tensors": dump({name: hashlib.sha256(content).hexdigest() for name, _, _, content in tensors}),
    }
    text = dump(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    # The only run of 64 zeros in a quoted value is the place of the hash.
    final = text.replace(b'"' + b"0" * 64 + b'"', b'"' + hashlib.sha256(text).hexdigest().encode() + b'"')
    assert final != text
    return len(final).to_bytes(8, "little") + final + data


def write_with_the_writer(path: Path) -> bytes:
    manifest = Manifest(
        model=ModelIdentity("example", "1.0"),
        architecture=Architecture(
            kind="bitnet",
            hidden=2,
            ffn=3,
            layers=1,
            heads=1,
            kv_heads=1,
            head_dim=2,
            vocab=3,
            context=8,
            rope_theta=10_000,
            norm_eps=1e-5,
            activation="relu2",
            sub_norms=True,
            tied_head=True,
            task_heads={"alarm": TaskHead(0, ("calm", "alert"))},
        ),
        labels=("calm",),
        licence="Apache-2.0",
        lineage={"note": "naïve"},
    )
    tensors: dict = {}
    for name, dtype, shape, content in example_tensors():
        part = name.rpartition(".")[2]
        if part in SHAPES:
            rows, columns = SHAPES[part]
            codes = np.array([[code(row, column) for column in range(columns)] for row in range(rows)])
            tensors[name] = TernaryMatrix.from_codes(codes, 0.5)
        elif not name.endswith(".scale"):
            assert dtype == "F32"
            tensors[name] = np.frombuffer(content, dtype="<f4").reshape(shape)
    write_package(path, manifest, tensors)
    return path.read_bytes()


def test_the_writer_writes_what_the_text_says(tmp_path):
    assert write_with_the_writer(tmp_path / "example.nis") == build_from_the_text()


def test_the_figures_of_the_worked_example_are_true():
    data = build_from_the_text()
    length = int.from_bytes(data[:8], "little")
    embed = json.loads(data[8 : 8 + length])["embed"]["data_offsets"]
    figures = dict(re.findall(r"^\| (.+?) \| `(.+?)` \|$", TEXT.partition("## 7.")[2], flags=re.MULTILINE))
    assert figures == {
        "bytes of the file": str(len(data)),
        "bytes 0 to 7": data[:8].hex(" "),
        "first data byte": str(8 + length),
        "`embed` within the data": f"{embed[0]} to {embed[1]}",
        "first 16 bytes of `trunk.0.gate`": data[-2 * 128 - 128 : -2 * 128 - 112].hex(" "),
        "SHA-256 of the file": hashlib.sha256(data).hexdigest(),
    }


@pytest.mark.parametrize("struct_type", [Manifest, Architecture, TokenizerInfo, Golden, layout.Quantisation])
def test_every_field_of_the_manifest_is_in_the_text(struct_type):
    for field in struct_type.__struct_fields__:
        assert re.search(rf"[`{{ ]{field}[`}},]", TEXT), field


@pytest.mark.parametrize("name", layout.MATRICES)
def test_every_matrix_is_in_the_text(name):
    assert f"`P.{name}`" in TEXT
    assert f"`P.{name}.scale`" in TEXT
