"""The configuration: one TOML file in, frozen options out, one group per room; every fault of a file at once.

A room receives only its own group, so what it can depend on is visible in its signature. The file is parsed once, on
the roof. Unknown sections and keys are refused with the nearest known name, because a misspelt key that is ignored is a
setting the operator believes in. A value is checked for type and bounds where it is declared, below; what only two
values together make wrong is checked in ``_check_together``.

Files that options name (credentials, certificates, packages) are opened by whoever needs them, not here: a file may be
checked on another machine than the one it is meant for.
"""

# `option` is a field specifier, called once for each option at import, which is the point.
# ruff: noqa: RUF009

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_type_hints

from nis_edge.errors import ConfigError
from nis_edge.limits import CONFIG_BYTES_MAX

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

API_PORT_DEFAULT: Final = 6470
"""Of the local API. Not registered with IANA for anything; `nis-edge status` asks here first."""

_NAME: Final = r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?"
_NAME_MEANING: Final = "1 to 64 of a-z, 0-9 and inner hyphens"

# What may hide a bracket: a string on one line, the opening of one that runs on, a comment.
_TOKENS: Final = re.compile(r"\"\"\".*?\"\"\"|'''.*?'''|(?P<open>\"\"\"|''').*|\"(?:\\.|[^\"\\])*\"|'[^']*'|#.*")

T = TypeVar("T")


def option(
    default: T,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    pattern: str | None = None,
    meaning: str = "",
) -> T:
    """Declare one option with its default and what a value must satisfy (both bounds are allowed values).

    ``pattern`` is a regular expression for the whole of a string; ``meaning`` says it in words.
    """
    checks = {"low": low, "high": high, "choices": choices, "pattern": pattern, "meaning": meaning}
    return field(default=default, metadata=checks)


@dataclass(frozen=True)
class DeviceOptions:
    """Who this device is and where it keeps its state."""

    site: str = option("local", pattern=_NAME, meaning=_NAME_MEANING)
    id: str | None = option(None, pattern=_NAME, meaning=_NAME_MEANING)  # None: made from the host's name
    state: Path | None = option(None)  # None: $STATE_DIRECTORY, else $XDG_STATE_HOME/nis-edge


@dataclass(frozen=True)
class ModelOptions:
    """Which package judges, and with how many threads."""

    path: Path | None = option(None)  # None: the model that ships with nis-edge
    threads: int = option(1, low=1, high=64)


@dataclass(frozen=True)
class CompletionsOptions:
    """A model of the operator's own behind the OpenAI-compatible part of the local API."""

    model: Path | None = option(None)  # None: no completions are served
    threads: int = option(1, low=1, high=64)


@dataclass(frozen=True)
class MonitorOptions:
    """How often the monitor judges."""

    tick_s: float = option(1.0, low=0.1, high=60.0)  # without any event
    pace_s: float = option(0.02, low=0.005, high=10.0)  # least time between two judgements while events arrive
    metrics_s: float = option(2.0, low=0.5, high=300.0)  # between two readings of the device
    latency_deadline_ms: float | None = option(None, low=1.0, high=3.6e6)  # promised for an agent's call or step
    expected_share: float = option(0.001, low=1e-6, high=0.5)  # of time in which a given finding of the model's holds


@dataclass(frozen=True)
class MqttOptions:
    """The broker. Without a host nothing is sent and records stay in the spool."""

    host: str | None = option(None, pattern=r"[^\s/]{1,253}", meaning="a host name or address without scheme or port")
    port: int | None = option(None, low=1, high=65535)  # None: 8883 with TLS, else 1883
    username: str | None = option(None, pattern=r".{1,256}", meaning="1 to 256 characters")
    password_file: Path | None = option(None)
    tls: bool = option(False)
    ca_file: Path | None = option(None)  # None: the system's authorities
    cert_file: Path | None = option(None)
    key_file: Path | None = option(None)
    keepalive_s: int = option(30, low=5, high=3600)
    session_expiry_s: int = option(7 * 86400, low=0, high=365 * 86400)
    will_delay_s: int = option(10, low=0, high=3600)
    window: int = option(16, low=1, high=256)  # QoS 1 messages under way; the broker may allow fewer
    reconnect_s_min: float = option(1.0, low=0.1, high=60.0)
    reconnect_s_max: float = option(120.0, low=1.0, high=3600.0)
    homeassistant: bool = option(True)  # describe this device to Home Assistant
    homeassistant_prefix: str = option("homeassistant", pattern=r"[A-Za-z0-9_-]{1,64}", meaning="one topic level")
    desired_trial_s: float = option(60.0, low=1.0, high=3600.0)  # how long a configuration sent to us is on trial

    @property
    def port_or_default(self) -> int:
        """The port to dial."""
        return self.port if self.port is not None else (8883 if self.tls else 1883)


@dataclass(frozen=True)
class SpoolOptions:
    """Records on disk that the broker has not acknowledged."""

    mib_max: int = option(64, low=1, high=16384)
    memory_mib_max: int = option(4, low=1, high=1024)  # what waits in memory while the disk refuses
    commit_ms: int = option(250, low=0, high=10_000)  # records of this time share one fsync
    telemetry_hours: float = option(24.0, low=0.1, high=8760.0)
    assessment_hours: float = option(168.0, low=0.1, high=8760.0)
    event_hours: float = option(168.0, low=0.1, high=8760.0)


@dataclass(frozen=True)
class TelemetryOptions:
    """Seconds between two records of each telemetry stream."""

    latency_s: float = option(10.0, low=1.0, high=3600.0)
    power_s: float = option(10.0, low=1.0, high=3600.0)
    system_s: float = option(30.0, low=1.0, high=3600.0)


@dataclass(frozen=True)
class ApiOptions:
    """The local HTTP API. Beyond loopback it demands a token."""

    enabled: bool = option(True)
    host: str = option("127.0.0.1", pattern=r"[^\s/]{1,253}", meaning="an address to listen on")
    port: int = option(API_PORT_DEFAULT, low=0, high=65535)  # 0: any free port, named in the log
    token_file: Path | None = option(None)


@dataclass(frozen=True)
class PowerOptions:
    """How often the power sensors are read, and from where on a hot device does less."""

    interval_s: float = option(1.0, low=0.1, high=60.0)
    throttle_celsius: float | None = option(None, low=40.0, high=120.0)  # None: as the thermal zones say, else 80


@dataclass(frozen=True)
class BenchOptions:
    """The gates of `nis-edge bench`; the defaults are the founding plan's."""

    latency_ms_p99_max: float = option(50.0, low=0.001, high=1e6)
    power_w_max: float = option(10.0, low=0.001, high=1e4)
    package_gb_max: float = option(5.0, low=0.001, high=1e3)


@dataclass(frozen=True)
class UpdateOptions:
    """Where signed models come from. Without a repository the device keeps the model it has."""

    repository: str | None = option(None, pattern=r"https?://\S{1,2000}", meaning="an http:// or https:// URL")
    root: Path | None = option(None)  # the first root metadata, brought by a way that is trusted
    cohort: str = option("stable", pattern=_NAME, meaning=_NAME_MEANING)
    hardware: str | None = option(None, pattern=_NAME, meaning=_NAME_MEANING)  # besides what the machine itself says
    poll_s: float = option(6 * 3600.0, low=10.0, high=7 * 86400.0)
    probation_s: float = option(1800.0, low=1.0, high=7 * 86400.0)
    metered: str = option("auto", choices=("auto", "yes", "no"))  # auto: cellular and tethered links by their names
    metered_mib_max: float = option(16.0, low=0.0, high=5120.0)  # the largest file fetched over a metered link
    rate_kib_s: float | None = option(None, low=1.0, high=1e7)  # None: a download takes what the link gives


@dataclass(frozen=True)
class LogOptions:
    """What goes to stderr."""

    level: str = option("info", choices=("debug", "info", "warning", "error"))


@dataclass(frozen=True)
class Config:
    """Every room's options."""

    device: DeviceOptions = DeviceOptions()
    model: ModelOptions = ModelOptions()
    monitor: MonitorOptions = MonitorOptions()
    mqtt: MqttOptions = MqttOptions()
    spool: SpoolOptions = SpoolOptions()
    telemetry: TelemetryOptions = TelemetryOptions()
    api: ApiOptions = ApiOptions()
    completions: CompletionsOptions = CompletionsOptions()
    power: PowerOptions = PowerOptions()
    bench: BenchOptions = BenchOptions()
    update: UpdateOptions = UpdateOptions()
    log: LogOptions = LogOptions()


REMOTE_SECTIONS: Final = ("monitor", "telemetry", "power", "log")
"""What may be set from afar. Whoever owns the broker must not move us to another one, nor touch identity, trust,
secrets, files or what is served: those stand in the device's own file alone."""

SECTIONS: Final[Mapping[str, Any]] = {f.name: get_type_hints(Config)[f.name] for f in dataclasses.fields(Config)}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a file: the line (None: the file as a whole) and what to do."""

    line: int | None
    text: str


class ConfigFileError(ConfigError):
    """Every fault of one file.

    Args:
        where: the file, as the operator named it.
        faults: at least one.
    """

    def __init__(self, where: str, faults: list[Fault]) -> None:
        self.where = where
        self.faults = sorted(faults, key=lambda fault: (fault.line or 0, fault.text))
        self.lines = [f"{where}:{f.line}: {f.text}" if f.line else f"{where}: {f.text}" for f in self.faults]
        super().__init__("; ".join(self.lines))


def load(path: Path) -> Config:
    """Read and check one file.

    Raises:
        ConfigFileError: with every fault (the operator acts).
    """
    try:
        with path.open("rb") as file:
            raw = file.read(CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigFileError(str(path), [Fault(None, f"can't be read: {error.strerror or error}")]) from error
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigFileError(str(path), [Fault(None, f"is larger than the {CONFIG_BYTES_MAX} bytes allowed")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigFileError(str(path), [Fault(line, "is not UTF-8 text")]) from error
    return parse(text, str(path))


def parse(text: str, where: str) -> Config:
    """Check a configuration's text.

    Args:
        text: TOML.
        where: what to call it in messages.

    Raises:
        ConfigFileError: with every fault (the operator acts). After a syntax error nothing else can be told.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message = str(error)
        at = re.search(r"at line (\d+)", message)
        line = int(at[1]) if at else None
        reason = re.sub(r"\s*\(at [^)]*\)$", "", message)
        raise ConfigFileError(where, [Fault(line, f"no valid TOML: {reason}")]) from error
    lines = key_lines(text)
    faults: list[Fault] = []
    groups = {}
    for section, table in tables.items():
        line = lines.get((section,))
        if section not in SECTIONS:
            faults.append(Fault(line, _unknown_section(section, isinstance(table, dict))))
        elif not isinstance(table, dict):
            faults.append(Fault(line, f"{section!r} must be a section: write [{section}]"))
        else:
            groups[section] = _group(SECTIONS[section], section, table, lines, faults)
    config = Config(**groups)
    faults += _check_together(config, lines)
    if faults:
        raise ConfigFileError(where, faults)
    return config


def overlaid(base: Config, tables: Mapping[str, Mapping[str, Any]]) -> Config:
    """A configuration with some options replaced by what was sent from afar.

    Args:
        base: the device's own.
        tables: section -> key -> value.

    Raises:
        ConfigFileError: with every fault; sections beyond ``REMOTE_SECTIONS`` are faults (the sender acts).
    """
    faults: list[Fault] = []
    groups = {}
    for section, table in tables.items():
        if section not in SECTIONS:
            faults.append(Fault(None, _unknown_section(section, True)))
        elif section not in REMOTE_SECTIONS:
            faults.append(Fault(None, f"[{section}] can be set in the device's own file only"))
        else:
            values = _values(SECTIONS[section], section, table, {}, faults)
            groups[section] = dataclasses.replace(getattr(base, section), **values)
    config = dataclasses.replace(base, **groups)
    faults += _check_together(config, {})
    if faults:
        raise ConfigFileError("config/desired", faults)
    return config


def remote_options(config: Config) -> dict[str, dict[str, Any]]:
    """What may be set from afar, as it is."""
    return {section: dataclasses.asdict(getattr(config, section)) for section in REMOTE_SECTIONS}


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Where each section and key of a valid TOML text stands: path -> line, the first line being 1."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    until: str | None = None  # the closing quotes of a string that runs over several lines
    depth = 0  # open brackets of an array that does
    for number, line in enumerate(text.splitlines(), start=1):
        if until is not None:
            if until in line:
                until = None
            continue
        if depth == 0:
            header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
            assigned = re.match(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_\"'-]+)*)\s*=", line)
            if header:
                section = _path(header[1])
                found.setdefault(section, number)
                continue
            if assigned:
                path = section + _path(assigned[1])
                for end in range(len(section) + 1, len(path) + 1):
                    found.setdefault(path[:end], number)
        opened = next((match["open"] for match in _TOKENS.finditer(line) if match["open"]), None)
        if opened:
            until = opened
            continue
        bare = _TOKENS.sub("", line)
        depth = max(0, depth + bare.count("[") - bare.count("]"))
    return found


def changed_sections(old: Config, new: Config) -> tuple[str, ...]:
    """The sections that differ, in the file's order."""
    return tuple(name for name in SECTIONS if getattr(old, name) != getattr(new, name))


def device_id(options: DeviceOptions, hostname: str | None = None) -> str:
    """The device's id: as configured, else the host's name with everything but a-z, 0-9 and hyphens made a hyphen."""
    if options.id is not None:
        return options.id
    name = (hostname if hostname is not None else socket.gethostname()).split(".", 1)[0]
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64].strip("-") or "device"


def state_folder(options: DeviceOptions, environ: Mapping[str, str] = os.environ) -> Path:
    """Where state lives: as configured, else systemd's StateDirectory, else the user's state folder (XDG)."""
    if options.state is not None:
        return options.state
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":", 1)[0])
    home = environ.get("XDG_STATE_HOME") or ""
    # XDG: a relative path in the variable is invalid and ignored.
    base = Path(home) if home.startswith("/") else Path(environ.get("HOME") or "/nonexistent") / ".local" / "state"
    return base / "nis-edge"


def is_loopback(host: str) -> bool:
    """Whether listening on ``host`` reaches only this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _group(
    group: Any, section: str, table: Mapping[str, Any], lines: Mapping[tuple[str, ...], int], faults: list[Fault]
) -> Any:
    return group(**_values(group, section, table, lines, faults))


def _values(
    group: Any, section: str, table: Mapping[str, Any], lines: Mapping[tuple[str, ...], int], faults: list[Fault]
) -> dict[str, Any]:
    declared = {f.name: f for f in dataclasses.fields(group)}
    types = get_type_hints(group)
    values = {}
    for key, raw in table.items():
        line = lines.get((section, key), lines.get((section,)))
        if key not in declared:
            faults.append(Fault(line, _unknown_key(section, key, declared)))
            continue
        try:
            values[key] = _value(raw, types[key], declared[key].metadata)
        except ValueError as error:
            faults.append(Fault(line, f"{section}.{key} {error}"))
    return values


def _value(raw: Any, annotation: Any, checks: Mapping[str, Any]) -> Any:
    kind = next((t for t in get_args(annotation) if t is not type(None)), annotation)
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        raw = float(raw)
    wanted: type = str if kind is Path else kind
    # bool is an int to Python, but `threads = true` is a mistake.
    if not isinstance(raw, wanted) or (isinstance(raw, bool) and wanted is not bool):
        words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
        raise ValueError(f"must be {words[wanted]}, not {_shown(raw)}")
    if wanted in (int, float):
        low, high = checks["low"], checks["high"]
        if not low <= raw <= high:  # also refuses nan
            raise ValueError(f"must be {low:g} to {high:g}, not {_shown(raw)}")
    if isinstance(raw, str):
        if "\x00" in raw or not raw:
            raise ValueError("must not be empty" if not raw else "holds a zero byte")
        if checks["choices"] and raw not in checks["choices"]:
            raise ValueError(
                f"must be one of {', '.join(checks['choices'])}, not {_shown(raw)}{_near(raw, checks['choices'])}"
            )
        if checks["pattern"] and not re.fullmatch(checks["pattern"], raw):
            raise ValueError(f"must be {checks['meaning']}, not {_shown(raw)}")
    if kind is not Path:
        return raw
    try:
        return Path(str(raw)).expanduser()
    except RuntimeError as error:
        raise ValueError(f"begins with a home folder that does not exist: {_shown(raw)}") from error


def _check_together(config: Config, lines: Mapping[tuple[str, ...], int]) -> list[Fault]:
    def at(section: str, key: str) -> int | None:
        return lines.get((section, key), lines.get((section,)))

    faults = []
    mqtt, api, update = config.mqtt, config.api, config.update
    if mqtt.password_file is not None and mqtt.username is None:
        faults.append(Fault(at("mqtt", "password_file"), "mqtt.password_file needs mqtt.username beside it"))
    if (mqtt.cert_file is None) != (mqtt.key_file is None):
        given = "cert_file" if mqtt.cert_file is not None else "key_file"
        faults.append(Fault(at("mqtt", given), "mqtt.cert_file and mqtt.key_file go together"))
    if not mqtt.tls:
        for key in ("ca_file", "cert_file", "key_file"):
            if getattr(mqtt, key) is not None:
                faults.append(Fault(at("mqtt", key), f"mqtt.{key} has no effect without mqtt.tls = true"))
    if mqtt.reconnect_s_min > mqtt.reconnect_s_max:
        faults.append(Fault(at("mqtt", "reconnect_s_min"), "mqtt.reconnect_s_min is larger than mqtt.reconnect_s_max"))
    if api.enabled and not is_loopback(api.host) and api.token_file is None:
        faults.append(
            Fault(at("api", "host"), f"api.host {api.host} is reachable from outside: it needs api.token_file")
        )
    if update.repository is not None and update.root is None:
        faults.append(
            Fault(at("update", "repository"), "update.repository needs update.root, the metadata to trust first")
        )
    return faults


def _unknown_section(name: str, is_table: bool) -> str:
    what = f"unknown section [{name}]" if is_table else f"unknown key {name!r} outside of any section"
    homes = [s for s, group in SECTIONS.items() if name in {f.name for f in dataclasses.fields(group)}]
    if not is_table and homes:
        return f"{what}; it belongs into [{homes[0]}]"
    return what + (_near(name, tuple(SECTIONS)) or f"; known are {', '.join(SECTIONS)}")


def _unknown_key(section: str, key: str, declared: Mapping[str, Any]) -> str:
    what = f"unknown key {key!r} in [{section}]"
    near = _near(key, tuple(declared))
    if near:
        return what + near
    homes = [s for s, group in SECTIONS.items() if key in {f.name for f in dataclasses.fields(group)}]
    return what + (f"; it belongs into [{homes[0]}]" if homes else f"; known are {', '.join(declared)}")


def _near(name: str, known: tuple[str, ...]) -> str:
    import difflib  # only a faulty file pays for it

    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _shown(raw: Any) -> str:
    shown = repr(raw)
    return shown if len(shown) <= 60 else shown[:57] + "..."
