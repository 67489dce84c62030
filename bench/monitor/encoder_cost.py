"""What a sentence encoder costs a device beside the table of word vectors: bytes, memory, time for a text, one thread.

all-MiniLM-L6-v2 with its mean becomes one ONNX graph, its weights signed bytes (ONNX Runtime's dynamic quantisation).
Each encoder is asked in a process of its own, so that memory belongs to it alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from nis_models.evidence_judges import Language
from nis_models.vectors import folder

from nis_edge.bench_machine import rss_bytes
from nis_edge.engine.model import Model
from nis_edge.monitor import meaning, tables

LENGTHS: Final = (16, 32, 64)
REPEATS: Final = 150
SENTENCE: Final = "the pump that feeds the second tank was switched off by the planner before the check was done "
AGREEMENT_TEXTS: Final = 500


def measure(package: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Cost of both encoders.

    Args:
        package: whose table of words is measured.
        texts: some on which the quantised graph is compared with the float one.
    """
    with tempfile.TemporaryDirectory() as place:
        plain, small = Path(place, "encoder.onnx"), Path(place, "encoder-int8.onnx")
        _export(plain)
        _quantise(plain, small)
        return {
            "minilm_float32": {"megabytes": _megabytes(plain), **_asked("graph", plain)},
            "minilm_int8": {
                "megabytes": _megabytes(small),
                **_asked("graph", small),
                "cosine_to_float": _agreement(plain, small, texts),
            },
            "word_vectors": _asked("words", package),
        }


def _export(to: Path) -> None:
    import torch
    from transformers import AutoModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder(), attn_implementation="eager").eval()

        def forward(self, ids: Any, mask: Any) -> Any:
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            kept = mask[..., None].float()
            return torch.nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1), dim=-1)

    ids = torch.ones((2, 20), dtype=torch.long)
    axes = {"ids": {0: "texts", 1: "pieces"}, "mask": {0: "texts", 1: "pieces"}, "vectors": {0: "texts"}}
    with torch.inference_mode(), contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            Encoder(), (ids, torch.ones_like(ids)), str(to), input_names=["ids", "mask"], output_names=["vectors"],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip


def _quantise(plain: Path, small: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(plain, small, weight_type=QuantType.QInt8, per_channel=True)


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _agreement(plain: Path, small: Path, texts: Sequence[str]) -> dict[str, float]:
    """How far the quantised vectors turn away from the float ones."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max(LENGTHS))
    sessions = [_session(path) for path in (plain, small)]
    likeness = []
    for text in texts[:: max(1, len(texts) // AGREEMENT_TEXTS)]:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        one, other = (session.run(None, {"ids": ids, "mask": np.ones_like(ids)})[0][0] for session in sessions)
        likeness.append(float(one @ other))
    return {"mean": round(statistics.mean(likeness), 4), "least": round(min(likeness), 4), "texts": len(likeness)}


def _asked(what: str, path: Path) -> dict[str, Any]:
    """Ask one encoder in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.monitor.encoder_cost", what, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _graph(path: Path) -> dict[str, Any]:
    """Time and memory of a graph with its tokenizer."""
    from tokenizers import Tokenizer

    start = rss_bytes() or 0
    import onnxruntime  # noqa: F401 - counted

    runtime = rss_bytes() or 0
    session = _session(path)
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    pieces = tokenizer.encode(SENTENCE * 10).ids

    def of(count: int) -> Callable[[], Any]:
        ids = np.array([[*pieces[: count - 1], pieces[-1]]], dtype=np.int64)
        return lambda: session.run(None, {"ids": ids, "mask": np.ones_like(ids)})

    times = {str(count): _milliseconds(of(count)) for count in LENGTHS}
    memory = {"rss_added_mb": _mb((rss_bytes() or 0) - start), "of_it_runtime_mb": _mb(runtime - start)}
    return {"ms_by_pieces": times, "tokenizer_ms": _milliseconds(lambda: tokenizer.encode(SENTENCE * 2)), **memory}


def _words(package: Path) -> dict[str, Any]:
    """Time and memory of the table of words."""
    with Model.open(package) as model:
        language = Language.of(tables.decode(model.tables or b""))
    size = sum(len(word) + 1 for word in language.words) + language.table.nbytes
    start = rss_bytes() or 0
    known = meaning.Meanings(language.words, language.table)
    words_said = (SENTENCE * 10).split()

    def of(count: int) -> Callable[[], Any]:
        text = " ".join(words_said[: count - 2])
        return lambda: known._compute(text)

    times = {str(count): _milliseconds(of(count)) for count in LENGTHS}
    return {
        "megabytes": round(size / 1e6, 2),
        "ms_by_pieces": times,
        "rss_added_mb": _mb((rss_bytes() or 0) - start + language.table.nbytes),
    }


def _milliseconds(ask: Callable[[], Any]) -> dict[str, float]:
    for _ in range(10):
        ask()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - start) * 1e3)
    return {"median": round(statistics.median(taken), 4), "least": round(min(taken), 4)}


def _mb(count: int) -> float:
    return round(count / 1e6, 1)


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 1)


if __name__ == "__main__":
    print(json.dumps({"graph": _graph, "words": _words}[sys.argv[1]](Path(sys.argv[2]))))
