"""Waves that widen by what devices sign, and stop by it; nobody else's word moves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nis_ota import cli
from nis_ota.fleet import UNVERIFIED_MAX, Fleet, Progress
from nis_ota.rollouts import Plan, judge

from nis_edge.update.report import Envelope, Report, signed_bytes
from nis_edge.update.rollout import Rollout, rollout_bucket
from tests.support.update_world import golden_package

MODEL = "models/tiny/1.0.0.nis"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _fd: None)


class Device:
    """A device with a key of its own, that reports."""

    def __init__(self, name: str, cohort: str = "stable") -> None:
        self.name, self.cohort, self.seq = name, cohort, 0
        self.private = Ed25519PrivateKey.generate()
        self.key = self.private.public_key().public_bytes_raw().hex()

    def report(self, **fields: Any) -> bytes:
        self.seq = fields.pop("seq", self.seq + 1)
        report = Report(
            **{
                "device": self.name, "cohort": self.cohort, "seq": self.seq, "at": 1.0, "clock_state": "synced",
                "state": "IDLE", "installed_version": "0.9.0", "agent_version": "0.1.0", "release_counter_floor": 0,
                **fields,
            }
        )  # fmt: skip
        text = msgspec.json.encode(report).decode()
        return msgspec.json.encode(
            Envelope(device=self.name, key=self.key, report=text, sig=self.private.sign(signed_bytes(text)).hex())
        )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_package(tmp_path_factory.mktemp("package") / "tiny.nis", "1.0.0")


@pytest.fixture
def fleet(tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run("init-repo", tmp_path / "fleet", "--quick") == 0
    assert run("add-target", tmp_path / "fleet", package, "--release-counter", 1) == 0
    capsys.readouterr()
    return tmp_path / "fleet"


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def asked(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    capsys.readouterr()
    assert run(*words, "--json") in (0, 1)
    return json.loads(capsys.readouterr().out)


def open_rollout(**fields: Any) -> Rollout:
    given = {"cohort": "stable", "serial": 3, "target": MODEL, "sha256": "a" * 64, "length": 1, "open_bp": 10_000}
    return Rollout(**{**given, **fields})


PLAN = Plan(waves=(100, 1000, 10_000), halt_percent=10, halt_after=5, advance_percent=80, advance_after=2)


@pytest.mark.parametrize(
    ("progress", "fields", "act"),
    [
        (Progress(0, 0, 0, 0), {}, "wait"),
        (Progress(10, 7, 0, 0), {}, "wait"),
        (Progress(10, 8, 0, 0), {}, "advance"),
        (Progress(1, 1, 0, 0), {}, "wait"),  # all of one device, but two are wanted
        (Progress(10, 8, 0, 0), {"wave": 3}, "done"),
        (Progress(10, 8, 0, 0), {"state": "paused"}, "wait"),
        (Progress(10, 3, 1, 0), {}, "wait"),  # a quarter failed, but only four tried
        (Progress(10, 4, 1, 0), {}, "halt"),
        (Progress(10, 9, 1, 0), {}, "halt"),  # exactly at the limit, although enough succeeded
        (Progress(20, 19, 1, 0), {}, "advance"),
        (Progress(10, 4, 1, 0), {"state": "paused"}, "halt"),
        (Progress(10, 0, 0, 10), {}, "wait"),  # not for them: no failure, no success
    ],
)
def test_failure_is_looked_at_before_success_and_neither_before_enough_devices_spoke(
    progress: Progress, fields: dict[str, Any], act: str
) -> None:
    assert judge(open_rollout(**fields), PLAN, progress).act == act


def test_progress_counts_verified_devices_of_the_cohort_inside_the_wave_only(tmp_path: Path) -> None:
    fleet, rollout = Fleet(tmp_path), open_rollout(open_bp=5000)
    names = [f"d-{n}" for n in range(40)]
    inside = [name for name in names if rollout_bucket(rollout, name) < 5000]
    outside = [name for name in names if name not in inside]
    devices = {name: Device(name) for name in names}
    for name in names:
        fleet.enroll(name, devices[name].key)
    fleet.absorb([devices[inside[0]].report(installed_sha256="a" * 64, serial=3, outcome="committed")])
    fleet.absorb([devices[inside[1]].report(serial=3, outcome="rolled_back", error="x", error_code="TrialFailedError")])
    fleet.absorb([devices[inside[2]].report(serial=2, outcome="rolled_back")])  # an older rollout's failure
    fleet.absorb([devices[inside[3]].report(serial=3, outcome="refused")])
    fleet.absorb([devices[outside[0]].report()])  # its turn has not come
    fleet.absorb([Device(inside[4], "stable").report(serial=3, outcome="rolled_back")])  # another key than enrolled
    fleet.absorb([devices[inside[5]].report(serial=3, outcome="failed")])  # a link or a disk, no verdict on the model
    fleet.absorb([Device("stranger").report(serial=3, outcome="rolled_back")])
    other = Device("elsewhere", "canary")
    fleet.enroll("elsewhere", other.key)
    fleet.absorb([other.report(serial=3, outcome="rolled_back")])
    assert fleet.progress(rollout) == Progress(reached=5, succeeded=1, failed=1, refused=1)
    assert fleet.progress(rollout).waiting == 2


def test_forged_replayed_and_late_reports_change_nothing(tmp_path: Path) -> None:
    fleet, device = Fleet(tmp_path), Device("gw-1")
    fleet.enroll("gw-1", device.key)
    first, second = device.report(installed_version="1.0.0"), device.report(installed_version="2.0.0")
    assert fleet.absorb([second, first, second]) == []
    (seen,) = fleet.reports()
    assert (seen.report.installed_version, seen.verified) == ("2.0.0", True)
    assert "another key" in fleet.absorb([Device("gw-1").report(seq=99)])[0]
    changed = json.loads(second)
    changed["report"] = changed["report"].replace("2.0.0", "9.0.0")
    assert "forged" in fleet.absorb([json.dumps(changed).encode()])[0]
    assert fleet.reports()[0].report.installed_version == "2.0.0"


@pytest.mark.parametrize("junk", [b"{", b"[]", b"\xff", b"x" * 20_000, b"[" * 5000, b'{"device": "a"}'])
def test_a_malformed_report_is_refused_with_one_line_and_the_next_one_is_read(tmp_path: Path, junk: bytes) -> None:
    fleet, device = Fleet(tmp_path), Device("gw-1")
    refused = fleet.absorb([junk, device.report()])
    assert len(refused) == 1
    assert "\n" not in refused[0]
    assert len(fleet.reports()) == 1


def test_strangers_cannot_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nis_ota.fleet.UNVERIFIED_MAX", 3)
    fleet = Fleet(tmp_path)
    refused = fleet.absorb([Device(f"s-{n}").report() for n in range(5)])
    assert len(fleet.reports()) == 3
    assert len(refused) == 2
    assert UNVERIFIED_MAX == 1000


def test_reports_and_devices_are_kept_and_verified_again_when_read(tmp_path: Path) -> None:
    fleet, device = Fleet(tmp_path), Device("gw-1")
    assert fleet.enroll("gw-1", device.key)
    assert not fleet.enroll("gw-1", device.key)
    fleet.absorb([device.report()])
    fleet.save()
    path = tmp_path / "fleet" / "reports.jsonl"
    assert [seen.verified for seen in Fleet(tmp_path).reports()] == [True]
    path.write_bytes(path.read_bytes().replace(b"0.9.0", b"9.9.9"))
    assert Fleet(tmp_path).reports() == []


def test_a_rollout_widens_wave_by_wave_as_devices_report_success(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = asked(capsys, "rollout", "start", fleet, MODEL, "--waves", "10%,5000,100%", "--advance-after", 1)
    assert (start["wave"], start["open_bp"], start["serial"]) == (1, 1000, 1)
    sha = json.loads(next((fleet / "targets" / "rollout").iterdir()).read_bytes())["sha256"]
    rollout = open_rollout(sha256=sha, open_bp=1000)
    devices = [Device(f"d-{n}") for n in range(60)]
    early = [device for device in devices if rollout_bucket(rollout, device.name) < 1000]
    late = [device for device in devices if rollout_bucket(rollout, device.name) >= 5000]
    assert early
    registry = Fleet(fleet)
    for device in devices:
        registry.enroll(device.name, device.key)
    reports = tmp_path / "reports.jsonl"
    advance = ["rollout", "advance", fleet, "--if-healthy", "--reports", reports]
    reports.write_bytes(b"\n".join(device.report() for device in devices) + b"\n")
    assert asked(capsys, *advance)["act"] == "wait"
    reports.write_bytes(b"\n".join(d.report(installed_sha256=sha, serial=1, outcome="committed") for d in early))
    went = asked(capsys, *advance)
    assert (went["act"], went["wave"], went["open_bp"], went["serial"]) == ("advance", 2, 5000, 1)
    assert asked(capsys, *advance)["act"] == "wait"  # the second wave has not reported yet
    assert asked(capsys, "rollout", "advance", fleet)["open_bp"] == 10_000  # by hand
    assert run("rollout", "advance", fleet) == 1
    assert "is the last one" in capsys.readouterr().err
    assert late


def test_a_rollout_whose_devices_fail_halts_itself_and_says_so_until_it_is_started_anew(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("rollout", "start", fleet, MODEL, "--waves", "100%", "--halt-percent", 50, "--halt-after", 2) == 0
    devices, reports = [Device("a"), Device("b")], tmp_path / "reports.jsonl"
    for device in devices:
        assert run("device", "enroll", fleet, device.name, device.key) == 0
    reports.write_bytes(b"\n".join(device.report(serial=1, outcome="rolled_back") for device in devices))
    capsys.readouterr()
    assert run("rollout", "advance", fleet, "--if-healthy", "--reports", reports) == 1
    assert "halt: 100.0 % of 2 devices failed" in capsys.readouterr().out
    shown = asked(capsys, "rollout", "status", fleet)["stable"]
    assert (shown["state"], shown["failed"]) == ("aborted", 2)
    assert "100.0 %" in shown["halted"]
    assert run("rollout", "resume", fleet) == 1
    assert "start it anew" in capsys.readouterr().err
    assert asked(capsys, "rollout", "start", fleet, MODEL)["serial"] == 2


def test_a_paused_rollout_keeps_its_serial_and_wave_and_goes_on_where_it_stood(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("rollout", "start", fleet, MODEL) == 0
    assert run("rollout", "advance", fleet) == 0
    assert asked(capsys, "rollout", "pause", fleet)["state"] == "paused"
    assert run("rollout", "advance", fleet) == 1
    assert "nis-ota rollout resume" in capsys.readouterr().err
    back = asked(capsys, "rollout", "resume", fleet)
    assert (back["state"], back["serial"], back["wave"], back["open_bp"]) == ("open", 1, 2, 1000)


def test_one_device_has_a_rollout_of_its_own_with_its_id_inside_until_it_is_withdrawn(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("rollout", "start", fleet, MODEL, "--waves", "100%") == 0
    given = asked(capsys, "rollout", "start", fleet, MODEL, "--device", "gw-7")
    assert (given["device"], given["open_bp"]) == ("gw-7", 10_000)
    assert run("publish", fleet, "--to", tmp_path / "www") == 0
    bundle = json.loads((tmp_path / "www" / "bundles" / "dev.gw-7.json").read_bytes())
    assert bundle["device"] == "gw-7"
    capsys.readouterr()
    root = fleet / "metadata" / "1.root.json"
    assert {seen["name"] for seen in asked(capsys, "verify", tmp_path / "www", "--root", root)} == {
        "stable",
        "dev.gw-7",
    }
    assert run("rollout", "withdraw", fleet, "--device", "gw-7") == 0
    assert set(asked(capsys, "rollout", "status", fleet)) == {"stable"}
    assert run("rollout", "withdraw", fleet, "--device", "gw-7") == 1
    assert run("publish", fleet, "--to", tmp_path / "www") == 0
    assert [path.name for path in (tmp_path / "www" / "bundles").iterdir()] == ["stable.json"]


def test_window_spread_and_date_stand_in_the_document(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--window", "22:30+120", "--spread", 3600, "--not-before", "2027-01-31T02:00:00Z"]
    assert run("rollout", "start", fleet, MODEL, *words) == 0
    (path,) = (fleet / "targets" / "rollout").iterdir()
    document = json.loads(path.read_bytes())
    assert (document["window"]["start_minute"], document["window"]["minutes"]) == (22 * 60 + 30, 120)
    assert (document["spread_s"], document["not_before"]) == (3600, 1801360800.0)


def test_revoking_a_model_takes_it_off_the_list_and_aborts_what_points_at_it(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cohort in ("stable", "canary"):
        assert run("rollout", "start", fleet, MODEL, "--cohort", cohort) == 0
    assert asked(capsys, "revoke", "target", fleet, MODEL)["aborted"] == ["canary", "stable"]
    assert {one["state"] for one in asked(capsys, "rollout", "status", fleet).values()} == {"aborted"}
    assert run("rollout", "start", fleet, MODEL) == 1
    assert run("publish", fleet, "--to", tmp_path / "www") == 0


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["rollout", "start", "FLEET", MODEL, "--waves", "10%,5%"], "must rise"),
        (["rollout", "start", "FLEET", MODEL, "--halt-percent", "101"], "cannot be planned"),
        (["rollout", "start", "FLEET", MODEL, "--not-before", "soon"], "2027-01-31T02:00:00Z"),
        (["rollout", "start", "FLEET", MODEL, "--not-before", "2027-01-31T02:00:00"], "has no zone"),
        (["rollout", "start", "FLEET", MODEL, "--spread", "99999999"], "spread_s"),
        (["rollout", "start", "FLEET", MODEL, "--device", "../x"], "a-z, 0-9"),
        (["rollout", "pause", "FLEET", "--cohort", "nobody"], "rollout start"),
        (["device", "enroll", "FLEET", "gw-1", "abc"], "64 hex digits"),
        (["device", "enroll", "FLEET", "GW 1", "a" * 64], "a-z, 0-9"),
        (["device", "forget", "FLEET", "gw-1"], "not enrolled"),
        (["revoke", "target", "FLEET", "models/x/1.nis"], "listed are"),
        (["make-delta", "FLEET", MODEL, "--from", "models/x/1.nis"], "add-target"),
        (["add-agent", "FLEET", "PACKAGE"], "init-repo --agent"),
        (["export-usb", "FLEET", "--to", "x"], "rollout start"),
        (["publish", "FLEET", "--to", "ftp://x/y"], "known are"),
        (["publish", "FLEET", "--to", "s3:///x"], "names no bucket"),
        (["sign", "FLEET", "nobody"], "no role that is signed by hand"),
    ],
)
def test_an_error_is_one_line_that_names_the_fix(
    fleet: Path, package: Path, words: list[str], fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"FLEET": fleet, "PACKAGE": package}
    assert run(*(names.get(word, word) for word in words)) == 1
    message = capsys.readouterr().err
    assert message.startswith("nis-ota: ")
    assert message.count("\n") == 1
    assert fix in message


@pytest.mark.parametrize("text", ["0", "10001", "ten", "101%", "", "1e9", "5%,", "inf%", "nan%"])
def test_a_share_that_is_none_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("rollout", "start", "fleet", MODEL, "--waves", text)
    assert ended.value.code == 2
    capsys.readouterr()
