"""Brings a model's bytes into the store: by delta or whole, from the server, a stick, or the broker's blocks.

The plan (`update.plan`) names the ways; each way is tried at each source, with a bounded number of attempts and full
jitter between them. What arrived is kept across attempts, restarts and power cuts. A delta that fails is said, and the
whole file follows only where the link allows. Nothing here is trusted: the store hashes the result.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

from nis_edge.adapters.net_link import link_is_metered
from nis_edge.adapters.slot_store import DamagedDownloadError, Partial, SlotStore
from nis_edge.adapters.zstd_stream import can_decompress, decompressed
from nis_edge.booting import Log
from nis_edge.config import UpdateOptions
from nis_edge.errors import (
    DownloadInterruptedError,
    DownloadStoppedError,
    NisEdgeError,
    UntrustedMetadataError,
    UpdateError,
)
from nis_edge.limits import MIB, UPDATE_ATTEMPTS_MAX, UPDATE_BLOCK_BYTES_MAX
from nis_edge.lookout import Look
from nis_edge.update.delta import HEADER_BYTES_MAX, DeltaHeader, read_header, xored
from nis_edge.update.facts import OLD_MODEL_STAYS, SignedFacts, published_name
from nis_edge.update.journal import Slot
from nis_edge.update.plan import Plan, Way, plan

BACKOFF_S_MAX: Final = 300.0


class BlockSource(Protocol):
    """Blocks over the broker."""

    def fill(self, way: Way, sink: Partial, should_stop: Callable[[], bool]) -> None:
        """Bring the sink to its full length; errors as of `HttpSource.fill`."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether asking makes sense now."""
        ...


@dataclass(frozen=True)
class FetchPolicy:
    """What the operator allows."""

    metered: Callable[[], bool] = lambda: False
    metered_bytes_max: int = 16 * MIB


def fetch_policy(options: UpdateOptions) -> FetchPolicy:
    """The operator's configuration as a policy."""
    known: dict[str, Callable[[], bool]] = {"auto": link_is_metered, "yes": lambda: True, "no": lambda: False}
    return FetchPolicy(metered=known[options.metered], metered_bytes_max=int(options.metered_mib_max * MIB))


class Fetcher:
    """One device's downloads. Blocking work runs in worker threads.

    Args:
        store: the update store.
        policy: what the operator allows.
        blocks: the broker, as a source of last resort; None: there is none.
        log: where log events go.
        sleep: waits between attempts.
        uniform: (low, high) -> a number between, for how long.
    """

    def __init__(
        self,
        store: SlotStore,
        policy: FetchPolicy,
        blocks: BlockSource | None,
        log: Log,
        sleep: Callable[[float], Awaitable[None]],
        uniform: Callable[[float, float], float],
    ) -> None:
        self._store = store
        self._policy = policy
        self._blocks = blocks
        self._log = log
        self._sleep = sleep
        self._uniform = uniform
        self.transferred = 0
        """Bytes of the present file that are held; of a delta, the delta's."""
        self.transfer_length = 0

    async def bring(
        self, look: Look, facts: SignedFacts, slot: Slot, base: Slot | None, should_stop: Callable[[], bool]
    ) -> Partial | None:
        """Make the model complete in the store's downloads; the caller seals and closes it.

        Args:
            look: where it was found.
            facts: what its publisher signed.
            slot: the model.
            base: the model in the store that runs, for deltas.
            should_stop: asked before every chunk.

        Returns:
            The complete download; None when a sealed model of this name is there already.

        Raises:
            DownloadStoppedError: `should_stop` said so.
            NisEdgeError: every allowed way failed; what arrived is kept.
        """
        if self._store.holds(slot.sha256):
            return None
        chosen = self._plan(look, facts, slot, base)
        if not chosen.ways:
            raise UpdateError(f"{slot.version}: {chosen.left_out}; {OLD_MODEL_STAYS}")
        failure: NisEdgeError | None = None
        for way in chosen.ways:
            if way.kind == "delta":
                self._log("delta.begun", sha256=way.sha256, bytes=way.length, whole_bytes=slot.length)
            try:
                return await self._by(way, look, slot, base, should_stop)
            except DownloadStoppedError:
                raise
            except NisEdgeError as error:
                failure = error
                if way.kind == "delta":
                    self._log("delta.failed", reason=str(error), unharmed=OLD_MODEL_STAYS)
        assert failure is not None
        if chosen.left_out is not None:
            raise UpdateError(f"{_clause(failure)}; {chosen.left_out}; {OLD_MODEL_STAYS}") from failure
        raise failure

    def _plan(self, look: Look, facts: SignedFacts, slot: Slot, base: Slot | None) -> Plan:
        on_stick = look.folder is not None  # its bytes cost nothing, and it carries no deltas
        return plan(
            facts,
            slot.sha256,
            slot.length,
            base.sha256 if base is not None else None,
            metered=not on_stick and self._policy.metered(),
            metered_bytes_max=self._policy.metered_bytes_max,
            can_delta=not on_stick and can_decompress(),
        )

    async def _by(
        self, way: Way, look: Look, slot: Slot, base: Slot | None, should_stop: Callable[[], bool]
    ) -> Partial:
        block_bytes = way.blocks.block_bytes if way.blocks is not None else UPDATE_BLOCK_BYTES_MAX
        if way.kind == "full":
            return await self._download(way, block_bytes, look, should_stop)
        assert base is not None
        # The room for the result is taken before the delta is fetched: the disk must hold both.
        whole = await asyncio.to_thread(self._store.begin, slot.sha256, slot.length)
        try:
            delta = await self._download(way, block_bytes, look, should_stop)
            try:
                await asyncio.to_thread(self._apply, delta, whole, base, should_stop)
            finally:
                await asyncio.to_thread(self._store.discard, delta)
        except BaseException:
            whole.close()
            raise
        self._log("delta.applied", sha256=slot.sha256, bytes=way.length)
        return whole

    async def _download(self, way: Way, block_bytes: int, look: Look, should_stop: Callable[[], bool]) -> Partial:
        """Bring one file here, from the first source that has it."""
        partial = await asyncio.to_thread(self._store.begin, way.sha256, way.length, block_bytes)
        self.transfer_length = way.length

        def stop() -> bool:
            self.transferred = partial.done
            return should_stop()

        try:
            fills = self._sources(way, look, partial, stop)
            for n, (name, fill) in enumerate(fills):
                try:
                    await self._attempts(fill, should_stop)
                    break
                except DownloadInterruptedError as error:
                    if n + 1 == len(fills):
                        raise
                    self._log("source.failed", source=name, reason=str(error), unharmed="the next source is tried")
        except BaseException:
            await asyncio.to_thread(partial.pause)
            raise
        return partial

    def _sources(
        self, way: Way, look: Look, partial: Partial, stop: Callable[[], bool]
    ) -> list[tuple[str, Callable[[], None]]]:
        fills: list[tuple[str, Callable[[], None]]] = []
        source, blocks = look.source, self._blocks
        if source is not None:
            where = look.where if way.kind == "full" else _beside(look, way)
            fills.append(("server", lambda: source.fill(where, partial, stop)))
        if look.folder is None and blocks is not None and way.blocks is not None and blocks.is_connected:
            fills.append(("broker", lambda: blocks.fill(way, partial, stop)))
        if not fills:
            raise DownloadInterruptedError(
                f"no server is configured, and blocks over the broker are not to be had; {OLD_MODEL_STAYS}"
            )
        return fills

    async def _attempts(self, fill: Callable[[], None], should_stop: Callable[[], bool]) -> None:
        for attempt in range(UPDATE_ATTEMPTS_MAX):
            try:
                await asyncio.to_thread(fill)
                return
            except DownloadInterruptedError as error:
                if attempt + 1 == UPDATE_ATTEMPTS_MAX or should_stop():
                    raise
                ceiling = min(BACKOFF_S_MAX, 2.0**attempt)
                await self._sleep(error.retry_after_s or self._uniform(0.0, ceiling))

    def _apply(self, delta: Partial, whole: Partial, base: Slot, should_stop: Callable[[], bool]) -> None:
        """Make the model of base and delta, blocking; memory is bounded by the frame's window and two chunks."""
        self._store.verify(delta)
        fd = self._store.open_verified(base.sha256, base.length or None)
        if fd is None:
            raise UpdateError(f"the running model's file is damaged, no delta can start from it; {OLD_MODEL_STAYS}")
        try:
            header = read_header(self._store.read(delta.fd, min(HEADER_BYTES_MAX, delta.length), 0))
            _check_header(header, whole, base)
            digest = hashlib.sha256()
            whole.restart()
            payload = decompressed(lambda size, at: self._store.read(delta.fd, size, at), header.encoded_bytes)
            for chunk in xored(header, payload, lambda size, at: self._store.read(fd, size, at)):
                if should_stop():
                    raise DownloadStoppedError(f"update stopped on request; {OLD_MODEL_STAYS}")
                digest.update(chunk)
                whole.write(chunk)
            if whole.offset < whole.length or digest.hexdigest() != whole.sha256:
                raise DamagedDownloadError(f"delta {delta.sha256[:12]} gives another model; {OLD_MODEL_STAYS}")
        except BaseException:
            whole.restart()
            raise
        finally:
            self._store.close(fd)


def _check_header(header: DeltaHeader, whole: Partial, base: Slot) -> None:
    same = (header.sha256, header.length, header.base_sha256) == (whole.sha256, whole.length, base.sha256)
    if not same or (base.length and header.base_length != base.length):
        raise UntrustedMetadataError(f"delta is between other models than was signed; {OLD_MODEL_STAYS}")


def _beside(look: Look, way: Way) -> str:
    """Where a companion of the model lies."""
    assert look.target is not None
    return f"{look.targets}/{quote(published_name(look.target.path, way.sha256, 'delta'))}"


def _clause(error: NisEdgeError) -> str:
    return str(error).removesuffix(f"; {OLD_MODEL_STAYS}")
