"""A perceptron over evidence and the meaning of events, trained in torch, written as the table a device computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from nis_edge.monitor.tables import SHOWN, SPREADS_MAX, Perceptron, PerceptronBytes

Array = np.ndarray[Any, Any]

HIDDEN: Final = 224
EPOCHS: Final = 12
BATCH: Final = 256
RATE: Final = 2e-3
DECAY: Final = 0.02
INPUT_DROPOUT: Final = 0.15
HIDDEN_DROPOUT: Final = 0.3
POSITIVE_WEIGHT: Final = 3.0


def learn(
    numbers: Array,
    meant: Array,
    targets: Array,
    counted: Array,
    features: Sequence[str],
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> PerceptronBytes:
    """Learn the perceptron.

    Args:
        numbers: float32 [n, features]; NaN is unknown.
        meant: float [n, SHOWN * width].
        targets: 0 or 1, [n, outputs].
        counted: whether a target is known, [n, outputs].
        features: names of the columns of ``numbers``.
        seed: the same seed learns the same weights, on one machine with one thread.
        epochs: how often each window is shown.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    with np.errstate(invalid="ignore"):
        there = ~np.isnan(numbers)
        count = np.maximum(there.sum(axis=0), 1)
        mean = np.where(there, numbers, 0).sum(axis=0) / count
        spread = np.sqrt(np.where(there, (numbers - mean) ** 2, 0).sum(axis=0) / count)
    mean, spread = mean.astype(np.float32), np.where(spread > 1e-4, spread, 1.0).astype(np.float32)
    centred = np.clip(np.where(there, (numbers - mean) / spread, 0), -SPREADS_MAX, SPREADS_MAX)
    inputs = torch.from_numpy(np.concatenate((centred, there, meant), axis=1, dtype=np.float32))
    wanted, known = torch.from_numpy(targets.astype(np.float32)), torch.from_numpy(counted.astype(np.float32))
    outputs = targets.shape[1]
    net = nn.Sequential(
        nn.Dropout(INPUT_DROPOUT),
        nn.Linear(inputs.shape[1], HIDDEN),
        nn.ReLU(),
        nn.Dropout(HIDDEN_DROPOUT),
        nn.Linear(HIDDEN, outputs),
    )
    nn.init.constant_(net[4].bias, -2.5)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    steps = epochs * (len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    weight = torch.full((outputs,), POSITIVE_WEIGHT)
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(inputs)))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            single = nn.functional.binary_cross_entropy_with_logits(
                net(inputs[rows]), wanted[rows], pos_weight=weight, reduction="none"
            )
            loss = (single * known[rows]).sum() / len(rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    first, second = net[1], net[4]
    return PerceptronBytes(
        features=tuple(features),
        mean=mean.astype("<f4").tobytes(),
        spread=spread.astype("<f4").tobytes(),
        hidden=HIDDEN,
        first=first.weight.detach().numpy().astype("<f2").tobytes(),
        first_bias=first.bias.detach().numpy().astype("<f4").tobytes(),
        second=second.weight.detach().numpy().astype("<f2").tobytes(),
        second_bias=second.bias.detach().numpy().astype("<f4").tobytes(),
    )


def ready(packed: PerceptronBytes, width: int, outputs: int) -> Perceptron:
    """The perceptron as a device computes it."""
    return Perceptron(packed, packed.features, SHOWN * width, outputs)


def scores(net: Perceptron, numbers: Array, meant: Array) -> Array:
    """Scores of many rows: float64 [n, outputs]."""
    seen = net.inputs(numbers, meant.astype(np.float32))
    hidden = np.maximum(seen @ net._first.T + net._first_bias, 0)
    return (hidden @ net._second.T + net._second_bias).astype(np.float64)
