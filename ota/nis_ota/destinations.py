"""Where a repository is published: a folder, an S3-compatible bucket, or a web server's folder reached by rsync.

A destination only puts named bytes; the order, and what may be cached for how long, is `publishing`'s. A folder has no
cache headers of its own: the README says which lines its web server needs.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from nis_ota.errors import PublisherError
from nis_ota.files import copy_durably, file_hash, same_bytes, write_durably

RSYNC_SECONDS_MAX: Final = 4 * 3600.0
"""The whole of one pass: 5 GiB at 3 Mbit/s take under four hours."""

CACHE_FOR_EVER: Final = "public, max-age=31536000, immutable"
CACHE_BRIEFLY: Final = "public, max-age=60"
SHA256_FIELD: Final = "nis-sha256"


class Destination(Protocol):
    """Somewhere devices fetch from."""

    @property
    def name(self) -> str:
        """How people call it."""

    def put(self, name: str, content: Path | bytes, cache: str) -> bool:
        """Make `name` hold `content`; False when it already did.

        Args:
            name: path below the destination, with slashes.
            content: a file, or bytes.
            cache: the Cache-Control header it is to be served with.

        Raises:
            PublisherError, OSError: it could not; what was published before is whole.
        """

    def remove(self, name: str) -> None:
        """Take a hint back that nobody needs any more; nothing may rely on it being gone."""

    def flush(self) -> None:
        """Return when everything put so far is where devices fetch it; what comes after may rely on it."""


def destination(text: str, *, endpoint: str | None = None) -> Destination:
    """The destination that `--to` names: `s3://BUCKET[/PREFIX]`, `rsync:HOST:FOLDER`, or a folder.

    Raises:
        PublisherError: it is of no known form.
    """
    if text.startswith("s3://"):
        return Bucket(text, endpoint)
    if text.startswith("rsync:"):
        return Rsync(text.removeprefix("rsync:"))
    if "://" in text:
        raise PublisherError(f"--to {text}: known are a folder, s3://BUCKET/PREFIX and rsync:HOST:FOLDER")
    return Folder(Path(text))


class Folder:
    """A folder that a web server serves."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    def put(self, name: str, content: Path | bytes, cache: str) -> bool:
        """As `Destination.put`; the cache header is the web server's to send."""
        del cache
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            if path.is_file() and path.read_bytes() == content:
                return False
            write_durably(path, content)
            return True
        if path.is_file() and same_bytes(content, path):
            return False
        copy_durably(content, path)
        return True

    def remove(self, name: str) -> None:
        """As `Destination.remove`."""
        (self.path / name).unlink(missing_ok=True)

    def flush(self) -> None:
        """Every file was flushed when it was written."""


class Bucket:
    """An S3-compatible bucket. Credentials and region come the way boto3 takes them (environment, profile, role)."""

    def __init__(self, url: str, endpoint: str | None = None) -> None:
        parts = urlsplit(url)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        if not self._bucket:
            raise PublisherError(f"{url} names no bucket; write s3://BUCKET/PREFIX")
        self.name = url
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise PublisherError("publishing to a bucket needs boto3: pip install 'nis-edge[ota]'") from error
        settings = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=60)
        with _S3(self.name):
            self._client: Any = boto3.client("s3", endpoint_url=endpoint, config=settings)

    def put(self, name: str, content: Path | bytes, cache: str) -> bool:
        """As `Destination.put`. The content's hash stands beside each object, so what is there is not sent again."""
        key = f"{self._prefix}/{name}" if self._prefix else name
        digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_hash(content)
        with _S3(f"{self.name}: {name}"):
            if self._holds(key, digest, cache):
                return False
            head = {
                "CacheControl": cache,
                "ContentType": "application/json" if name.endswith(".json") else "application/octet-stream",
                "Metadata": {SHA256_FIELD: digest},
            }
            if isinstance(content, bytes):
                md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
                self._client.put_object(Bucket=self._bucket, Key=key, Body=content, ContentMD5=md5, **head)
            else:
                self._client.upload_file(str(content), self._bucket, key, ExtraArgs=head)  # in parts when it is large
        return True

    def remove(self, name: str) -> None:
        """As `Destination.remove`."""
        with _S3(f"{self.name}: {name}"):
            self._client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}" if self._prefix else name)

    def flush(self) -> None:
        """S3 is strongly consistent: an object that was put is what everyone reads."""

    def _holds(self, key: str, digest: str, cache: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            found = self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return False
            raise
        return bool(found["Metadata"].get(SHA256_FIELD) == digest and found.get("CacheControl") == cache)


class Rsync:
    """A folder on another machine. What is put is gathered locally; each flush is one pass of rsync."""

    def __init__(self, target: str) -> None:
        program = shutil.which("rsync")
        if program is None:
            raise PublisherError("publishing by rsync needs the rsync program: sudo apt-get install -y rsync")
        self.name = f"rsync:{target}"
        self._program, self._target = program, target.rstrip("/") + "/"
        self._gathered: dict[str, Path | bytes] = {}

    def put(self, name: str, content: Path | bytes, cache: str) -> bool:
        """As `Destination.put`; rsync itself leaves out what is there already."""
        del cache
        self._gathered[name] = content
        return True

    def remove(self, name: str) -> None:
        """It stays there, unbelieved by every device."""

    def flush(self) -> None:
        """Send what was gathered.

        Raises:
            PublisherError: rsync failed; what was published before is whole.
        """
        if not self._gathered:
            return
        with tempfile.TemporaryDirectory(prefix="nis-ota-") as folder:
            for name, content in self._gathered.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    path.symlink_to(content.resolve())
            # By checksum, not by date: the local dates are those of this moment. Files are replaced by rename.
            command = [self._program, "-r", "--copy-links", "--checksum", "--mkpath", f"{folder}/", self._target]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=RSYNC_SECONDS_MAX, check=False)
            except subprocess.TimeoutExpired as error:
                raise PublisherError(f"{self.name}: rsync took over {RSYNC_SECONDS_MAX:.0f} s; try again") from error
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[-300:]
            raise PublisherError(f"{self.name}: {said}; what was published before is whole; try again")
        self._gathered.clear()


class _S3:
    """Translates boto3's errors at the sill."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, (Boto3Error, BotoCoreError, ClientError, ValueError)):
            text = " ".join(str(error).split())[:300]
            raise PublisherError(
                f"{self._what}: {text}; check bucket, endpoint and credentials; what was published before is whole"
            ) from error
