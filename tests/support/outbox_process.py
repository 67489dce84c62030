"""The real outbox, spool and courier in a process of their own, which a test kills.

    python -m tests.support.outbox_process STATE PORT RATE FIRST COMMIT_MS

Puts ``RATE`` records a second, numbered from FIRST, and writes ``KEPT N D`` when every record before N is on disk
(those must never be missing) and D of this life are delivered.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from nis_edge.adapters.mqtt import Backoff, BrokerOptions, Message
from nis_edge.adapters.spool import Record, Spool
from nis_edge.clock import SystemClock
from nis_edge.config import SpoolOptions
from nis_edge.courier import Courier
from nis_edge.outbox import Outbox
from nis_edge.telemetry import Identity, Telemetry
from nis_edge.wire.topics import Topics

BURSTS_PER_SECOND = 50


async def main(state: Path, port: int, rate: int, number: int, commit_ms: int) -> None:
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
    log, clock = structlog.get_logger(), SystemClock()
    telemetry = Telemetry(Identity(Topics("test", "dut"), secrets.token_hex(8)), SpoolOptions())
    outbox = Outbox(
        lambda: Spool.open(state / "spool.db", bytes_max=64 << 20), ThreadPoolExecutor(1), commit_s=commit_ms / 1e3,
        memory_bytes_max=4 << 20, clock=clock, log=log,
    )  # fmt: skip
    courier = Courier(
        BrokerOptions("127.0.0.1", port, "dut", Message("nis/v1/test/dut/status", b"{}", 1, True), will_delay_s=0),
        outbox=outbox, telemetry=telemetry, greet=lambda _: [], subscriptions=list, on_message=lambda _: None,
        backoff=Backoff(0.05, 0.2, lambda low, high: high), clock=clock, log=log,
    )  # fmt: skip
    outbox.has_news = courier.wake
    tasks = [asyncio.ensure_future(part.run(lambda: None)) for part in (outbox, courier)]
    first = number
    told = 0, 0
    started = clock.monotonic()
    boot = telemetry._identity.boot_id
    while not any(task.done() for task in tasks):
        due = first + int((clock.monotonic() - started) * rate)
        while number < due:
            body = json.dumps({"n": number, "pad": "x" * 120}).encode()
            outbox.put(Record("assessment", "nis/v1/test/dut/assessment", "nis.test/1", body, boot, 0.0, 4e9))
            number += 1
        counts = outbox.counts()
        kept = sum(counts.kept.values())
        if (kept, counts.delivered) != told:
            told = kept, counts.delivered
            print(f"KEPT {first + kept} {counts.delivered}", flush=True)
        await asyncio.sleep(1 / BURSTS_PER_SECOND)
    for task in tasks:
        task.result()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:6])))
