"""Whether broker and server tell this device the same: who holds back one carrier can't do so in silence. Pure.

Each carrier brings the same signed metadata, so the one that lags behind the other for longer than republishing takes
is withheld, stopped or forgotten. That changes nothing about what is trusted; it is reported: somebody must look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Carrier = Literal["broker", "server"]

OFFER_LAG_S: Final = 6 * 3600.0
"""How long one carrier may know a newer rollout than the other."""

METADATA_LAG_S: Final = 48 * 3600.0
"""How long one carrier's timestamp may be older: bundles are made daily, a server's timestamp more often."""


@dataclass(frozen=True)
class Heard:
    """What a carrier said last, and since when it says so; seconds of one clock that never goes back."""

    version: int
    serial: int
    version_since_s: float
    serial_since_s: float


class Divergence:
    """Remembers what each carrier said."""

    def __init__(self) -> None:
        self._heard: dict[Carrier, Heard] = {}

    def hear(self, carrier: Carrier, version: int, serial: int, now_s: float) -> None:
        """Note what a look by this carrier found: version of the timestamp, serial of the rollout (0: none)."""
        before = self._heard.get(carrier)
        self._heard[carrier] = Heard(
            version,
            serial,
            before.version_since_s if before is not None and before.version == version else now_s,
            before.serial_since_s if before is not None and before.serial == serial else now_s,
        )

    def verdict(self, now_s: float) -> str | None:
        """Which carrier lags for too long, in words; None when both agree or only one was ever heard."""
        broker, server = self._heard.get("broker"), self._heard.get("server")
        if broker is None or server is None:
            return None
        for behind, ahead, name in ((broker, server, "broker"), (server, broker, "server")):
            if behind.serial < ahead.serial and now_s - ahead.serial_since_s > OFFER_LAG_S:
                return f"the {name} still offers rollout {behind.serial}, rollout {ahead.serial} is out for long"
            if behind.version < ahead.version and now_s - ahead.version_since_s > METADATA_LAG_S:
                return f"the {name} brings old metadata: version {behind.version}, {ahead.version} is out for long"
        return None
