"""The doctor: a healthy machine has nothing to mend, each fault is found, and each comes with what mends it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nis_edge import cli, doctor
from nis_edge.config import Config, MqttOptions, PowerOptions, SpoolOptions, UpdateOptions
from nis_edge.doctor import Finding, Patient, examine, report, worst
from nis_edge.errors import BrokerLostError, KernelUnavailableError
from nis_edge.power.rails import Absence, Discovery
from nis_edge.power.throttle import ThrottleState
from tests.support.bench_doubles import SimulatedMeter, about, calm, meter_info, one_source
from tests.support.clock import SteppedClock
from tests.support.tiny_models import write_tiny_package

CPU = "processor\t: 0\nmodel name\t: Test\nflags\t\t: sse avx2\n"
MEMORY = "MemTotal:  4000000 kB\nMemAvailable:  2000000 kB\n"


class QuietConnection:
    async def close(self, farewell: list[Any]) -> None:
        assert farewell == []

    async def abandon(self) -> None:
        pass


@pytest.fixture
def healthy(tmp_path: Path) -> Patient:
    for name, text in (("cpuinfo", CPU), ("meminfo", MEMORY)):
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc" / name).write_text(text)
    root_json = tmp_path / "root.json"
    root_json.write_text("{}")
    config = Config(
        mqtt=MqttOptions(host="broker.example"),
        update=UpdateOptions(repository="https://models.example/repo", root=root_json),
        spool=SpoolOptions(mib_max=1),
    )

    async def takes(*_: Any) -> Any:
        return QuietConnection()

    return Patient(
        config=config, config_path=Path("/etc/nis.toml"), state=tmp_path / "state",
        package=write_tiny_package(tmp_path / "tiny.nis"),
        root=tmp_path, clock=SteppedClock(wall=1.8e9), synchronised=lambda: True,
        find_power=one_source(SimulatedMeter(about(5.0))), throttle=calm, isas=lambda: ["avx2", "scalar"],
        connect=takes, environ={}, user="pi",
    )  # fmt: skip


def found(patient: Patient, check: str) -> Finding:
    """The worst finding of one check."""
    of_check = [finding for finding in examine(patient) if finding.check == check]
    return max(of_check, key=lambda f: ("off", "ok", "warn", "fail").index(f.verdict))


def test_a_healthy_machine_has_nothing_to_mend(healthy: Patient) -> None:
    findings = examine(healthy)
    assert {finding.verdict for finding in findings} == {"ok"} and worst(findings) == "ok"
    assert all(finding.fix is None for finding in findings)
    assert report(findings).endswith("all is well: 0 to mend, 0 to better")
    assert not (healthy.state).exists()


def test_every_fault_comes_with_a_fix(healthy: Patient) -> None:
    assert {f.fix for f in examine(healthy) if f.verdict in ("warn", "fail")} == set()
    sick = replace(
        healthy,
        synchronised=lambda: False,
        package=None,
        find_power=lambda: Discovery(absent=(Absence(source="x/y", reason="no meter"),)),
        config=Config(update=UpdateOptions(repository="https://x.example", root=Path("/nonexistent/root.json"))),
    )
    bad = [finding for finding in examine(sick) if finding.verdict in ("warn", "fail")]
    assert {finding.check for finding in bad} == {"clock", "model", "power", "updates"}
    assert all(finding.fix for finding in bad)
    shown = report(bad)
    assert "sudo timedatectl set-ntp true" in shown and "2 to mend, 2 to better" in shown


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("broker broker.example:1883 refused: Not authorized", "mend mqtt.username and mqtt.password_file in /etc/nis"),
        ("broker is out of reach: Name or service not known", "getent hosts broker.example"),
        ("broker is out of reach: certificate verify failed", "openssl s_client -connect broker.example:1883"),
        ("broker is out of reach: timed out", "nc -zv broker.example 1883"),
    ],
)
def test_a_broker_that_fails_names_the_command_for_this_kind_of_failure(
    healthy: Patient, reason: str, told: str
) -> None:
    async def refuses(*_: Any) -> Any:
        raise BrokerLostError(reason)

    finding = found(replace(healthy, connect=refuses), "broker")
    assert finding.verdict == "fail" and finding.found == reason
    assert told in (finding.fix or "")


def test_the_daemons_own_session_on_the_broker_is_left_alone(healthy: Patient) -> None:
    asked: list[Any] = []

    async def takes(options: Any, *_: Any) -> Any:
        asked.append(options)
        return QuietConnection()

    assert found(replace(healthy, connect=takes), "broker").verdict == "ok"
    assert asked[0].client_id.startswith("nis-edge-doctor-") and asked[0].session_expiry_s == 0


def test_a_local_broker_that_is_down_is_started_by_the_command_given(healthy: Patient) -> None:
    patient = replace(healthy, config=Config(mqtt=MqttOptions(host="127.0.0.1", port=9)), connect=doctor.connect)
    finding = found(patient, "broker")
    assert finding.verdict == "fail" and "systemctl enable --now mosquitto" in (finding.fix or "")


def test_an_engine_that_does_not_load_or_lacks_a_kernel_is_told(healthy: Patient) -> None:
    def broken() -> list[str]:
        raise KernelUnavailableError("libnis_engine.so is missing")

    assert found(replace(healthy, isas=broken), "engine").verdict == "fail"
    assert "avx2 is missing from this build" in found(replace(healthy, isas=lambda: ["scalar"]), "engine").found
    (healthy.root / "proc/cpuinfo").write_text(CPU.replace("avx2", "avx2 avx_vnni"))
    assert "avxvnni is missing from this build" in found(healthy, "engine").found
    assert found(replace(healthy, isas=lambda: ["avxvnni", "avx2", "scalar"]), "engine").verdict == "ok"


def test_too_little_memory_is_told(healthy: Patient) -> None:
    (healthy.root / "proc/meminfo").write_text("MemAvailable: 20000 kB\n")
    assert found(healthy, "memory").verdict == "fail"


def test_throttling_now_fails_and_since_boot_warns_and_low_voltage_names_the_supply(healthy: Patient) -> None:
    def now(flags: tuple[str, ...], before: tuple[str, ...] = ()) -> Finding:
        state = ThrottleState(known=True, active=flags, since_boot=before)
        return found(replace(healthy, throttle=lambda: state), "throttling")

    assert now(("throttled",)).verdict == "fail" and "heat sink" in (now(("throttled",)).fix or "")
    low = now((), ("under-voltage",))
    assert low.verdict == "warn" and "power supply" in (low.fix or "")


def test_a_clock_that_was_never_set_fails(healthy: Patient) -> None:
    finding = found(replace(healthy, clock=SteppedClock(wall=3600.0)), "clock")
    assert finding.verdict == "fail" and "timedatectl" in (finding.fix or "")


def test_a_state_folder_that_can_not_be_written_names_the_command(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    finding = found(healthy, "disk")
    assert finding.verdict == "fail" and finding.fix == f"sudo install -d -m 700 -o pi {healthy.state}"


def test_a_disk_too_small_for_the_spool_is_told(healthy: Patient) -> None:
    finding = found(replace(healthy, config=Config(spool=SpoolOptions(mib_max=16384 * 64))), "disk")
    assert finding.verdict == "fail" and "spool.mib_max" in (finding.fix or "")


def test_a_damaged_package_is_told(healthy: Patient) -> None:
    assert healthy.package is not None
    content = bytearray(healthy.package.read_bytes())
    content[-70] ^= 0x40
    healthy.package.write_bytes(content)
    finding = found(healthy, "model")
    assert finding.verdict == "fail" and "nis-edge verify" in (finding.fix or "")


def test_secrets_that_are_missing_or_open_to_others_are_told(healthy: Patient, tmp_path: Path) -> None:
    def with_password(path: Path) -> Finding:
        config = Config(mqtt=MqttOptions(username="u", password_file=path))
        return found(replace(healthy, config=config), "secrets")

    assert with_password(tmp_path / "missing").verdict == "fail"
    (tmp_path / "pw").write_text("x")
    (tmp_path / "pw").chmod(0o644)
    assert (with_password(tmp_path / "pw").verdict, with_password(tmp_path / "pw").fix) == (
        "warn",
        f"chmod 600 {tmp_path}/pw",
    )
    (tmp_path / "pw").chmod(0o600)
    assert with_password(tmp_path / "pw").verdict == "ok"


def test_a_credential_that_only_the_service_manager_can_show_is_no_fault(
    healthy: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mqtt = MqttOptions(host="broker.example", username="u", password_file=Path("mqtt.password"))
    by_hand = replace(healthy, config=Config(mqtt=mqtt))
    for check in ("secrets", "broker"):
        finding = found(by_hand, check)
        assert finding.verdict == "off" and "mqtt.password" in finding.found and finding.fix
    handed = tmp_path / "credentials"
    handed.mkdir()
    as_service = replace(by_hand, environ={"CREDENTIALS_DIRECTORY": str(handed)})
    missing = found(as_service, "secrets")
    assert missing.verdict == "fail" and "LoadCredential=mqtt.password:" in (missing.fix or "")
    assert found(as_service, "broker").verdict == "fail"
    (handed / "mqtt.password").write_text("secret")
    (handed / "mqtt.password").chmod(0o440)  # as systemd leaves it, with an access list for the user
    assert found(as_service, "secrets") == Finding(
        check="secrets", verdict="ok", found=f"mqtt.password_file: {handed}/mqtt.password"
    )
    assert found(as_service, "broker").verdict == "ok"


def test_hot_is_where_this_board_slows_down(healthy: Patient) -> None:
    zone = healthy.root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    for name, text in (("type", "cpu-thermal"), ("temp", "82000")):
        (zone / name).write_text(text)
    assert found(healthy, "temperature").verdict == "warn", "80 degrees where nobody says"
    for name, text in (("trip_point_0_type", "passive"), ("trip_point_0_temp", "95000")):
        (zone / name).write_text(text)
    assert found(healthy, "temperature").verdict == "ok"
    chosen = replace(healthy, config=Config(power=PowerOptions(throttle_celsius=70.0)))
    assert found(chosen, "temperature").verdict == "warn"


@pytest.mark.parametrize(("gid", "fix"), [(44, "sudo usermod -aG video pi"), (0, "full-upgrade")])
def test_a_sensor_that_may_not_be_opened_names_what_opens_it(
    healthy: Patient, monkeypatch: pytest.MonkeyPatch, gid: int, fix: str
) -> None:
    (healthy.root / "dev").mkdir()
    (healthy.root / "dev/vcio_gencmd").write_text("")
    monkeypatch.setattr(doctor, "_may_open", lambda node: False)
    monkeypatch.setattr(doctor, "_group_of", lambda node: gid)
    finding = found(replace(healthy, find_power=Discovery, package=None), "power")
    assert finding.found == "/dev/vcio_gencmd may not be opened by pi"
    assert fix in (finding.fix or "")


def test_an_incomplete_scope_and_a_silent_source_warn(healthy: Patient) -> None:
    partial = SimulatedMeter(about(5.0), meter_info("rails", "C", complete=False))
    assert "leaves out USB" in found(replace(healthy, find_power=one_source(partial)), "power").found
    silent = SimulatedMeter(lambda _: None)
    assert "simulated sensor is gone" in found(replace(healthy, find_power=one_source(silent)), "power").found


def test_a_repository_without_tls_warns_unless_it_is_on_this_machine(healthy: Patient) -> None:
    update = healthy.config.update

    def over(url: str) -> str:
        return found(replace(healthy, config=Config(update=replace(update, repository=url))), "updates").verdict

    assert over("http://models.example/repo") == "warn"
    assert over("http://127.0.0.1:8000/repo") == "ok"


def test_a_check_that_breaks_is_a_finding_not_a_traceback(healthy: Patient) -> None:
    (healthy.root / "proc/meminfo").unlink()
    assert "the check itself failed" in found(healthy, "memory").found


def test_the_command_prints_findings_and_its_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = tmp_path / "nis.toml"
    config.write_text(f'[device]\nstate = "{tmp_path}/state"\n[mqtt]\nhost = "127.0.0.1"\nport = 9\n')
    assert cli.main(["doctor", "--config", str(config)]) == 1
    shown = capsys.readouterr().out
    assert "fail  broker" in shown and "-> sudo systemctl enable --now mosquitto" in shown
    assert cli.main(["doctor", "--config", str(config), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "fail" and {f["check"] for f in told["findings"]} >= {"engine", "model", "broker"}
    config.write_text(f'[device]\nstate = "{tmp_path}/state"\n')
    assert cli.main(["doctor", "--config", str(config)]) == 0
