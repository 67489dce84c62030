"""JSON schemas as patterns: what a constrained answer may look like.

The subset is the one below; any other keyword is refused by its name, so that an answer never breaks a rule that was
silently left out. Objects list their properties in the schema's order, without others; ``{}`` is any value of up to
three levels; a space may follow ``,`` and ``:``, nothing else is blank. Every answer is valid JSON and validates.

    type (one or a list)           enum  const             anyOf          $ref into $defs or definitions, not recursive
    object: properties required additionalProperties      array: items minItems maxItems prefixItems
    string: minLength maxLength pattern (^...$)           integer: minimum maximum exclusiveMinimum exclusiveMaximum
    number boolean null            title description default examples $schema $id $comment deprecated readOnly writeOnly
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from nis_edge.engine import regular
from nis_edge.engine.regular import (
    Bytes,
    Chars,
    Choice,
    Joined,
    Listing,
    Pattern,
    Ranges,
    Repeat,
    Sequence,
    optional,
    text,
)
from nis_edge.errors import ConfigError

SCHEMA_BYTES_MAX: Final = 256 * 1024
DEPTH_MAX: Final = 32
PARTS_MAX: Final = 20_000
"""Subschemas met, references counted each time: a few nested references multiply."""

PREFIX_MAX: Final = 64

FREE_DEPTH: Final = 3
"""Levels of a value that nothing describes."""

INTEGER_DIGITS: Final = 18
"""Of an integer without bounds: it fits 64 bits."""

_ANNOTATIONS: Final = frozenset(
    ("title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly")
)
_DEFINITIONS: Final = frozenset(("$defs", "definitions"))
_BY_TYPE: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "minItems", "maxItems", "prefixItems")),
    "string": frozenset(("minLength", "maxLength", "pattern")),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
_TYPED: Final = frozenset().union(*_BY_TYPE.values())

_COMMA: Final = Sequence((text(","), optional(text(" "))))
_COLON: Final = Sequence((text(":"), optional(text(" "))))
_ESCAPED: Final = {0x22: b'\\"', 0x5C: b"\\\\", 0x08: b"\\b", 0x0C: b"\\f", 0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t"}
_PLAIN: Final = regular.inverted(regular.normal([(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)]))
_EVERY: Final[Ranges] = regular.normal([*_PLAIN, *((code, code) for code in _ESCAPED)])


def parse_schema(source: str) -> Pattern:
    """Read a schema from its JSON text.

    Raises:
        ConfigError: no JSON, too large, or with a keyword or value that is not supported, named with its place.
    """
    if len(source.encode("utf-8", "surrogatepass")) > SCHEMA_BYTES_MAX:
        raise ConfigError(f"the JSON schema is larger than {SCHEMA_BYTES_MAX} bytes")
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the JSON schema is no JSON: {error}") from error
    return schema_pattern(schema)


def schema_pattern(schema: Any) -> Pattern:
    """Make the pattern of a schema. Errors as ``parse_schema``."""
    try:
        return _Schema(schema).pattern(schema, "#", ())
    except UnicodeEncodeError as error:
        raise ConfigError("the JSON schema contains a lone surrogate, which is no character") from error


def json_object_pattern() -> Pattern:
    """Any JSON object of up to three levels."""
    return _free(FREE_DEPTH, only_object=True)


class _Schema:
    """Walks one schema, with its definitions at hand."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._parts = 0

    def pattern(self, schema: Any, where: str, refs: tuple[str, ...]) -> Pattern:
        self._parts += 1
        if self._parts > PARTS_MAX or where.count("/") > 2 * DEPTH_MAX or len(refs) > DEPTH_MAX:
            raise ConfigError(f"the JSON schema at {where[:200]}: too deep or too large")
        if schema is True:
            return _free(FREE_DEPTH)
        if not isinstance(schema, dict):
            raise _wrong(where, "a schema is an object or true")
        keys = set(schema) - _ANNOTATIONS - _DEFINITIONS
        if "$ref" in keys:
            _only(keys, {"$ref"}, where)
            return self._reference(schema["$ref"], where, refs)
        if "anyOf" in keys:
            _only(keys, {"anyOf"}, where)
            options = _list(schema["anyOf"], f"{where}/anyOf")
            return Choice(tuple(self.pattern(o, f"{where}/anyOf/{i}", refs) for i, o in enumerate(options)))
        if keys & {"enum", "const"}:
            return _constants(schema, keys, where)
        return self._typed(schema, keys, where, refs)

    def _reference(self, target: Any, where: str, refs: tuple[str, ...]) -> Pattern:
        if not isinstance(target, str) or not target.startswith("#"):
            raise _wrong(where, f"$ref {target!r} leads out of the schema, which is not supported")
        if target in refs:
            raise _wrong(where, f"$ref {target!r} contains itself; recursion is not supported")
        found = self._root
        for word in target[1:].split("/")[1:]:
            name = word.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise _wrong(where, f"$ref {target!r} leads nowhere")
            found = found[name]
        return self.pattern(found, target, (*refs, target))

    def _typed(self, schema: dict[str, Any], keys: set[str], where: str, refs: tuple[str, ...]) -> Pattern:
        types = schema.get("type")
        if types is None:
            given = [name for name, words in _BY_TYPE.items() if keys & words]
            if not keys:
                return _free(FREE_DEPTH)
            _only(keys, _TYPED, where)
            raise _wrong(where, f'{sorted(keys)[0]!r} needs a "type" beside it, here {given[0]!r}')
        names = [types] if isinstance(types, str) else _list(types, f"{where}/type")
        for name in names:
            if not isinstance(name, str) or name not in _BY_TYPE:
                raise _wrong(where, f"type {name!r} is unknown")
        allowed = {"type"}.union(*(_BY_TYPE[name] for name in names))
        _only(keys, allowed, where)
        makers: dict[str, Callable[[], Pattern]] = {
            "object": lambda: self._object(schema, where, refs),
            "array": lambda: self._array(schema, where, refs),
            "string": lambda: _string(schema, where),
            "integer": lambda: _integer(schema, where),
            "number": lambda: _NUMBER,
            "boolean": lambda: Choice((text("true"), text("false"))),
            "null": lambda: text("null"),
        }
        parts = tuple(makers[name]() for name in names)
        return parts[0] if len(parts) == 1 else Choice(parts)

    def _object(self, schema: dict[str, Any], where: str, refs: tuple[str, ...]) -> Pattern:
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise _wrong(where, "properties must be an object")
        required = _list(schema["required"], f"{where}/required", empty=True) if "required" in schema else []
        for name in required:
            if name not in properties:
                raise _wrong(where, f"required property {name!r} is not described in properties")
        parts = []
        for name, inner in properties.items():
            if inner is False and name not in required:
                continue
            value = self.pattern(inner, f"{where}/properties/{name}", refs)
            parts.append((Sequence((_json(name), _COLON, value)), name in required))
        return Sequence((text("{"), Listing(tuple(parts), _COMMA), text("}")))

    def _array(self, schema: dict[str, Any], where: str, refs: tuple[str, ...]) -> Pattern:
        least, most = _count(schema, "minItems", where) or 0, _count(schema, "maxItems", where)
        if most is not None and most < least:
            raise _wrong(where, f"maxItems {most} is less than minItems {least}")
        first = _list(schema["prefixItems"], f"{where}/prefixItems") if "prefixItems" in schema else []
        if len(first) > PREFIX_MAX:
            raise _wrong(where, f"more than {PREFIX_MAX} prefixItems")
        heads = [self.pattern(part, f"{where}/prefixItems/{i}", refs) for i, part in enumerate(first)]
        if most is not None:
            heads = heads[:most]
        rest = schema.get("items", True)
        if rest is False:
            most = len(heads) if most is None else min(most, len(heads))
            if most < least:
                raise _wrong(where, f"minItems {least} with {most} items described")
        if most is not None and most <= len(heads):
            return _listed(heads, least, text("]"))
        item = self.pattern(rest, f"{where}/items", refs)
        further = Sequence((_COMMA, item))
        if heads:
            more = None if most is None else most - len(heads)
            tail = Sequence((Repeat(further, max(0, least - len(heads)), more), text("]")))
            return _listed(heads, least, tail)
        if most == 0:
            return text("[]")
        if least <= 1 and most is None:
            return Sequence((text("["), Joined(item, _COMMA) if least else optional(Joined(item, _COMMA)), text("]")))
        full = Sequence((item, Repeat(further, max(0, least - 1), None if most is None else most - 1)))
        return Sequence((text("["), full if least else optional(full), text("]")))


def _listed(heads: list[Pattern], least: int, last: Pattern) -> Pattern:
    """[heads...] with `least` of them at least; `last` follows when all are there and closes."""
    closing = text("]")
    tail = last
    for index in range(len(heads), 0, -1):
        before: Pattern = _COMMA if index > 1 else regular.EMPTY
        part = Sequence((before, heads[index - 1], tail))
        tail = Choice((part, closing)) if index - 1 >= least else part
    return Sequence((text("["), tail))


def _wrong(where: str, what: str) -> ConfigError:
    return ConfigError(f"the JSON schema at {where[:200]}: {what}")


def _only(keys: set[str], allowed: set[str] | frozenset[str], where: str) -> None:
    for key in sorted(keys - allowed):
        known = key in _TYPED or key in ("type", "enum", "const", "anyOf", "$ref")
        raise _wrong(where, f"keyword {key!r} is not supported" + (" here" if known else ""))


def _list(value: Any, where: str, *, empty: bool = False) -> list[Any]:
    if not isinstance(value, list) or not (value or empty) or len(value) > PARTS_MAX:
        raise _wrong(where, "must be a list with something in it")
    return value


def _count(schema: dict[str, Any], key: str, where: str) -> int | None:
    value = schema.get(key)
    if value is None and key not in schema:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= regular.REPEATS_MAX:
        raise _wrong(where, f"{key} must be a whole number, 0 to {regular.REPEATS_MAX}")
    return value


def _json(value: Any) -> Bytes:
    return text(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("\x7f", "\\u007f"))


def _constants(schema: dict[str, Any], keys: set[str], where: str) -> Pattern:
    _only(keys, {"enum", "const", "type"}, where)
    values = _list(schema["enum"], f"{where}/enum") if "enum" in schema else [schema["const"]]
    if "const" in schema:
        values = [value for value in values if _same(value, schema["const"])]
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        values = [value for value in values if any(_is(value, name) for name in names)]
    if not values:
        raise _wrong(where, "enum, const and type allow nothing together")
    return Choice(tuple(_json(value) for value in values))


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _is(value: Any, name: Any) -> bool:
    if name == "integer":
        return not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        )
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return name in kinds and isinstance(value, kinds[name])


# --- strings ---------------------------------------------------------------------------------------------------------


def _characters(ranges: Ranges) -> Pattern:
    """One character of a set, as it is written inside of a JSON string."""
    plain = regular.intersected(ranges, _PLAIN)
    parts: list[Pattern] = [Chars(plain)] if plain else []
    parts += [Bytes(w) for c, w in _ESCAPED.items() if any(low <= c <= high for low, high in ranges)]
    return parts[0] if len(parts) == 1 else Choice(tuple(parts))


def _quoted(pattern: Pattern) -> Pattern:
    """A pattern over characters, as it is written inside of a JSON string."""
    if isinstance(pattern, Chars):
        return _characters(pattern.ranges)
    if isinstance(pattern, Bytes):
        return Sequence(tuple(_characters(((ord(c), ord(c)),)) for c in pattern.value.decode()))
    if isinstance(pattern, Repeat):
        return Repeat(_quoted(pattern.part), pattern.least, pattern.most)
    assert isinstance(pattern, (Sequence, Choice))
    return type(pattern)(tuple(_quoted(part) for part in pattern.parts))


def _string(schema: dict[str, Any], where: str) -> Pattern:
    least, most = _count(schema, "minLength", where) or 0, _count(schema, "maxLength", where)
    if most is not None and most < least:
        raise _wrong(where, f"maxLength {most} is less than minLength {least}")
    if "pattern" not in schema:
        return Sequence((text('"'), Repeat(_characters(_EVERY), least, most), text('"')))
    expression = schema["pattern"]
    if not isinstance(expression, str) or not (expression.startswith("^") and expression.endswith("$")):
        raise _wrong(where, "pattern is supported if it begins with ^ and ends with $")
    if "minLength" in schema or "maxLength" in schema:
        raise _wrong(where, "pattern together with minLength or maxLength is not supported; say it in the pattern")
    if "|" in expression and not (expression.startswith("^(") and expression.endswith(")$")):
        raise _wrong(where, "in a pattern with | everything between ^ and $ must stand in a group")
    try:
        inner = regular.parse(expression)
    except ConfigError as error:
        raise _wrong(where, str(error)) from error
    return Sequence((text('"'), _quoted(inner), text('"')))


# --- numbers ---------------------------------------------------------------------------------------------------------

_DIGIT: Final = Chars(regular.DIGITS)
_NATURAL: Final = Choice((text("0"), Sequence((Chars(((0x31, 0x39),)), Repeat(_DIGIT, 0, INTEGER_DIGITS - 1)))))
_INTEGER: Final = Sequence((optional(text("-")), _NATURAL))
_NUMBER: Final = Sequence(
    (
        optional(text("-")),
        Choice((text("0"), Sequence((Chars(((0x31, 0x39),)), Repeat(_DIGIT, 0, None))))),
        optional(Sequence((text("."), Repeat(_DIGIT, 1, None)))),
        optional(
            Sequence((Choice((text("e"), text("E"))), optional(Choice((text("-"), text("+")))), Repeat(_DIGIT, 1, 2)))
        ),
    )
)


def _integer(schema: dict[str, Any], where: str) -> Pattern:
    limit = 10**INTEGER_DIGITS - 1
    low, high = -limit, limit
    if "minimum" in schema:
        low = max(low, math.ceil(_bound(schema["minimum"], "minimum", where)))
    if "exclusiveMinimum" in schema:
        low = max(low, math.floor(_bound(schema["exclusiveMinimum"], "exclusiveMinimum", where)) + 1)
    if "maximum" in schema:
        high = min(high, math.floor(_bound(schema["maximum"], "maximum", where)))
    if "exclusiveMaximum" in schema:
        high = min(high, math.ceil(_bound(schema["exclusiveMaximum"], "exclusiveMaximum", where)) - 1)
    if low > high:
        raise _wrong(where, "the bounds leave no integer")
    if (low, high) == (-limit, limit):
        return _INTEGER
    parts: list[Pattern] = []
    if low < 0:
        parts.append(Sequence((text("-"), _between(max(1, -high), -low))))
    if high >= 0:
        parts.append(_between(max(0, low), high))
    return parts[0] if len(parts) == 1 else Choice(tuple(parts))


def _bound(value: Any, key: str, where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 10**INTEGER_DIGITS:
        raise _wrong(where, f"{key} must be a number below 10**{INTEGER_DIGITS} in magnitude")
    return value


def _between(low: int, high: int) -> Pattern:
    """Decimal numbers of a range, 0 <= low <= high, without leading zeros."""
    parts: list[Pattern] = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        last = min(high, 10**digits - 1)
        if first <= last:
            parts.append(_same_digits(str(first), str(last)))
    return parts[0] if len(parts) == 1 else Choice(tuple(parts))


def _same_digits(low: str, high: str) -> Pattern:
    """Numbers of equally many digits."""
    if not low:
        return regular.EMPTY
    rest = len(low) - 1
    if set(low[1:]) <= {"0"} and set(high[1:]) <= {"9"}:
        return Sequence((Chars(((ord(low[0]), ord(high[0])),)), Repeat(_DIGIT, rest, rest)))
    if low[0] == high[0]:
        return Sequence((text(low[0]), _same_digits(low[1:], high[1:])))
    parts: list[Pattern] = [Sequence((text(low[0]), _same_digits(low[1:], "9" * rest)))]
    if int(high[0]) - int(low[0]) > 1:
        middle = Chars(((ord(low[0]) + 1, ord(high[0]) - 1),))
        parts.append(Sequence((middle, Repeat(_DIGIT, rest, rest))))
    parts.append(Sequence((text(high[0]), _same_digits("0" * rest, high[1:]))))
    return Choice(tuple(parts))


# --- values that nothing describes -----------------------------------------------------------------------------------


def _free(depth: int, *, only_object: bool = False) -> Pattern:
    string = Sequence((text('"'), Repeat(_characters(_EVERY), 0, None), text('"')))
    scalars = (string, _NUMBER, text("true"), text("false"), text("null"))
    value: Pattern = Choice(scalars)
    for level in range(1, depth + 1):
        member = Sequence((string, _COLON, value))
        map_ = Sequence((text("{"), optional(Joined(member, _COMMA)), text("}")))
        if only_object and level == depth:
            return map_
        items = Sequence((text("["), optional(Joined(value, _COMMA)), text("]")))
        value = Choice((*scalars, map_, items))
    return value
