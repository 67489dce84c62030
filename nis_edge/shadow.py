"""The configuration that operators send: ``config/desired`` in, ``config/reported`` out; tried, then kept or undone.

Theory of operation. What is desired lies over the device's own file and may touch only options that can do no lasting
harm (``config.REMOTE_SECTIONS``): never where the broker is, who we are, or what is trusted. It is checked whole; one
fault refuses all of it. Before it is put in force it is written down as *on trial*; it is kept when the daemon's loops
stayed well for ``trial_s``, and undone when a loop stalled or failed in that time, or when the daemon ended in it
without saying so. A version that was refused or undone is not tried again; the broker hands it out at each connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from nis_edge.clock import Clock
from nis_edge.config import Config, overlaid, remote_options
from nis_edge.errors import ConfigError, DeviceError, EventFormatError
from nis_edge.limits import DESIRED_BYTES_MAX
from nis_edge.supervisor import Beat
from nis_edge.waiting import within

LOOK_S: Final = 1.0
"""Between two looks at the daemon's health while a configuration is on trial."""

Phase = Literal["none", "on_trial", "accepted", "rejected", "rolled_back"]
Tables = Mapping[str, Mapping[str, Any]]


class Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator publishes; ``config`` has the sections of the file."""

    version: int
    config: dict[str, dict[str, Any]]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered across restarts.

    ``in_force`` is the overlay that holds, ``before`` the one to return to while ``phase`` is on_trial. ``version``,
    ``hash``, ``phase`` and ``reason`` tell of the newest that was desired, whatever became of it.
    """

    version: int | None = None
    hash: str | None = None
    phase: Phase = "none"
    reason: str | None = None
    in_force: dict[str, dict[str, Any]] = {}
    in_force_version: int | None = None
    before: dict[str, dict[str, Any]] = {}
    before_version: int | None = None
    ended_cleanly: bool = False


class Shadow:
    """The overlay of one device.

    Args:
        path: where it is remembered.
        apply: puts a configuration in force; gives the sections that changed.
        file_config: gives the configuration of the device's own file.
        ailing: gives what is wrong with the daemon since a moment before the trial, or None; called with True to set
            that moment.
        report: takes what is to be reported.
        thread: an executor of one thread, for the disk.
        clock: the time.
        log: a structlog logger.
        trial_s: how long a configuration is on trial.
    """

    def __init__(
        self,
        path: Path,
        *,
        apply: Callable[[Config], tuple[str, ...]],
        file_config: Callable[[], Config],
        ailing: Callable[[bool], str | None],
        report: Callable[[dict[str, Any]], None],
        thread: Executor,
        clock: Clock,
        log: Any,
        trial_s: float,
    ) -> None:
        self._path = path
        self._apply, self._file_config, self._ailing, self._report = apply, file_config, ailing, report
        self._thread, self._clock, self._log = thread, clock, log
        self.trial_s = trial_s
        self._memory = Memory()
        self._waiting: bytes | None = None
        self._wake = asyncio.Event()
        self._trial_ends: float | None = None

    @property
    def memory(self) -> Memory:
        """What is in force and what became of the newest."""
        return self._memory

    def recall(self) -> Config:
        """Read what was in force when the daemon last ran; blocking, before any loop runs.

        Returns:
            The file's configuration with the overlay. One that no longer fits the file is left out, and reported so.
        """
        memory = read = _read(self._path)
        if memory.phase == "on_trial" and not memory.ended_cleanly:
            reason = "the daemon ended without a farewell while it was on trial"
            memory = _undone(memory, reason)
            self._tell_undone(memory)
        self._memory = msgspec.structs.replace(memory, ended_cleanly=False)
        try:
            config = overlaid(self._file_config(), self._memory.in_force)
        except ConfigError as error:
            self._tell_refusal(self._memory.in_force_version, f"it no longer fits the device's own file: {error}")
            self._memory = msgspec.structs.replace(
                self._memory, phase="rejected", reason=str(error), in_force={}, in_force_version=None
            )
            config = self._file_config()
        if self._memory != read:
            try:
                _write(self._path, self._memory)
            except DeviceError as error:
                self._tell_refusal(self._memory.version, f"it can't be remembered: {error}")
        return config

    def desire(self, payload: bytes) -> None:
        """Take what the broker holds as desired; only the newest waits. On the asyncio thread."""
        self._waiting = payload
        self._wake.set()

    def reload(self) -> Config:
        """The file's configuration, read anew, with the overlay.

        Raises:
            ConfigError: they do not fit together (the operator acts).
        """
        return overlaid(self._file_config(), self._memory.in_force)

    async def run(self, beat: Beat) -> None:
        """Try what comes until cancelled; then remember that the end was a clean one."""
        self._tell()
        if self._memory.phase == "on_trial":
            self._begin_trial()
        try:
            while True:
                beat()
                self._wake.clear()
                if self._waiting is not None:
                    payload, self._waiting = self._waiting, None
                    await self._consider(payload)
                if self._trial_ends is not None:
                    await self._look()
                try:
                    await within(self._wake.wait(), LOOK_S if self._trial_ends is not None else 15.0)
                except asyncio.TimeoutError:
                    continue
        finally:
            if self._memory.phase == "on_trial":
                await self._remember(msgspec.structs.replace(self._memory, ended_cleanly=True))

    async def _consider(self, payload: bytes) -> None:
        if not payload:
            return  # an operator took the retained message away: nothing is desired, nothing changes
        digest = hashlib.sha256(payload).hexdigest()
        version: int | None = None
        try:
            desired = parse_desired(payload)
            version = desired.version
            digest = hash_of(desired.config)
            known = self._memory.version
            if known is not None and version < known:
                raise ConfigError(f"version {version} is older than {known}, which is known already; count upwards")
            if known == version and digest == self._memory.hash:
                self._tell()
                return
            if known == version:
                raise ConfigError(f"version {version} is known with other content; give new content a new version")
            config = overlaid(self._file_config(), desired.config)
        except (ConfigError, EventFormatError) as error:
            await self._reject(version, digest, str(error))
            return
        in_trial = self._memory.phase == "on_trial"
        new = Memory(
            version=version,
            hash=digest,
            phase="on_trial",
            in_force=desired.config,
            in_force_version=version,
            # While one is on trial, the one to return to stays the last that proved itself.
            before=self._memory.before if in_trial else self._memory.in_force,
            before_version=self._memory.before_version if in_trial else self._memory.in_force_version,
        )
        if not await self._remember(new):
            await self._reject(version, digest, "the disk refuses to remember it; nothing was changed")
            return
        changed = self._apply(config)
        self._log.info("desired.applied", version=version, changed=changed)
        self._begin_trial()
        self._tell()

    def _begin_trial(self) -> None:
        self._ailing(True)
        self._trial_ends = self._clock.monotonic() + self.trial_s

    async def _look(self) -> None:
        assert self._trial_ends is not None
        reason = self._ailing(False)
        if reason is not None:
            undone = _undone(self._memory, reason)
            self._trial_ends = None
            await self._remember(undone)
            self._memory = undone
            self._apply(overlaid(self._file_config(), undone.in_force))
            self._tell_undone(undone)
            self._tell()
        elif self._clock.monotonic() >= self._trial_ends:
            self._trial_ends = None
            kept = msgspec.structs.replace(self._memory, phase="accepted", before={}, before_version=None)
            await self._remember(kept)
            self._memory = kept
            self._log.info("desired.kept", version=kept.version)
            self._tell()

    async def _reject(self, version: int | None, digest: str, reason: str) -> None:
        self._tell_refusal(version, reason)
        known = self._memory.version
        if self._memory.phase != "on_trial" and version is not None and (known is None or version > known):
            refused = msgspec.structs.replace(
                self._memory, version=version, hash=digest, phase="rejected", reason=reason
            )
            await self._remember(refused)
            self._memory = refused
            self._tell()
            return
        self._report(self._body(version, digest, "rejected", reason))

    async def _remember(self, memory: Memory) -> bool:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, _write, self._path, memory)
        except DeviceError as error:
            self._tell_refusal(memory.version, f"it can't be remembered: {error}")
            return False
        self._memory = memory
        return True

    def _tell(self) -> None:
        memory = self._memory
        self._report(self._body(memory.version, memory.hash, memory.phase, memory.reason))

    def _body(self, version: int | None, digest: str | None, phase: Phase, reason: str | None) -> dict[str, Any]:
        memory = self._memory
        return {
            "version": version,
            "hash": digest,
            "state": phase,
            "reason": reason,
            "in_force_version": memory.in_force_version,
            "config": remote_options(overlaid(self._file_config(), memory.in_force)),
        }

    def _tell_refusal(self, version: int | None, reason: str) -> None:
        self._log.warning("desired.refused", version=version, reason=reason, unharmed="the options in force stay")

    def _tell_undone(self, memory: Memory) -> None:
        unharmed = "the options before it are in force again"
        self._log.error("desired.rolled_back", version=memory.version, reason=memory.reason, unharmed=unharmed)


def parse_desired(payload: bytes) -> Desired:
    """Check the form of what was sent, not its content.

    Raises:
        EventFormatError: it has not the form (the sender acts).
    """
    if len(payload) > DESIRED_BYTES_MAX:
        raise EventFormatError(f"{len(payload)} bytes are more than the {DESIRED_BYTES_MAX} allowed")
    try:
        desired = msgspec.json.decode(payload, type=Desired)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventFormatError(
            f'must be {{"version": NUMBER, "config": {{SECTION: {{KEY: VALUE}}}}}}: {error}'
        ) from error
    if not 0 <= desired.version < 2**53:
        raise EventFormatError("version must be a whole number from 0 to 2^53")
    return desired


def hash_of(config: Tables) -> str:
    """SHA-256, hex, of the configuration as JSON with sorted keys and no spaces: the same however it was written."""
    return hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()


def _undone(memory: Memory, reason: str) -> Memory:
    return msgspec.structs.replace(
        memory,
        phase="rolled_back",
        reason=reason,
        in_force=memory.before,
        in_force_version=memory.before_version,
        before={},
        before_version=None,
    )


def _read(path: Path) -> Memory:
    try:
        return msgspec.json.decode(path.read_bytes()[: 4 * DESIRED_BYTES_MAX], type=Memory)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return (
            Memory()
        )  # none yet, or damaged: the device's own file is in force, and the broker still has what it wants


def _write(path: Path, memory: Memory) -> None:
    """Replace the file durably: a reader sees the old or the new, whenever the power goes."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(memory))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror or error}") from error
