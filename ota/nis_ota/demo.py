"""`make run`: the whole main job on one machine, with nothing pretended.

A real broker (one that answers on localhost, else a private mosquitto), a real signed repository in a temporary folder
behind a real web server, and the real daemon judging the demo team. Some seconds in, the shipped model is published
again under a new version; the daemon hears of it over MQTT, fetches, verifies, tries and switches. A subscriber of our
own counts what arrives, so that the last lines say what was seen and not what was hoped for.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from nis_edge.pack.layout import tensor_table
from nis_edge.pack.reader import open_package
from nis_edge.pack.writer import write_package
from nis_edge.wire.topics import Topics

SITE: Final = "demo"
DEVICE: Final = "demo"
TOPICS: Final = Topics(SITE, DEVICE)
COHORT: Final = "stable"
MOSQUITTO_PORT: Final = 1883
START_SECONDS_MAX: Final = 10.0
PUBLISH_AFTER_S: Final = 6.0
"""Late enough that the first judgements are on the screen, early enough for a run of twenty seconds."""


class Arrivals:
    """What reached a subscriber: assessments by (boot_id, seq), and the device's last update status."""

    def __init__(self, host: str, port: int) -> None:
        from paho.mqtt import client as mqtt

        self.assessments: set[tuple[str, str]] = set()
        self.update_status: dict[str, Any] = {}
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_message = self._on_message
        self._client.connect(host, port)
        self._client.subscribe([(TOPICS.assessment, 1), (TOPICS.ota_status, 1)])
        self._client.loop_start()

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        if message.topic == TOPICS.assessment:
            properties = dict(getattr(message.properties, "UserProperty", []))
            self.assessments.add((properties.get("boot_id", ""), properties.get("seq", "")))
            return
        with contextlib.suppress(ValueError):
            self.update_status = json.loads(message.payload)

    def close(self) -> None:
        """Stop listening."""
        self._client.disconnect()
        self._client.loop_stop()


def main() -> int:
    """Run the demo; return the daemon's exit code, or 1 when the main job was not seen."""
    parser = argparse.ArgumentParser(prog="python -m nis_ota.demo", description="The main job on one machine.")
    parser.add_argument("--for", dest="seconds", type=float, help="end after this many seconds")
    args = parser.parse_args()
    # The daemon writes to the same terminal: what is said before it starts must stand before it.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory(prefix="nis-edge-demo-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        broker = stack.enter_context(broker_for(folder))
        url = stack.enter_context(web_server(folder / "www"))
        root = make_repository(folder)
        config = write_config(folder, broker, url, root)
        arrivals = None
        if broker is not None:
            arrivals = Arrivals(*broker)
            stack.callback(arrivals.close)
        threading.Thread(target=publish_update, args=(folder, broker), daemon=True).start()
        command = [sys.executable, "-m", "nis_edge.cli", "run", "--demo", "--config", str(config)]
        if args.seconds:
            command += ["--for", str(args.seconds)]
        code = wait_for_daemon(command)
        return report(code, broker, arrivals)


@contextlib.contextmanager
def broker_for(folder: Path) -> Iterator[tuple[str, int] | None]:
    """A broker that answers on localhost, else a private mosquitto, else None; each is named."""
    if answers("127.0.0.1", MOSQUITTO_PORT):
        print(f"broker: the one that answers on 127.0.0.1:{MOSQUITTO_PORT}")
        yield "127.0.0.1", MOSQUITTO_PORT
        return
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        print("broker: none (mosquitto is not installed); records stay on the device, updates come over HTTP")
        yield None
        return
    port = free_port()
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(settings)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not answers("127.0.0.1", port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"mosquitto did not start: {(folder / 'mosquitto.log').read_text().strip()}")
            time.sleep(0.05)
        print(f"broker: a private mosquitto on 127.0.0.1:{port}")
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(START_SECONDS_MAX)


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback, as any web server or bucket would; yields its URL."""
    folder.mkdir(parents=True, exist_ok=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing: the screen belongs to the daemon."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def make_repository(folder: Path) -> Path:
    """A repository with throwaway keys, published while it offers nothing yet; returns the root a device is given."""
    repository = folder / "repository"
    publisher("init-repo", str(repository), "--quick")
    publisher("publish", str(repository), "--to", str(folder / "www"))
    print("publisher: a signed repository with throwaway keys")
    return repository / "metadata" / "1.root.json"


def publish_update(folder: Path, broker: tuple[str, int] | None) -> None:
    """Publish the shipped model again under a new version, with the publisher's own commands."""
    time.sleep(PUBLISH_AFTER_S)
    package = restamped(folder)
    repository = str(folder / "repository")
    publisher("add-target", repository, str(package), "--release-counter", "1", "--offer-to", COHORT)
    notice = ["--mqtt", f"{broker[0]}:{broker[1]}", "--site", SITE] if broker else []
    publisher("publish", repository, "--to", str(folder / "www"), *notice)


def restamped(folder: Path) -> Path:
    """The shipped model under a new version: the same weights, another package."""
    path = folder / "update.nis"
    with (
        resources.as_file(resources.files("nis_edge.shipped") / "nis-nano.nis") as shipped,
        open_package(shipped) as old,
    ):
        identity = msgspec.structs.replace(old.manifest.model, version=f"{old.manifest.model.version}+demo")
        manifest = msgspec.structs.replace(old.manifest, model=identity)
        tensors = {spec.name: old.tensors[spec.name] for spec in tensor_table(manifest)}
        write_package(path, manifest, tensors)
    return path


def publisher(*words: str) -> None:
    """Run one `nis-ota` command quietly; its output is shown only when it fails."""
    done = subprocess.run([sys.executable, "-m", "nis_ota.cli", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"nis-ota {words[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def write_config(folder: Path, broker: tuple[str, int] | None, url: str, root: Path) -> Path:
    """The device's configuration file for this demo."""
    lines = ["[device]", f'site = "{SITE}"', f'id = "{DEVICE}"', f'state = "{folder / "state"}"']
    if broker is not None:
        lines += ["[mqtt]", f'host = "{broker[0]}"', f"port = {broker[1]}"]
    lines += ["[update]", f'repository = "{url}"', f'root = "{root}"', f'cohort = "{COHORT}"']
    if broker is None:
        lines += ["poll_s = 5.0"]
    path = folder / "nis-edge.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def wait_for_daemon(command: list[str]) -> int:
    """Run the daemon in this terminal; Ctrl-C reaches it and it stops cleanly."""
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the daemon got the same signal and is stopping


def report(code: int, broker: tuple[str, int] | None, arrivals: Arrivals | None) -> int:
    """Say what was seen from outside; 1 when the main job was not."""
    print()
    if arrivals is None or broker is None:
        print("seen from outside: no broker, so nothing to count")
        return code
    status = arrivals.update_status
    print(f"seen from outside: {len(arrivals.assessments)} assessments arrived at {broker[0]}:{broker[1]}, each once")
    print(
        f"update: state {status.get('state', 'unknown')}, installed {status.get('installed_version', 'unknown')}, "
        f"latest {status.get('latest_version') or 'none offered'}"
        + (f", error: {status['error']}" if status.get("error") else "")
    )
    if code in (0, 130) and not arrivals.assessments:
        print("nis-edge demo: no assessment arrived at the broker; see the daemon's lines above", file=sys.stderr)
        return 1
    return 0 if code == 130 else code


def answers(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=0.5):
        return True
    return False


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())
