"""The start: folders, the lock, secrets, the broker; each fault names what the operator must mend."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nis_edge import starting
from nis_edge.adapters.mqtt import Message
from nis_edge.config import Config, DeviceOptions, MqttOptions
from nis_edge.errors import ConfigError
from nis_edge.starting import broker_options, for_demo, read_secret, take_state_folder

WILL = Message("w", b"")


def test_the_state_folder_is_made_for_us_alone_and_locked(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with take_state_folder(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(ConfigError, match=f"in use by another nis-edge .process {os.getpid()}"):
            take_state_folder(folder)
    take_state_folder(folder).close()


def test_a_state_folder_that_can_not_be_made_is_the_operators_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"can't be used: .*device\.state"):
        take_state_folder(tmp_path / "file" / "state")


def test_a_secret_is_its_file_without_the_newline(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret \n")
    assert read_secret(file, "x") == "s3cret"


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe"])
def test_a_secret_that_is_missing_empty_or_no_text_is_named_but_not_shown(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mqtt\.password_file .*secret"):
        read_secret(file, "mqtt.password_file")


def test_without_a_host_there_is_no_broker() -> None:
    assert broker_options(MqttOptions(), "id", WILL) is None


def test_a_broker_is_reached_with_the_secret_read(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("word\n")
    made = broker_options(MqttOptions(host="b", username="u", password_file=tmp_path / "pw"), "id", WILL)
    assert made is not None
    assert (made.host, made.port, made.password, made.tls) == ("b", 1883, "word", None)
    tls = broker_options(MqttOptions(host="b", tls=True), "id", WILL)
    assert tls is not None
    assert tls.port == 8883
    assert tls.tls is not None


def test_certificates_are_tried_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.pem"):
        broker_options(MqttOptions(host="b", tls=True, ca_file=tmp_path / "none.pem"), "id", WILL)


def test_a_demonstration_has_its_own_name_and_state_and_takes_a_broker_that_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        monkeypatch.setattr(starting, "LOCAL_BROKER", ("127.0.0.1", broker.getsockname()[1]))
        config = for_demo(Config(), {"XDG_STATE_HOME": "/s"})
        assert (config.device.id, config.device.state) == ("demo", Path("/s/nis-edge/demo"))
        assert (config.mqtt.host, config.mqtt.port) == ("127.0.0.1", broker.getsockname()[1])
    assert for_demo(Config(), {"XDG_STATE_HOME": "/s"}).mqtt.host is None


def test_a_demonstration_keeps_what_was_configured() -> None:
    mine = Config(device=DeviceOptions(id="mine", state=Path("/mine")), mqtt=MqttOptions(host="b", port=5))
    assert for_demo(mine, {}) == mine
