"""`nis-edge status`: one screen about the running daemon, asked of its local API.

Light by design: the daemon itself puts its state into words, so that this costs little on a machine short of CPU.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from nis_edge.cli import EXIT_DONE, EXIT_FAILED
from nis_edge.errors import ConfigError
from nis_edge.limits import STATUS_BYTES_MAX

DESCRIPTION = "Show how the running daemon is: verdict, findings, latency, power, broker, model, updates."
EXAMPLE = "nis-edge status --json"

DEFAULT_ADDRESS = "http://127.0.0.1:6470"
TIMEOUT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.add_argument("--address", metavar="URL", help="of the local API; else where the daemon of this user said")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="the API's token, where it needs one")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    address = args.address or _said_address() or DEFAULT_ADDRESS
    try:
        shown = _ask(address, "/v1/status" if args.json else "/v1/status?format=text", args.token_file)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print(f"nis-edge: no daemon answers at {address}: {reason}; start it with: nis-edge run", file=sys.stderr)
        return EXIT_FAILED
    # Whoever answers on that port: nothing it says may control the terminal.
    harmless = "".join(c if c.isprintable() or c == "\n" else "?" for c in shown.rstrip())
    print(json.dumps(json.loads(shown), indent=1) if args.json else harmless)
    return EXIT_DONE


def _ask(address: str, path: str, token_file: Path | None) -> str:
    target = urlsplit(address)
    if target.scheme != "http" or target.hostname is None:
        raise ConfigError(f"--address {address!r}: give it as http://HOST:PORT")
    headers = {}
    if token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {token_file.read_text().strip()}"
        except OSError as error:
            raise ConfigError(f"--token-file {token_file}: {error.strerror}; nothing was asked") from error
    connection = http.client.HTTPConnection(target.hostname, target.port or 80, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(STATUS_BYTES_MAX)
    finally:
        connection.close()
    if answer.status == 401:
        raise ValueError("it wants its token: --token-file FILE")
    if answer.status != 200:
        raise ValueError(f"it answered {answer.status} {answer.reason}")
    return body.decode("utf-8")


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
