"""The notifier speaks sd_notify to a real socket, and is silent without one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from nis_edge.adapters.systemd import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_reach_the_manager(tmp_path: Path, abstract: bool) -> None:
    name = f"nis-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": "@" + name if abstract else name}, 1)
        notifier.ready("judging\nWATCHDOG=trigger")
        notifier.alive()
        notifier.reloading(12.5)
        notifier.stopping("bye")
        assert manager.recv(999) == b"READY=1\nSTATUS=judging WATCHDOG=trigger"
        assert manager.recv(999) == b"WATCHDOG=1"
        assert manager.recv(999) == b"RELOADING=1\nMONOTONIC_USEC=12500000"
        assert manager.recv(999) == b"STOPPING=1\nSTATUS=bye"


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        Notifier(environ, 1).ready("fine")


def test_the_watchdog_counts_only_when_meant_for_us() -> None:
    assert Notifier({"WATCHDOG_USEC": "30000000"}, 7).watchdog_s == 30.0
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 7).watchdog_s == 30.0
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 7).watchdog_s is None
    assert Notifier({"WATCHDOG_USEC": "soon"}, 7).watchdog_s is None
    assert Notifier({}, 7).watchdog_s is None
