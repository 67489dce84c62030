"""What the offline models role signs beside a package's length and hash: the `custom` object of its target.

`models/NAME/VERSION.nis` is the target. Two kinds of companion files travel with it and are signed through it, by hash
and length in these facts; they are no targets of their own. They lie beside it, under hash-prefixed names as every
published file (`published_name`):

    targets/models/NAME/<sha256>.VERSION.nis       the package
    targets/models/NAME/<sha256>.VERSION.blocks    its block list (`update.blocks`)
    targets/models/NAME/<sha256>.VERSION.delta     a delta (`update.delta`), one for each base
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from nis_edge.errors import UntrustedMetadataError
from nis_edge.limits import (
    UPDATE_BLOCK_BYTES_MAX,
    UPDATE_BLOCK_BYTES_MIN,
    UPDATE_BLOCK_LIST_BYTES_MAX,
    UPDATE_DELTAS_MAX,
    UPDATE_MODEL_BYTES_MAX,
    UPDATE_SHADOW_SECONDS_MAX,
)
from nis_edge.update.journal import Count, Sha256, Version

MODEL_PATH: Final = re.compile(r"models/[a-z0-9][a-z0-9-]{0,63}/[0-9A-Za-z][0-9A-Za-z._+-]{0,31}\.nis")
"""The one shape of a model's target name. It has no room for `..`, an absolute path, a query or an escape."""

COHORT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
"""The same form as a site or a device has in topics."""

OLD_MODEL_STAYS: Final = "the running model stays in service"

Label = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e12)]


class BlockList(msgspec.Struct, frozen=True, kw_only=True):
    """A block list by its content: where the hash of every block of a file stands."""

    sha256: Sha256
    length: Annotated[int, msgspec.Meta(ge=1, le=UPDATE_BLOCK_LIST_BYTES_MAX)]
    block_bytes: Annotated[int, msgspec.Meta(ge=UPDATE_BLOCK_BYTES_MIN, le=UPDATE_BLOCK_BYTES_MAX)]


class DeltaFrom(msgspec.Struct, frozen=True, kw_only=True):
    """A delta that makes this model of a base model."""

    base_sha256: Sha256
    sha256: Sha256
    length: Annotated[int, msgspec.Meta(ge=1, le=UPDATE_MODEL_BYTES_MAX)]
    blocks: BlockList | None = None


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate must show beside the running model before it may answer."""

    windows: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    """Windows that both must have judged."""
    seconds_max: Annotated[float, msgspec.Meta(gt=0, le=UPDATE_SHADOW_SECONDS_MAX)]
    """After this time the shadow ends with what it has seen; see `on_few`."""
    on_few: Literal["fail", "pass"] = "pass"
    """What fewer windows than asked for at the end mean: a quiet device may take the model, or may not."""
    agreement_min: Share = 0.0
    """Least share of windows in which both name the same most probable label."""
    calibration_gap_max: Share = 1.0
    """Largest mean absolute difference of the two failure probabilities (or top probabilities)."""
    latency_ratio_max: Positive | None = None
    """Largest ratio of the median latencies, candidate to running."""
    joules_ratio_max: Positive | None = None
    """Largest ratio of the mean energies of an answer; unknown energy is said and not judged."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the candidate must keep on this very device in its self-test; None: not bounded."""

    latency_ms_max: Positive | None = None
    """Median latency of the longest golden entry."""
    tokens_per_s_min: Positive | None = None
    rss_bytes_max: Positive | None = None
    """Peak resident memory of the self-test's process."""
    watts_max: Positive | None = None
    """Mean power while the self-test computes; a device that can't measure says so and is not judged by it."""
    temperature_c_max: Positive | None = None
    """Hottest sensor at the end of the self-test."""
    shadow: Shadow | None = None


class SignedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The `custom` object that the offline models role signs beside a package's length and hash."""

    version: Version
    release_counter: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    security_epoch: Count = 0
    hardware: Annotated[tuple[Label, ...], msgspec.Meta(min_length=1, max_length=32)]
    """Hardware classes it may run on; `any` stands for all."""
    minimum_agent: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){0,3}\Z")] = "0"
    kernel_abi: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    """Lowest interface number of the engine that runs it (NIS_ABI); 0: any."""
    memory_bytes: Count = 0
    """Memory it needs to run; 0: not stated."""
    golden_sha256: Sha256 | None = None
    """Hash of the package's own golden list: the self-test must run exactly these."""
    blocks: BlockList | None = None
    deltas: Annotated[tuple[DeltaFrom, ...], msgspec.Meta(max_length=UPDATE_DELTAS_MAX)] = ()
    bounds: Bounds = Bounds()


_UNSAID: Final = SignedFacts(version="0", release_counter=1, hardware=("any",))
_ALWAYS_SAID: Final = frozenset({"version", "release_counter", "security_epoch", "hardware"})


def encode_facts(facts: SignedFacts) -> dict[str, Any]:
    """The facts as they stand in metadata.

    What is at its default is left out, since every device reads it daily. Fractions are decimal strings: the canonical
    JSON that signatures cover knows no floats.
    """
    whole, unsaid = msgspec.to_builtins(facts), msgspec.to_builtins(_UNSAID)
    said = {name: value for name, value in whole.items() if name in _ALWAYS_SAID or value != unsaid[name]}
    return {name: _without_floats(value) for name, value in said.items()}


def read_facts(custom: Mapping[str, Any]) -> SignedFacts:
    """The facts out of metadata, fractions as numbers again.

    Raises:
        msgspec.ValidationError: they are malformed; the publisher acts.
    """
    bounds = custom.get("bounds")
    if isinstance(bounds, dict):
        custom = {**custom, "bounds": _with_floats(bounds)}
    return msgspec.convert(custom, SignedFacts)


_FRACTION: Final = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,18})?(?:e[+-]?[0-9]{1,2})?")


def _with_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_floats(inner) for name, inner in value.items()}
    return float(value) if isinstance(value, str) and _FRACTION.fullmatch(value) else value


def _without_floats(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else repr(value)
    if isinstance(value, dict):
        return {name: _without_floats(inner) for name, inner in value.items() if inner is not None}
    return [_without_floats(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def check_path(path: str) -> str:
    """Return a model's target name when it is one.

    Raises:
        UntrustedMetadataError: the name has another shape than models/NAME/VERSION.nis.
    """
    if MODEL_PATH.fullmatch(path) is None:
        raise UntrustedMetadataError(
            f"target name {path[:80]!r} is not of the form models/NAME/VERSION.nis; {OLD_MODEL_STAYS}"
        )
    return path


def published_name(path: str, sha256: str, ending: Literal["nis", "blocks", "delta"] = "nis") -> str:
    """Where a model's file or companion lies below the targets folder: `models/NAME/<sha256>.VERSION.ENDING`.

    Args:
        path: the model's target name.
        sha256: of the file itself.
        ending: which file.

    Raises:
        UntrustedMetadataError: `path` is no model's target name.
    """
    folder, _, name = check_path(path).rpartition("/")
    return f"{folder}/{sha256}.{name.removesuffix('.nis')}.{ending}"
