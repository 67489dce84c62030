"""What a start needs from the outside before anything runs: folders, the lock, secrets, the broker's address.

Each of these fails with one line that the operator can act on, before a thread or a socket is made.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from nis_edge.adapters.mqtt import BrokerOptions, Message, TlsFiles, check_tls
from nis_edge.config import Config, MqttOptions
from nis_edge.errors import ConfigError
from nis_edge.limits import KIB

DEMO_NAME: Final = "demo"
LOCAL_BROKER: Final = ("127.0.0.1", 1883)
SECRET_BYTES_MAX: Final = 4 * KIB


def for_demo(config: Config, environ: Mapping[str, str]) -> Config:
    """The configuration of a demonstration: its own name, its own state, and a broker that answers on this machine."""
    from nis_edge.config import state_folder

    device = config.device
    if device.id is None:
        device = replace(device, id=DEMO_NAME)
    if device.state is None:
        device = replace(device, state=state_folder(device, environ) / DEMO_NAME)
    mqtt = config.mqtt
    if mqtt.host is None and answers(*LOCAL_BROKER):
        mqtt = replace(mqtt, host=LOCAL_BROKER[0], port=LOCAL_BROKER[1])
    return replace(config, device=device, mqtt=mqtt)


def answers(host: str, port: int) -> bool:
    """Whether something takes connections there."""
    try:
        with socket.create_connection((host, port), timeout=0.3):
            return True
    except OSError:
        return False


def take_state_folder(folder: Path) -> IO[str]:
    """Make the state folder and lock it; the lock is held as long as the result is open.

    Raises:
        ConfigError: it can't be made or written, or another daemon uses it (the operator acts).
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise ConfigError(
            f"state folder {folder} can't be used: {error.strerror or error}; set device.state or mend its permissions"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        owner = lock.read(32).strip() or "unknown"
        lock.close()
        raise ConfigError(
            f"state folder {folder} is in use by another nis-edge (process {owner}); stop it or set device.state"
        ) from error
    try:
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
    except OSError:
        pass  # a full disk: the lock holds all the same, only its owner's number is missing
    return lock


def at_home(path: Path, environ: Mapping[str, str]) -> Path:
    """Where a file that an option names lies: one without a folder is a credential of the service manager.

    Args:
        path: as configured, e.g. ``mqtt.password`` or ``/etc/nis-edge/mqtt.password``.
        environ: CREDENTIALS_DIRECTORY is systemd's folder of what LoadCredential= named.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    return Path(folder) / path if folder.startswith("/") and path.name == str(path) else path


def read_secret(path: Path, what: str) -> str:
    """One line of a file that only the daemon should be able to read.

    Raises:
        ConfigError: it can't be read, or is empty (the operator acts).
    """
    try:
        with path.open("rb") as file:
            secret = file.read(SECRET_BYTES_MAX).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{what} {path} can't be read: {reason}; mend the path or its permissions") from error
    if not secret:
        raise ConfigError(f"{what} {path} is empty; write the secret into it")
    return secret


def broker_options(
    options: MqttOptions, client_id: str, will: Message, environ: Mapping[str, str] = os.environ
) -> BrokerOptions | None:
    """How to reach the configured broker, secrets read; None without one.

    Args:
        options: of the configuration.
        client_id: who we are there.
        will: what the broker publishes should we vanish.
        environ: names the folder of the service manager's credentials.

    Raises:
        ConfigError: a file that the options name can't be used (the operator acts).
    """
    if options.host is None:
        return None
    tls = None
    if options.tls:
        files = (options.ca_file, options.cert_file, options.key_file)
        tls = TlsFiles(*(at_home(file, environ) if file is not None else None for file in files))
        check_tls(tls)
    password = None
    if options.password_file is not None:
        password = read_secret(at_home(options.password_file, environ), "mqtt.password_file")
    return BrokerOptions(
        host=options.host,
        port=options.port_or_default,
        client_id=client_id,
        will=will,
        username=options.username,
        password=password,
        tls=tls,
        keepalive_s=options.keepalive_s,
        session_expiry_s=options.session_expiry_s,
        will_delay_s=options.will_delay_s,
        window=options.window,
    )
