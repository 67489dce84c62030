"""Blocks over MQTT, for devices that reach nothing but the broker: they ask, this answers, nothing is believed.

One server for a site. Every file it serves stands in signed metadata of the repository; a request names it by hash.
Each device has a rate of its own (a token bucket in bytes), and so has the server as a whole: one greedy or broken
device slows only itself.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nis_edge.errors import NisEdgeError
from nis_edge.limits import UPDATE_BLOCK_BYTES_MAX, UPDATE_BLOCK_WINDOW_MAX
from nis_edge.update.blocks import BLOCK_OVERHEAD_BYTES, Block, BlockRequest, block_count, encode_block, read_request
from nis_edge.wire.topics import ROOT, Topics
from nis_ota.repository import Repository

DEVICES_MAX: Final = 10_000
"""Devices whose rate is remembered; who asked longest ago is forgotten first, and starts afresh."""

BURST_BYTES: Final = UPDATE_BLOCK_WINDOW_MAX * (UPDATE_BLOCK_BYTES_MAX + BLOCK_OVERHEAD_BYTES)
"""One full answer: a device may always ask for one window at once."""

_DEVICE_TOPIC: Final = re.compile(rf"{ROOT}/([a-z0-9-]{{1,64}})/([a-z0-9-]{{1,64}})/ota/request")


@dataclass
class Bucket:
    """Bytes that may go out now."""

    tokens: float
    at: float

    def wait(self, count: int, rate: float, burst: float, now: float) -> float:
        """Seconds until `count` bytes may go; 0: now."""
        self.tokens = min(burst, self.tokens + rate * (now - self.at))
        self.at = now
        return max(0.0, (count - self.tokens) / rate)


@dataclass
class Served:
    """What was done so far."""

    blocks: int = 0
    bytes: int = 0
    refused: int = 0
    malformed: int = 0
    devices: set[str] = field(default_factory=set)


@dataclass
class Pending:
    """What one device still gets; a newer request of it takes the place of an older one."""

    reply_to: str
    request: BlockRequest
    path: Path
    indices: deque[int]


class BlockServer:
    """Answers requests; knows no broker and no clock.

    Args:
        files: SHA-256 of every file it may serve -> where it lies.
        send: publishes (topic, payload).
        clock: seconds that never go back.
        device_rate: bytes a second for one device.
        total_rate: bytes a second for all together.
    """

    def __init__(
        self,
        files: dict[str, Path],
        send: Callable[[str, bytes], None],
        clock: Callable[[], float],
        *,
        device_rate: float,
        total_rate: float,
    ) -> None:
        self.files = files
        self._send, self._clock = send, clock
        self._device_rate, self._total_rate = device_rate, total_rate
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._total = Bucket(max(BURST_BYTES, total_rate), clock())
        self._pending: OrderedDict[str, Pending] = OrderedDict()
        self.served = Served()

    def ask(self, topic: str, payload: bytes) -> None:
        """Take one request in. What no device could have sent is counted; what cannot be had is said to the device."""
        match = _DEVICE_TOPIC.fullmatch(topic)
        try:
            if match is None:
                raise ValueError(topic)
            topics = Topics(match[1], match[2])
            request = read_request(payload)
        except (NisEdgeError, ValueError):
            self.served.malformed += 1
            return
        path, device = self.files.get(request.sha256), topics.prefix
        if path is None:
            self._refuse(device, topics.ota_block, request, "this server has no such file")
            return
        try:
            blocks = block_count(path.stat().st_size, request.block_bytes)
        except OSError as error:
            self._refuse(device, topics.ota_block, request, f"the file cannot be read: {error.strerror}")
            return
        indices = deque(index for index in request.indices if index < blocks)
        if not indices:
            self._refuse(device, topics.ota_block, request, f"the file has {blocks} blocks")
            return
        self.served.devices.add(device)
        self._pending[device] = Pending(topics.ota_block, request, path, indices)
        if len(self._pending) > DEVICES_MAX:
            self._pending.popitem(last=False)

    def pump(self) -> float | None:
        """Send what may go now, one block a device in turn; return the seconds until more may, None: nothing waits."""
        while self._pending:
            waits = []
            for device in list(self._pending):
                pending = self._pending[device]
                wait = self._send_next(device, pending)
                if wait > 0:
                    waits.append(wait)
                elif not pending.indices:
                    del self._pending[device]
            if len(waits) == len(self._pending) and waits:
                return min(waits)
        return None

    def _send_next(self, device: str, pending: Pending) -> float:
        size = pending.request.block_bytes
        index = pending.indices[0]
        wait = self._reserve(device, size + BLOCK_OVERHEAD_BYTES)
        if wait > 0:
            return wait
        pending.indices.popleft()
        try:
            with pending.path.open("rb") as file:
                file.seek(index * size)
                data = encode_block(Block(pending.request.sha256, size, index, file.read(size)))
        except OSError as error:
            pending.indices.clear()
            self._refuse(device, pending.reply_to, pending.request, f"the file cannot be read: {error.strerror}")
            return 0.0
        self._send(pending.reply_to, data)
        self.served.blocks += 1
        self.served.bytes += len(data)
        return 0.0

    def _reserve(self, device: str, count: int) -> float:
        """Take `count` bytes from the device's bucket and everyone's; else the seconds until they are there."""
        now, bucket = self._clock(), self._bucket(device)
        wait = max(
            bucket.wait(count, self._device_rate, max(BURST_BYTES, self._device_rate), now),
            self._total.wait(count, self._total_rate, max(BURST_BYTES, self._total_rate), now),
        )
        if wait == 0:
            bucket.tokens -= count
            self._total.tokens -= count
        return wait

    def _bucket(self, device: str) -> Bucket:
        bucket = self._buckets.pop(device, None) or Bucket(max(BURST_BYTES, self._device_rate), self._clock())
        self._buckets[device] = bucket
        if len(self._buckets) > DEVICES_MAX:
            self._buckets.popitem(last=False)
        return bucket

    def _refuse(self, device: str, reply_to: str, request: BlockRequest, why: str) -> None:
        self.served.refused += 1
        data = encode_block(Block(request.sha256, request.block_bytes, None, b"", why))
        if self._reserve(device, len(data)) == 0:
            self._send(reply_to, data)


def files_by_hash(repository: Repository) -> dict[str, Path]:
    """Every model, delta and block list of the repository, by its SHA-256 (which its name begins with)."""
    return {path.name.split(".", 1)[0]: path for path in repository.model_files().values()}
