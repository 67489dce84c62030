"""A package is hostile input: whatever its bytes are, opening it works or is refused in one line, and never crashes."""

import hashlib
import json
import os
import re

import numpy as np
import pytest

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack import layout
from nis_edge.pack.reader import open_package
from tests.support.tiny_models import write_tiny_package

SMALL = {
    "hidden": 8,
    "ffn": 8,
    "layers": 1,
    "heads": 1,
    "kv_heads": 1,
    "head_dim": 8,
    "vocab": 4,
    "task_heads": {},
    "tokenizer": False,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    """The bytes of a very small package."""
    return write_tiny_package(tmp_path_factory.mktemp("packages") / "small.nis", **SMALL).read_bytes()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> bytes:
    """The bytes of a package with a task head and a tokenizer."""
    return write_tiny_package(tmp_path_factory.mktemp("packages") / "tiny.nis").read_bytes()


@pytest.fixture(scope="module")
def screened(tmp_path_factory) -> bytes:
    """The bytes of a small package that brings the output head's screen."""
    path = tmp_path_factory.mktemp("packages") / "screened.nis"
    return write_tiny_package(path, screen=True, **{**SMALL, "vocab": 32}).read_bytes()


@pytest.fixture
def refusal(tmp_path):
    """Opens bytes as a package, which must be refused, and returns the message."""

    def open_bytes(data: bytes) -> str:
        path = tmp_path / "hostile.nis"
        path.write_bytes(data)
        with pytest.raises(PackFormatError) as caught:
            open_package(path)
        message = str(caught.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert len(message) < 1000
        # The folder's name holds the test's, which must not satisfy what the test looks for.
        return message.removeprefix(str(path))

    return open_bytes


def split(data: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: dict, body: bytes) -> bytes:
    """The bytes with a header that hashes right: what an attacker who knows the format writes."""
    raw = layout.encode_header(header)
    return len(raw).to_bytes(8, "little") + raw + body


def with_manifest(data: bytes, change) -> bytes:
    header, body = split(data)
    manifest = json.loads(header["__metadata__"]["nis"])
    change(manifest)
    header["__metadata__"]["nis"] = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return join(header, body)


def with_tensor(data: bytes, name: str, change) -> bytes:
    """Change a tensor's bytes and set its hash right."""
    header, body = split(data)
    start, stop = header[name]["data_offsets"]
    changed = bytearray(body)
    part = bytearray(changed[start:stop])
    change(part)
    changed[start:stop] = part
    hashes = json.loads(header["__metadata__"]["nis.tensors"])
    hashes[name] = hashlib.sha256(part).hexdigest()
    header["__metadata__"]["nis.tensors"] = json.dumps(hashes, sort_keys=True, separators=(",", ":"))
    return join(header, bytes(changed))


def test_a_package_rejoined_without_change_is_the_same_and_opens(small, tmp_path):
    assert join(*split(small)) == small
    assert with_manifest(small, lambda manifest: None) == small
    assert with_tensor(small, "embed", lambda data: None) == small
    path = tmp_path / "same.nis"
    path.write_bytes(small)
    open_package(path).close()


def test_every_truncation_is_refused(small, refusal):
    header_end = 8 + int.from_bytes(small[:8], "little")
    lengths = [*range(80), *range(80, header_end, 37), *range(header_end, len(small), 41), len(small) - 1]
    for length in lengths:
        refusal(small[:length])


def test_bytes_after_the_end_are_refused(small, refusal):
    assert "the tensors end at byte" in refusal(small + b"\0")


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_every_flipped_byte_of_the_header_is_refused(small, refusal, step):
    header_end = 8 + int.from_bytes(small[:8], "little")
    for position in range(0, header_end, step):
        changed = bytearray(small)
        changed[position] ^= 1 << position % 8
        refusal(bytes(changed))


def test_a_flipped_bit_anywhere_in_the_data_is_refused(small, refusal):
    header_end = 8 + int.from_bytes(small[:8], "little")
    for position in range(header_end, len(small), 7):
        changed = bytearray(small)
        changed[position] ^= 0x10
        refusal(bytes(changed))


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, limits.PACK_HEADER_BYTES_MAX + 1])
def test_a_huge_header_length_is_refused_before_anything_is_allocated(small, refusal, length):
    assert "above the bound" in refusal(length.to_bytes(8, "little") + small[8:])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data_offsets": [0, 31]}, "of shape"),
        ({"data_offsets": [32, 64]}, "hole|overlaps"),
        ({"data_offsets": [-32, 0]}, "claims bytes"),
        ({"data_offsets": [64, 32]}, "claims bytes"),
        ({"data_offsets": [0, 2**62]}, "claims bytes"),
        ({"data_offsets": [0.0, 32.0]}, "int"),
        ({"data_offsets": [0, 32, 64]}, "length"),
        ({"data_offsets": None}, "array"),
        ({"data_offsets": [True, 32]}, "int"),
        ({"data_offsets": [0, 10**30]}, "int|claims"),
        ({"shape": [-8]}, "beyond the file"),
        ({"shape": [8.0]}, "int"),
        ({"shape": [2**63, 2**63, 0]}, "beyond the file|int"),
        ({"shape": [2**32, 2**32]}, "beyond the file"),
        ({"shape": [1] * 3000}, "header|demands|shape"),
        ({"shape": "8"}, "array"),
        ({"dtype": "F128"}, "unknown dtype"),
        ({"dtype": 32}, "str"),
        ({"dtype": "F16"}, "of shape"),
        ({"extra": 1}, "unknown field"),
    ],
)
def test_an_entry_that_lies_is_refused(small, refusal, entry, message):
    header, body = split(small)
    header["trunk.0.attn_norm"].update(entry)
    assert re.search(message, refusal(join(header, body)))


def test_overlapping_tensors_are_refused(small, refusal):
    header, body = split(small)
    header["trunk.0.ffn_norm"]["data_offsets"] = header["trunk.0.attn_norm"]["data_offsets"]
    assert "overlaps" in refusal(join(header, body))


def test_a_hole_between_tensors_is_refused(small, refusal):
    header, body = split(small)
    del header["pad.00000"]
    assert "hole" in refusal(join(header, body))


def test_padding_that_is_not_zero_or_too_long_is_refused(small, refusal):
    header, body = split(small)
    start, _ = header["pad.00000"]["data_offsets"]
    dirty = bytearray(body)
    dirty[start] = 1
    assert "is not zero" in refusal(join(header, bytes(dirty)))
    for entry in header.values():
        if "data_offsets" in entry and entry["data_offsets"][0] > start:
            entry["data_offsets"] = [offset + 64 for offset in entry["data_offsets"]]
    header["pad.00000"]["data_offsets"][1] += 64
    header["pad.00000"]["shape"][0] += 64
    assert "padding" in refusal(join(header, body[:start] + bytes(64) + body[start:]))


def test_a_tensor_off_its_alignment_is_refused(small, refusal):
    header, body = split(small)
    start, stop = header["pad.00000"]["data_offsets"]
    for entry in header.values():
        if "data_offsets" in entry and entry["data_offsets"][0] > start:
            entry["data_offsets"] = [offset - 4 for offset in entry["data_offsets"]]
    header["pad.00000"] = {"data_offsets": [start, stop - 4], "dtype": "U8", "shape": [stop - start - 4]}
    assert "is not aligned to 64 bytes" in refusal(join(header, body[: stop - 4] + body[stop:]))


def test_a_manifest_in_another_form_is_refused(small, refusal):
    header, body = split(small)
    header["__metadata__"]["nis"] += " "
    assert "manifest is not in canonical form" in refusal(join(header, body))


def test_hashes_that_do_not_name_the_tensors_are_refused(small, refusal):
    for change in (lambda hashes: hashes.pop("embed"), lambda hashes: hashes.update({"other": "0" * 64})):
        header, body = split(small)
        hashes = json.loads(header["__metadata__"]["nis.tensors"])
        change(hashes)
        header["__metadata__"]["nis.tensors"] = json.dumps(hashes, sort_keys=True, separators=(",", ":"))
        assert "do not name the tensors" in refusal(join(header, body))


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "A" * 64, None, 1, ["0" * 64]])
def test_a_hash_that_is_none_is_refused(small, refusal, digest):
    header, body = split(small)
    hashes = {**json.loads(header["__metadata__"]["nis.tensors"]), "embed": digest}
    header["__metadata__"]["nis.tensors"] = json.dumps(hashes, sort_keys=True, separators=(",", ":"))
    assert "tensor hashes" in refusal(join(header, body))


@pytest.mark.parametrize(
    "metadata", [{"extra": "1"}, {"nis.header": 1}, {"nis.tensors": "[]"}, {"nis": "[]"}, {"nis": "{"}]
)
def test_metadata_that_is_not_ours_is_refused(small, refusal, metadata):
    header, body = split(small)
    header["__metadata__"].update(metadata)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    refusal(len(text).to_bytes(8, "little") + text + body)
    if "nis.header" not in metadata:
        refusal(join(header, body))


def test_tensors_in_another_order_are_refused(small, refusal):
    header, body = split(small)
    first, second = header["trunk.0.q.scale"]["data_offsets"], header["trunk.0.k.scale"]["data_offsets"]
    header["trunk.0.q.scale"]["data_offsets"], header["trunk.0.k.scale"]["data_offsets"] = second, first
    assert "order" in refusal(join(header, body))


def test_an_unaligned_tensor_is_refused(small, refusal):
    header, body = split(small)
    raw = layout.encode_header(header)[:-1] + b"\0"
    assert "JSON" in refusal(len(raw).to_bytes(8, "little") + raw + body)
    raw = layout.encode_header(header) + b" " * 32
    assert "canonical" in refusal(len(raw).to_bytes(8, "little") + raw + body)


def test_a_missing_or_additional_tensor_is_refused(small, refusal):
    header, body = split(small)
    header["trunk.0.qq"] = header.pop("trunk.0.q")
    assert "lacks tensor trunk.0.q" in refusal(join(header, body))
    header["trunk.0.q"] = header.pop("trunk.0.qq")
    header["evil\n"] = {"dtype": "U8", "shape": [0], "data_offsets": [len(body), len(body)]}
    assert "no part of the architecture" in refusal(join(header, body))


def test_a_repeated_key_is_refused(small, refusal):
    length = int.from_bytes(small[:8], "little")
    raw, body = small[8 : 8 + length], small[8 + length :]
    entry = raw[raw.index(b'"embed":') : raw.index(b'},"norm"') + 1]
    doubled = raw.rstrip(b" ")[:-1] + b"," + entry + b"}"
    doubled += b" " * (-(8 + len(doubled)) % 64)
    assert "stands twice" in refusal(len(doubled).to_bytes(8, "little") + doubled + body)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":' * 100_000, "JSON nests 100000 deep"),
        (b'{"a":' + b"[" * 99_999, "JSON nests 100000 deep"),
        (b'{"a\\"":' + b"[" * 40, "JSON nests 41 deep"),
        (b'{"a":"' + b"[" * 100_000 + b'"}', "tensor a"),
        (b'{"a":NaN}', "NaN is no JSON number"),
        (b"[" * 100_000, "no JSON object"),
    ],
)
def test_deep_or_odd_json_is_refused_without_exhausting_the_stack(refusal, text, message):
    assert message in refusal(len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize("end", [b"", b"\\"])
def test_a_string_that_never_ends_is_refused_at_once(refusal, end):
    text = b'{"' + b'\\"' * 1_000_000 + end  # from each quote to the end: hours
    assert "JSON" in refusal(len(text).to_bytes(8, "little") + text)


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b"null", b"[]", b'"nis"', b"{\xff}", b'{"a":1e999}', b'{"a":1}'])
def test_json_that_is_no_header_is_refused(refusal, text):
    refusal(len(text).to_bytes(8, "little") + text)


def test_a_number_of_a_million_digits_is_refused(refusal):
    text = b'{"a":' + b"9" * 1_000_000 + b"}"
    refusal(len(text).to_bytes(8, "little") + text)


def test_too_many_tensors_are_refused(refusal):
    header = {f"t{number}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for number in range(65_537)}
    text = json.dumps(header, separators=(",", ":")).encode()
    assert "tensors, above the bound" in refusal(len(text).to_bytes(8, "little") + text)


def set_in(path: str, value):
    def change(manifest):
        *parents, last = path.split(".")
        place = manifest
        for parent in parents:
            place = place[parent]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 2),
        ("format", "1"),
        ("format", True),
        ("format", None),
        ("architecture.kind", "llama"),
        ("architecture.activation", "gelu"),
        ("architecture.hidden", 0),
        ("architecture.hidden", -8),
        ("architecture.hidden", 9),
        ("architecture.hidden", 8.0),
        ("architecture.hidden", 2**60),
        ("architecture.hidden", 10**400),
        ("architecture.layers", 0),
        ("architecture.layers", 10**9),
        ("architecture.layers", 2),
        ("architecture.heads", 3),
        ("architecture.kv_heads", 2),
        ("architecture.head_dim", 7),
        ("architecture.vocab", 5),
        ("architecture.vocab", 3),
        ("architecture.context", 10**12),
        ("architecture.rope_theta", 0),
        ("architecture.rope_theta", -1.0),
        ("architecture.norm_eps", 1e300),
        ("architecture.norm_eps", "small"),
        ("architecture.tied_head", False),
        ("architecture.tied_head", 1),
        ("architecture.sub_norms", False),
        ("architecture.task_heads", {"x": {"layers": 1, "outputs": ["a"]}}),
        ("architecture.task_heads", {"../x": {"layers": 0, "outputs": ["a"]}}),
        ("architecture.task_heads", {"x": {"layers": 10**6, "outputs": ["a"]}}),
        ("architecture.task_heads", {f"x{n}": {"layers": 500, "outputs": ["a"]} for n in range(4000)}),
        ("architecture.extra", 1),
        ("quantisation.embed", "F16"),
        ("quantisation.embed", "U8"),
        ("quantisation.head", "F32"),
        ("tokenizer.kind", "tokenizers-json"),
        ("tokenizer.specials", {"bos": 4}),
        ("tokenizer.specials", {"bos": -1}),
        ("labels", ["a", "a"]),
        ("labels", ["Not A Name"]),
        ("labels", "looping"),
        ("calibration", {"thresholds": {"a": 1.5}, "temperature": {}, "details": {}}),
        ("calibration", {"thresholds": {}, "temperature": {"a": 0.0}, "details": {}}),
        ("golden", [{"tokens": [], "logits_sha256": "0" * 64, "heads_sha256": {}}]),
        ("golden", [{"tokens": [4], "logits_sha256": "0" * 64, "heads_sha256": {}}]),
        ("golden", [{"tokens": [0], "logits_sha256": "0" * 63, "heads_sha256": {}}]),
        ("golden", [{"tokens": [0], "logits_sha256": "0" * 64, "heads_sha256": {"x": "0" * 64}}]),
        ("golden", [{"tokens": [0], "logits_sha256": "0" * 64, "heads_sha256": {}}] * 65),
        ("screen", {"kind": "planes-4-1-1"}),
        ("screen", {"kind": "planes-8"}),
        ("screen", {}),
        ("screen", None),
        ("screen", True),
        ("model.id", ""),
        ("model.id", "a\nb"),
        ("licence", "x" * 1000),
        ("unknown", 1),
    ],
)
def test_a_manifest_that_lies_is_refused(small, refusal, path, value):
    refusal(with_manifest(small, set_in(path, value)))


@pytest.mark.parametrize("field", ["model", "architecture"])
def test_a_manifest_that_lacks_a_field_is_refused(small, refusal, field):
    assert field in refusal(with_manifest(small, lambda manifest: manifest.pop(field)))


def test_a_safetensors_file_that_is_no_package_is_named_as_such(tmp_path, refusal):
    from safetensors.numpy import save

    assert "no package" in refusal(save({"weight": np.zeros(4, dtype=np.float32)}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0])
def test_a_scale_that_is_no_scale_is_refused(small, refusal, value):
    def change(data):
        data[:] = np.array([value], dtype="<f4").tobytes()

    refusal(with_tensor(small, "trunk.0.up.scale", change))


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, -1.0, -0.0])
@pytest.mark.parametrize("name", ["screen.scales", "screen.norms", "screen.errors"])
def test_a_bound_of_the_screen_that_is_none_is_refused(screened, refusal, name, value):
    def change(data):
        data[-4:] = np.array([value], dtype="<f4").tobytes()

    assert name in refusal(with_tensor(screened, name, change))


@pytest.mark.parametrize("name", ["screen.nibbles", "screen.ones", "screen.halves", "screen.errors"])
def test_a_screen_of_another_shape_or_missing_is_refused(screened, refusal, name):
    header, body = split(screened)
    header[name]["shape"] = [1, *header[name]["shape"]]
    assert "the architecture demands" in refusal(join(header, body))
    header, body = split(screened)
    header[name.replace("screen", "scream")] = header.pop(name)
    assert f"lacks tensor {name}" in refusal(join(header, body))


def test_a_screen_that_the_manifest_does_not_name_is_refused(screened, refusal):
    assert "no part of the architecture" in refusal(with_manifest(screened, lambda manifest: manifest.pop("screen")))


@pytest.mark.parametrize("name", ["trunk.0.ffn_norm", "norm", "embed"])
def test_nan_in_real_weights_is_refused(small, refusal, name):
    def change(data):
        data[-4:] = np.array([np.nan], dtype="<f4").tobytes()

    assert "NaN" in refusal(with_tensor(small, name, change))


def test_a_code_3_is_refused(small, refusal):
    def change(data):
        data[5] |= 3

    assert "code 3" in refusal(with_tensor(small, "trunk.0.down", change))


def test_padding_weights_that_are_not_zero_are_refused(small, refusal):
    def change(data):
        data[15] = 0  # columns 15, 31, 47 and 63 of row 0: the matrix has 8 columns

    assert "padding columns" in refusal(with_tensor(small, "trunk.0.down", change))


def test_a_tokenizer_with_ids_beyond_the_vocabulary_is_refused(tiny, refusal):
    def raise_an_id(data):
        # The vocabulary's last id has three digits: make it 999.
        highest = b":%d}" % 319
        position = data.index(highest)
        data[position : position + len(highest)] = b":999}"

    assert "vocabulary of 320" in refusal(with_tensor(tiny, "tokenizer", raise_an_id))


def test_a_tokenizer_that_is_no_json_is_refused(tiny, refusal):
    assert "tokenizer" in refusal(with_tensor(tiny, "tokenizer", lambda data: data.__setitem__(0, ord("["))))


def test_large_packages_are_hashed_only_on_demand(small, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PACK_CHECK_AT_OPEN_BYTES_MAX", len(small) - 1)
    changed = bytearray(small)
    changed[-1] ^= 0x40
    path = tmp_path / "large.nis"
    path.write_bytes(changed)
    with open_package(path) as package, pytest.raises(PackFormatError, match="SHA-256"):
        package.check_content()


@pytest.mark.parametrize("make", ["folder", "missing", "pipe", "empty", "nul"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, make):
    path = tmp_path / "thing.nis"
    if make == "folder":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    elif make == "empty":
        path.touch()
    elif make == "nul":
        path = tmp_path / "a\0b"
    with pytest.raises(PackFormatError) as caught:
        open_package(path)
    if make in ("folder", "pipe"):
        assert "is no regular file" in str(caught.value)
