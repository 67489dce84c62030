"""Signing keys as files: one PKCS#8 PEM per key, encrypted by a passphrase unless plain files were asked for.

A key's name (`root-1`, `targets-2`, `timestamp`) stands in the public key inside the metadata, so that a role finds its
files by name wherever they were carried. Offline keys lie in `keys/`, online ones in `keys/online/`; the folder of the
offline ones is meant to live on media that are not plugged in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Key

from nis_ota.errors import PublisherError

NAME_FIELD: Final = "x-nis-key-name"
"""Field beside a public key in the metadata; not part of what the key's id is made from."""

PASSPHRASE_VARIABLE: Final = "NIS_OTA_PASSPHRASE"  # noqa: S105  # the name of a variable, not a secret

ONLINE_FOLDER: Final = "online"

Ask = Callable[[str], str]


def generate(folder: Path, name: str, passphrase: bytes | None) -> Key:
    """Make an Ed25519 key, write its private half to `folder`/`name`.pem (mode 0600), return the public half.

    Args:
        folder: made when absent, mode 0700.
        name: the key's name.
        passphrase: encrypts the file; None writes it plain.

    Raises:
        PublisherError: a key of this name exists; it is never overwritten.
    """
    private = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name}.pem"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise PublisherError(f"{path} exists and is not overwritten; move it away or choose another folder") from error
    with os.fdopen(fd, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    public = CryptoSigner(private).public_key
    public.unrecognized_fields[NAME_FIELD] = name
    return public


class KeyRing:
    """Private keys found below folders, opened when they are needed.

    Args:
        folders: where to look, first match wins; each also with its `online` folder.
        ask: how to ask a person for the passphrase when the environment does not hold it.
    """

    def __init__(self, folders: list[Path], ask: Ask | None = None) -> None:
        self._folders = folders
        self._ask = ask
        self._passphrase: bytes | None = None

    def signer(self, public: Key) -> CryptoSigner | None:
        """The signer of a public key, or None when its file is not here.

        Raises:
            PublisherError: the file is here but cannot be opened (wrong passphrase, damaged, another key).
        """
        name = str(public.unrecognized_fields.get(NAME_FIELD, public.keyid))
        for folder in self._folders:
            for path in (folder / f"{name}.pem", folder / ONLINE_FOLDER / f"{name}.pem"):
                if path.is_file():
                    return self._open(path, public)
        return None

    def _open(self, path: Path, public: Key) -> CryptoSigner:
        pem = path.read_bytes()
        encrypted = b"ENCRYPTED" in pem[:64]
        try:
            private = serialization.load_pem_private_key(pem, self._passphrase_for(path) if encrypted else None)
        except (ValueError, TypeError) as error:
            raise PublisherError(
                f"{path} cannot be opened: wrong passphrase or damaged file; check {PASSPHRASE_VARIABLE}"
            ) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise PublisherError(f"{path} holds no Ed25519 key")
        signer = CryptoSigner(private)
        if signer.public_key.keyid != public.keyid:
            raise PublisherError(f"{path} holds another key than the metadata names; bring the right file")
        return CryptoSigner(private, public)  # type: ignore[arg-type]  # an SSlibKey, as read from metadata

    def _passphrase_for(self, path: Path) -> bytes:
        if self._passphrase is None:
            self._passphrase = read_passphrase(f"Passphrase of {path.name}: ", self._ask)
        return self._passphrase


def read_passphrase(prompt: str, ask: Ask | None) -> bytes:
    """The passphrase from the environment, else from a person.

    Raises:
        PublisherError: neither gives one.
    """
    value = os.environ.get(PASSPHRASE_VARIABLE) or (ask(prompt) if ask is not None else "")
    if not value:
        raise PublisherError(f"a passphrase is needed: set {PASSPHRASE_VARIABLE}, or run this on a terminal")
    return value.encode()
