"""The log: structlog, one event a line on stderr; JSON for the journal, plain words for a terminal.

Under systemd a line that begins with ``<N>`` gets the syslog priority N (sd-daemon(3)). Every event's name is declared
in ``nis_edge/events.py``; one that is not, or that lacks a field, is reported beside it, because a log that nobody can
rely on is found out too late. No event carries an exception's traceback above level debug.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, TextIO, cast

from nis_edge.events import check
from nis_edge.wire.codec import visible

# structlog imports rich where that is installed, for tracebacks that this log never shows: 4 MB of a small device.
_rich = sys.modules.setdefault("rich", cast(Any, None))
import structlog  # noqa: E402

if _rich is None:
    del sys.modules["rich"]

# syslog(3): LOG_ERR 3, LOG_WARNING 4, LOG_INFO 6, LOG_DEBUG 7
_PRIORITY: Final[Mapping[str, int]] = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_VALUE_CHARS_MAX: Final = 2000
_SUBJECTS_MAX: Final = 64


def configure(level: str, stream: TextIO | None = None, *, plain: bool | None = None) -> Any:
    """Set the log up for this process.

    Args:
        level: debug, info, warning or error.
        stream: where to write; None takes stderr.
        plain: words for people rather than JSON; None asks whether the stream is a terminal.

    Returns:
        The root logger.
    """
    out = stream if stream is not None else sys.stderr
    people = out.isatty() if plain is None else plain
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _checked,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _as_words if people else _as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    log = structlog.get_logger()
    threading.excepthook = _thread_failed
    return log


def set_level(level: str) -> None:
    """Change what is logged from now on: debug, info, warning or error."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]))


class Occasional:
    """Logs an event of one kind and subject at once, then at most every ``every_s``, with the count of those left out.

    What input can cause without end must not fill the log without end.

    Args:
        log: a structlog logger.
        monotonic: seconds.
        every_s: the least time between two lines of one kind and subject.
    """

    def __init__(self, log: Any, monotonic: Callable[[], float], every_s: float = 30.0) -> None:
        self._log = log
        self._monotonic = monotonic
        self._every_s = every_s
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def warning(self, name: str, subject: str = "", **fields: Any) -> None:
        """Log, or count as left out.

        Args:
            name: of the event.
            subject: what it is about; a few are told apart, the rest is one.
            fields: of the event.
        """
        key = (name, subject) if (name, subject) in self._last or len(self._last) < _SUBJECTS_MAX else (name, "")
        now = self._monotonic()
        at, left_out = self._last.get(key, (float("-inf"), 0))
        if now - at < self._every_s:
            self._last[key] = (at, left_out + 1)
            return
        self._last[key] = (now, 0)
        self._log.warning(name, **fields, **({"left_out": left_out} if left_out else {}))


def _checked(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    complaint = check(str(event.get("event")), event)
    if complaint is not None:
        event["undeclared"] = complaint
    return event


def _as_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    import msgspec

    level = str(event.get("level", "info"))
    ordered = {key: event.pop(key) for key in ("time", "level", "event") if key in event}
    ordered.update((key, _bounded(value)) for key, value in event.items())
    return f"<{_PRIORITY.get(level, 6)}>{msgspec.json.encode(ordered, enc_hook=str).decode()}"


def _as_words(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    time = str(event.pop("time"))[11:19]
    level, name = event.pop("level"), event.pop("event")
    trace = event.pop("exception", None)
    words = "  ".join(f"{key}={visible(str(_bounded(value)))}" for key, value in event.items())
    return f"{time} {level:<7} {name:<18} {words}".rstrip() + (f"\n{trace}" if trace else "")


def _bounded(value: Any) -> Any:
    return value[:_VALUE_CHARS_MAX] + "…" if isinstance(value, str) and len(value) > _VALUE_CHARS_MAX else value


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    structlog.get_logger().error(
        "loop.failed",
        loop=args.thread.name if args.thread else "thread",
        reason=f"{args.exc_type.__name__}: {args.exc_value}",
        unharmed="the main loop and everything on disk",
    )
