"""The bundle: a whole metadata chain in one message, for a retained MQTT topic, a USB stick or any untrusted carrier.

JSON object `{"v": 1, "cohort": NAME, "device": ID or null, "files": {NAME: TEXT}}`. It lies retained on
`nis/v1/{site}/ota/v1/{cohort}/bundle` for a cohort, and on `nis/v1/{site}/ota/v1/dev/{id}/bundle` for one device, whose
id then also stands in the signed rollout document `rollout/<sha256>.dev.<id>.json` (`update.rollout`). Names are those
of the repository: `3.root.json`, `timestamp.json`, `7.snapshot.json`, `7.targets.json`, delegated roles, and
`rollout/<sha256>.<cohort>.json`. The carrier is never believed: every text goes through the same verification as one
fetched by HTTP.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec

from nis_edge.errors import UntrustedMetadataError
from nis_edge.limits import UPDATE_BUNDLE_BYTES_MAX, UPDATE_BUNDLE_FILES_MAX
from nis_edge.update.facts import OLD_MODEL_STAYS
from nis_edge.wire.topics import ROOT

FILE_NAME: Final = re.compile(
    r"(?:[0-9]{1,10}\.)?[A-Za-z0-9_%-]{1,64}\.json|rollout/[0-9a-f]{64}\.(?:dev\.)?[a-z0-9-]{1,64}\.json"
)
"""Names a bundle may carry: versioned metadata, or a hash-prefixed rollout document."""


def bundle_topic(site: str, cohort: str) -> str:
    """Where a cohort's bundle lies, retained (design: ota section 4, under the site's prefix)."""
    return f"{ROOT}/{site}/ota/v1/{cohort}/bundle"


def device_bundle_topic(site: str, device: str) -> str:
    """Where the bundle for one device lies, retained."""
    return f"{ROOT}/{site}/ota/v1/dev/{device}/bundle"


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata files by repository name, as text (metadata is JSON)."""

    v: Literal[1] = 1
    cohort: Annotated[str, msgspec.Meta(max_length=64)]
    device: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    files: Annotated[dict[str, str], msgspec.Meta(max_length=UPDATE_BUNDLE_FILES_MAX)]


_DECODER: Final = msgspec.json.Decoder(Bundle)


def encode_bundle(bundle: Bundle) -> bytes:
    """The bytes of a bundle; deterministic for the same files.

    Raises:
        ValueError: it is larger than devices read.
    """
    ordered = Bundle(cohort=bundle.cohort, device=bundle.device, files=dict(sorted(bundle.files.items())))
    data = msgspec.json.encode(ordered)
    if len(data) > UPDATE_BUNDLE_BYTES_MAX:
        raise ValueError(f"bundle of {len(data)} bytes; devices read at most {UPDATE_BUNDLE_BYTES_MAX}")
    return data


def decode_bundle(data: bytes) -> Bundle:
    """Read an untrusted bundle.

    Raises:
        UntrustedMetadataError: too large, malformed, or with a file name that no repository has.
    """
    if len(data) > UPDATE_BUNDLE_BYTES_MAX:
        raise UntrustedMetadataError(
            f"update notice of {len(data)} bytes, at most {UPDATE_BUNDLE_BYTES_MAX} are read; {OLD_MODEL_STAYS}"
        )
    try:
        bundle = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedMetadataError(f"update notice is malformed: {error}; {OLD_MODEL_STAYS}") from error
    for name in bundle.files:
        if FILE_NAME.fullmatch(name) is None:
            raise UntrustedMetadataError(f"update notice names a file {name[:80]!r}; {OLD_MODEL_STAYS}")
    return bundle
