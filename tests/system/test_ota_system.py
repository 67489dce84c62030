"""The publisher as an operator runs it: processes, mosquitto, a web server, a token, and clients that others wrote."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nis_ota import cli

from nis_edge.pack.layout import tensor_table
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from nis_edge.update.blocks import BlockRequest, encode_request, read_block, read_blocks
from nis_edge.update.bundle import bundle_topic, device_bundle_topic
from nis_edge.update.report import Envelope, Report, signed_bytes
from nis_edge.wire.topics import Topics
from tests.support.broker import Mosquitto, mosquitto
from tests.support.subscriber import Subscriber
from tests.support.update_world import golden_package
from tests.support.web_folder import WebFolder, web_folder

__all__ = ["mosquitto"]

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
MODEL = "models/tiny/1.0.0.nis"
DEADLINE_S = 60.0
SOFTHSM = next(
    (p for p in ("/usr/lib/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so") if Path(p).is_file()), None
)


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    package = golden_package(tmp_path / "tiny.nis", "1.0.0")
    assert run("init-repo", tmp_path / "fleet", "--quick") == 0
    assert run("add-target", tmp_path / "fleet", package, "--release-counter", 1, "--offer-to", "stable") == 0
    return tmp_path / "fleet"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebFolder]:
    (tmp_path / "www").mkdir()
    with web_folder(tmp_path / "www") as server:
        yield server


def restamped(source: Path, path: Path, version: str) -> None:
    """The same weights under another version: another package, which passes its own golden self-test."""
    with open_package(source) as old:
        identity = msgspec.structs.replace(old.manifest.model, id="nis-nano", version=version)
        manifest = msgspec.structs.replace(old.manifest, model=identity)
        write_package(path, manifest, {spec.name: old.tensors[spec.name] for spec in tensor_table(manifest)})


def at(broker: Mosquitto) -> list[object]:
    return ["--mqtt", f"127.0.0.1:{broker.port}", "--site", "lab"]


def test_bundles_of_cohorts_and_devices_are_retained_where_devices_look(fleet: Path, mosquitto: Mosquitto) -> None:
    assert run("rollout", "start", fleet, MODEL, "--device", "gw-7") == 0
    assert run("publish", fleet, "--to", fleet.parent / "www", *at(mosquitto)) == 0
    subscriber = Subscriber(mosquitto.port, "nis/v1/lab/ota/#")
    try:
        topics = {bundle_topic("lab", "stable"), device_bundle_topic("lab", "gw-7")}
        subscriber.wait(lambda: {topic for topic, *_ in subscriber.messages} >= topics, "both bundles came")
    finally:
        subscriber.close()
    assert all(len(payload) <= 8192 for _, payload, *_ in subscriber.messages)


def test_fleet_status_reads_signed_reports_also_those_that_came_while_nobody_listened(
    fleet: Path, mosquitto: Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    import paho.mqtt.publish as publish

    status = ["fleet-status", fleet, *at(mosquitto), "--listen", 2, "--json"]
    key = Ed25519PrivateKey.generate()
    assert run("device", "enroll", fleet, "gw-1", key.public_key().public_bytes_raw().hex()) == 0
    capsys.readouterr()
    assert run(*status) == 0
    assert json.loads(capsys.readouterr().out)["silent"] == ["gw-1"]
    for name, private in (("gw-1", key), ("stranger", Ed25519PrivateKey.generate())):
        report = Report(
            device=name, cohort="stable", seq=1, at=1.0, clock_state="synced", state="IDLE", outcome="committed",
            serial=1, installed_version="1.0.0", agent_version="0.1.0", release_counter_floor=1,
        )  # fmt: skip
        text = msgspec.json.encode(report).decode()
        envelope = Envelope(
            device=name, key=private.public_key().public_bytes_raw().hex(), report=text,
            sig=private.sign(signed_bytes(text)).hex(),
        )  # fmt: skip
        topic = Topics("lab", name).ota_report
        publish.single(topic, msgspec.json.encode(envelope), qos=1, port=mosquitto.port)
    publish.single(Topics("lab", "liar").ota_report, b"{}", qos=1, port=mosquitto.port)
    assert run(*status) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {(one["device"], one["verified"], one["outcome"]) for one in facts["devices"]} == {
        ("gw-1", True, "committed"), ("stranger", False, "committed"),
    }  # fmt: skip
    assert len(facts["refused"]) == 1
    assert run("fleet-status", fleet) == 0
    shown = capsys.readouterr().out
    assert re.search(r"gw-1 +stable +1\.0\.0 +IDLE +committed +synced +verified", shown)
    assert "NOT ENROLLED" in shown


def test_blocks_served_over_a_real_broker_make_the_model_again(fleet: Path, mosquitto: Mosquitto) -> None:
    model = next((fleet / "targets" / "models" / "tiny").glob("*.nis")).read_bytes()
    blocks = read_blocks(next((fleet / "targets" / "models" / "tiny").glob("*.blocks")).read_bytes())
    topics = Topics("lab", "gw-1")
    server = subprocess.Popen(
        [sys.executable, "-m", "nis_ota.cli", "serve-blocks", str(fleet), *map(str, at(mosquitto)), "--for", "60"],
        stderr=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    subscriber = Subscriber(mosquitto.port, topics.ota_block)
    try:
        assert server.stderr is not None
        assert "serving 2 files" in server.stderr.readline()
        request = BlockRequest(
            hashlib.sha256(model).hexdigest(), blocks.block_bytes, 0, 8, tuple(range(len(blocks.hashes)))
        )
        import paho.mqtt.publish as publish

        publish.single(topics.ota_request, encode_request(request), qos=1, port=mosquitto.port)
        subscriber.wait(lambda: len(subscriber.messages) >= len(blocks.hashes), "all blocks came")
    finally:
        subscriber.close()
        server.terminate()
        server.wait(DEADLINE_S)
        server.stderr.close()  # type: ignore[union-attr]
    got = {answer.index: answer.data for answer in (read_block(payload) for _, payload, *_ in subscriber.messages)}
    assert b"".join(got[index] for index in sorted(got)) == model  # type: ignore[type-var]


def test_python_tuf_s_own_client_reads_our_repository_and_fetches_a_model(fleet: Path, web: WebFolder) -> None:
    """ngclient as it is, none of our wrapping: what we publish is plain TUF."""
    from tuf.ngclient import Updater

    assert run("publish", fleet, "--to", web.folder) == 0
    root = (fleet / "metadata" / "1.root.json").read_bytes()
    for name in ("cache", "got"):
        (fleet.parent / name).mkdir()
    updater = Updater(
        str(fleet.parent / "cache"), f"{web.url}/metadata/", str(fleet.parent / "got"), f"{web.url}/targets/",
        bootstrap=root,
    )  # fmt: skip
    updater.refresh()
    info = updater.get_targetinfo(MODEL)
    assert info is not None
    got = Path(updater.download_target(info)).read_bytes()
    assert hashlib.sha256(got).hexdigest() == info.hashes["sha256"]
    assert updater.get_targetinfo("rollout/stable.json") is not None
    assert updater.get_targetinfo("models/tiny/9.9.9.nis") is None
    fetched = [path for path, _ in web.requests if path.startswith("/metadata/") and "2.root" not in path]
    sizes = [(web.folder / path.lstrip("/")).stat().st_size for path in fetched]
    assert sum(sizes) <= 8192


def test_the_client_of_the_javascript_tuf_project_reads_our_repository(
    fleet: Path, web: WebFolder, tmp_path: Path
) -> None:
    """tuf-js: another implementation, by other people, in another language."""
    node = shutil.which("node")
    modules = os.environ.get("NIS_TUF_JS")
    if node is None or modules is None:
        pytest.skip("NOT RUN: needs node and NIS_TUF_JS, a folder where `npm install tuf-js` ran")
    assert run("publish", fleet, "--to", web.folder) == 0
    (tmp_path / "cache").mkdir()
    (tmp_path / "got").mkdir()
    shutil.copy(fleet / "metadata" / "1.root.json", tmp_path / "cache" / "root.json")
    program = """
      const { Updater } = require('tuf-js');
      const [dir, base, name] = process.argv.slice(1);
      (async () => {
        const updater = new Updater({ metadataDir: dir + '/cache', metadataBaseUrl: base + '/metadata',
          targetDir: dir + '/got', targetBaseUrl: base + '/targets' });
        await updater.refresh();
        const info = await updater.getTargetInfo(name);
        console.log(await updater.downloadTarget(info));
      })().catch(e => { console.error(e); process.exit(1); });
    """
    done = subprocess.run(
        [node, "-e", program, str(tmp_path), web.url, MODEL],
        capture_output=True, text=True, check=False, timeout=DEADLINE_S, env={**os.environ, "NODE_PATH": modules},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = Path(done.stdout.strip()).read_bytes()
    assert got == next((web.folder / "targets" / "models" / "tiny").glob("*.nis")).read_bytes()


@pytest.mark.skipif(SOFTHSM is None, reason="NOT RUN: SoftHSM is not installed (sudo apt-get install -y softhsm2)")
def test_a_key_that_never_leaves_its_token_signs_the_root_and_devices_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pkcs11 = pytest.importorskip("pkcs11", reason="NOT RUN: needs python-pkcs11 (pip install 'securesystemslib[hsm]')")
    assert SOFTHSM is not None
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    monkeypatch.setenv("PYKCS11LIB", SOFTHSM)
    monkeypatch.setenv("NIS_OTA_PIN", "1234")
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "ann", "--pin", "1234", "--so-pin", "1234"],
        check=True, capture_output=True,
    )  # fmt: skip
    token = pkcs11.lib(SOFTHSM).get_token(token_label="ann")
    with token.open(rw=True, user_pin="1234") as session:
        curve = pkcs11.util.ec.encode_named_curve_parameters("secp256r1")
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: curve}, local=True
        )
        parameters.generate_keypair(store=True, label="root", id=b"\x02")
    assert run("key", "import", "root-ann", "--uri", "hsm:2?label=ann", "--out", tmp_path / "ann") == 0
    assert not list((tmp_path / "ann").glob("*.pem"))
    fleet = tmp_path / "fleet"
    words = ["--root", "2/2", "--root-key", tmp_path / "ann" / "root-ann.pub", "--plain-keys"]
    assert run("init-repo", fleet, *words) == 0
    staged = fleet / "staged" / "1.root.json"
    assert run("sign", staged, "--keys", fleet / "keys") == 0 or run("sign", staged, "--keys", tmp_path / "ann") == 0
    assert run("merge", "--into", fleet, *sorted((fleet / "staged").glob("*.json"))) == 0
    package = golden_package(tmp_path / "tiny.nis", "1.0.0")
    assert run("add-target", fleet, package, "--release-counter", 1, "--offer-to", "stable") == 0
    assert run("publish", fleet, "--to", tmp_path / "www") == 0
    assert run("verify", tmp_path / "www", "--root", fleet / "metadata" / "1.root.json") == 0
    monkeypatch.setenv("NIS_OTA_PIN", "0000")
    capsys.readouterr()
    assert run("sign", fleet, "root", "--keys", tmp_path / "ann") == 1
    message = capsys.readouterr().err
    assert "check token and PIN" in message
    assert message.count("\n") == 1


@pytest.mark.timeout(240)
def test_the_readme_s_first_fleet_works_as_it_is_written(mosquitto: Mosquitto, web: WebFolder, tmp_path: Path) -> None:
    """Every shell block of the README in order, in one folder, with its broker and web server being real ones."""
    readme = (ROOT / "ota" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    script = "\n".join(blocks)
    assert len(blocks) >= 5
    script = script.replace("broker.example:1883", f"127.0.0.1:{mosquitto.port}").replace(
        "http://updates.example", web.url
    )
    assert "example" not in script
    (tmp_path / "bin").mkdir()
    for name, module in (("nis-ota", "nis_ota.cli"), ("nis-edge", "nis_edge.cli")):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    for name, version in (("nis-nano.nis", "0.1.0"), ("nis-nano-2.nis", "0.2.0")):
        restamped(ROOT / "models" / "nis-nano" / "nis-nano.nis", tmp_path / name, version)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment = {name: value for name, value in environment.items() if not name.startswith("NIS_")}
    done = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        timeout=3 * DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    assert "Traceback" not in done.stderr
    assert done.stdout.count("a device would take it") >= 3
    assert re.search(r"on trial +0\.1\.0: PROBATION", done.stdout)
