"""Training configurations: TOML beside the code or anywhere; unknown keys are refused."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nis_edge.errors import ConfigError
from nis_models.model import Shape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Training:
    """How long, how fast. See the comments of ``configs/nano.toml``."""

    windows: int
    batch_windows: int
    batch_tokens: int
    learning_rate: float
    warmup_steps: int
    float_share: float
    weight_decay: float
    clip: float
    positive_weight: float
    failure_weight: float
    checkpoint_s: float
    bf16: bool = False
    drawn_from: int = 0


@dataclass(frozen=True)
class Config:
    """A model to train."""

    name: str
    seed: int
    shape: Shape
    train: Training
    sha256: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    seed: int
    shape: dict[str, Any]
    train: dict[str, Any]


def read(name_or_path: str) -> Config:
    """Read a configuration.

    Args:
        name_or_path: ``nano`` means the shipped ``configs/nano.toml``; anything with a dot or slash is a file.

    Raises:
        ConfigError: there is no such file, or a key of it is unknown, missing or of the wrong type.
    """
    path = Path(name_or_path) if "." in name_or_path or "/" in name_or_path else SHIPPED / f"{name_or_path}.toml"
    try:
        raw = path.read_bytes()
        fields = msgspec.convert(tomllib.loads(raw.decode()), _File)
        return Config(
            name=fields.name,
            seed=fields.seed,
            shape=msgspec.convert(_known(fields.shape, Shape), Shape),
            train=msgspec.convert(_known(fields.train, Training), Training),
            sha256=hashlib.sha256(raw).hexdigest(),
        )
    except FileNotFoundError as error:
        names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.toml")))
        raise ConfigError(f"{path}: no such configuration; shipped ones are {names}") from error
    except (msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}; nothing was trained") from error


def _known(table: dict[str, Any], kind: type) -> dict[str, Any]:
    unknown = sorted(set(table) - set(kind.__dataclass_fields__))
    if unknown:
        raise msgspec.ValidationError(f"unknown key {unknown[0]!r}")
    return table
