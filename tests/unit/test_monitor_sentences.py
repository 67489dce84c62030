"""The encoder of sentences that a package may bring: its vectors, what it keeps, what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from nis_models.evidence_judges import Language, numbers_of

from nis_edge.engine.model import Model
from nis_edge.errors import ModelError
from nis_edge.judgement import PromptJudge, WindowReader, shipped_package
from nis_edge.monitor import meaning, sentences, tables
from nis_edge.monitor.context import NO_DEVICE, Window, window_of
from nis_edge.monitor.sentences import EncoderBytes, Sentences
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from nis_edge.wire.messages import AgentEvent
from tests.support.tiny_encoder import tiny_encoder, tiny_graph, tiny_tokenizer


class Spy:
    """A session that remembers what it was asked."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.asked: list[list[int]] = []

    def run(self, outputs: Any, inputs: dict[str, np.ndarray]) -> Any:
        self.asked.append(inputs["ids"][0].tolist())
        return self._session.run(outputs, inputs)


def spied(encoder: Sentences) -> Spy:
    encoder._session = Spy(encoder._session)
    return encoder._session


def test_a_text_has_one_unit_vector_that_does_not_change() -> None:
    encoder = Sentences(tiny_encoder())
    vector = encoder.vector("the pump is not open")
    assert vector is not None and vector.dtype == np.float32 and vector.shape == (encoder.width,) == (2,)
    assert abs(float(vector @ vector) - 1.0) < 1e-5
    assert np.array_equal(vector, encoder.vector("The pump is not open"))
    assert not np.array_equal(vector, encoder.vector("the valve"))
    assert np.array_equal(vector, Sentences(tiny_encoder()).vector("the pump is not open"))


def test_a_text_is_encoded_once_while_it_is_among_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "CACHED_TEXTS", 3)
    encoder = Sentences(tiny_encoder())
    spy = spied(encoder)
    for text in ("pump", "valve", "open", "pump", "the", "pump"):
        encoder.vector(text)
    assert len(spy.asked) == 4, "what is asked for stays"
    encoder.vector("valve")
    assert len(spy.asked) == 5, "what was not asked for longest is forgotten"
    assert len(encoder._known) == 3


def test_of_a_long_text_both_ends_are_seen() -> None:
    encoder = Sentences(tiny_encoder(pieces=8))
    spy = spied(encoder)
    encoder.vector("pump " * 400 + "valve")
    assert spy.asked == [[2, 5, 5, 5, 5, 5, 6, 3]]
    longest = meaning.HEAD_CHARS + meaning.TAIL_CHARS
    encoder.vector("x" * 10**6)
    assert all(len(text) <= longest + 1 for text in encoder._known)


def test_nothing_said_has_no_vector_and_marks_in_a_text_are_words() -> None:
    encoder = Sentences(tiny_encoder())
    spy = spied(encoder)
    assert encoder.vector("") is None and encoder.vector(" \n") is None
    assert spy.asked == []
    encoder.vector("[CLS]\ud800")
    assert spy.asked[0][0] == 2 and 2 not in spy.asked[0][1:]


def _with(**fields: object) -> Callable[[], EncoderBytes]:
    return lambda: msgspec.structs.replace(tiny_encoder(), **fields)


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (_with(graph=b""), "graph is out of bounds"),
        (_with(graph=b"\x00" * 64), "can't be run"),
        (_with(graph=tiny_graph()[:-40]), "can't be run"),
        (_with(graph=tiny_graph(inputs=("ids", "kinds"))), "failed"),
        (_with(graph=tiny_graph(3)), "another shape"),
        (_with(graph=tiny_graph(unit=False)), "length one"),
        (_with(graph=tiny_graph() + b"location"), "points at files"),
        (_with(tokenizer=b""), "tokenizer is out of bounds"),
        (_with(tokenizer=b"{}"), "tokenizer can't be read"),
        (_with(tokenizer=tiny_tokenizer(model={"type": "BPE", "vocab": {"a": 0}, "merges": []})), "lacks marks"),
        (_with(width=0), "width"),
        (_with(width=10**6), "width"),
        (_with(pieces=2), "longest text"),
        (_with(pieces=10**6), "longest text"),
    ],
)
def test_a_damaged_encoder_is_refused_in_one_line(damaged: Callable[[], EncoderBytes], said: str) -> None:
    with pytest.raises(ModelError, match=said) as refused:
        Sentences(damaged())
    assert "\n" not in str(refused.value)


def test_an_encoder_without_onnx_runtime_is_refused_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"pip install 'nis-edge\[onnx\]'"):
        Sentences(tiny_encoder())


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped package with an encoder in the place of its words."""
    shipped = shipped_package()
    if shipped is None:
        pytest.skip("no package ships with this installation")
    path = tmp_path_factory.mktemp("rich") / "rich.nis"
    with open_package(shipped) as package:
        raw = package.tables
        assert raw is not None
        packed = tables.decode(raw)
        assert tables.encode(packed) == raw, "tables without an encoder keep their bytes"
        packed = msgspec.structs.replace(packed, words="", vectors=b"", encoder=tiny_encoder(packed.width))
        with_encoder = np.frombuffer(tables.encode(packed), dtype=np.uint8)
        write_package(path, package.manifest, {**package.tensors, "tables": with_encoder})
    assert tables.decode(with_encoder.tobytes()) == packed
    return path


def windows() -> list[Window]:
    texts = ("the pump is open", "the valve is closed", "not open", "the pump", "open the valve", "closed")
    events = [
        AgentEvent(id=str(index), ts=float(index), agent=f"a{index % 2}", kind="message", text=text)
        for index, text in enumerate(texts)
    ]
    return [
        window_of("open the pump", events[:count], NO_DEVICE, float(count), time_known=True)
        for count in range(1, len(events) + 1)
    ]


def test_a_rich_package_judges_and_encodes_each_event_once(rich: Path) -> None:
    with Model.open(rich) as model:
        reader = WindowReader(model)
        assert reader.tables is not None and isinstance(reader.tables.meanings, Sentences)
        spy = spied(reader.tables.meanings)
        for place, window in enumerate(windows(), start=1):
            raw, _ = reader.raw_of(window)
            assert np.isfinite(raw).all()
            assert len(spy.asked) == place + 1, "one for the new event, one for the goal"
        reader.close()


def test_a_rich_package_without_onnx_runtime_is_refused_whole(rich: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"nis-edge\[onnx\]"):
        PromptJudge(rich)


def test_words_beside_an_encoder_and_an_encoder_of_another_width_are_refused(rich: Path) -> None:
    with open_package(rich) as package:
        packed, outputs = tables.decode(package.tables or b""), tuple(package.manifest.architecture.task_heads.values())
    known = packed.evidence.features
    for damage, said in (
        ({"words": "pump", "vectors": b"\x00" * packed.width}, "both"),
        ({"encoder": tiny_encoder(packed.width + 1)}, "another width"),
        ({"encoder": msgspec.structs.replace(tiny_encoder(packed.width), graph=b"x")}, "can't be run"),
    ):
        with pytest.raises(ModelError, match=said):
            tables.Tables(msgspec.structs.replace(packed, **damage), known, outputs[0].outputs)


def test_a_publisher_learns_from_the_vectors_that_a_device_computes(tmp_path: Path) -> None:
    language = Language.of_encoder(tiny_encoder())
    shown = windows()
    learned = language.meanings(tmp_path)
    numbers, meant = numbers_of(shown, learned)
    device, on_device = numbers_of(shown, Sentences(tiny_encoder()))
    assert np.array_equal(numbers, device, equal_nan=True) and np.array_equal(meant, on_device)
    assert learned.vector("") is None
    learned.save()  # type: ignore[attr-defined]
    again = language.meanings(tmp_path)
    again._sentences._session = None  # type: ignore[attr-defined]
    assert np.array_equal(numbers_of(shown, again)[1], meant), "what was kept needs no encoder"
    assert again.vector("") is None


def test_language_of_tables_is_what_they_were_learned_with(rich: Path) -> None:
    with open_package(rich) as package:
        language = Language.of(tables.decode(package.tables or b""))
    assert language.words == () and language.encoder == tiny_encoder(language.table.shape[1])
    assert isinstance(Language(("pump",), np.ones((1, 2), dtype=np.int8)).meanings(), meaning.Meanings)
