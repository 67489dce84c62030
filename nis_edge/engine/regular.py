"""Regular languages over bytes: patterns, and the smallest table of states that recognises one.

A pattern is a small tree of ``Bytes``, ``Chars``, ``Sequence``, ``Choice``, ``Repeat``, ``Joined`` and ``Listing``;
``parse`` reads it from a regular expression, ``compile_pattern`` makes the table. Characters are Unicode and are
matched as their UTF-8 bytes, so that a token may end inside of one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from nis_edge.errors import ConfigError

STATES_MAX: Final = 8192
"""States of a table (NIS_CONSTRAINT_STATES_MAX), and of the machine it is made from eight times as many."""

NODES_MAX: Final = 8 * STATES_MAX

REPEATS_MAX: Final = 1000
"""The largest count in {m,n}."""

PATTERN_CHARS_MAX: Final = 10_000
NESTING_MAX: Final = 64

DEAD: Final = 0xFFFF

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Sorted, disjoint, inclusive ranges of code points."""

_LAST: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Exactly these bytes."""

    value: bytes


@dataclasses.dataclass(frozen=True)
class Chars:
    """One character of a set."""

    ranges: Ranges


@dataclasses.dataclass(frozen=True)
class Sequence:
    """One after the other."""

    parts: tuple[Pattern, ...]


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of them."""

    parts: tuple[Pattern, ...]


@dataclasses.dataclass(frozen=True)
class Repeat:
    """``least`` to ``most`` times; most None: without end."""

    part: Pattern
    least: int
    most: int | None


@dataclasses.dataclass(frozen=True)
class Joined:
    """One or more times, without end, with a separator in between."""

    part: Pattern
    separator: Pattern


@dataclasses.dataclass(frozen=True)
class Listing:
    """Parts in their order with a separator between those present; each is demanded or not."""

    parts: tuple[tuple[Pattern, bool], ...]
    separator: Pattern


Pattern: TypeAlias = Bytes | Chars | Sequence | Choice | Repeat | Joined | Listing

EMPTY: Final = Sequence(())


def text(value: str) -> Bytes:
    """Exactly this text."""
    return Bytes(value.encode())


def optional(part: Pattern) -> Repeat:
    """The part or nothing."""
    return Repeat(part, 0, 1)


# --- sets of characters ----------------------------------------------------------------------------------------------


def normal(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sort ranges, join those that touch, take surrogates out: they are no characters of UTF-8."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    result = []
    for low, high in joined:
        if low < _SURROGATES[0]:
            result.append((low, min(high, _SURROGATES[0] - 1)))
        if high > _SURROGATES[1]:
            result.append((max(low, _SURROGATES[1] + 1), high))
    return tuple(result)


def inverted(ranges: Ranges) -> Ranges:
    """All other characters."""
    result, start = [], 0
    for low, high in normal(ranges):
        if start < low:
            result.append((start, low - 1))
        start = high + 1
    if start <= _LAST:
        result.append((start, _LAST))
    return normal(result)


def intersected(left: Ranges, right: Ranges) -> Ranges:
    """Characters in both."""
    return inverted(normal([*inverted(left), *inverted(right)]))


DIGITS: Final[Ranges] = ((0x30, 0x39),)
WORD: Final[Ranges] = normal([(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)])
SPACE: Final[Ranges] = normal([(0x09, 0x0D), (0x20, 0x20)])
ANY: Final[Ranges] = inverted(((0x0A, 0x0A),))
_CLASSES: Final = {"d": DIGITS, "w": WORD, "s": SPACE}
_CONTROLS: Final = {"n": 0x0A, "t": 0x09, "r": 0x0D, "f": 0x0C, "v": 0x0B, "0": 0}


def utf8_sequences(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Split a range of code points into sequences of byte ranges, each the product of its parts."""
    for last, _ in ((0x7F, 1), (0x7FF, 2), (0xFFFF, 3), (_LAST, 4)):
        if low > last:
            continue
        yield from _same_length(low, min(high, last))
        low = last + 1
        if low > high:
            return


def _same_length(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Ranges whose ends are encoded in as many bytes: cut until the tails are whole."""
    first, last = chr(low).encode("utf-8", "surrogatepass"), chr(high).encode("utf-8", "surrogatepass")
    for index in range(1, len(first)):
        below = (1 << 6 * (len(first) - index)) - 1
        if low & ~below != high & ~below:
            if low & below:
                yield from _same_length(low, low | below)
                yield from _same_length((low | below) + 1, high)
                return
            if high & below != below:
                yield from _same_length(low, (high & ~below) - 1)
                yield from _same_length(high & ~below, high)
                return
    yield tuple(zip(first, last, strict=True))


# --- reading a regular expression ------------------------------------------------------------------------------------


def parse(expression: str) -> Pattern:
    """Read a regular expression; it describes the whole text.

    Known are literals, ``.``, classes ``[...]``, ``\\d \\w \\s`` (ASCII) and their opposites,
    ``\\n \\t \\r \\f \\v \\0``, ``\\xHH``, ``\\uHHHH``, groups ``(...)`` and ``(?:...)``, ``|``,
    ``* + ? {m} {m,} {m,n}``, and ``^`` and ``$`` at the ends.

    Raises:
        ConfigError: not such an expression, naming the place and what is not known.
    """
    if len(expression) > PATTERN_CHARS_MAX:
        raise ConfigError(f"the pattern has {len(expression)} characters, at most {PATTERN_CHARS_MAX} are taken")
    return _Reader(expression).whole()


class _Reader:
    """A recursive descent over the characters of an expression."""

    def __init__(self, expression: str) -> None:
        self._text = expression
        self._at = 0
        self._depth = 0

    def whole(self) -> Pattern:
        if self._text.startswith("^"):
            self._at = 1
        end = len(self._text)
        trailing = len(self._text[:-1]) - len(self._text[:-1].rstrip("\\"))
        if self._text.endswith("$") and trailing % 2 == 0 and end > self._at:
            self._text = self._text[:-1]
        pattern = self._choice()
        if self._at < len(self._text):
            raise self._wrong("a ) without its (")
        return pattern

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(f"the pattern at character {self._at + 1}: {what}")

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise self._wrong("it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _choice(self) -> Pattern:
        self._depth += 1
        if self._depth > NESTING_MAX:
            raise self._wrong(f"more than {NESTING_MAX} groups inside each other")
        parts = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            parts.append(self._sequence())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self) -> Pattern:
        parts: list[Pattern] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self, part: Pattern) -> Pattern:
        sign = self._peek()
        if sign not in ("*", "+", "?", "{"):
            return part
        self._at += 1
        if sign == "{":
            least, most = self._bounds()
        else:
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        if self._peek() in ("?", "+"):
            raise self._wrong(f"{sign}{self._peek()} (lazy or possessive repetition) is not supported")
        if self._peek() in ("*", "{"):
            raise self._wrong("nothing to repeat; put the repetition in a group")
        return Repeat(part, least, most)

    def _bounds(self) -> tuple[int, int | None]:
        closing = self._text.find("}", self._at)
        words = self._text[self._at : closing].split(",") if closing >= 0 else []
        if not 1 <= len(words) <= 2 or not all(w == "" or (w.isascii() and w.isdigit() and len(w) < 5) for w in words):
            raise self._wrong("a repetition is written {m}, {m,} or {m,n}")
        if words[0] == "":
            raise self._wrong("a repetition is written {m}, {m,} or {m,n}")
        least = int(words[0])
        most = least if len(words) == 1 else int(words[1]) if words[1] else None
        if max(least, most or 0) > REPEATS_MAX:
            raise self._wrong(f"more than {REPEATS_MAX} repetitions")
        if most is not None and most < least:
            raise self._wrong(f"{{{least},{most}}} allows nothing")
        self._at = closing + 1
        return least, most

    def _atom(self) -> Pattern:
        char = self._next()
        if char == "(":
            if self._peek() == "?":
                if self._text[self._at : self._at + 2] != "?:":
                    raise self._wrong("groups that begin with (? are not supported, but (?:...) is")
                self._at += 2
            inner = self._choice()
            if self._peek() != ")":
                raise self._wrong("a ( without its )")
            self._at += 1
            return inner
        if char == "[":
            return Chars(self._set())
        if char == ".":
            return Chars(ANY)
        if char == "\\":
            ranges = self._escape()
            return Chars(ranges)
        if char in "*+?{":
            raise self._wrong(f"nothing to repeat before {char}")
        if char in "^$":
            raise self._wrong(f"{char} is supported at the ends of the pattern only")
        if _SURROGATES[0] <= ord(char) <= _SURROGATES[1]:
            raise self._wrong("a lone surrogate is no character")
        return text(char)

    def _escape(self) -> Ranges:
        char = self._next()
        if char in _CLASSES:
            return _CLASSES[char]
        if char.lower() in _CLASSES:
            return inverted(_CLASSES[char.lower()])
        if char in _CONTROLS:
            return ((_CONTROLS[char], _CONTROLS[char]),)
        if char in "xu":
            digits = self._text[self._at : self._at + (2 if char == "x" else 4)]
            if len(digits) != (2 if char == "x" else 4) or not all(d in "0123456789abcdefABCDEF" for d in digits):
                raise self._wrong(f"\\{char} needs hexadecimal digits")
            self._at += len(digits)
            code = int(digits, 16)
            if not normal([(code, code)]):
                raise self._wrong("a surrogate is no character")
            return ((code, code),)
        if char.isalnum():
            raise self._wrong(f"\\{char} is not supported")
        return ((ord(char), ord(char)),)

    def _set(self) -> Ranges:
        opposite = self._peek() == "^"
        self._at += opposite
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            if not self._peek():
                raise self._wrong("a [ without its ]")
            low = self._member()
            first = False
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._member()
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
                    raise self._wrong("a range in [ ] needs a single character on each side")
                if high[0][0] < low[0][0]:
                    raise self._wrong("a range in [ ] runs backwards")
                ranges.append((low[0][0], high[0][0]))
            else:
                ranges.extend(low)
        self._at += 1
        result = inverted(normal(ranges)) if opposite else normal(ranges)
        if not result:
            raise self._wrong("a [ ] that allows no character")
        return result

    def _member(self) -> Ranges:
        char = self._next()
        return self._escape() if char == "\\" else ((ord(char), ord(char)),)


# --- from a pattern to a table ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Table:
    """A deterministic machine over bytes; state 0 is the start.

    Attributes:
        next: uint16 [states, 256]: the state a byte leads to, or DEAD.
        accepting: uint8 [states]: 1 where the text may end.
    """

    next: npt.NDArray[np.uint16]
    accepting: npt.NDArray[np.uint8]

    def accepts(self, data: bytes) -> bool:
        """Whether these bytes are a text of the language."""
        state = 0
        for byte in data:
            state = int(self.next[state, byte])
            if state == DEAD:
                return False
        return bool(self.accepting[state])


def compile_pattern(pattern: Pattern) -> Table:
    """Make the smallest table of a pattern.

    Raises:
        ConfigError: the language is empty, or its table would have more than STATES_MAX states.
    """
    machine = _Machine()
    start = machine.node()
    accept = machine.add(pattern, start)
    return _smallest(*_determined(machine, start, accept))


class _Machine:
    """A nondeterministic machine: byte ranges and free steps from node to node."""

    def __init__(self) -> None:
        self.free: list[list[int]] = []
        self.ranges: list[list[tuple[int, int, int]]] = []

    def node(self) -> int:
        if len(self.free) >= NODES_MAX:
            raise ConfigError(
                f"the constraint is too large: more than {NODES_MAX} nodes; allow shorter or fewer things"
            )
        self.free.append([])
        self.ranges.append([])
        return len(self.free) - 1

    def add(self, pattern: Pattern, start: int) -> int:
        """Add a pattern that begins at a node; return the node where it ends."""
        if isinstance(pattern, Bytes):
            for byte in pattern.value:
                start = self._step(start, byte, byte)
            return start
        if isinstance(pattern, Sequence):
            for part in pattern.parts:
                start = self.add(part, start)
            return start
        end = self.node()
        if isinstance(pattern, Chars):
            for low, high in pattern.ranges:
                for sequence in utf8_sequences(low, high):
                    at = start
                    for first, last in sequence[:-1]:
                        at = self._step(at, first, last)
                    self.ranges[at].append((*sequence[-1], end))
        elif isinstance(pattern, Choice):
            for part in pattern.parts:
                self.free[self.add(part, self._after(start))].append(end)
        elif isinstance(pattern, Repeat):
            at = self._after(start)
            for _ in range(pattern.least):
                at = self.add(pattern.part, at)
            if pattern.most is None:
                loop = self._after(at)
                self.free[self.add(pattern.part, loop)].append(loop)
                at = loop
            else:
                for _ in range(pattern.most - pattern.least):
                    self.free[at].append(end)
                    at = self.add(pattern.part, self._after(at))
            self.free[at].append(end)
        elif isinstance(pattern, Joined):
            loop = self._after(start)
            done = self.add(pattern.part, loop)
            self.free[self.add(pattern.separator, self._after(done))].append(loop)
            self.free[done].append(end)
        else:
            self._add_listing(pattern, start, end)
        return end

    def _add_listing(self, pattern: Listing, start: int, end: int) -> None:
        bare, after = self._after(start), self.node()  # nothing yet, and after a part
        for part, demanded in pattern.parts:
            body = self.node()
            self.free[bare].append(body)
            self.free[self.add(pattern.separator, after)].append(body)
            done, next_bare, next_after = self.add(part, body), self.node(), self.node()
            self.free[done].append(next_after)
            if not demanded:
                self.free[bare].append(next_bare)
                self.free[after].append(next_after)
            bare, after = next_bare, next_after
        self.free[bare].append(end)
        self.free[after].append(end)

    def _after(self, node: int) -> int:
        new = self.node()
        self.free[node].append(new)
        return new

    def _step(self, start: int, low: int, high: int) -> int:
        new = self.node()
        self.ranges[start].append((low, high, new))
        return new


def _byte_classes(machine: _Machine) -> npt.NDArray[np.int64]:
    """Bytes that no node tells apart share a number: [256]."""
    cuts = {0}
    for ranges in machine.ranges:
        for low, high, _ in ranges:
            cuts.update((low, high + 1))
    marks = np.zeros(257, dtype=np.int64)
    marks[sorted(cuts)] = 1
    return np.cumsum(marks)[:256] - 1


def _determined(
    machine: _Machine, start: int, accept: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Subset construction: next [states, classes] (-1: dead), accepting [states], class of each byte [256]."""
    classes = _byte_classes(machine)
    count = int(classes[-1]) + 1
    edges: list[list[tuple[int, int, int]]] = [
        [(int(classes[low]), int(classes[high]), to) for low, high, to in ranges] for ranges in machine.ranges
    ]
    closures: dict[int, tuple[int, ...]] = {}

    def closed(node: int) -> tuple[int, ...]:
        """Nodes reached for free that have edges, or accept."""
        known = closures.get(node)
        if known is None:
            seen, stack = {node}, [node]
            while stack:
                for to in machine.free[stack.pop()]:
                    if to not in seen:
                        seen.add(to)
                        stack.append(to)
            known = closures[node] = tuple(n for n in seen if edges[n] or n == accept)
        return known

    first = frozenset(closed(start))
    numbers = {first: 0}
    queue = [first]
    rows: list[list[int]] = []
    for subset in queue:
        targets: list[set[int] | None] = [None] * count
        for node in subset:
            for low, high, to in edges[node]:
                reach = closed(to)
                for index in range(low, high + 1):
                    found = targets[index]
                    if found is None:
                        targets[index] = set(reach)
                    else:
                        found.update(reach)
        row = []
        for target in targets:
            if not target:
                row.append(-1)
                continue
            key = frozenset(target)
            number = numbers.get(key)
            if number is None:
                number = numbers[key] = len(numbers)
                if number >= 2 * STATES_MAX:
                    raise ConfigError(
                        f"the constraint is too large: more than {2 * STATES_MAX} states; allow shorter or fewer things"
                    )
                queue.append(key)
            row.append(number)
        rows.append(row)
    accepting = np.array([accept in subset for subset in queue])
    return np.array(rows, dtype=np.int64), accepting, classes


def _smallest(
    following: npt.NDArray[np.int64], accepting: npt.NDArray[np.bool_], classes: npt.NDArray[np.int64]
) -> Table:
    """Take out states that can't end, then join states that no text tells apart (Moore)."""
    following = _alive(following, accepting)
    group = accepting.astype(np.int64)
    parts = 0
    while parts != (parts := int(group.max()) + 1) or parts == 0:
        ahead = np.where(following >= 0, group[following], -1)
        _, group = np.unique(np.column_stack([group, ahead]), axis=0, return_inverse=True)
        group = group.reshape(-1)
    # Numbered by their first member, so that the start is state 0.
    _, firsts, group = np.unique(group, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    group, firsts = rank[group.reshape(-1)], firsts[order]
    if firsts.size > STATES_MAX:
        raise ConfigError(f"the constraint is too large: {firsts.size} states; allow shorter or fewer things")
    ahead = following[firsts]
    small = np.where(ahead >= 0, group[ahead], DEAD).astype(np.uint16)
    return Table(np.ascontiguousarray(small[:, classes]), accepting[firsts].astype(np.uint8))


def _alive(following: npt.NDArray[np.int64], accepting: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The table without steps to states from which nothing can end."""
    alive = accepting.copy()
    while True:
        grown = alive | (np.where(following >= 0, alive[following], False)).any(axis=1)
        if (grown == alive).all():
            break
        alive = grown
    if not alive[0]:
        raise ConfigError("the constraint allows no text at all")
    return np.where((following >= 0) & alive[following], following, -1)


def literal_choices(choices: Iterable[str]) -> Pattern:
    """One of several texts."""
    return Choice(tuple(text(choice) for choice in itertools.islice(choices, STATES_MAX)))
