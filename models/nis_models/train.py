"""Training: fixed seed, batches of like length, checkpoints that resume exactly.

One window is one example: the task head is read at ``<ask>`` only, so the last layer costs little. What a window shows
is what the device would show: the same ``render``, the same cuts. A run that stops goes on from its last checkpoint
with the same optimizer, random state and place in the data, and ends in the same weights.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nis_edge.errors import ConfigError
from nis_edge.monitor.window import Encoder, encode, render
from nis_models.config import Config
from nis_models.model import EMBED_STD, NisNano
from nis_models.scenarios import Item, targets_of

HALFWAY = "halfway.pt"
"""The checkpoint in which rounding begins: a float twin goes on from it without rounding."""

CHUNK_BATCHES = 32
"""Batches whose windows are sorted by length together: little padding, still well mixed."""


@dataclass(frozen=True)
class Examples:
    """Windows as numbers: token ids, targets, and which targets count."""

    tokens: list[np.ndarray[Any, Any]]
    targets: np.ndarray[Any, Any]
    counted: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.tokens)

    def save(self, path: Path) -> None:
        """Write them down: a resumed run need not render again."""
        lengths = np.array([len(row) for row in self.tokens], dtype=np.int32)
        np.savez(path, flat=np.concatenate(self.tokens), lengths=lengths, targets=self.targets, counted=self.counted)

    @classmethod
    def load(cls, path: Path) -> Examples:
        """Read what ``save`` wrote."""
        with np.load(path) as kept:
            ends = np.cumsum(kept["lengths"])[:-1]
            return cls(list(np.split(kept["flat"], ends)), kept["targets"], kept["counted"])


def examples_of(items: list[Item], tokenizer: Encoder) -> Examples:
    """Render, encode and label items."""
    tokens = [np.array(encode(render(item.window), tokenizer), dtype=np.int32) for item in items]
    pairs = [targets_of(item) for item in items]
    return Examples(
        tokens,
        np.array([pair[0] for pair in pairs], dtype=np.float32),
        np.array([pair[1] for pair in pairs], dtype=np.float32),
    )


def batches(lengths: np.ndarray[Any, Any], config: Config, epoch: int) -> list[np.ndarray[Any, Any]]:
    """Indices of each batch of an epoch: shuffled, sorted by length in chunks, shuffled again."""
    rng = np.random.default_rng([config.seed, epoch])
    order = rng.permutation(len(lengths))
    size = config.train.batch_windows
    result: list[np.ndarray[Any, Any]] = []
    for start in range(0, len(order), size * CHUNK_BATCHES):
        chunk = order[start : start + size * CHUNK_BATCHES]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        parts = [chunk[i : i + size] for i in range(0, len(chunk), size)]
        result += [parts[i] for i in rng.permutation(len(parts))]
    return result


def padded(tokens: list[np.ndarray[Any, Any]]) -> tuple[Tensor, Tensor]:
    """Tokens [batch, longest] padded with 0 at the end, and the position of each one's last token."""
    longest = max(len(row) for row in tokens)
    block = np.zeros((len(tokens), longest), dtype=np.int64)
    for place, row in enumerate(tokens):
        block[place, : len(row)] = row
    return torch.from_numpy(block), torch.tensor([len(row) - 1 for row in tokens])


def loss_of(outputs: Tensor, targets: Tensor, counted: Tensor, config: Config) -> Tensor:
    """Cross-entropy of each output that counts, positives weighted up; mean over windows."""
    weights = torch.full((targets.shape[1],), config.train.positive_weight)
    weights[-1] = 1.0
    single = functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weights, reduction="none")
    scale = torch.ones(targets.shape[1])
    scale[-1] = config.train.failure_weight
    return (single * counted * scale).sum() / len(targets)


class Run:
    """One training run in a folder: ``checkpoint.pt``, ``log.jsonl``, in the end ``model.pt``."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        examples: Examples,
        *,
        data: dict[str, Any] | None = None,
        ternary: bool = True,
        start: Path | None = None,
        vectors: Path | None = None,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        """Make a run, or make ready to go on with one.

        Args:
            config: what to train, how long.
            folder: where checkpoints go; one that lies there is resumed by ``go``.
            examples: what to train on.
            data: what the examples were made of, for the lineage.
            ternary: False trains a float twin, for comparison.
            start: weights of a complete run to begin with, in place of random ones.
            rank: which of the workers this is; only the first writes.
            workers: processes that share each batch, joined in ``torch.distributed``.
            vectors: from ``nis-models vectors``: where the embeddings of known pieces begin.
        """
        self.config, self.folder, self.examples, self.ternary = config, folder, examples, ternary
        self.rank, self.workers = rank, workers
        torch.manual_seed(config.seed)
        self.model = NisNano(config.shape, ternary=ternary)
        if vectors is not None and start is None:
            self._begin_with(vectors)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.model.parameters() if p.ndim == 2], "decays": True},
                {"params": [p for p in self.model.parameters() if p.ndim == 1], "decays": False},
            ],
            lr=config.train.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        )
        self.origin: dict[str, Any] = {
            "config": config.name,
            "config_sha256": config.sha256,
            "seed": config.seed,
            "windows": config.train.windows,
            "data": data or {},
            "started_from": None,
            "embeddings_from": "all-MiniLM-L6-v2" if vectors is not None and start is None else None,
        }
        if start is not None:
            state = torch.load(start, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.origin["started_from"] = state.get("origin", {})
        self.step = 0
        self.windows = 0
        self.lengths = np.array([len(row) for row in examples.tokens])

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return math.ceil(self.config.train.windows / self.config.train.batch_windows)

    def go(
        self, progress: Callable[[dict[str, float]], None], *, stop_s: float | None = None, stop_at: int | None = None
    ) -> bool:
        """Train to the end, until ``stop_s`` seconds have passed, or up to step ``stop_at``.

        Returns:
            Whether the run is complete.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.resume()
        started = saved = time.monotonic()
        losses: list[float] = []
        tokens = 0
        since = started
        for indices in self._remaining():
            if self.ternary and self.step == self.turn:
                self.save()
                if self.rank == 0:
                    shutil.copyfile(self.folder / "checkpoint.pt", self.folder / HALFWAY)
            late = stop_s is not None and time.monotonic() - started > stop_s
            late = late or self.step + 1 == stop_at
            loss, counted, stop = self._update(indices, late)
            losses.append(loss)
            tokens += counted
            if self.step % 20 == 0 or self.step == self.steps:
                now = time.monotonic()
                entry = {
                    "step": self.step,
                    "steps": self.steps,
                    "windows": self.windows,
                    "loss": round(sum(losses) / len(losses), 4),
                    "lr": self._learning_rate(),
                    "tokens_per_s": round(tokens / (now - since)),
                }
                if self.rank == 0:
                    self._log(entry)
                    progress(entry)
                losses, tokens, since = [], 0, now
            if time.monotonic() - saved > self.config.train.checkpoint_s:
                self.save()
                saved = time.monotonic()
            if stop:
                break
        self.save()
        if self.step < self.steps:
            return False
        weights = {
            "model": self.model.state_dict(),
            "shape": asdict(self.config.shape),
            "origin": self.origin,
        }
        if self.rank == 0:
            torch.save(weights, self.folder / "model.pt")
        return True

    @property
    def turn(self) -> int:
        """The step in which rounding begins."""
        return math.ceil(self.config.train.float_share * self.steps)

    def _begin_with(self, path: Path) -> None:
        """Put the vectors of pieces in the place of random embeddings, as large as those."""
        with np.load(path) as known:
            rows = torch.from_numpy(known["piece_ids"])
            pieces = torch.from_numpy(known["pieces"])
        if pieces.shape[1] != self.config.shape.hidden or int(rows.max()) >= self.config.shape.vocab:
            raise ConfigError(f"{path} is of another tokenizer or width; run nis-models vectors again")
        with torch.no_grad():
            self.model.embed[rows] = pieces * (EMBED_STD / pieces.square().mean().sqrt())

    def save(self) -> None:
        """Write the checkpoint; an interrupted write leaves the old one."""
        if self.rank:
            return
        temporary = self.folder / ".checkpoint.partial"
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "step": self.step,
                "windows": self.windows,
                "config": self.config.sha256,
                "examples": len(self.examples),
                "origin": {**self.origin, "windows": self.windows},
            },
            temporary,
        )
        temporary.replace(self.folder / "checkpoint.pt")

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            ConfigError: it belongs to another configuration or data set; the operator names another folder.
        """
        path = self.folder / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        if state["config"] != self.config.sha256 or state["examples"] != len(self.examples):
            raise ConfigError(
                f"{path} is of another configuration or data set; choose another --out, it was left as it is"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step, self.windows = state["step"], state["windows"]

    def _remaining(self) -> Iterator[np.ndarray[Any, Any]]:
        done, epoch = 0, 0
        while self.step < self.steps:
            for indices in batches(self.lengths, self.config, epoch):
                done += 1
                if done <= self.step:
                    continue
                if self.step >= self.steps:
                    return
                yield indices
            epoch += 1

    def _settle_precision(self) -> None:
        """Float at first, then ternary: rounding what has been learnt costs less than learning rounded."""
        is_ternary = self.ternary and self.step >= self.turn
        for layer in (*self.model.trunk, *self.model.head):
            layer.ternary = is_ternary

    def _update(self, indices: np.ndarray[Any, Any], late: bool) -> tuple[float, int, bool]:
        settings = self.config.train
        self._settle_precision()
        rate = self._learning_rate()
        decay = settings.weight_decay if self.step < self.steps / 2 else 0.0
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            group["weight_decay"] = decay if group["decays"] else 0.0
        self.optimizer.zero_grad(set_to_none=True)
        total, tokens = 0.0, 0
        for part in self._passes(indices[self.rank :: self.workers]):
            block, ask = padded([self.examples.tokens[i] for i in part])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16):
                outputs = self.model(block, ask)
            loss = loss_of(
                outputs.float(),
                torch.from_numpy(self.examples.targets[part]),
                torch.from_numpy(self.examples.counted[part]),
                self.config,
            )
            share = len(part) / len(indices)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * share
            tokens += block.numel()
        total, tokens, late = self._joined(total, tokens, late)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.optimizer.step()
        self.step += 1
        self.windows += len(indices)
        return total, tokens, late

    def _joined(self, loss: float, tokens: int, late: bool) -> tuple[float, int, bool]:
        """Add up what the workers found: gradients in place, loss and tokens; one who is late stops all."""
        if self.workers == 1:
            return loss, tokens, late
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.model.parameters()]
        flat = torch.cat([*(grad.flatten() for grad in grads), torch.tensor([loss, float(tokens), float(late)])])
        torch.distributed.all_reduce(flat)
        start = 0
        for parameter, grad in zip(self.model.parameters(), grads, strict=True):
            parameter.grad = flat[start : start + grad.numel()].view_as(grad)
            start += grad.numel()
        return float(flat[-3]), int(flat[-2]), bool(flat[-1] > 0)

    def _passes(self, indices: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
        rows = max(1, self.config.train.batch_tokens // int(self.lengths[indices].max()))
        for start in range(0, len(indices), rows):
            yield indices[start : start + rows]

    def _learning_rate(self) -> float:
        settings = self.config.train
        if self.step < settings.warmup_steps:
            return settings.learning_rate * (self.step + 1) / settings.warmup_steps
        done = (self.step - settings.warmup_steps) / max(1, self.steps - settings.warmup_steps)
        return settings.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))

    def _log(self, entry: dict[str, float]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def predict(model: NisNano, examples: Examples, batch_tokens: int = 8192) -> np.ndarray[Any, Any]:
    """Raw head outputs of every example, in order: float32 [n, outputs]."""
    lengths = np.array([len(row) for row in examples.tokens])
    order = np.argsort(lengths, kind="stable")
    result = np.zeros((len(examples), model.shape.outputs), dtype=np.float32)
    model.eval()
    with torch.inference_mode():
        start = 0
        while start < len(order):
            size = max(1, batch_tokens // int(lengths[order[min(start + 63, len(order) - 1)]]))
            part = order[start : start + min(size, 64)]
            block, ask = padded([examples.tokens[i] for i in part])
            result[part] = model(block, ask).numpy()
            start += len(part)
    model.train()
    return result
