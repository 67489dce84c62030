"""From logits to the next token: the most likely one, or one drawn by a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nis_edge.errors import ConfigError


class Sampler:
    """Picks tokens; the same seed and the same logits give the same tokens on one version of numpy."""

    def __init__(self, temperature: float = 0.0, seed: int = 0) -> None:
        """Set up.

        Args:
            temperature: 0 takes the most likely token; above, logits are divided by it and a token is drawn; to 100.
            seed: of the draws, 0 or above.

        Raises:
            ConfigError: out of range.
        """
        if not 0.0 <= temperature <= 100.0:
            raise ConfigError(f"temperature {temperature} must be 0 to 100")
        if not 0 <= seed < 2**64:
            raise ConfigError(f"seed {seed} must be 0 to 2**64 - 1")
        self._temperature = temperature
        self._random = np.random.Generator(np.random.PCG64(seed))

    def pick(self, logits: npt.NDArray[Any]) -> int:
        """The next token.

        Args:
            logits: float32 [vocab], finite.
        """
        if self._temperature == 0.0:
            return int(np.argmax(logits))
        scaled = (logits.astype(np.float64) - float(logits.max())) / self._temperature
        cumulative = np.cumsum(np.exp(scaled))
        drawn = self._random.random() * cumulative[-1]
        return min(int(np.searchsorted(cumulative, drawn, side="right")), len(logits) - 1)
