"""What a device takes: the verdict on an offer, and the documents it is read from."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nis_edge.errors import RollbackRefusedError, UntrustedMetadataError
from nis_edge.limits import UPDATE_DOCUMENT_BYTES_MAX
from nis_edge.pack.layout import Golden
from nis_edge.update.bundle import Bundle, bundle_topic, decode_bundle, encode_bundle
from nis_edge.update.facts import check_path
from nis_edge.update.journal import Floors, Journal, Slot
from nis_edge.update.offer import Device, Target, Verdict, golden_hash, judge
from nis_edge.update.rollout import Rollout, read_rollout, rollout_bucket
from nis_edge.update.time_floor import FLOOR_STEP_S, RELEASED_AT_S, TrustedTime, raised_floor, trusted_time

SHA = "a" * 64
DEVICE = Device(
    id="d", cohort="stable", hardware=frozenset({"aarch64", "pi-5"}), agent_version="0.2.0", memory_bytes=1000
)
ROLLOUT = Rollout(cohort="stable", serial=4, target="models/m/2.0.0.nis", sha256=SHA, length=10)
FACTS: dict[str, Any] = {"version": "2.0.0", "release_counter": 5, "hardware": ["pi-5"]}


def verdict(journal: Journal | None = None, rollout: Rollout = ROLLOUT, **facts: Any) -> Verdict:
    target = Target(path=ROLLOUT.target, length=10, sha256=SHA, custom={**FACTS, **facts})
    return judge(rollout, target, DEVICE, journal or Journal())


def test_a_new_model_that_fits_is_taken_with_its_counters() -> None:
    slot = verdict(security_epoch=2).slot
    assert slot == Slot(sha256=SHA, version="2.0.0", release_counter=5, security_epoch=2, length=10, serial=4)


def test_an_equal_release_counter_is_allowed_so_that_a_damaged_model_can_come_again() -> None:
    assert verdict(Journal(floors=Floors(release_counter=5))).slot is not None


def test_case_14_a_lower_release_counter_is_refused() -> None:
    answer = verdict(Journal(floors=Floors(release_counter=6)))
    assert (answer.slot, answer.refusal) == (None, RollbackRefusedError)


def test_the_installed_model_is_no_news_and_no_error() -> None:
    answer = verdict(Journal(active=Slot(sha256=SHA, version="2.0.0", release_counter=5)))
    assert (answer.slot, answer.refusal, answer.text) == (None, None, "2.0.0 is installed")


@pytest.mark.parametrize(
    "facts",
    [
        {"hardware": ["jetson"]},
        {"hardware": []},
        {"hardware": "pi-5"},
        {"minimum_agent": "0.10"},
        {"minimum_agent": "newest"},
        {"memory_bytes": 1001},
        {"release_counter": 0},
        {"release_counter": True},
        {"release_counter": "5"},
        {"version": "../2"},
        {"version": ""},
        {"golden_sha256": "zz"},
    ],
)
def test_what_does_not_fit_or_is_malformed_is_refused(facts: dict[str, Any]) -> None:
    answer = verdict(**facts)
    assert answer.slot is None
    assert answer.refusal is not None
    assert "running model stays" in answer.text


@pytest.mark.parametrize("minimum", ["0", "0.1.9", "0.2", "0.2.0"])
def test_an_agent_that_is_new_enough_is_enough(minimum: str) -> None:
    assert verdict(minimum_agent=minimum).slot is not None


@pytest.mark.parametrize("change", [{"sha256": "b" * 64}, {"length": 11}, {"target": "models/m/3.0.0.nis"}])
def test_case_12_a_rollout_that_differs_from_the_offline_signature_is_refused(change: dict[str, Any]) -> None:
    answer = verdict(rollout=msgspec.structs.replace(ROLLOUT, **change))
    assert answer.refusal is UntrustedMetadataError


def test_a_rollout_reaches_a_share_of_devices_that_only_grows() -> None:
    devices = [f"device-{n}" for n in range(2000)]
    reached: set[str] = set()
    for open_bp in (0, 1000, 5000, 10_000):
        now = {device for device in devices if rollout_bucket(ROLLOUT, device) < open_bp}
        assert reached <= now
        assert abs(len(now) / len(devices) - open_bp / 10_000) < 0.03
        reached = now
    assert verdict(rollout=msgspec.structs.replace(ROLLOUT, open_bp=0)).slot is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 10_000,
        b'{"cohort": "stable", "serial": 0, "target": "x", "sha256": "' + b"a" * 64 + b'", "length": 1}',
        b'{"cohort": "stable", "serial": 1, "target": "x", "sha256": "' + b"a" * 64 + b'", "length": 99999999999}',
        b'{"v": 2, "cohort": "stable", "serial": 1, "target": "x", "sha256": "' + b"a" * 64 + b'", "length": 1}',
        b" " * (UPDATE_DOCUMENT_BYTES_MAX + 1),
        msgspec.json.encode(msgspec.structs.replace(ROLLOUT, cohort="canary")),
    ],
)
def test_a_rollout_document_that_is_not_ours_is_refused(data: bytes) -> None:
    with pytest.raises(UntrustedMetadataError):
        read_rollout(data, "stable")


def test_a_rollout_document_reads_back() -> None:
    assert read_rollout(msgspec.json.encode(ROLLOUT), "stable") == ROLLOUT


@pytest.mark.parametrize(
    "path",
    ["models/../x.nis", "../x", "/models/m/1.nis", "models/m/1.nis/", "models/M/1.nis", "models/m/.nis", "models/m/1",
     "models/m/1.nis\n", "models//1.nis", "models/m/a%2e%2e.nis", "models\\m\\1.nis"],
)  # fmt: skip
def test_case_17_only_one_shape_of_target_name_passes(path: str) -> None:
    with pytest.raises(UntrustedMetadataError, match="target name"):
        check_path(path)


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_are_no_bundle_or_a_harmless_one(data: bytes) -> None:
    try:
        bundle = decode_bundle(data)
    except UntrustedMetadataError as error:
        assert "running model stays" in str(error)
    else:
        assert all(".." not in name and not name.startswith("/") for name in bundle.files)


def test_a_bundle_reads_back_and_has_one_encoding() -> None:
    files = {"timestamp.json": "{}", "1.root.json": "{}", f"rollout/{SHA}.stable.json": "{}"}
    data = encode_bundle(Bundle(cohort="stable", files=files))
    assert decode_bundle(data).files == files
    assert data == encode_bundle(Bundle(cohort="stable", files=dict(reversed(files.items()))))


def test_a_bundle_devices_would_not_read_is_not_made() -> None:
    with pytest.raises(ValueError, match="devices read at most"):
        encode_bundle(Bundle(cohort="stable", files={"1.root.json": "x" * 300_000}))


def test_a_bundle_lies_under_its_site_and_cohort() -> None:
    assert bundle_topic("lab", "stable") == "nis/v1/lab/ota/v1/stable/bundle"


def test_the_golden_hash_is_pinned_because_signatures_depend_on_it() -> None:
    golden = (Golden((1, 2), "0" * 64, {"b": "1" * 64, "a": "2" * 64}),)
    assert golden_hash(golden) == "00e6c90970d9023fe70d5e558402454b2bf3084a850cc55499121ebf5138a402"
    assert (
        golden_hash((Golden((1, 2), "0" * 64, {"a": "2" * 64, "b": "1" * 64}),))
        == "00e6c90970d9023fe70d5e558402454b2bf3084a850cc55499121ebf5138a402"
    )


# --- time -----------------------------------------------------------------------------------------------------------


def test_a_synchronised_clock_is_believed() -> None:
    now = RELEASED_AT_S + 1000
    assert trusted_time(now, synced=True, floor_s=0) == TrustedTime(now, "synced")


def test_an_unsynchronised_clock_is_never_believed_neither_slow_nor_fast() -> None:
    floor = RELEASED_AT_S + 500
    for wall in (0.0, 4_070_908_800.0):
        assert trusted_time(wall, synced=False, floor_s=floor) == TrustedTime(floor, "bounded")


def test_without_any_knowledge_time_is_at_least_the_release() -> None:
    assert trusted_time(0.0, synced=False, floor_s=0) == TrustedTime(RELEASED_AT_S, "unknown")


def test_case_20_an_unsynchronised_clock_never_raises_the_floor() -> None:
    now = trusted_time(4_070_908_800.0, synced=False, floor_s=RELEASED_AT_S)
    assert raised_floor(RELEASED_AT_S, now, None) == RELEASED_AT_S


def test_the_floor_rises_by_a_synchronised_clock_or_a_signed_date_and_never_falls() -> None:
    synced = TrustedTime(RELEASED_AT_S + 10 * FLOOR_STEP_S, "synced")
    assert raised_floor(RELEASED_AT_S, synced, None) == synced.reference_s
    unknown = TrustedTime(RELEASED_AT_S, "unknown")
    assert raised_floor(RELEASED_AT_S, unknown, RELEASED_AT_S + FLOOR_STEP_S) == RELEASED_AT_S + FLOOR_STEP_S
    assert raised_floor(synced.reference_s, unknown, 0.0) == synced.reference_s


def test_a_small_step_is_not_worth_a_write() -> None:
    assert raised_floor(RELEASED_AT_S, TrustedTime(RELEASED_AT_S + 60, "synced"), None) == RELEASED_AT_S


@pytest.mark.parametrize("issued", [1e15, float("inf"), float("nan")])
def test_an_absurd_signed_date_does_not_raise_the_floor(issued: float) -> None:
    unknown = TrustedTime(RELEASED_AT_S, "unknown")
    assert raised_floor(RELEASED_AT_S, unknown, issued) == RELEASED_AT_S
