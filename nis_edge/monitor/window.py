"""From a window to a prompt: the one definition of what the model is shown, for training and for the device.

    <goal> words  ( <ev> slot kind gap [repeats] novelty [numbers] [on-goal] [coverage] [status] [marks] words )*
    <win> repeats cycle errors conflicts open goal-covered off-goal order vague overclaim residual idle quiet similar
    <dev> ...  <ask>

In brackets stands what is left out where it does not apply or is none.

Special names stand for single tokens and carry everything code could measure; a value that is unknown has a token of
its own. Words of events are hostile text: they are cut, their control characters are blanked, and no text can spell a
special token, because specials never come out of encoding text. The newest events are kept until the bound of
``PROMPT_TOKENS_MAX`` would be passed, counting a text as its byte length or its cap, whichever is less: a byte-level
tokenizer never needs more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from nis_edge.monitor.context import NO_DEVICE, DeviceView, Window
from nis_edge.monitor.evidence import (
    FLAG_NAMES,
    EventEvidence,
    Evidence,
    event_text,
    gather,
    is_environment,
    is_user,
    quantise,
)
from nis_edge.wire.messages import AgentEvent

PROMPT_TOKENS_MAX: Final = 256
"""Positions of the smallest model (design, monitor section 3)."""

GOAL_TOKENS_MAX: Final = 24
EVENTS_SHOWN_MAX: Final = 8
"""Events shown one by one: evidence speaks for the older ones, and a shorter prompt answers sooner."""

NEW_TEXT_TOKENS_MAX: Final = 16
"""Tokens of text of the newest events ..."""
NEW_TEXT_EVENTS: Final = 3
OLD_TEXT_TOKENS_MAX: Final = 6
"""... and of those before them: what is being judged deserves the most room."""

EXCERPT_HEAD_CHARS: Final = 600
EXCERPT_TAIL_CHARS: Final = 200
"""Where an excerpt is taken from: more than it can hold, for runs of blanks are dropped."""

FLAGS_SHOWN_MAX: Final = 3
SLOTS: Final = 10
"""Agents told apart in one window; later ones share a slot."""

GAP_EDGES: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Seconds, logarithmic, 0.1 .. 1000."""
SHARE_EDGES: Final = (0.05, 0.2, 0.4, 0.7)
RATIO_EDGES: Final = (2.0, 4.0, 8.0, 20.0)
RESIDUAL_EDGES: Final = (0.02, 0.06, 0.25)
OVERCLAIM_EDGES: Final = (-0.2, 0.1, 0.3, 0.6)
Z_EDGES: Final = (-8.0, -5.0, -3.0, -1.5, 1.5, 3.0, 5.0, 8.0)
STALE_EDGES: Final = (10.0, 60.0, 300.0)
REPEATS_MAX: Final = 7
COUNT_MAX: Final = 3

KIND_NAMES: Final = {
    "message": "<msg>",
    "step": "<step>",
    "tool_call": "<call>",
    "tool_result": "<result>",
    "claim": "<claim>",
    "outcome": "<outcome>",
    "heartbeat": "<beat>",
    "error": "<error>",
    "goal": "<task>",
    "lifecycle": "<life>",
}


@dataclass(frozen=True)
class Special:
    """One token of the tokenizer, by name."""

    name: str


@dataclass(frozen=True)
class Text:
    """Words to encode and cut to ``max_tokens`` tokens."""

    text: str
    max_tokens: int


Piece = Special | Text


@dataclass(frozen=True)
class Prompt:
    """Pieces in order. Encoded one after the other they take at most ``PROMPT_TOKENS_MAX`` tokens."""

    pieces: tuple[Piece, ...]
    events_shown: int


class Encoder(Protocol):
    """What of a tokenizer a prompt needs."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; never those of specials."""
        ...

    def special(self, name: str) -> int:
        """Return the id of a special token."""
        ...


def _scale(stem: str, top: int, *, unknown: bool = True) -> tuple[str, ...]:
    return (*(f"<{stem}{i}>" for i in range(top + 1)), *((f"<{stem}?>",) if unknown else ()))


SPECIALS: Final[tuple[str, ...]] = (
    "<pad>", "<goal>", "<goal?>", "<ev>", "<win>", "<dev>", "<dev?>", "<ask>",
    *_scale("a", SLOTS - 1, unknown=False), "<a+>", "<user>", "<env>",
    *KIND_NAMES.values(),
    *_scale("dt", len(GAP_EDGES)), "<dt->",
    *_scale("rep", REPEATS_MAX, unknown=False),
    *_scale("new", len(SHARE_EDGES)),
    *_scale("num", COUNT_MAX, unknown=False),
    *_scale("gol", len(SHARE_EDGES), unknown=False),
    *_scale("cov", len(SHARE_EDGES), unknown=False),
    "<ok>", "<err>", "<ok?>",
    *_scale("conf", 4, unknown=False),
    *(f"<f_{name}>" for name in FLAG_NAMES),
    *_scale("loop", REPEATS_MAX, unknown=False), *_scale("cyc", 4, unknown=False), *_scale("bad", COUNT_MAX + 1),
    *_scale("con", COUNT_MAX, unknown=False), *_scale("opn", 2, unknown=False), *_scale("gcv", len(SHARE_EDGES)),
    *_scale("off", len(SHARE_EDGES)), *_scale("ord", 2, unknown=False), *_scale("vag", 1, unknown=False),
    *_scale("ovr", len(OVERCLAIM_EDGES)), *_scale("phy", len(RESIDUAL_EDGES)), *_scale("idl", len(GAP_EDGES)),
    *_scale("qui", len(RATIO_EDGES)), *_scale("sim", len(SHARE_EDGES)),
    *_scale("cpu", 9), *_scale("mem", 9), *_scale("tmp", 15), *_scale("thr", 1),
    *(f"<z{i:+d}>" for i in range(-4, 5)), "<z?>", "<trend->", "<trend0>", "<trend+>", "<trend?>",
    *_scale("stale", len(STALE_EDGES)),
)  # fmt: skip
"""Every special token, in the order of their ids from 0: a contract between the tokenizer and the device."""


def render(window: Window) -> Prompt:
    """Turn a window into the prompt the model is shown.

    Args:
        window: goal, events, device, time.

    Returns:
        The same pieces for the same window, on every machine; within ``PROMPT_TOKENS_MAX`` tokens once encoded.
    """
    return render_with(window, gather(window))


def render_with(window: Window, evidence: Evidence) -> Prompt:
    """Do what ``render`` does, for a caller who has the evidence at hand."""
    goal: list[Piece] = [Special("<goal?>")]
    if window.goal:
        goal = [Special("<goal>"), Text(_excerpt(window.goal, GOAL_TOKENS_MAX), GOAL_TOKENS_MAX)]
    tail = [Special(name) for name in (*_window_names(evidence), *_device_names(window.device), "<ask>")]
    room = PROMPT_TOKENS_MAX - _bound(goal) - len(tail)
    slots = _slots(window.events)
    blocks: list[list[Piece]] = []
    oldest = max(0, len(window.events) - EVENTS_SHOWN_MAX)
    for age, index in enumerate(range(len(window.events) - 1, oldest - 1, -1)):
        cap = NEW_TEXT_TOKENS_MAX if age < NEW_TEXT_EVENTS else OLD_TEXT_TOKENS_MAX
        event = window.events[index]
        # The goal stands in front already.
        cap = 0 if event.kind == "goal" and event.text == window.goal else cap
        block = _event_pieces(event, evidence.events[index], slots, cap)
        room -= _bound(block)
        if room < 0:
            break
        blocks.append(block)
    middle = [piece for block in reversed(blocks) for piece in block]
    return Prompt(pieces=(*goal, *middle, *tail), events_shown=len(blocks))


def encode(prompt: Prompt, tokenizer: Encoder) -> list[int]:
    """Return the prompt's token ids.

    Args:
        prompt: from ``render``.
        tokenizer: the package's; knows every name of ``SPECIALS``.

    Raises:
        ModelError: the package's tokenizer lacks a special token; the builder of the model acts.
    """
    ids: list[int] = []
    for piece in prompt.pieces:
        if isinstance(piece, Special):
            ids.append(tokenizer.special(piece.name))
        else:
            ids.extend(tokenizer.encode(piece.text)[: piece.max_tokens])
    return ids


def _bound(pieces: list[Piece]) -> int:
    """The most tokens that pieces can take: a byte-level token holds at least one byte."""
    return sum(1 if isinstance(piece, Special) else min(piece.max_tokens, len(piece.text.encode())) for piece in pieces)


def _excerpt(text: str, tokens: int) -> str:
    """Start and end of a text in one line, about as long as the tokens it will be cut to."""
    line = _one_line(text[:EXCERPT_HEAD_CHARS])
    room = 4 * tokens
    if len(text) <= EXCERPT_HEAD_CHARS and len(line) <= room:
        return line
    end = _one_line(text[-EXCERPT_TAIL_CHARS:])[-(room // 3) :]
    return f"{line[: room - len(end) - 1]}~{end}"


def _one_line(text: str) -> str:
    """The words of a text with single spaces; what can't be printed counts as space."""
    words = []
    for word in text.split():
        if word.isprintable():
            words.append(word)
        else:
            words += "".join(c if c.isprintable() else " " for c in word).split()
    return " ".join(words)


def _slots(events: tuple[AgentEvent, ...]) -> dict[str, str]:
    """Agents as slots by order of appearance: names carry no weight, so that a forged name gains nothing."""
    slots: dict[str, str] = {}
    taken = 0
    for event in events:
        if event.agent in slots:
            continue
        if is_user(event):
            slots[event.agent] = "<user>"
        elif is_environment(event):
            slots[event.agent] = "<env>"
        else:
            slots[event.agent] = f"<a{taken}>" if taken < SLOTS else "<a+>"
            taken += 1
    return slots


def _event_pieces(event: AgentEvent, seen: EventEvidence, slots: dict[str, str], cap: int) -> list[Piece]:
    names = ["<ev>", slots[event.agent], KIND_NAMES[event.kind], *_event_names(event, seen)]
    pieces: list[Piece] = [Special(name) for name in names]
    text = _excerpt(event_text(event), cap) if cap else ""
    if text:
        pieces.append(Text(text, cap))
    return pieces


def _event_names(event: AgentEvent, seen: EventEvidence) -> Iterator[str]:
    if seen.gap_s is not None and seen.gap_s < 0:
        yield "<dt->"
    else:
        yield _binned("dt", seen.gap_s, GAP_EDGES)
    if seen.repeats:
        yield f"<rep{min(seen.repeats, REPEATS_MAX)}>"
    yield _binned("new", seen.novelty, SHARE_EDGES)
    if seen.unsourced:
        yield f"<num{min(seen.unsourced, COUNT_MAX)}>"
    if seen.on_goal is not None and event.kind != "heartbeat":
        yield _binned("gol", seen.on_goal, SHARE_EDGES)
    if seen.coverage is not None:
        yield _binned("cov", seen.coverage, SHARE_EDGES)
    if seen.failed is not None:
        yield "<err>" if seen.failed else "<ok>"
    elif event.kind in ("tool_result", "outcome"):
        yield "<ok?>"
    if event.confidence is not None:
        yield f"<conf{min(int(event.confidence * 5), 4)}>"
    yield from [f"<f_{name}>" for name in FLAG_NAMES if name in seen.flags][:FLAGS_SHOWN_MAX]


def _window_names(evidence: Evidence) -> Iterator[str]:
    yield "<win>"
    yield f"<loop{min(evidence.repeats_max, REPEATS_MAX)}>"
    yield f"<cyc{evidence.cycle}>"
    yield "<bad?>" if evidence.errors is None else f"<bad{min(evidence.errors, COUNT_MAX + 1)}>"
    yield f"<con{min(evidence.conflicts, COUNT_MAX)}>"
    yield f"<opn{min(evidence.open_requests, 2)}>"
    yield _binned("gcv", evidence.goal_covered, SHARE_EDGES)
    yield _binned("off", evidence.off_goal, SHARE_EDGES)
    yield f"<ord{evidence.order}>"
    yield f"<vag{min(evidence.vague_acted, 1)}>"
    yield _binned("ovr", evidence.overclaim, OVERCLAIM_EDGES)
    yield _binned("phy", evidence.residual, RESIDUAL_EDGES)
    yield _binned("idl", evidence.idle_s, GAP_EDGES)
    yield _binned("qui", evidence.quiet_ratio, RATIO_EDGES)
    yield _binned("sim", evidence.events[-1].similarity if evidence.events else None, SHARE_EDGES)


def _device_names(device: DeviceView) -> Iterator[str]:
    if device == NO_DEVICE:
        yield "<dev?>"
        return
    yield "<dev>"
    yield _tenth("cpu", device.cpu_percent)
    yield _tenth("mem", device.memory_percent)
    # 5 degree steps from 20 to 95 degrees Celsius: below and above nothing more is to be told apart.
    yield "<tmp?>" if device.temperature_c is None else f"<tmp{_clamp(int((device.temperature_c - 20) // 5), 0, 15)}>"
    yield "<thr?>" if device.throttled is None else f"<thr{int(device.throttled)}>"
    yield "<z?>" if device.z is None else f"<z{quantise(device.z, Z_EDGES) - 4:+d}>"
    yield "<trend?>" if device.trend is None else ("<trend->", "<trend0>", "<trend+>")[_clamp(device.trend, -1, 1) + 1]
    yield _binned("stale", device.stale_s, STALE_EDGES)


def _binned(stem: str, value: float | None, edges: tuple[float, ...]) -> str:
    return f"<{stem}?>" if value is None else f"<{stem}{quantise(value, edges)}>"


def _tenth(stem: str, percent: float | None) -> str:
    return f"<{stem}?>" if percent is None else f"<{stem}{_clamp(int(percent // 10), 0, 9)}>"


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))
