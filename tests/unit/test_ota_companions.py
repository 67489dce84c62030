"""Block lists and deltas: what is signed of them, how small they are, what serves them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import zstandard
from nis_ota import cli
from nis_ota.companions import BLOCK_BYTES, block_list, line_up, make_delta
from nis_ota.serving import BURST_BYTES, BlockServer

from nis_edge.limits import KIB
from nis_edge.pack.layout import tensor_table
from nis_edge.pack.reader import open_package
from nis_edge.pack.ternary import TernaryMatrix
from nis_edge.pack.writer import write_package
from nis_edge.update.blocks import BlockRequest, encode_request, read_block, read_blocks
from nis_edge.update.delta import HEADER_BYTES_MAX, WINDOW_LOG_MAX, Segment, read_header, xored
from nis_edge.update.facts import encode_facts, read_facts
from nis_edge.wire.topics import Topics
from tests.support.tiny_models import tiny_manifest, tiny_tensors
from tests.support.update_world import golden_package

CHANGED = 0.01


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _fd: None)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two packages of a megabyte with random ternary weights, of which one in a hundred differs by one step."""
    folder = tmp_path_factory.mktemp("pair")
    manifest = tiny_manifest(tokenizer=False, context=32, hidden=256, ffn=1024, head_dim=64, layers=3)
    tensors = tiny_tensors(manifest)
    rng = np.random.default_rng(7)
    newer, changed, weights = dict(tensors), 0, 0
    for name, matrix in tensors.items():
        if not isinstance(matrix, TernaryMatrix):
            continue
        codes = rng.integers(-1, 2, (matrix.rows, matrix.columns), dtype=np.int8)
        tensors[name] = TernaryMatrix.from_codes(codes, matrix.scale)
        flips = rng.random(codes.shape) < CHANGED
        moved = (codes + 1 + rng.integers(1, 3, codes.shape)) % 3 - 1
        newer[name] = TernaryMatrix.from_codes(np.where(flips, moved, codes).astype(np.int8), matrix.scale)
        changed, weights = changed + int(flips.sum()), weights + codes.size
    assert 0.009 < changed / weights < 0.011
    write_package(folder / "old.nis", manifest, tensors)
    write_package(folder / "new.nis", manifest, newer)
    return folder / "old.nis", folder / "new.nis"


def apply(base: Path, delta: Path) -> bytes:
    """What a device makes of them, with the memory the format allows."""
    data, old = delta.read_bytes(), base.read_bytes()
    header = read_header(data[:HEADER_BYTES_MAX])
    frame = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG_MAX).stream_reader(data[header.encoded_bytes :])
    return b"".join(xored(header, iter(lambda: frame.read(1 << 16), b""), lambda size, at: old[at : at + size]))


def test_a_delta_of_one_per_cent_changed_weights_is_at_most_a_tenth_of_the_package_and_gives_it_back(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = pair
    signed = make_delta(old, new, tmp_path / "delta")
    assert apply(old, tmp_path / "delta") == new.read_bytes()
    assert signed.length == (tmp_path / "delta").stat().st_size
    assert new.stat().st_size > 700_000
    assert signed.length <= 0.10 * new.stat().st_size, signed.length / new.stat().st_size
    assert signed.sha256 == hashlib.sha256((tmp_path / "delta").read_bytes()).hexdigest()
    assert signed.base_sha256 == hashlib.sha256(old.read_bytes()).hexdigest()


def test_tensors_line_up_by_name_when_the_header_has_grown(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, _ = pair
    with open_package(old) as package:
        manifest = package.manifest
        names = {spec.name: package.tensors[spec.name] for spec in tensor_table(manifest)}
        from msgspec.structs import replace

        longer = replace(manifest, model=replace(manifest.model, id="tiny-" + "x" * 99))
        write_package(tmp_path / "new.nis", longer, names)
    head, *rest = line_up(old, tmp_path / "new.nis")
    assert head.base_offset is None
    assert all(part.base_offset is not None for part in rest)
    signed = make_delta(old, tmp_path / "new.nis", tmp_path / "delta")
    assert apply(old, tmp_path / "delta") == (tmp_path / "new.nis").read_bytes()
    assert signed.length < 0.02 * old.stat().st_size


def test_equal_layouts_become_one_segment(pair: tuple[Path, Path]) -> None:
    assert line_up(*pair) == (Segment(pair[1].stat().st_size, 0),)


def test_a_block_list_names_the_hash_of_every_block(pair: tuple[Path, Path]) -> None:
    data, signed = block_list(pair[0])
    blocks, content = read_blocks(data), pair[0].read_bytes()
    assert signed.sha256 == hashlib.sha256(data).hexdigest()
    for index in (0, len(blocks.hashes) - 1):
        offset, length = blocks.span(index)
        assert blocks.is_right(index, content[offset : offset + length])


def test_a_listed_model_is_published_with_its_block_list_and_deltas_and_verify_reads_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, www = tmp_path / "fleet", tmp_path / "www"
    for version, seed in (("1.0.0", 0), ("1.1.0", 1), ("1.2.0", 2)):
        golden_package(tmp_path / f"{version}.nis", version, seed)
    assert run("init-repo", fleet, "--quick") == 0
    assert run("add-target", fleet, tmp_path / "1.0.0.nis", "--release-counter", 1) == 0
    words = ["--delta-from", "models/tiny/1.0.0.nis"]
    assert run("add-target", fleet, tmp_path / "1.1.0.nis", "--release-counter", 2, *words) == 0
    assert run("add-target", fleet, tmp_path / "1.2.0.nis", "--release-counter", 3, "--offer-to", "stable") == 0
    for base in ("1.0.0", "1.1.0", "1.1.0"):
        assert run("make-delta", fleet, "models/tiny/1.2.0.nis", "--from", f"models/tiny/{base}.nis") == 0
    assert run("publish", fleet, "--to", www) == 0
    names = sorted(path.name.partition(".")[2] for path in (www / "targets" / "models" / "tiny").iterdir())
    once = ["1.0.0.nis", "1.1.0.nis", "1.2.0.nis", "1.0.0.blocks", "1.1.0.delta"]
    assert names == sorted([*once, *2 * ["1.1.0.blocks", "1.2.0.delta"], *3 * ["1.2.0.blocks"]])
    verify = ["verify", www, "--root", fleet / "metadata" / "1.root.json"]
    assert run(*verify) == 0
    delta = next((www / "targets" / "models" / "tiny").glob("*.1.2.0.delta"))
    delta.write_bytes(delta.read_bytes()[:-1])
    capsys.readouterr()
    assert run(*verify) == 1
    assert "is not what was signed" in capsys.readouterr().err


def test_bounds_of_trial_and_shadow_are_signed_and_defaults_cost_no_metadata(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    golden_package(tmp_path / "p.nis", "1.0.0")
    assert run("init-repo", fleet, "--quick") == 0
    words = ["--watts-max", 8, "--latency-ms-max", 50, "--shadow-windows", 20, "--agreement-min", 0.9]
    assert run("add-target", fleet, tmp_path / "p.nis", "--release-counter", 1, *words) == 0
    signed = json.loads((fleet / "metadata" / "2.models.json").read_bytes())["signed"]
    custom = signed["targets"]["models/tiny/1.0.0.nis"]["custom"]
    assert custom["bounds"]["watts_max"] == 8
    assert custom["bounds"]["shadow"]["agreement_min"] == "0.9"  # canonical JSON knows no floats
    facts = read_facts(custom)
    assert facts.bounds.shadow is not None
    assert (facts.bounds.watts_max, facts.bounds.shadow.agreement_min, facts.bounds.rss_bytes_max) == (8.0, 0.9, None)
    assert encode_facts(facts) == custom
    assert "minimum_agent" not in custom
    assert "kernel_abi" not in custom


class Served:
    """A block server with a clock that a test moves."""

    def __init__(self, path: Path, **rates: float) -> None:
        self.now, self.sent = 0.0, list[tuple[str, bytes]]()
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.server = BlockServer(
            {self.sha256: path}, lambda topic, data: self.sent.append((topic, data)), lambda: self.now,
            **{"device_rate": 64_000.0, "total_rate": 1e9, **rates},
        )  # fmt: skip

    def ask(self, device: str, wanted: tuple[int, ...], first: int = 0, sha256: str | None = None) -> None:
        request = BlockRequest(sha256 or self.sha256, BLOCK_BYTES, first, 8, wanted)
        self.server.ask(Topics("lab", device).ota_request, encode_request(request))

    def pump(self) -> list[str]:
        """Whom the next blocks went to."""
        self.wait = self.server.pump()
        found = [topic.split("/")[3] for topic, _ in self.sent]
        self.sent.clear()
        return found


def test_blocks_that_are_asked_for_come_and_match_the_signed_list(pair: tuple[Path, Path]) -> None:
    served, blocks = Served(pair[0]), read_blocks(block_list(pair[0])[0])
    last = len(blocks.hashes) - 1
    served.ask("gw-1", (0, 2, 5), first=last - 5)
    assert served.server.pump() is None
    answers = [read_block(data) for _, data in served.sent]
    assert [answer.index for answer in answers] == [last - 5, last - 3, last]
    assert all(blocks.is_right(answer.index or 0, answer.data) for answer in answers)
    assert {topic for topic, _ in served.sent} == {"nis/v1/lab/gw-1/ota/block"}


def test_a_device_gets_its_rate_and_no_more_however_often_it_asks(pair: tuple[Path, Path]) -> None:
    served = Served(pair[0])
    count = 0
    for _ in range(400):
        served.ask("greedy", tuple(range(8)))
        count += len(served.pump())
        served.now += 0.25
    assert count * BLOCK_BYTES <= 64_000 * served.now + BURST_BYTES
    assert count * BLOCK_BYTES >= 0.95 * 64_000 * served.now


def test_a_greedy_device_does_not_slow_another_and_what_waits_is_sent_when_its_time_comes(
    pair: tuple[Path, Path],
) -> None:
    served = Served(pair[0])
    for _ in range(4):
        served.ask("greedy", tuple(range(8)))
        served.pump()
    served.ask("greedy", tuple(range(8)))
    served.ask("calm", (1, 2))
    assert served.pump().count("calm") == 2
    assert served.wait is not None
    served.now += served.wait + 1e-6
    assert served.pump() == ["greedy"]


def test_all_devices_together_stay_below_the_server_s_rate(pair: tuple[Path, Path]) -> None:
    served, count = Served(pair[0], total_rate=100_000.0), 0
    for step in range(200):
        served.ask(f"d-{step % 20}", tuple(range(8)))
        count += len(served.pump())
        served.now += 1.0
    assert count * BLOCK_BYTES <= 100_000 * served.now + BURST_BYTES


def test_a_device_is_told_what_it_cannot_have_and_malformed_requests_are_only_counted(
    pair: tuple[Path, Path],
) -> None:
    served = Served(pair[0])
    served.ask("gw-1", (0,), sha256="f" * 64)
    served.ask("gw-1", (0,), first=100_000)
    reasons = [read_block(data).refusal for _, data in served.sent]
    assert "no such file" in (reasons[0] or "")
    assert "blocks" in (reasons[1] or "")
    served.sent.clear()
    for topic, payload in (("nis/v1/lab/gw-1/ota/request", b"junk"), ("nis/v1/lab/GW 1/ota/request", b""), ("x", b"")):
        served.server.ask(topic, payload)
    assert served.sent == []
    assert served.server.served.malformed == 3


def test_many_devices_are_remembered_only_up_to_a_bound(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nis_ota.serving.DEVICES_MAX", 10)
    served = Served(pair[0], total_rate=1.0)
    for n in range(100):
        served.ask(f"d-{n}", (0,))
    served.pump()
    assert len(served.server._pending) <= 10
    assert len(served.server._buckets) <= 10
    assert BLOCK_BYTES == 32 * KIB


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])
