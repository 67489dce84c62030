"""Remembers and reports what an update did: an audit trail on the disk, signed reports to the publisher.

Neither may stop an update: a full disk or a damaged key is said once, and the update goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from nis_edge.adapters.audit_file import AuditFile
from nis_edge.adapters.device_key import DeviceKey
from nis_edge.booting import Log
from nis_edge.clock import Clock
from nis_edge.errors import DeviceError
from nis_edge.update.report import Envelope, Report, signed_bytes

KEY_NAME: Final = "device.key"

UNAUDITED: Final = frozenset({"update.noticed"})
"""What anyone who can publish could fill the trail with."""

REFUSED: Final = "update.refused"
REFUSAL_EVERY_S: Final = 3600.0
"""A refusal enters the trail once an hour for each kind: its words are the sender's, its kinds are ours and few. The
log has them all."""

SEQ_STEP: Final = 1 << 16
"""Reports between two entries of the trail; their numbers begin anew from the entry's."""


class Reporter:
    """One device's memory and voice.

    Args:
        folder: the update folder.
        log: where log events go besides.
        clock: time.
        publish: takes the bytes of a signed report, for a spool; None: nobody listens.
    """

    def __init__(self, folder: Path, log: Log, clock: Clock, publish: Callable[[bytes], None] | None = None) -> None:
        self._trail = AuditFile(folder)
        self._log = log
        self._clock = clock
        self._publish = publish
        self._key_path = folder / KEY_NAME
        self._key: DeviceKey | None = None
        self._complained: set[str] = set()
        self._last_note: tuple[str, dict[str, Any]] | None = None
        self._refused_until: dict[str, float] = {}
        self._counter = 0
        self._last_report: Report | None = None

    @property
    def head(self) -> str | None:
        """Hash of the newest entry of the trail."""
        return self._trail.last.hash if self._trail.last is not None else None

    def note(self, event: str, **facts: Any) -> None:
        """Log an event, and enter it into the trail unless it repeats the one before."""
        self._log(event, **facts)
        if event in UNAUDITED or (event, facts) == self._last_note:
            return
        if event == REFUSED:
            kind, now = str(facts.get("kind")), self._clock.monotonic()
            if now < self._refused_until.get(kind, now):
                return
            self._refused_until[kind] = now + REFUSAL_EVERY_S
        self._last_note = event, facts
        try:
            self._trail.append(event, msgspec.to_builtins(facts, enc_hook=str), self._clock.wall())
            self._counter = 0
        except OSError as error:
            self._complain("audit.failed", f"the audit trail cannot be written: {error.strerror or error}")

    def report(self, report: Report) -> None:
        """Sign and publish a report, unless it says what the last one said. Its `seq`, `at` and head are set here."""
        if self._publish is None:
            return
        same = self._last_report is not None and report == msgspec.structs.replace(
            self._last_report, seq=report.seq, at=report.at, audit_head=report.audit_head
        )
        key = self._signer()
        if same or key is None:
            return
        self._last_report = report
        self._counter += 1
        entry = self._trail.last
        seq = (entry.n if entry is not None else 0) * SEQ_STEP + min(self._counter, SEQ_STEP - 1)
        told = msgspec.structs.replace(report, seq=seq, at=self._clock.wall(), audit_head=self.head)
        text = msgspec.json.encode(told).decode()
        envelope = Envelope(
            device=report.device, key=key.public_hex, report=text, sig=key.sign(signed_bytes(text)).hex()
        )
        self._publish(msgspec.json.encode(envelope))

    def _signer(self) -> DeviceKey | None:
        if self._key is None:
            try:
                self._key = DeviceKey(self._key_path)
            except DeviceError as error:
                self._complain("report.failed", str(error))
        return self._key

    def _complain(self, event: str, reason: str) -> None:
        if event not in self._complained:
            self._complained.add(event)
            self._log(event, reason=reason, unharmed="updates go on")
