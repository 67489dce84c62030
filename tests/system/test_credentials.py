"""The daemon over mutual TLS with a password, every secret handed over as systemd's LoadCredential does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.broker import running
from tests.support.daemon import DaemonProcess, event

pytestmark = pytest.mark.system


def test_secrets_from_the_service_manager_open_a_broker_that_demands_all_of_them(tmp_path: Path) -> None:
    pki, handed = tmp_path / "pki", tmp_path / "credentials"
    pki.mkdir()
    handed.mkdir(mode=0o700)
    authority = Authority(pki, "authority")
    server, _ = authority.issue("server"), authority.issue("dut")
    for name, source in (("ca.pem", "authority.pem"), ("mqtt.pem", "dut.pem"), ("mqtt.key", "dut.key")):
        (handed / name).write_bytes((pki / source).read_bytes())
    (handed / "mqtt.password").write_text("right\n")
    settings = (
        f"cafile {authority.certificate}\ncertfile {server}\nkeyfile {pki / 'server.key'}\nrequire_certificate true"
    )
    files = 'ca_file = "ca.pem"\ncert_file = "mqtt.pem"\nkey_file = "mqtt.key"\npassword_file = "mqtt.password"\n'
    for broker in running(tmp_path, settings, users={"dut": "right"}):
        mqtt = f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ntls = true\nusername = "dut"\n{files}'
        environ = {"CREDENTIALS_DIRECTORY": str(handed)}
        with DaemonProcess(tmp_path / "d", mqtt, environ=environ).start() as daemon:
            daemon.wait(lambda: daemon.status()["broker"]["connected"], "the broker lets it in")
            daemon.post(str(event(1)).replace("'", '"').encode())
            daemon.wait(lambda: daemon.status()["spool"]["delivered"] > 0, "records are acknowledged")
            assert "right" not in daemon.log()
            assert daemon.end() == 0
        (handed / "mqtt.password").write_text("wrong\n")
        with DaemonProcess(tmp_path / "d", mqtt, environ=environ).start() as daemon:
            assert "Not authorized" in daemon.wait_event("broker.lost")["reason"]
        with DaemonProcess(tmp_path / "d", mqtt, environ={"CREDENTIALS_DIRECTORY": ""}).start(ready=False) as daemon:
            assert daemon.wait_exit() == 2
            assert "ca.pem" in daemon.log()
