"""What the update loop is told: places and times, what this device is, which model to put in service."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nis_edge import __version__
from nis_edge.config import UpdateOptions
from nis_edge.engine.library import ABI
from nis_edge.limits import KIB
from nis_edge.update.journal import Slot
from nis_edge.update.offer import Device

PROBATION_S: Final = 1800.0
"""How long a new model is watched before it is committed (design: ota section 4)."""

TICK_S: Final = 2.0
"""How often the loop looks for an operator's request and at the health of a model on probation."""


@dataclass(frozen=True)
class Activation:
    """The model to put in service: `path` is valid until `on_activate` returns; None: the factory model."""

    path: Path | None
    slot: Slot | None


@dataclass(frozen=True)
class UpdateSettings:
    """What the loop needs to know; seconds and places."""

    folder: Path
    """State of updates, e.g. /var/lib/nis-edge/update."""
    device: Device
    repository: str | None = None
    """URL of the published folder; None: only bundles and imports, whose targets need a repository too."""
    root: Path | None = None
    """The root metadata this device was given."""
    poll_s: float = 6 * 3600.0
    probation_s: float = PROBATION_S
    tick_s: float = TICK_S
    factory_version: str | None = None
    rate_bytes_per_s: float | None = None


def settings_of(
    options: UpdateOptions, device: str, folder: Path, factory_version: str | None = None
) -> UpdateSettings:
    """The operator's options as the loop wants them.

    Args:
        options: the section `update` of the configuration.
        device: the device's id.
        folder: the daemon's state folder.
        factory_version: of the model that runs while no update was taken; None: unknown.
    """
    return UpdateSettings(
        folder=folder / "update",
        device=describe_device(device, options.cohort, options.hardware),
        repository=options.repository,
        root=options.root,
        poll_s=options.poll_s,
        probation_s=options.probation_s,
        factory_version=factory_version,
        rate_bytes_per_s=options.rate_kib_s * KIB if options.rate_kib_s is not None else None,
    )


def describe_device(device_id: str, cohort: str, hardware: str | None = None) -> Device:
    """This machine as offers are judged against it.

    Args:
        device_id: its configured id.
        cohort: its configured cohort.
        hardware: a configured hardware class, besides what the machine itself says.
    """
    classes = {platform.machine()}
    with contextlib.suppress(OSError):
        model = Path("/proc/device-tree/model").read_bytes()[:64].rstrip(b"\0").decode("ascii", "ignore")
        classes.add("-".join(model.lower().split()))
    if hardware:
        classes.add(hardware)
    return Device(
        id=device_id,
        cohort=cohort,
        hardware=frozenset(filter(None, classes)),
        agent_version=__version__,
        kernel_abi=ABI,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
