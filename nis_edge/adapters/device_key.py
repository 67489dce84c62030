"""The device's own key: made at the first start, never leaves the device, signs its reports."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nis_edge.errors import DeviceError

SEED_BYTES = 32


class DeviceKey:
    """An Ed25519 key in a file of 32 bytes that only its owner may read.

    Args:
        path: the file; made when absent.

    Raises:
        DeviceError: it is damaged, readable by others, or cannot be made; reports are not signed then.
    """

    def __init__(self, path: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            self._key = Ed25519PrivateKey.from_private_bytes(_seed(path))
        except OSError as error:
            raise DeviceError(f"device key {path}: {error.strerror or error}; updates go on without reports") from error
        self.public_hex = self._key.public_key().public_bytes_raw().hex()
        """The public key, 64 hex digits: what a publisher knows this device by."""

    def sign(self, data: bytes) -> bytes:
        """The signature over `data`, 64 bytes."""
        return self._key.sign(data)


def _seed(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _make(path)
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o077:
            raise DeviceError(f"device key {path} can be read by others: chmod 600 {path}")
        seed = os.read(fd, SEED_BYTES + 1)
    finally:
        os.close(fd)
    if len(seed) != SEED_BYTES:
        raise DeviceError(f"device key {path} is damaged; remove it, and tell the publisher of the new key")
    return seed


def _make(path: Path) -> bytes:
    """Write a new key whole or not at all, and make it durable: a publisher will remember it."""
    seed, new = os.urandom(SEED_BYTES), path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, seed)
        os.fsync(fd)
    finally:
        os.close(fd)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return seed
