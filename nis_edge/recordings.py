"""Files of recorded agent events, line by line: plain or gzip, one event or one run a line, malformed lines and all.

A line that can't be used is handed on as a fault with its number; the rest goes on. Memory is bounded by one line.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from nis_edge.errors import ConfigError, EventFormatError
from nis_edge.limits import EVENT_BYTES_MAX, RUN_BYTES_MAX
from nis_edge.wire.codec import event_of
from nis_edge.wire.messages import AgentEvent
from nis_edge.wire.traces import Run, decode_run, is_run

EVENT_MARKS: Final = frozenset(
    {"agent", "kind", "message_type", "source_agent", "_event_type", "node_id", "reflection_type"}
)
"""Fields by which an event of any dialect shows itself."""

GZIP_MAGIC: Final = b"\x1f\x8b"


@dataclass(frozen=True)
class BadLine:
    """A line that was refused, and why."""

    number: int
    reason: str


Line = AgentEvent | Run | BadLine


def read_recording(path: Path) -> Iterator[tuple[int, Line]]:
    """Read a recording; yields (line number, what stands there), blank lines left out.

    Raises:
        ConfigError: the file can't be opened (the operator acts).
    """
    try:
        with path.open("rb") as file:
            is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            if not is_gzip:
                yield from _read_lines(file)
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield from _read_lines(unpacked)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; nothing was read") from error


def _read_lines(stream: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, Line]]:
    number = 0
    while True:
        try:
            raw = stream.readline(RUN_BYTES_MAX + 1)
            is_cut = len(raw) > RUN_BYTES_MAX
            while is_cut and raw and not raw.endswith(b"\n"):
                raw = stream.readline(RUN_BYTES_MAX)
        except (OSError, EOFError, zlib.error) as error:
            yield number + 1, BadLine(number + 1, f"the file can't be read beyond here: {error}")
            return
        if not raw and not is_cut:
            return
        number += 1
        if is_cut:
            yield number, BadLine(number, f"line is longer than the {RUN_BYTES_MAX} bytes allowed")
        elif raw.strip():
            yield number, _decode(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw, number)


def _decode(raw: bytes, number: int) -> Line:
    try:
        fields = msgspec.json.decode(raw)
        if not isinstance(fields, dict):
            return BadLine(number, f"a JSON {type(fields).__name__}, not an object")
        if is_run(fields):
            return decode_run(raw)
        if len(raw) > EVENT_BYTES_MAX:
            return BadLine(number, f"event of {len(raw)} bytes is larger than the {EVENT_BYTES_MAX} allowed")
        if not EVENT_MARKS.intersection(fields):
            return BadLine(number, "neither an event (agent, kind, ts ...) nor a run (events)")
        if "ts" not in fields and "timestamp" not in fields and "_timestamp" not in fields:
            return BadLine(number, "event lacks 'ts': a recording has no other clock")
        return event_of(fields, now=0.0, number=number)
    except EventFormatError as error:
        return BadLine(number, str(error))
    except RecursionError:
        return BadLine(number, "nests too deep")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return BadLine(number, f"no JSON: {error}")
