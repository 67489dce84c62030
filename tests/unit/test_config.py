"""The configuration: what is read, what is refused, and that every fault is named at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nis_edge.config import (
    SECTIONS,
    Config,
    ConfigFileError,
    DeviceOptions,
    changed_sections,
    device_id,
    is_loopback,
    key_lines,
    load,
    parse,
    state_folder,
)
from nis_edge.limits import CONFIG_BYTES_MAX


def faults_of(text: str) -> list[str]:
    with pytest.raises(ConfigFileError) as caught:
        parse(text, "x.toml")
    return caught.value.lines


def test_an_empty_file_gives_the_defaults() -> None:
    assert parse("", "x.toml") == Config()


def test_each_room_gets_its_own_values() -> None:
    config = parse('[mqtt]\nhost = "b.example"\ntls = true\n[monitor]\ntick_s = 2\n', "x.toml")
    assert config.mqtt.host == "b.example"
    assert config.mqtt.port_or_default == 8883
    assert config.monitor.tick_s == 2.0
    assert isinstance(config.monitor.tick_s, float)


def test_every_fault_is_named_at_once_with_its_line() -> None:
    lines = faults_of('[mqtt]\nhots = "b"\nport = 99999\n\n[modle]\nthreads = 2\n[api]\nenabled = "yes"\n')
    assert lines == [
        "x.toml:2: unknown key 'hots' in [mqtt]; did you mean 'host'?",
        "x.toml:3: mqtt.port must be 1 to 65535, not 99999",
        "x.toml:5: unknown section [modle]; did you mean 'model'?",
        "x.toml:8: api.enabled must be true or false, not 'yes'",
    ]


def test_a_key_in_the_wrong_section_is_sent_to_the_right_one() -> None:
    assert faults_of("[device]\nkeepalive_s = 30\n") == [
        "x.toml:2: unknown key 'keepalive_s' in [device]; it belongs into [mqtt]"
    ]


def test_a_key_outside_of_any_section_is_sent_home() -> None:
    assert faults_of("threads = 2\n") == [
        "x.toml:1: unknown key 'threads' outside of any section; it belongs into [model]"
    ]


def test_a_syntax_error_names_its_line() -> None:
    (line,) = faults_of("[mqtt]\nhost = b.example\n")
    assert line.startswith("x.toml:2: no valid TOML:")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[model]\nthreads = true\n", "must be a whole number, not True"),
        ("[model]\nthreads = 1.5\n", "must be a whole number"),
        ("[model]\nthreads = 0\n", "must be 1 to 64"),
        ("[monitor]\ntick_s = nan\n", "must be 0.1 to 60"),
        ("[monitor]\ntick_s = inf\n", "must be 0.1 to 60"),
        ('[device]\nid = "Pi 5"\n', "must be 1 to 64 of a-z"),
        ('[device]\nid = "a/b"\n', "must be 1 to 64 of a-z"),
        ('[device]\nid = "x\\n"\n', "must be 1 to 64 of a-z"),
        ('[device]\nstate = ""\n', "must not be empty"),
        ('[device]\nstate = "a\\u0000b"\n', "zero byte"),
        ('[device]\nstate = "~nobody-here/x"\n', "home folder that does not exist"),
        ("[device]\nid = 1979-05-27\n", "must be a string"),
        ('[log]\nlevel = "inf"\n', "did you mean 'info'?"),
        ('[update]\nrepository = "ftp://x"\nroot = "r"\n', "must be an http:// or https:// URL"),
        ("mqtt = 3\n", "'mqtt' must be a section: write [mqtt]"),
        ("[[mqtt]]\n", "'mqtt' must be a section"),
    ],
)
def test_a_bad_value_is_refused_with_its_reason(text: str, complaint: str) -> None:
    (line,) = faults_of(text)
    assert complaint in line


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[mqtt]\nhost = "b"\npassword_file = "p"\n', "x.toml:3: mqtt.password_file needs mqtt.username"),
        ('[mqtt]\ntls = true\ncert_file = "c"\n', "x.toml:3: mqtt.cert_file and mqtt.key_file go together"),
        ('[mqtt]\nca_file = "c"\n', "has no effect without mqtt.tls"),
        ("[mqtt]\nreconnect_s_min = 30\nreconnect_s_max = 2\n", "x.toml:2: mqtt.reconnect_s_min is larger"),
        ('[api]\nhost = "0.0.0.0"\n', "x.toml:2: api.host 0.0.0.0 is reachable from outside: it needs api.token_file"),
        ('[update]\nrepository = "https://x"\n', "needs update.root"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(text: str, complaint: str) -> None:
    assert any(complaint in line for line in faults_of(text))


def test_a_file_that_is_missing_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match="can't be read: No such file"):
        load(tmp_path / "none.toml")


def test_a_file_that_is_not_text_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b'[mqtt]\nhost = "\xff"\n')
    with pytest.raises(ConfigFileError, match=r"c\.toml:2: is not UTF-8"):
        load(file)


def test_a_file_too_large_is_not_read_further(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b"#" * (CONFIG_BYTES_MAX + 1))
    with pytest.raises(ConfigFileError, match="larger than"):
        load(file)


def test_deep_nesting_is_refused_without_a_crash() -> None:
    assert "no valid TOML" in faults_of("x = " + "[" * 20000)[0]


def test_lines_are_found_behind_strings_and_arrays_that_span_lines() -> None:
    text = 'a = """\n[mqtt]\nhost = 1\n"""\nb = [\n  "[x]", # [y\n  2,\n]\n[mqtt] # here\n"host" = 1\nx.y = 2\n'
    lines = key_lines(text)
    assert lines == {
        ("a",): 1,
        ("b",): 5,
        ("mqtt",): 9,
        ("mqtt", "host"): 10,
        ("mqtt", "x"): 11,
        ("mqtt", "x", "y"): 11,
    }


def test_changed_sections_are_named() -> None:
    assert changed_sections(Config(), parse("[model]\nthreads=2\n[log]\nlevel='debug'\n", "x")) == ("model", "log")


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [("Pi5-01.lab.example", "pi5-01"), ("_my box_", "my-box"), ("---", "device"), ("x" * 80, "x" * 64)],
)
def test_a_device_without_an_id_is_called_after_its_host(hostname: str, expected: str) -> None:
    assert device_id(DeviceOptions(), hostname) == expected


def test_state_goes_where_systemd_then_xdg_say() -> None:
    both = {"STATE_DIRECTORY": "/var/lib/nis-edge:/x", "XDG_STATE_HOME": "/s", "HOME": "/h"}
    assert state_folder(DeviceOptions(), both) == Path("/var/lib/nis-edge")
    assert state_folder(DeviceOptions(), {"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/nis-edge")
    assert state_folder(DeviceOptions(), {"XDG_STATE_HOME": "relative", "HOME": "/h"}) == Path(
        "/h/.local/state/nis-edge"
    )
    assert state_folder(DeviceOptions(state=Path("/mine")), both) == Path("/mine")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.0.1", False), ("localhost.example", False)],
)  # fmt: skip
def test_only_loopback_counts_as_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_documented_example_is_valid_and_names_every_option() -> None:
    example = Path(__file__).resolve().parents[2] / "systemd" / "nis-edge.toml"
    text = example.read_text(encoding="utf-8")
    load(example)
    commented_in = "\n".join(
        line.removeprefix("#") if line.startswith("#") and " = " in line else line for line in text.splitlines()
    )
    named = key_lines(commented_in)
    for section, group in SECTIONS.items():
        for key in group.__dataclass_fields__:
            assert (section, key) in named, f"[{section}] {key} is not documented"
    parse(commented_in, os.fspath(example))
