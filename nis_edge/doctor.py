"""What is wrong with this machine, and the exact command that mends it: the checks behind `nis-edge doctor`.

Each check looks at one thing the daemon needs and gives a ``Finding``. Nothing is changed: a check reads, dials, or
writes a file of its own that it removes. Everything outside comes in through ``Patient``: a test can be any machine.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import shutil
import stat
import tempfile
import textwrap
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from nis_edge.adapters import sysfs
from nis_edge.adapters.clock_sync import clock_is_synchronised
from nis_edge.adapters.mqtt import BrokerOptions, Connection, Message, connect
from nis_edge.bench_machine import machine
from nis_edge.clock import Clock, SystemClock
from nis_edge.config import Config, device_id
from nis_edge.engine.library import offered_isas
from nis_edge.errors import BrokerLostError, ConfigError, NisEdgeError
from nis_edge.limits import MIB
from nis_edge.metering import find_power, find_throttle, why_no_power
from nis_edge.power.rails import Absence, Discovery
from nis_edge.power.throttle import ThrottleState
from nis_edge.sensing import THROTTLE_C
from nis_edge.starting import at_home, broker_options
from nis_edge.wire.topics import Topics

Verdict = Literal["ok", "warn", "fail", "off"]

BUILT_AT: Final = 1_767_225_600.0
"""2026-01-01: a clock before this has never been set."""

SPARE_BYTES: Final = 64 * MIB
"""Room beside spool and models that a disk must keep for everything else."""

RAM_FACTOR: Final = 1.5
"""Of the package: its pages, keys and values, and a trial of the next one side by side."""

FOUND_COLUMNS: Final = 100
"""Where a finding wraps on a terminal; a command to copy is never wrapped."""

DEVICE_NODES: Final = (
    ("dev/vcio_gencmd", "video"), ("dev/vcio", "video"), ("dev/nis-meter", "dialout"), ("dev/nis-um25c", "dialout"),
)  # fmt: skip
"""Nodes of power sources, and the group that Debian gives them to."""

EXPECTED_ISA: Final = {
    "asimddp": "neondot", "asimd": "neon", "avx512_vnni": "avx512vnni", "avx_vnni": "avxvnni", "avx2": "avx2",
}  # fmt: skip
"""A flag of /proc/cpuinfo -> the instruction set our engine has for it, best first."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check: ``found`` in one line; ``fix`` is a command or an edit, present where something is to be done.

    ok: as it should be. warn: works, but worse than it could. fail: the daemon can't do its work. off: not configured,
    or not to be seen from here.
    """

    check: str
    verdict: Verdict
    found: str
    fix: str | None = None


@dataclass(frozen=True)
class Patient:
    """The machine and the configuration that are looked at.

    Args:
        config: of the daemon.
        config_path: where it was read, for the fixes; None: the defaults.
        state: the state folder.
        package: the model package that the daemon would load, or None.
        root: stands for ``/`` where files of the machine are read.
        environ: names the folder of the service manager's credentials, where it started this process.
    """

    config: Config
    config_path: Path | None
    state: Path
    package: Path | None
    root: Path = Path("/")
    clock: Clock = field(default_factory=SystemClock)
    synchronised: Callable[[], bool] = clock_is_synchronised
    find_power: Callable[[], Discovery] = find_power
    throttle: Callable[[], ThrottleState] = find_throttle
    isas: Callable[[], Sequence[str]] = offered_isas
    connect: Callable[..., Awaitable[Connection]] = connect
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    user: str = field(default_factory=lambda: pwd.getpwuid(os.geteuid()).pw_name)

    @property
    def edit(self) -> str:
        """Where an option is set."""
        return f"in {self.config_path}" if self.config_path else "in a file, and start with: nis-edge run --config FILE"


def examine(patient: Patient) -> list[Finding]:
    """Run every check; one that breaks is a finding too."""
    findings: list[Finding] = []
    for check in CHECKS:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            findings += check(patient)
        except (OSError, NisEdgeError) as error:
            fix = "send this line to the maintainers"
            findings.append(Finding(check=name, verdict="fail", found=f"the check itself failed: {error}", fix=fix))
    return findings


def worst(findings: Sequence[Finding]) -> Verdict:
    """fail before warn before ok."""
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in ("fail", "warn") if verdict in verdicts), "ok")


# ---- the machine -----------------------------------------------------------------------------------------------------


def check_processor(patient: Patient) -> Iterator[Finding]:
    """The engine's library loads, and uses the best that the processor offers."""
    about = machine(patient.root)
    try:
        offered = list(patient.isas())
    except NisEdgeError as error:
        fix = "make setup   (in a clone), or: pip install --force-reinstall nis-edge"
        yield Finding(check="engine", verdict="fail", found=f"the C engine does not load: {error}", fix=fix)
        return
    cpuinfo = patient.root / "proc/cpuinfo"
    flags = set(cpuinfo.read_text(errors="replace").split()) if cpuinfo.exists() else set()
    expected = next((isa for flag, isa in EXPECTED_ISA.items() if flag in flags), None)
    found = f"{about.cpu_model or about.architecture}, {about.cores} cores; kernels {', '.join(offered)}"
    if expected is not None and expected not in offered:
        fix = "make setup   (in a clone, with gcc 12 or newer), or install the wheel for this platform"
        yield Finding(check="engine", verdict="warn", found=f"{found}; {expected} is missing from this build", fix=fix)
        return
    yield Finding(check="engine", verdict="ok", found=found)
    if about.governor == "powersave":
        fix = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding(check="governor", verdict="warn", found="powersave keeps the clock low under load", fix=fix)


def check_memory(patient: Patient) -> Iterator[Finding]:
    """The model fits beside what runs."""
    text = (patient.root / "proc/meminfo").read_text(errors="replace")
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    available = int(fields["MemAvailable"].split()[0]) * 1024
    wanted = SPARE_BYTES + round(RAM_FACTOR * (patient.package.stat().st_size if patient.package else 0))
    found = f"{available / MIB:.0f} MiB available, {wanted / MIB:.0f} MiB wanted for the model and the next one's trial"
    if available < wanted:
        fix = "systemd-cgtop -m -1 -n 1   (shows who holds the memory), or take a smaller model"
        yield Finding(check="memory", verdict="fail", found=found, fix=fix)
    else:
        yield Finding(check="memory", verdict="ok", found=found)


def check_heat(patient: Patient) -> Iterator[Finding]:
    """Neither hot nor throttled nor short of voltage."""
    state = patient.throttle()
    active, before = ", ".join(state.active), ", ".join(state.since_boot)
    volts = "under-voltage" in state.active + state.since_boot
    fix = (
        "use the board's own power supply (27 W for a Pi 5) and a short cable; then reboot to clear the flags"
        if volts
        else "add a heat sink or fan; nis-edge bench shows what is left"
    )
    if active:
        yield Finding(check="throttling", verdict="fail", found=f"now: {active}", fix=fix)
    elif before:
        yield Finding(check="throttling", verdict="warn", found=f"since boot: {before}", fix=fix)
    elif state.known:
        yield Finding(check="throttling", verdict="ok", found="none")
    else:
        yield Finding(check="throttling", verdict="off", found=state.reason or "unknown")
    celsius = sysfs.temperatures(patient.root)
    if celsius:
        sensor, hottest = max(celsius.items(), key=lambda item: item[1])
        limit = patient.config.power.throttle_celsius or sysfs.throttle_limit_c(patient.root) or THROTTLE_C
        found = f"{sensor} at {hottest:.1f} C; this board slows down from {limit:g} C"
        cool = "add a heat sink or fan, or lower model.threads"
        verdict: Verdict = "warn" if hottest >= limit else "ok"
        yield Finding(check="temperature", verdict=verdict, found=found, fix=cool if verdict == "warn" else None)


def check_power(patient: Patient) -> Iterator[Finding]:
    """A trustworthy source of watts, or what keeps it away."""
    found = patient.find_power()
    try:
        for source in found.sources:
            reading = source.read(patient.clock.monotonic())
            info = source.info
            what = f"{info.board}/{info.source}: scope {info.scope}, grade {info.grade}"
            if reading.watts is None and info.kind != "powercap":  # a counter needs two looks
                fix = f"ls -l {info.where or '/sys/class/hwmon'}   (the source is there but does not answer)"
                yield Finding(check="power", verdict="warn", found=f"{what}: {reading.reason}", fix=fix)
                continue
            watts = "" if reading.watts is None else f", {reading.watts:.2f} W"
            if info.complete:
                yield Finding(check="power", verdict="ok", found=what + watts)
            else:
                fix = "a meter on the DC input would decide the power gate: firmware_hooks/README.md"
                yield Finding(check="power", verdict="warn", found=f"{what}{watts}; leaves out {info.misses}", fix=fix)
            return
    finally:
        for source in found.sources:
            source.close()
    yield from _no_power(patient, found.absent)


def _no_power(patient: Patient, absent: Sequence[Absence]) -> Iterator[Finding]:
    """Why there is none: a permission that is missing comes first, since a command mends it."""
    locked = False
    for name, group in DEVICE_NODES:
        node = patient.root / name
        if node.exists() and not _may_open(node):
            locked = True
            fix = _opening(_group_of(node), group, patient.user)
            yield Finding(check="power", verdict="warn", found=f"/{name} may not be opened by {patient.user}", fix=fix)
            break
    counters = [
        p for p in sorted((patient.root / "sys/class/powercap").glob("*/energy_uj")) if not os.access(p, os.R_OK)
    ]
    if counters:
        locked = True
        fix = "sudo chmod a+r /sys/class/powercap/*/energy_uj   (until reboot; lasting: firmware_hooks/README.md)"
        yield Finding(
            check="power", verdict="warn", found=f"the energy counter may not be read by {patient.user}", fix=fix
        )
    if not locked:
        fix = "connect a meter (firmware_hooks/README.md), or describe the sensor in /etc/nis-edge/boards/"
        yield Finding(check="power", verdict="warn", found=f"no source: {why_no_power(absent)}", fix=fix)


def _may_open(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK)


def _group_of(node: Path) -> int:
    return node.stat().st_gid


def _opening(group: int, usual_group: str, user: str) -> str:
    """What lets a user open a device node of a group, by its number."""
    if group == 0:
        # Newer systems keep /dev/vcio for root and give group video /dev/vcio_gencmd instead (edge.md, section 0).
        return "sudo apt-get update && sudo apt-get full-upgrade && sudo reboot   (newer kernels have /dev/vcio_gencmd)"
    try:
        name = grp.getgrgid(group).gr_name
    except KeyError:
        name = usual_group
    return f"sudo usermod -aG {name} {user}   (then log in again)"


def check_clock(patient: Patient) -> Iterator[Finding]:
    """Time is set and disciplined: signatures expire by it, records are dated by it."""
    fix = "sudo timedatectl set-ntp true"
    if patient.clock.wall() < BUILT_AT:
        yield Finding(check="clock", verdict="fail", found="the clock stands before this program was built", fix=fix)
    elif not patient.synchronised():
        found = "set, but no time source disciplines it: updates judge expiry by the newest signed time instead"
        yield Finding(check="clock", verdict="warn", found=found, fix=fix)
    else:
        yield Finding(check="clock", verdict="ok", found="set and synchronised")


# ---- what the daemon keeps and loads ---------------------------------------------------------------------------------


def check_disk(patient: Patient) -> Iterator[Finding]:
    """The state folder can be written, flushed, and has room."""
    folder = patient.state
    standing = next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
    try:
        with tempfile.NamedTemporaryFile(dir=standing, prefix=".nis-edge-doctor-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        fix = f"sudo install -d -m 700 -o {patient.user} {folder}"
        if error.errno == 30:  # EROFS
            fix = "sudo dmesg | grep -i 'read-only\\|I/O error'   (a worn card turns read-only: replace it)"
        elif error.errno == 28:  # ENOSPC
            fix = f"sudo du -xh --max-depth=2 {standing} | sort -h | tail"
        yield Finding(check="disk", verdict="fail", found=f"{folder} can't be written: {error.strerror}", fix=fix)
        return
    usage = shutil.disk_usage(standing)
    package = patient.package.stat().st_size if patient.package else 0
    wanted = patient.config.spool.mib_max * MIB + 2 * package + SPARE_BYTES
    found = f"{folder}: {usage.free / MIB:.0f} MiB free, {wanted / MIB:.0f} MiB wanted for spool, models and reserve"
    if usage.free < wanted:
        fix = f"free some space, set device.state to another disk or lower spool.mib_max {patient.edit}"
        yield Finding(check="disk", verdict="fail", found=found, fix=fix)
    else:
        yield Finding(check="disk", verdict="ok", found=found)


def check_model(patient: Patient) -> Iterator[Finding]:
    """The package is whole, and the engine computes on this machine what its publisher recorded."""
    from nis_edge.engine import golden, head_screen
    from nis_edge.engine.model import Model

    if patient.package is None:
        fix = f"set model.path {patient.edit}"
        yield Finding(check="model", verdict="fail", found="no package is configured and none was built in", fix=fix)
        return
    try:
        with Model.open(patient.package) as model:
            model.package.check_content()
            head_screen.check(model.package)
            faults = golden.differences(model)
            name = f"{model.manifest.model.id} {model.manifest.model.version}"
    except (NisEdgeError, OSError) as error:
        fix = f"nis-edge verify {patient.package}   (tells the damaged part); then fetch the package again"
        yield Finding(check="model", verdict="fail", found=str(error), fix=fix)
        return
    if faults:
        fix = f"nis-edge verify {patient.package} --isa scalar   (if that passes, report the processor)"
        yield Finding(check="model", verdict="fail", found=faults[0], fix=fix)
    else:
        yield Finding(check="model", verdict="ok", found=f"{name}: whole, golden self-test passed")


def check_secrets(patient: Patient) -> Iterator[Finding]:
    """Files with secrets are there, and for the daemon's user alone."""
    mqtt, api = patient.config.mqtt, patient.config.api
    named = {
        "mqtt.password_file": mqtt.password_file,
        "mqtt.key_file": mqtt.key_file,
        "api.token_file": api.token_file,
    }
    for option, name in named.items():
        if name is None:
            continue
        if _is_hidden(name, patient):
            fix = "systemctl show nis-edge --property=LoadCredential   (is it named there?)"
            found = f"{option}: {name} is a credential, which the service manager shows to its daemon alone"
            yield Finding(check="secrets", verdict="off", found=found, fix=fix)
            continue
        path = at_home(name, patient.environ)
        handed_over = path != name  # by the service manager, which guards it by the folder it lies in
        try:
            mode = path.stat().st_mode
        except OSError as error:
            fix = f"create {path} or mend {option} {patient.edit}"
            if handed_over:
                fix = f"add LoadCredential={name}:/etc/nis-edge/{name} to the unit, or mend {option} {patient.edit}"
            yield Finding(check="secrets", verdict="fail", found=f"{option}: {path}: {error.strerror}", fix=fix)
            continue
        if not os.access(path, os.R_OK):
            fix = f"sudo chown {patient.user} {path}"
            yield Finding(
                check="secrets", verdict="fail", found=f"{option}: {patient.user} may not read {path}", fix=fix
            )
        elif mode & (stat.S_IRWXG | stat.S_IRWXO) and not handed_over:
            found = f"{option}: {path} may be read by others than its owner"
            yield Finding(check="secrets", verdict="warn", found=found, fix=f"chmod 600 {path}")
        else:
            yield Finding(check="secrets", verdict="ok", found=f"{option}: {path}")


def _is_hidden(name: Path, patient: Patient) -> bool:
    """Whether a file that an option names is a credential that only the service manager can show, which is not us."""
    return name.name == str(name) and at_home(name, patient.environ) == name and not name.exists()


# ---- links -----------------------------------------------------------------------------------------------------------


def check_broker(patient: Patient) -> Iterator[Finding]:
    """The broker takes us with these credentials. Another client id than the daemon's: its session is left alone."""
    mqtt = patient.config.mqtt
    if mqtt.host is None:
        yield Finding(check="broker", verdict="off", found="none is configured; records wait in the spool")
        return
    where = f"{mqtt.host}:{mqtt.port_or_default}"
    files = (mqtt.password_file, *((mqtt.ca_file, mqtt.cert_file, mqtt.key_file) if mqtt.tls else ()))
    hidden = [str(name) for name in files if name is not None and _is_hidden(name, patient)]
    if hidden:
        found = f"{where} was not dialled: only the service manager can show {', '.join(hidden)}"
        fix = "nis-edge status   (tells whether the running daemon is connected)"
        yield Finding(check="broker", verdict="off", found=found, fix=fix)
        return
    topics = Topics(patient.config.device.site, device_id(patient.config.device))
    client_id = f"nis-edge-doctor-{os.getpid()}"
    try:
        options = broker_options(mqtt, client_id, Message(f"{topics.prefix}/doctor", b""), patient.environ)
        assert options is not None
        options = replace(options, session_expiry_s=0, will_delay_s=0)
        asyncio.run(_dial_and_leave(patient, options))
    except (BrokerLostError, ConfigError) as error:
        yield Finding(check="broker", verdict="fail", found=str(error), fix=_broker_fix(str(error), patient, where))
        return
    yield Finding(check="broker", verdict="ok", found=f"{where} takes us{' over TLS' if mqtt.tls else ''}")


async def _dial_and_leave(patient: Patient, options: BrokerOptions) -> None:
    connection = await patient.connect(options, lambda *_: None)
    try:
        await connection.close([])
    finally:
        await connection.abandon()


def _broker_fix(reason: str, patient: Patient, where: str) -> str:
    low = reason.lower()
    if "not authori" in low or "user name" in low or "password" in low:
        return f"mend mqtt.username and mqtt.password_file {patient.edit}, or the broker's access list"
    if "certificate" in low or "ssl" in low or "tls" in low:
        return f"openssl s_client -connect {where} -showcerts   (then mend mqtt.ca_file {patient.edit})"
    if "name" in low and ("known" in low or "resolution" in low):
        return f"getent hosts {patient.config.mqtt.host}   (then mend mqtt.host {patient.edit})"
    if patient.config.mqtt.host in ("localhost", "127.0.0.1", "::1"):
        return "sudo systemctl enable --now mosquitto   (sudo apt-get install mosquitto, where it is missing)"
    return f"nc -zv {where.replace(':', ' ')}   (is it up, and does a firewall let this port through?)"


def check_updates(patient: Patient) -> Iterator[Finding]:
    """The first root of trust is there and can be read."""
    update = patient.config.update
    if update.repository is None:
        yield Finding(check="updates", verdict="off", found="no repository is configured: the model stays as it is")
        return
    fix = f"copy the publisher's root.json to the device by a way you trust, and name it as update.root {patient.edit}"
    if update.root is None or not update.root.is_file():
        yield Finding(check="updates", verdict="fail", found=f"no root metadata at {update.root}", fix=fix)
        return
    if not os.access(update.root, os.R_OK):
        found = f"{patient.user} may not read {update.root}"
        yield Finding(check="updates", verdict="fail", found=found, fix=f"sudo chmod a+r {update.root}")
        return
    if update.repository.startswith("http://") and not _is_local(update.repository):
        found = f"{update.repository}: without TLS anyone on the way can withhold updates (never forge them)"
        yield Finding(
            check="updates", verdict="warn", found=found, fix=f"use https:// in update.repository {patient.edit}"
        )
        return
    yield Finding(check="updates", verdict="ok", found=f"{update.repository}, trusting {update.root} first")


def _is_local(url: str) -> bool:
    host = url.split("//", 1)[1].split("/", 1)[0].rsplit(":", 1)[0]
    return host in ("localhost", "127.0.0.1", "[::1]")


CHECKS: Final[tuple[Callable[[Patient], Iterator[Finding]], ...]] = (
    check_processor, check_memory, check_heat, check_clock, check_disk, check_model, check_secrets, check_power,
    check_broker, check_updates,
)  # fmt: skip


def report(findings: Sequence[Finding]) -> str:
    """The findings as text for a terminal, without a newline at the end."""
    lines = []
    for finding in findings:
        words = textwrap.wrap(finding.found, FOUND_COLUMNS, break_on_hyphens=False) or [""]
        lines.append(f"{finding.verdict:<5} {finding.check:<12} {words[0]}")
        lines += [f"{'':<19}{more}" for more in words[1:]]
        if finding.fix:
            lines.append(f"{'':<19}-> {finding.fix}")
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in ("fail", "warn")}
    told = {"fail": "the daemon can't do all its work here", "warn": "it works, some of it worse than it could"}
    summary = told.get(worst(findings), "all is well")
    return "\n".join([*lines, "", f"{summary}: {counts['fail']} to mend, {counts['warn']} to better"])


def to_builtins(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as JSON types."""
    return {"verdict": worst(findings), "findings": msgspec.to_builtins(list(findings))}
