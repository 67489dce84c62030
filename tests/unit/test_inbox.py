"""The inbox: bounded everywhere, and one that floods drowns only itself."""

from __future__ import annotations

from nis_edge.inbox import SHARED_LANE, Inbox
from nis_edge.limits import INBOX_BYTES_MAX, INBOX_LANE_ITEMS_MAX, INBOX_LANES_MAX


def test_items_come_in_turn_from_each_sender_and_in_order_of_each() -> None:
    inbox: Inbox[str] = Inbox()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        inbox.put(item[0], item, 1)
    assert inbox.take(4) == ["a1", "b1", "c1", "a2"]
    assert inbox.take(9) == ["c2", "a3"]
    assert len(inbox) == 0


def test_a_flooding_sender_does_not_push_out_the_others() -> None:
    inbox: Inbox[str] = Inbox()
    inbox.put("quiet", "hello", 1)
    for number in range(10_000):
        inbox.put("loud", str(number), 1)
    assert "hello" in inbox.take(2)
    assert inbox.drain_drops() == {"loud": 10_000 - INBOX_LANE_ITEMS_MAX}
    assert inbox.drain_drops() == {}


def test_the_oldest_of_a_full_queue_makes_room() -> None:
    inbox: Inbox[int] = Inbox()
    for number in range(INBOX_LANE_ITEMS_MAX + 3):
        inbox.put("a", number, 1)
    assert inbox.take(1) == [3]


def test_made_up_names_share_one_queue_beyond_the_bound() -> None:
    inbox: Inbox[int] = Inbox()
    for number in range(INBOX_LANES_MAX * 10):
        inbox.put(f"agent-{number}", number, 1)
    assert len(inbox) == INBOX_LANES_MAX + INBOX_LANE_ITEMS_MAX
    assert set(inbox.drain_drops()) == {SHARED_LANE}


def test_bytes_are_bounded_and_who_holds_most_pays() -> None:
    inbox: Inbox[str] = Inbox()
    inbox.put("small", "kept", 100)
    for number in range(INBOX_LANE_ITEMS_MAX):
        inbox.put("big", str(number), INBOX_BYTES_MAX // 16)
    assert "kept" in inbox.take(2)
    assert set(inbox.drain_drops()) == {"big"}


def test_one_item_larger_than_the_whole_room_is_dropped_alone() -> None:
    inbox: Inbox[str] = Inbox()
    inbox.put("a", "kept", 1)
    inbox.put("b", "huge", INBOX_BYTES_MAX + 1)
    assert inbox.take(9) == ["kept"]


def test_the_first_item_wakes_and_the_next_does_not() -> None:
    woken: list[int] = []
    inbox: Inbox[int] = Inbox(lambda: woken.append(1))
    inbox.put("a", 1, 1)
    inbox.put("b", 2, 1)
    assert len(woken) == 1
    inbox.take(9)
    inbox.put("a", 3, 1)
    assert len(woken) == 2
