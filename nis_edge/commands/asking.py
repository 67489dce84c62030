"""Asking the daemon's local API from a command: where it listens, its token, and what goes wrong in one line.

Light by design: http.client alone, so that `status` costs little on a machine short of CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from nis_edge.errors import ConfigError, DeviceError
from nis_edge.limits import EVENT_BYTES_MAX, STATUS_BYTES_MAX

DEFAULT_ADDRESS = "http://127.0.0.1:6470"
TIMEOUT_S = 5.0
SILENCE_S = 40.0
"""A stream that says nothing for so long is dead: the daemon sends a sign of life every 15 s."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how the daemon is reached."""
    parser.add_argument("--address", metavar="URL", help="of the local API; else where the daemon of this user said")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="the API's token, where it needs one")


def address_of(args: argparse.Namespace) -> str:
    """Where the daemon listens."""
    return args.address or _said_address() or DEFAULT_ADDRESS


def ask(args: argparse.Namespace, path: str) -> str:
    """One answer as text.

    Raises:
        ConfigError: the address or the token file can't be used (the operator acts).
        DeviceError: no daemon answers, or not as asked.
    """
    with _answer(args, path, TIMEOUT_S) as answer:
        try:
            return answer.read(STATUS_BYTES_MAX).decode("utf-8")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _no_answer(address_of(args), error) from error


def follow(args: argparse.Namespace, path: str) -> Iterator[str]:
    """The data of server-sent events as they come. Errors as ``ask``."""
    with _answer(args, path, SILENCE_S) as answer:
        try:
            # A line is at most one event of the largest size, escaped.
            while line := answer.readline(8 * EVENT_BYTES_MAX):
                text = line.decode("utf-8", errors="replace").rstrip("\r\n")
                if text.startswith("data: "):
                    yield text.removeprefix("data: ")
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(address_of(args), error) from error


@contextlib.contextmanager
def _answer(args: argparse.Namespace, path: str, timeout_s: float) -> Iterator[http.client.HTTPResponse]:
    address = address_of(args)
    target = urlsplit(address)
    if target.scheme != "http" or target.hostname is None:
        raise ConfigError(f"--address {address!r}: give it as http://HOST:PORT")
    headers = {}
    if args.token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {args.token_file.read_text().strip()}"
        except OSError as error:
            raise ConfigError(f"--token-file {args.token_file}: {error.strerror}; nothing was asked") from error
    connection = http.client.HTTPConnection(target.hostname, target.port or 80, timeout=timeout_s)
    try:
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if answer.status == 401:
                raise ValueError("it wants its token: --token-file FILE")
            if answer.status != 200:
                raise ValueError(f"it answered {answer.status} {answer.reason}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _no_answer(address, error) from error
        yield answer
    finally:
        connection.close()


def _no_answer(address: str, error: Exception) -> DeviceError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DeviceError(f"no daemon answers at {address}: {reason}; start it with: nis-edge run")


def _said_address() -> str | None:
    """Where this user's daemon, or its demonstration, wrote that it listens."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.environ.get("HOME", "/nonexistent"), ".local/state")  # noqa: PTH118 - pathlib costs more to start
    for folder in ("nis-edge", "nis-edge/demo"):
        try:
            with open(f"{home}/{folder}/api.json", encoding="utf-8") as file:  # noqa: PTH123
                return str(json.loads(file.read(4096))["address"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
