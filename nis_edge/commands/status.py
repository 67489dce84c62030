"""`nis-edge status`: one screen about the running daemon, asked of its local API.

Light by design: http.client and json only, so that it costs little CPU on a machine that is short of it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
from pathlib import Path
from typing import Any
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
        view = _ask(address, args.token_file)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print(f"nis-edge: no daemon answers at {address}: {reason}; start it with: nis-edge run", file=sys.stderr)
        return EXIT_FAILED
    if args.json:
        print(json.dumps(view, indent=1))
    else:
        from nis_edge.overview_words import status_lines

        print("\n".join(status_lines(view, address)))
    return EXIT_DONE


def _ask(address: str, token_file: Path | None) -> dict[str, Any]:
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
        connection.request("GET", "/v1/status", headers=headers)
        answer = connection.getresponse()
        body = answer.read(STATUS_BYTES_MAX)
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"it answered {answer.status} {answer.reason}")
    view = json.loads(body)
    if not isinstance(view, dict) or "verdict" not in view:
        raise ValueError("what answers there is no nis-edge")
    return view


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
