"""Signing keys: encrypted PKCS#8 files, or a token or cloud service behind a signer URI.

A key called `root-1` is up to three files in one folder: `root-1.pem` (private, mode 0600, encrypted by a passphrase
unless a plain file was asked for) or `root-1.uri` (where the private half lives: `hsm:2?label=...`, `awskms:...`), and
`root-1.pub`, the public half as it stands in metadata. The name stands in the public key inside the metadata, so that a
role finds its files by name wherever they were carried. Offline keys lie in `keys/`, online ones in `keys/online/`; the
folder of the offline ones is meant to live on media that are not plugged in.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signer, SSlibKey

from nis_ota.errors import PublisherError
from nis_ota.files import write_durably

NAME_FIELD: Final = "x-nis-key-name"
"""Field beside a public key in the metadata; not part of what the key's id is made from."""

PASSPHRASE_VARIABLE: Final = "NIS_OTA_PASSPHRASE"  # noqa: S105  # the name of a variable, not a secret
PASSPHRASE_FILE_VARIABLE: Final = "NIS_OTA_PASSPHRASE_FILE"  # noqa: S105  # the same
PIN_VARIABLE: Final = "NIS_OTA_PIN"

ONLINE_FOLDER: Final = "online"
PUBLIC_BYTES_MAX: Final = 16 * 1024
"""A public key file is under 1 KiB; more is something else."""

KEY_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
CLOUD_SCHEMES: Final = ("awskms", "gcpkms")
"""Services whose public half can be fetched by the URI alone."""

Ask = Callable[[str], str]
PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey


def generate(folder: Path, name: str, passphrase: bytes | None) -> Key:
    """Make an Ed25519 key, write its halves to `folder`/`name`.pem (mode 0600) and .pub, return the public one.

    Args:
        folder: made when absent, mode 0700.
        name: the key's name.
        passphrase: encrypts the file; None writes it plain.

    Raises:
        PublisherError: a key of this name exists; it is never overwritten.
    """
    return _write(folder, name, Ed25519PrivateKey.generate(), passphrase)


def import_pem(folder: Path, name: str, pem: Path, old_passphrase: bytes | None, passphrase: bytes | None) -> Key:
    """Take over an existing private key file (Ed25519 or ECDSA P-256, PEM).

    Raises:
        PublisherError: it cannot be opened, is of another kind, or the name is taken.
    """
    try:
        private = serialization.load_pem_private_key(pem.read_bytes(), old_passphrase)
    except (ValueError, TypeError) as error:
        raise PublisherError(f"{pem} cannot be opened: wrong passphrase, or no PEM private key") from error
    return _write(folder, name, _usable(private, pem), passphrase)


def import_uri(folder: Path, name: str, uri: str, ask: Ask | None = None) -> Key:
    """Take over a key that lives in a token or a cloud service: fetch its public half, remember where it lives.

    Args:
        folder: where `name`.uri and `name`.pub are written.
        name: the key's name.
        uri: `hsm:KEYID?label=TOKEN` (PKCS#11; PYKCS11LIB names the module), `awskms:KEY`, `gcpkms:KEY`.
        ask: how to ask a person for the PIN.

    Raises:
        PublisherError: the scheme is unknown, a library is missing, or the key is not there.
    """
    check_name(name)
    scheme, _, rest = uri.partition(":")
    signer: Any = SIGNER_FOR_URI_SCHEME.get(scheme)
    if signer is None or scheme not in ("hsm", *CLOUD_SCHEMES):
        raise PublisherError(f"signer URI {uri!r} has an unknown scheme; known: hsm:, {':, '.join(CLOUD_SCHEMES)}:")
    try:
        if scheme == "hsm":
            from urllib.parse import parse_qsl

            keyid, _, query = rest.partition("?")
            label = dict(parse_qsl(query)).get("label")
            found, public = signer.import_(int(keyid) if keyid else None, label, _pin(ask))
        else:
            found, public = signer.import_(rest)
    except UnsupportedLibraryError as error:
        raise PublisherError(f"{scheme}: {error}; pip install 'securesystemslib[{scheme}]'") from error
    except PublisherError:
        raise
    except Exception as error:  # whatever a driver or a cloud library raises: it is outside our sill
        raise PublisherError(f"{uri}: {_line(error)}; check the token, its label and PYKCS11LIB") from error
    public.unrecognized_fields[NAME_FIELD] = name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name}.uri"
    if path.exists() or (folder / f"{name}.pem").exists():
        raise PublisherError(f"{path} exists and is not overwritten; move it away or choose another name")
    write_durably(path, f"{found}\n".encode())
    write_public(folder, public)
    return public  # type: ignore[no-any-return]


def write_public(folder: Path, public: Key) -> Path:
    """Write `NAME.pub`: what is carried to whoever founds or edits the repository."""
    path = folder / f"{name_of(public)}.pub"
    write_durably(path, json.dumps({"keyid": public.keyid, **public.to_dict()}, indent=1).encode() + b"\n")
    return path


def read_public(path: Path) -> Key:
    """Read a `.pub` file.

    Raises:
        PublisherError: it is not one, or its key id does not belong to its key.
    """
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(PUBLIC_BYTES_MAX))
        key = Key.from_dict(data.pop("keyid"), data)
        # Its own key id, so that one private key under two ids cannot count as two signers.
        if key.keyid != SSlibKey.from_crypto(SSlibKey._crypto_key(key), scheme=key.scheme).keyid:  # type: ignore[arg-type]
            raise ValueError("its key id belongs to another key")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PublisherError(f"{path} is no public key of nis-ota key gen or import: {_line(error)}") from error
    check_name(name_of(key))
    return key


def name_of(public: Key) -> str:
    """The key's name, or its id when it has none."""
    return str(public.unrecognized_fields.get(NAME_FIELD, public.keyid))


def check_name(name: str) -> str:
    """Return a key's name when it can be a file's name.

    Raises:
        PublisherError: it cannot.
    """
    if KEY_NAME.fullmatch(name) is None:
        raise PublisherError(f"key name {name[:80]!r} cannot be used: 1 to 64 of a-z, 0-9 and inner hyphens")
    return name


class KeyRing:
    """Private keys found below folders, opened when they are needed.

    Args:
        folders: where to look, first match wins; each also with its `online` folder.
        ask: how to ask a person for the passphrase when the environment does not hold it.
        passphrase: known already; tried first.
    """

    def __init__(self, folders: list[Path], ask: Ask | None = None, passphrase: bytes | None = None) -> None:
        self._folders = folders
        self._ask = ask
        self._passphrase = passphrase

    def signer(self, public: Key) -> Signer | None:
        """The signer of a public key, or None when its file is not here.

        Raises:
            PublisherError: the file is here but cannot be opened (wrong passphrase, damaged, another key).
        """
        name = name_of(public)
        for folder in self._folders:
            for place in (folder, folder / ONLINE_FOLDER):
                if (place / f"{name}.pem").is_file():
                    return self._open(place / f"{name}.pem", public)
                if (place / f"{name}.uri").is_file():
                    return self._reach(place / f"{name}.uri", public)
        return None

    def _open(self, path: Path, public: Key) -> Signer:
        pem = path.read_bytes()
        private = self._decrypt(path, pem) if b"ENCRYPTED" in pem[:64] else _load(pem, None)
        if private is None:
            raise PublisherError(
                f"{path} cannot be opened: wrong passphrase or damaged file; check {PASSPHRASE_VARIABLE}"
            )
        signer = CryptoSigner(_usable(private, path))
        if signer.public_key.keyid != public.keyid:
            raise PublisherError(f"{path} holds another key than the metadata names; bring the right file")
        return CryptoSigner(private, public)  # type: ignore[arg-type]  # an SSlibKey, as read from metadata

    def _decrypt(self, path: Path, pem: bytes) -> Any:
        """Try the passphrase that opened the last key; people may each have their own, so then ask."""
        if self._passphrase is None:
            self._passphrase = read_passphrase(f"Passphrase of {path.name}: ", self._ask)
            return _load(pem, self._passphrase)
        private = _load(pem, self._passphrase)
        if private is None and self._ask is not None:
            self._passphrase = self._ask(f"Passphrase of {path.name}: ").encode() or None
            return _load(pem, self._passphrase)
        return private

    def _reach(self, path: Path, public: Key) -> Signer:
        uri = path.read_text(encoding="utf-8").strip()
        try:
            return _Remote(Signer.from_priv_key_uri(uri, public, _pin(self._ask)), uri)
        except Exception as error:  # a driver's or a cloud library's own kinds
            raise PublisherError(f"{path}: {_line(error)}; check the token and PYKCS11LIB") from error


class _Remote(Signer):
    """A token or service, whose faults become our one line."""

    def __init__(self, signer: Signer, uri: str) -> None:
        self._signer, self._uri = signer, uri

    @property
    def public_key(self) -> Key:
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: Any = None) -> Signer:
        """Not a scheme of its own."""
        return cls(Signer.from_priv_key_uri(priv_key_uri, public_key, secrets_handler), priv_key_uri)

    def sign(self, payload: bytes) -> Any:
        try:
            return self._signer.sign(payload)
        except PublisherError:
            raise
        except Exception as error:  # as above
            raise PublisherError(f"{self._uri} did not sign: {_line(error)}; check token and PIN") from error


def read_passphrase(prompt: str, ask: Ask | None) -> bytes:
    """The passphrase from the environment, from the file it names, else from a person.

    Raises:
        PublisherError: none gives one.
    """
    value = os.environ.get(PASSPHRASE_VARIABLE, "")
    file = os.environ.get(PASSPHRASE_FILE_VARIABLE)
    if not value and file:
        value = Path(file).read_text(encoding="utf-8").strip("\r\n")
    value = value or (ask(prompt) if ask is not None else "")
    if not value:
        raise PublisherError(
            f"a passphrase is needed: set {PASSPHRASE_VARIABLE} or {PASSPHRASE_FILE_VARIABLE}, or use a terminal"
        )
    return value.encode()


def _write(folder: Path, name: str, private: PrivateKey, passphrase: bytes | None) -> Key:
    check_name(name)
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
    write_public(folder, public)
    return public


def _load(pem: bytes, passphrase: bytes | None) -> Any:
    try:
        return serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError):
        return None


def _usable(private: Any, path: Path) -> PrivateKey:
    if isinstance(private, Ed25519PrivateKey):
        return private
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1):
        return private
    raise PublisherError(f"{path} holds no Ed25519 or ECDSA P-256 key")


def _pin(ask: Ask | None) -> Callable[[str], str]:
    def answer(secret: str) -> str:
        value = os.environ.get(PIN_VARIABLE) or (ask(f"Token's {secret}: ") if ask is not None else "")
        if not value:
            raise PublisherError(f"the token wants its {secret}: set {PIN_VARIABLE}, or run this on a terminal")
        return value

    return answer


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
