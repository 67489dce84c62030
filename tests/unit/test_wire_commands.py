"""Commands: what is understood, what is refused with a reason, where an answer may go."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nis_edge.errors import EventFormatError
from nis_edge.limits import COMMAND_BYTES_MAX, JSON_DEPTH_MAX
from nis_edge.wire.commands import answerable, parse_command

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_object_gives_the_key_and_the_arguments() -> None:
    command = parse_command("update", b'{"id": "a-1", "do": "check"}', properties=[("traceparent", TRACE)])
    assert (command.key, command.args) == ("a-1", {"do": "check"})
    assert command.trace_id == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(("payload", "args"), [(b"INSTALL", {"do": "apply"}), (b"PRESS", {}), (b"", {}), (b" {} ", {})])
def test_a_bare_word_is_what_dashboards_send(payload: bytes, args: dict[str, str]) -> None:
    assert parse_command("ota", payload).args == args
    assert parse_command("ota", payload).key is None


def test_install_means_nothing_elsewhere() -> None:
    assert parse_command("ping", b"INSTALL").args == {}


def test_what_has_no_id_is_known_by_its_correlation() -> None:
    assert parse_command("ping", b"", correlation=b"\x01\x02").key == "correlation:0102"
    assert parse_command("ping", b'{"id":"x"}', correlation=b"\x01").key == "x"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"[1]", "JSON object"),
        (b"17", "JSON object"),
        (b"null", "JSON object"),
        (b'{"id": 3}', "'id'"),
        (b'{"id": ""}', "'id'"),
        (b'{"id": "a b"}', "'id'"),
        (b"\xff\xfe", "JSON object"),
        (b"{" + b" " * COMMAND_BYTES_MAX + b"}", "larger"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "deeper|JSON"),
    ],
)
def test_what_is_no_command_is_refused_with_the_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(EventFormatError, match=reason):
        parse_command("ping", payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_refused(payload: bytes) -> None:
    with contextlib.suppress(EventFormatError):
        msgspec.json.encode(parse_command("ping", payload).args)


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("clients/7/replies", True),
        (None, False),
        ("", False),
        ("a/#", False),
        ("a/+/b", False),
        ("nis/v1/lab/other/cmd/update", False),
        ("/nis/v1/lab/other/cmd/update", False),
        ("homeassistant/device/x/config", False),
        ("$SYS/x", False),
        ("x" * 600, False),
        ("a\x00b", False),
    ],
)
def test_an_answer_goes_nowhere_where_it_would_be_a_command(topic: str | None, allowed: bool) -> None:
    assert answerable(topic) is allowed


def test_a_command_may_nest_as_deep_as_an_event_and_no_deeper() -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * levels + b"1" + b"}" * levels

    assert parse_command("update", nested(JSON_DEPTH_MAX)).args
    with pytest.raises(EventFormatError, match="deeper"):
        parse_command("update", nested(JSON_DEPTH_MAX + 1))
