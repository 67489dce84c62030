"""The log: declared names, a priority for the journal, no control characters on a terminal, no traceback."""

from __future__ import annotations

import io
import json
import threading

from nis_edge import logs


def written(plain: bool, level: str = "info") -> tuple[io.StringIO, object]:
    out = io.StringIO()
    return out, logs.configure(level, out, plain=plain)


def test_a_line_for_the_journal_is_json_behind_its_priority() -> None:
    out, log = written(plain=False)
    log.error("loop.failed", loop="x", reason="y", unharmed="z")  # type: ignore[attr-defined]
    line = out.getvalue()
    assert line.startswith("<3>{")
    event = json.loads(line[3:])
    assert list(event)[:3] == ["time", "level", "event"]
    assert event["unharmed"] == "z"
    assert "undeclared" not in event


def test_a_name_that_is_not_declared_is_reported_beside_it() -> None:
    out, log = written(plain=False)
    log.info("kettle.boiled")  # type: ignore[attr-defined]
    assert "not declared" in json.loads(out.getvalue()[3:])["undeclared"]


def test_a_terminal_gets_words_without_control_characters() -> None:
    out, log = written(plain=True)
    log.warning("event.refused", reason="bad \x1b[31m name\n2", unharmed="the stream")  # type: ignore[attr-defined]
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_a_long_value_is_cut() -> None:
    out, log = written(plain=False)
    log.info("daemon.stopped", reason="x" * 99_999)  # type: ignore[attr-defined]
    assert len(out.getvalue()) < 3000


def test_levels_below_the_chosen_one_are_silent() -> None:
    out, log = written(plain=False, level="warning")
    log.info("daemon.stopped", reason="x")  # type: ignore[attr-defined]
    assert out.getvalue() == ""


def test_a_thread_that_dies_is_one_line_not_a_traceback() -> None:
    out, _ = written(plain=False)
    before = threading.excepthook
    try:
        thread = threading.Thread(target=lambda: 1 / 0, name="paho")
        thread.start()
        thread.join()
    finally:
        threading.excepthook = before
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue()[3:])["reason"] == "ZeroDivisionError: division by zero"
