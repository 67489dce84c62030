"""Tells systemd how the daemon is (sd_notify): one datagram with lines, and nothing at all without systemd.

The protocol is that of sd_notify(3). A message that can't be sent is dropped: the service manager then acts by its own
timeouts, which is what they are for.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping


class Notifier:
    """Messages to the service manager that started us.

    Args:
        environ: NOTIFY_SOCKET names its socket; WATCHDOG_USEC and WATCHDOG_PID say whether it expects signs of life.
        pid: our own.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog_usec = 0
        if environ.get("WATCHDOG_PID", str(pid)) == str(pid) and environ.get("WATCHDOG_USEC", "").isdigit():
            self._watchdog_usec = int(environ["WATCHDOG_USEC"])

    @property
    def watchdog_s(self) -> float | None:
        """Seconds within which the manager expects a sign of life, or None when it expects none."""
        return self._watchdog_usec / 1e6 if self._watchdog_usec else None

    def ready(self, status: str) -> None:
        """Start-up, or a reload, is complete."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def reloading(self, monotonic_s: float) -> None:
        """A reload begins; ``ready`` ends it.

        Args:
            monotonic_s: CLOCK_MONOTONIC, which systemd compares with its own.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic_s * 1e6)}")

    def stopping(self, status: str) -> None:
        """Shut-down begins."""
        self._send("STOPPING=1", f"STATUS={status}")

    def _send(self, *lines: str) -> None:
        if not self._address.startswith(("/", "@")):
            return
        # An address that starts with @ lies in the abstract namespace, which the kernel writes with a zero byte.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as s:
            s.sendto(message, address)
