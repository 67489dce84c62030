"""Pulls a model's blocks over the broker, for a device that has nothing else.

The device asks for a few missing blocks at a time and asks again for what did not come or was not right; duplicates,
strangers' blocks and late ones are ignored. Which block is right says the block list, and which list is right the
offline signature. Blocking; runs in a worker thread. The network thread only puts payloads into a bounded queue.
"""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from nis_edge.adapters.slot_store import Partial
from nis_edge.errors import DownloadInterruptedError, DownloadStoppedError, UntrustedMetadataError
from nis_edge.limits import UPDATE_BLOCK_BITMAP_BYTES_MAX, UPDATE_BLOCK_BYTES_MAX, UPDATE_BLOCK_WINDOW_MAX
from nis_edge.update.blocks import BlockRequest, Blocks, block_count, encode_request, read_block, read_blocks
from nis_edge.update.facts import OLD_MODEL_STAYS, BlockList
from nis_edge.update.plan import Way

ANSWER_S: Final = 10.0
"""Silence after which the blocks that are missing are asked for again."""

SILENCES_MAX: Final = 5
"""Requests in a row that brought nothing, after which the attempt ends."""

WRONG_MAX: Final = 64
"""Blocks that were not what was signed, after which the attempt ends: somebody is talking over the server."""

_KEPT: Final = f"what arrived is kept; {OLD_MODEL_STAYS}"


class BlockPull:
    """The broker as a source of blocks.

    Args:
        publish: sends a request; may be called from any thread.
        connected: whether the broker is in reach.
        answer_s: silence after which a request is repeated.
    """

    def __init__(
        self, publish: Callable[[bytes], None], connected: Callable[[], bool], answer_s: float = ANSWER_S
    ) -> None:
        self._publish = publish
        self._connected = connected
        self._answer_s = answer_s
        self._inbox: queue.Queue[bytes] = queue.Queue(maxsize=4 * UPDATE_BLOCK_WINDOW_MAX)
        self._list: tuple[str, Blocks] | None = None
        self.wrong = 0
        """Blocks of the present file that were not what was signed."""

    @property
    def is_connected(self) -> bool:
        """Whether the broker is in reach."""
        return self._connected()

    def arrive(self, payload: bytes) -> None:
        """Take a message; what does not fit in the queue is dropped and asked for again."""
        if not self._inbox.full():
            self._inbox.put_nowait(payload)

    def fill(self, way: Way, sink: Partial, should_stop: Callable[[], bool]) -> None:
        """Bring `sink` to its full length.

        Args:
            way: the file, with its signed block list.
            sink: the store's download.
            should_stop: asked before every request.

        Raises:
            DownloadInterruptedError: retry later; what arrived is kept.
            DownloadStoppedError: `should_stop` said so.
            UntrustedMetadataError: the signed block list does not fit the file; the publisher acts.
            SlotWriteError: the disk fails.
        """
        assert way.blocks is not None
        blocks = self._block_list(way.blocks, should_stop)
        if (blocks.sha256, blocks.length, blocks.block_bytes) != (way.sha256, way.length, sink.block_bytes):
            raise UntrustedMetadataError(f"block list of {way.sha256[:12]} describes another file; {OLD_MODEL_STAYS}")

        def take(index: int, data: bytes) -> bool:
            if not blocks.is_right(index, data):
                return False
            sink.write_block(index, data)
            return True

        self._pull(
            way.sha256,
            blocks.block_bytes,
            lambda: list(islice(sink.missing(), UPDATE_BLOCK_WINDOW_MAX)),
            take,
            should_stop,
        )

    def _block_list(self, signed: BlockList, should_stop: Callable[[], bool]) -> Blocks:
        """The block list, pulled like any file; it is small, so it is compared as a whole."""
        if self._list is not None and self._list[0] == signed.sha256:
            return self._list[1]
        parts: dict[int, bytes] = {}
        count = block_count(signed.length, UPDATE_BLOCK_BYTES_MAX)

        def missing() -> list[int]:
            return [n for n in range(count) if n not in parts][:UPDATE_BLOCK_WINDOW_MAX]

        def take(index: int, data: bytes) -> bool:
            right = min(UPDATE_BLOCK_BYTES_MAX, signed.length - index * UPDATE_BLOCK_BYTES_MAX)
            if index >= count or len(data) != right:
                return False
            parts[index] = data
            return True

        self._pull(signed.sha256, UPDATE_BLOCK_BYTES_MAX, missing, take, should_stop)
        data = b"".join(parts[n] for n in range(count))
        if hashlib.sha256(data).hexdigest() != signed.sha256:
            raise DownloadInterruptedError(f"the block list that came is not the signed one; {_KEPT}")
        self._list = signed.sha256, read_blocks(data)
        return self._list[1]

    def _pull(
        self,
        sha256: str,
        block_bytes: int,
        missing: Callable[[], list[int]],
        take: Callable[[int, bytes], bool],
        should_stop: Callable[[], bool],
    ) -> None:
        silences, self.wrong = 0, 0
        while wanted := missing():
            if should_stop():
                raise DownloadStoppedError(f"download stopped on request; {_KEPT}")
            self._publish(encode_request(_request(sha256, block_bytes, wanted)))
            came = self._collect(sha256, block_bytes, set(wanted), take)
            silences = 0 if came else silences + 1
            if silences >= SILENCES_MAX:
                raise DownloadInterruptedError(
                    f"nobody serves blocks of {sha256[:12]} over the broker (nis-ota serve-blocks); {_KEPT}"
                )

    def _collect(self, sha256: str, block_bytes: int, wanted: set[int], take: Callable[[int, bytes], bool]) -> int:
        """Take what comes until all of it is there or nothing more comes; how many blocks were right."""
        came = 0
        while wanted:
            try:
                payload = self._inbox.get(timeout=self._answer_s)
            except queue.Empty:
                break
            try:
                block = read_block(payload)
            except UntrustedMetadataError:
                self._count_wrong(sha256)
                continue
            if (block.sha256, block.block_bytes) != (sha256, block_bytes):
                continue  # late, or meant for an earlier file
            if block.index is None:
                raise DownloadInterruptedError(f"the block server refuses {sha256[:12]}: {block.refusal}; {_KEPT}")
            if block.index not in wanted:
                continue
            if not take(block.index, block.data):
                self._count_wrong(sha256)
                continue
            wanted.discard(block.index)
            came += 1
        return came

    def _count_wrong(self, sha256: str) -> None:
        self.wrong += 1
        if self.wrong > WRONG_MAX:
            raise DownloadInterruptedError(
                f"{self.wrong} blocks of {sha256[:12]} were not what was signed: somebody else answers; {_KEPT}"
            )


def _request(sha256: str, block_bytes: int, wanted: Sequence[int]) -> BlockRequest:
    first = wanted[0]
    relative = tuple(block - first for block in wanted if block - first < 8 * UPDATE_BLOCK_BITMAP_BYTES_MAX)
    return BlockRequest(sha256, block_bytes, first, UPDATE_BLOCK_WINDOW_MAX, relative)
