"""Tables of a package: they score as they were learned, and nothing damaged is believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nis_edge.errors import ModelError, PackFormatError
from nis_edge.monitor import tables
from nis_edge.monitor.dense import names
from nis_edge.monitor.tables import MISSING_LEFT, ForestBytes, PerceptronBytes, TableBytes, Tables
from nis_edge.pack.layout import TablesInfo, encode_manifest
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import tiny_manifest, tiny_tensors

WIDTH = 2


def _forest() -> ForestBytes:
    # Output "up": one tree that parts the first number at 1.5, unknown to the left; output "flat": no tree.
    return ForestBytes(
        features=names()[:2],
        outputs=("up", "flat"),
        base=np.array([0.5, -1.0], "<f4").tobytes(),
        trees=np.array([1, 0], "<u2").tobytes(),
        nodes=bytes([3]),
        feature=np.array([0 | MISSING_LEFT, 0, 0], "<u2").tobytes(),
        value=np.array([1.5, -2.0, 3.0], "<f4").tobytes(),
        left=bytes([1, 0, 0]),
        right=bytes([2, 0, 0]),
    )


def _perceptron() -> PerceptronBytes:
    inputs = 2 * 1 + tables.SHOWN * WIDTH
    first = np.zeros((1, inputs), "<f2")
    first[0, 0] = 2.0
    return PerceptronBytes(
        features=names()[:1],
        mean=np.array([1.0], "<f4").tobytes(),
        spread=np.array([0.5], "<f4").tobytes(),
        hidden=1,
        first=first.tobytes(),
        first_bias=np.array([0.0], "<f4").tobytes(),
        second=np.array([[1.0], [0.0]], "<f2").tobytes(),
        second_bias=np.array([0.0, 0.25], "<f4").tobytes(),
    )


def _tables() -> TableBytes:
    weights = np.zeros((2, 7), "<f4")
    weights[0, [0, 2, 4, 6]] = (1.0, 10.0, 100.0, 0.125)  # trees, perceptron, model, constant
    return TableBytes(
        evidence=_forest(),
        perceptron=_perceptron(),
        weights=weights.tobytes(),
        words="pump\nvalve",
        vectors=np.array([[127, 0], [0, 127]], np.int8).tobytes(),
        width=WIDTH,
    )


def _numbers(first: float) -> np.ndarray:
    row = np.full(len(names()), np.nan, dtype=np.float32)
    row[0] = first
    return row


@pytest.mark.parametrize(("first", "score"), [(1.5, -1.5), (1.6, 3.5), (float("nan"), -1.5)])
def test_a_tree_parts_at_its_threshold_and_sends_the_unknown_where_it_was_told(first: float, score: float) -> None:
    assert tables.Forest(_forest(), names()).scores(_numbers(first)).tolist() == [score, -1.0]


def test_trees_perceptron_and_model_are_weighed_into_one_score() -> None:
    ready = Tables(_tables(), names(), ("up", "flat"))
    fused = ready.fused(
        _numbers(2.0), np.zeros(tables.SHOWN * WIDTH, np.float32), np.array([0.5, 9.0], dtype=np.float32)
    )
    # Trees 3.5; perceptron 2 * (2 - 1) / 0.5 = 4; model 0.5.
    assert fused.tolist() == [3.5 + 40.0 + 50.0 + 0.125, 0.0]


def test_tables_read_back_as_they_were_written() -> None:
    assert tables.decode(tables.encode(_tables())) == _tables()


def _with(**fields: object) -> Callable[[TableBytes], TableBytes]:
    return lambda packed: msgspec.structs.replace(packed, **fields)


def _forest_with(**fields: object) -> Callable[[TableBytes], TableBytes]:
    return lambda packed: msgspec.structs.replace(packed, evidence=msgspec.structs.replace(packed.evidence, **fields))


def _perceptron_with(**fields: object) -> Callable[[TableBytes], TableBytes]:
    return lambda packed: msgspec.structs.replace(
        packed, perceptron=msgspec.structs.replace(packed.perceptron, **fields)
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_with(format=2), "format 2"),
        (_with(weights=b""), "weights"),
        (_with(weights=np.full(14, np.nan, "<f4").tobytes()), "not finite"),
        (_with(vectors=b"\x00"), "vectors"),
        (_with(width=0), "words"),
        (_forest_with(left=bytes([0, 0, 0]), right=bytes([0, 0, 0]), nodes=bytes([2])), "feature has"),
        (_forest_with(left=bytes([1, 1, 0]), right=bytes([2, 2, 0])), "behind their parent"),
        (_forest_with(left=bytes([1, 0, 0]), right=bytes([3, 0, 0])), "behind their parent"),
        (_forest_with(nodes=bytes([3, 1])), "not all there"),
        (_forest_with(feature=np.array([9, 0, 0], "<u2").tobytes()), "not listed"),
        (_forest_with(features=("no_such_number", names()[0])), "update nis-edge"),
        (_forest_with(value=np.array([np.inf, 0, 0], "<f4").tobytes()), "not finite"),
        (_perceptron_with(spread=np.array([0.0], "<f4").tobytes()), "not above zero"),
        (_perceptron_with(hidden=2), "first has"),
        (_perceptron_with(hidden=0), "hidden"),
    ],
)
def test_damaged_tables_are_refused_by_name(damage: Callable[[TableBytes], TableBytes], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Tables(damage(_tables()), names(), ("up", "flat"))


def test_tables_for_other_outputs_than_the_models_are_refused() -> None:
    with pytest.raises(ModelError, match="do not score"):
        Tables(_tables(), names(), ("up", "down"))


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x80", b"\x93" * 500, bytes(range(256))])
def test_bytes_that_are_no_tables_are_refused(raw: bytes) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        tables.decode(raw)


@pytest.mark.parametrize("data", [None, np.zeros(0, np.uint8), np.zeros((2, 2), np.uint8)])
def test_a_package_brings_its_tables_along_or_is_not_written(tmp_path: Path, data: np.ndarray | None) -> None:
    plain = tiny_manifest()
    manifest = msgspec.structs.replace(plain, tables=TablesInfo())
    tensors = {**tiny_tensors(plain), **({} if data is None else {"tables": data})}
    with pytest.raises(PackFormatError, match="tables"):
        write_package(tmp_path / "x.nis", manifest, tensors)
    raw = tables.encode(_tables())
    write_package(tmp_path / "x.nis", manifest, {**tensors, "tables": np.frombuffer(raw, dtype=np.uint8)})
    with open_package(tmp_path / "x.nis") as package:
        package.check_content()
        assert package.tensors["tables"].tobytes() == raw
    assert '"tables"' not in encode_manifest(plain), "a package without tables reads as it always did"
