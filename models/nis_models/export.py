"""From a training run to a package: ternary codes, calibration folded in, golden self-tests, lineage.

Thresholds, temperatures and shifts are fitted on what the packed model says through the device's engine, so that they
belong to the very bytes that ship. A shift is folded into the head's bias; the rest stands in the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from nis_edge.engine import golden, head_screen
from nis_edge.engine.model import Model
from nis_edge.errors import ConfigError
from nis_edge.judgement import WindowReader
from nis_edge.monitor import tables
from nis_edge.monitor.judge import RATES
from nis_edge.monitor.labels import HEAD_NAME, HEAD_OUTPUTS, LABELS
from nis_edge.monitor.window import Encoder, encode, render
from nis_edge.pack.layout import (
    Architecture,
    Manifest,
    ModelIdentity,
    Quantisation,
    TablesInfo,
    TaskHead,
    TokenizerInfo,
)
from nis_edge.pack.layout import Calibration as PackedCalibration
from nis_edge.pack.ternary import TernaryMatrix
from nis_edge.pack.writer import write_package
from nis_models import evaluate, evidence_judges, fusion, judges
from nis_models.evaluate import Calibration
from nis_models.model import NisNano, Shape, ternary_codes
from nis_models.scenarios import Item, draw_item
from nis_models.tokens import LearnedTokenizer
from nis_models.train import targets_of

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
NORMS = ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm")
GOLDEN_WINDOWS = 3

Source = np.ndarray[Any, Any] | TernaryMatrix


def load(checkpoint: Path) -> NisNano:
    """Read the weights of a training run.

    Raises:
        ConfigError: there are none; the operator trains first.
    """
    if not checkpoint.is_file():
        raise ConfigError(f"{checkpoint} is missing; run nis-models train first, nothing was written")
    state = torch.load(checkpoint, weights_only=True)
    model = NisNano(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model


def origin_of(checkpoint: Path) -> dict[str, Any]:
    """What weights were made from: configuration, seed, data, and the run they began with, back to random weights."""
    origin: dict[str, Any] = torch.load(checkpoint, weights_only=True)["origin"]
    return origin


def tensors_of(model: NisNano, tokenizer: LearnedTokenizer) -> dict[str, Source]:
    """Every tensor of the package by its name."""
    tensors: dict[str, Source] = {
        "embed": model.embed.detach().numpy().astype(np.float16),
        "norm": _float32(model.norm),
        f"heads.{HEAD_NAME}.norm": _float32(model.head_norm),
        f"heads.{HEAD_NAME}.projection": _float32(model.projection),
        f"heads.{HEAD_NAME}.bias": _float32(model.bias),
        "tokenizer": np.frombuffer(tokenizer.source.encode(), dtype=np.uint8),
    }
    for stack, layers in (("trunk", model.trunk), (f"heads.{HEAD_NAME}", model.head)):
        for index, layer in enumerate(layers):
            for name in NORMS:
                tensors[f"{stack}.{index}.{name}"] = _float32(getattr(layer, name))
            for name in MATRICES:
                codes, scale = ternary_codes(getattr(layer, name).detach())
                tensors[f"{stack}.{index}.{name}"] = TernaryMatrix.from_codes(codes.numpy(), scale)
    return tensors


def manifest_of(model: NisNano, tokenizer: LearnedTokenizer, *, model_id: str, version: str) -> Manifest:
    """The manifest without calibration, golden tests and lineage."""
    shape = model.shape
    return Manifest(
        model=ModelIdentity(id=model_id, version=version),
        architecture=Architecture(
            kind="bitnet",
            hidden=shape.hidden,
            ffn=shape.ffn,
            layers=shape.layers,
            heads=shape.heads,
            kv_heads=shape.heads,
            head_dim=shape.head_dim,
            vocab=shape.vocab,
            context=shape.context,
            rope_theta=shape.rope_theta,
            norm_eps=shape.norm_eps,
            activation="relu2",
            sub_norms=True,
            tied_head=True,
            task_heads={HEAD_NAME: TaskHead(layers=shape.head_layers, outputs=HEAD_OUTPUTS)},
        ),
        quantisation=Quantisation(embed="F16"),
        tokenizer=TokenizerInfo(kind="tokenizers-json", specials=tokenizer.specials),
        labels=LABELS,
        licence="Apache-2.0",
    )


def export(
    model: NisNano,
    tokenizer: LearnedTokenizer,
    tune: Sequence[Item],
    out: Path,
    *,
    model_id: str,
    version: str,
    lineage: dict[str, Any],
    learned: tables.TableBytes | None = None,
) -> tuple[str, Calibration]:
    """Write the package.

    Args:
        model: trained weights.
        tokenizer: of the same run.
        tune: items that thresholds and temperatures are fitted on.
        out: the file to make or replace.
        model_id: name in the manifest.
        version: publisher's version.
        lineage: what it was made from.
        learned: judges of evidence to pack beside the model, weighed here; None packs the model alone.

    Returns:
        SHA-256 of the file, and the calibration as it stands in the package (shifts are folded into the weights).
    """
    tensors = tensors_of(model, tokenizer)
    manifest = manifest_of(model, tokenizer, model_id=model_id, version=version)
    return pack(manifest, tensors, tokenizer, tune, out, lineage=lineage, learned=learned)


def pack(
    manifest: Manifest,
    tensors: dict[str, Source],
    tokenizer: Encoder,
    tune: Sequence[Item],
    out: Path,
    *,
    lineage: dict[str, Any],
    learned: tables.TableBytes | None = None,
) -> tuple[str, Calibration]:
    """Calibrate tensors and write them as a package; arguments as in ``export``."""
    bias = f"heads.{HEAD_NAME}.bias"
    draft = out.with_name(f".{out.name}.draft")
    try:
        write_package(draft, manifest, tensors)
        with Model.open(draft) as engine:
            alone = judges.alone(engine)(tune)
        weights = None
        if learned is None:
            fitted = evaluate.calibrate(alone, tune)
        else:
            parts = {**_table_scores(learned, tune), "model": alone}
            targets, counted = _targets(tune)
            weights = fusion.learn(parts, targets, counted)
            fitted = evaluate.calibrate(fusion.across(parts, targets, counted, [item.group for item in tune]), tune)
        shifts = np.array([scaling.shift for scaling in fitted.scalings], dtype=np.float32)
        if learned is not None and weights is not None:
            weights[:, -1] += shifts
            learned = msgspec.structs.replace(learned, weights=weights.astype("<f4").tobytes())
            tensors["tables"] = np.frombuffer(tables.encode(learned), dtype=np.uint8)
            manifest = msgspec.structs.replace(manifest, tables=TablesInfo())
        else:
            tensors[bias] = np.asarray(tensors[bias]) + shifts
        folded = replace(fitted, scalings=tuple(replace(scaling, shift=0.0) for scaling in fitted.scalings))
        manifest = msgspec.structs.replace(manifest, calibration=_packed(folded, tune), lineage=lineage)
        write_package(draft, manifest, tensors)
        with Model.open(draft) as engine:
            # Words of recorded runs may not travel in a package: their licences forbid or bind it.
            simulated = [item for item in tune if item.source == "simulated"]
            tests = [golden.record(engine)]
            tests += [
                golden.record(engine, encode(render(item.window), tokenizer)[:64])
                for item in simulated[:GOLDEN_WINDOWS]
            ]
        manifest = msgspec.structs.replace(manifest, golden=tuple(tests))
        if head_screen.pays(manifest):
            manifest, tensors = head_screen.with_screen(manifest, tensors)
        return write_package(out, manifest, tensors), folded
    finally:
        draft.unlink(missing_ok=True)


def _targets(items: Sequence[Item]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    pairs = [targets_of(item) for item in items]
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


def _table_scores(learned: tables.TableBytes, items: Sequence[Item]) -> dict[str, np.ndarray[Any, Any]]:
    windows = [item.window for item in items]
    numbers, meant = evidence_judges.numbers_of(windows, evidence_judges.Language.of(learned).meanings())
    return evidence_judges.scores(learned, numbers, meant)


def calibration_of(manifest: Manifest) -> Calibration:
    """The calibration a package carries.

    Raises:
        ConfigError: it carries none; the builder exports again.
    """
    packed = manifest.calibration
    if packed is None or set(packed.temperature) != set(HEAD_OUTPUTS) or set(packed.thresholds) != set(LABELS):
        raise ConfigError(
            f"package of {manifest.model.id} {manifest.model.version} carries no calibration of this head;"
            " export it again"
        )
    return Calibration(
        scalings=tuple(evaluate.Scaling(packed.temperature[name], 0.0) for name in HEAD_OUTPUTS),
        thresholds=(*(packed.thresholds[name] for name in LABELS), evaluate.UNSEEN),
    )


def _packed(calibration: Calibration, tune: Sequence[Item]) -> PackedCalibration:
    targets, counted = _targets(tune)
    return PackedCalibration(
        thresholds={label: round(t, 6) for label, t in zip(LABELS, calibration.thresholds, strict=False)},
        temperature={name: round(s.temperature, 6) for name, s in zip(HEAD_OUTPUTS, calibration.scalings, strict=True)},
        details={
            "n": len(tune),
            # What the probabilities presume; the monitor moves them to what is expected of a device (judge.at_share).
            RATES: {
                label: round(float(targets[counted[:, k] > 0, k].mean()), 6)
                for k, label in enumerate(LABELS)
                if (counted[:, k] > 0).any()
            },
            "method": "temperature and shift by maximum likelihood on the tune split (shift folded in); "
            f"thresholds by F1, moved together until {evaluate.CLEAN_SHARE:.0%} of clean and {evaluate.HARD_SHARE:.0%} "
            "of hard-negative windows are called none",
        },
    )


def _float32(parameter: torch.Tensor) -> np.ndarray[Any, Any]:
    return parameter.detach().numpy().astype(np.float32)


def write_behaviour(package: Path, out: Path) -> int:
    """Write what the package must say of some windows: tokens, hashes of logits and head outputs, findings.

    The file pins the whole path from a window to a verdict (evidence, prompt, tokenizer, engine, calibration), so that
    a change of any of them shows until the model is trained and packed anew.

    Args:
        package: a package with calibration.
        out: the JSON file to write.

    Returns:
        How many windows it holds.
    """
    cases = []
    with Model.open(package) as model:
        tokenizer = model.tokenizer
        assert tokenizer is not None, "a monitor's package carries its tokenizer"
        calibration = calibration_of(model.manifest)
        thresholds = np.array(calibration.thresholds[: len(LABELS)])
        reader = WindowReader(model)
        for seed, label in enumerate(BEHAVIOUR_LABELS):
            item = draw_item(10**9 + seed, "tune", label=label)
            tokens = encode(render(item.window), tokenizer)
            recorded = golden.record(model, tokens)
            raw, _ = reader.raw_of(item.window)
            p = calibration.probabilities(np.array([raw]))[0, : len(LABELS)]
            cases.append(
                {
                    "window": msgspec.to_builtins(item.window),
                    "injected": label,
                    "tokens": tokens,
                    "logits_sha256": recorded.logits_sha256,
                    "head_sha256": recorded.heads_sha256[HEAD_NAME],
                    "found": [name for name, value, t in zip(LABELS, p, thresholds, strict=True) if value >= t],
                }
            )
        reader.close()
        record = {"package_sha256": model.package.sha256(), "cases": cases}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    return len(cases)


BEHAVIOUR_LABELS = (
    None,
    None,
    "looping",
    "stalled",
    "contradiction",
    "premature_end",
    "invalid_call",
    "unsafe_action",
    "resource_starvation",
    "physics_violation",
)
"""One window of each: two drawn freely, and findings of every kind of evidence."""
