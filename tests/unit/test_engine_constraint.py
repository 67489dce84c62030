"""Constraints: the tables against Python's own `re`, schemas against jsonschema, and no invalid token, ever."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nis_edge.engine import json_schema, regular
from nis_edge.engine.byte_vocabulary import token_bytes
from nis_edge.engine.constraint import FAR, Allowed, Constraint, Vocabulary, choices, expression
from nis_edge.engine.generation import Answer, Wish
from nis_edge.engine.model import Model
from nis_edge.engine.sampler import Sampling
from nis_edge.errors import ConfigError, ModelError
from tests.support.tiny_models import tiny_tokenizer_json, write_tiny_package


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_package(tmp_path_factory.mktemp("constraint") / "tiny.nis", seed=5, context=512)
    with Model.open(path) as opened:
        yield opened


# --- regular expressions ---------------------------------------------------------------------------------------------

ATOMS = ("a", "b", "ab", "[a-c]", "[^a]", ".", r"\d", r"\w", "é", "[à-ÿ]", r"\.", "€", "[😀-😂]", r"\x41")
CHARS = "abcAé€😀😁1._-ÿ\n "


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    kind = draw(st.integers(0, 4 if depth else 0))
    if kind == 0:
        return draw(st.sampled_from(ATOMS))
    inner = draw(expressions(depth=depth - 1))
    if kind == 1:
        return f"({inner}){draw(st.sampled_from(['*', '+', '?', '{2}', '{1,3}', '{0,2}', '{2,}']))}"
    if kind == 2:
        return f"(?:{inner}|{draw(expressions(depth=depth - 1))})"
    return inner + draw(expressions(depth=depth - 1))


@settings(max_examples=60, deadline=None)
@given(expressions(), st.lists(st.text(CHARS, max_size=6), min_size=10, max_size=10))
def test_a_table_accepts_what_re_matches_whole(expression_: str, texts: list[str]) -> None:
    table = regular.compile_pattern(regular.parse(expression_))
    matcher = re.compile(expression_, re.ASCII)
    for text in texts:
        assert table.accepts(text.encode()) == bool(matcher.fullmatch(text)), (expression_, text)


@given(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF))
def test_ranges_of_characters_are_split_into_exactly_their_bytes(a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    ranges = regular.normal([(low, high)])
    sequences = [s for lo, hi in ranges for s in regular.utf8_sequences(lo, hi)]
    for code in {low, high, (low + high) // 2, max(0, low - 1), min(0x10FFFF, high + 1), 0x7F, 0x80, 0xFFFF, 0x10000}:
        if 0xD800 <= code <= 0xDFFF:
            continue
        raw = chr(code).encode()
        hits = sum(len(s) == len(raw) and all(x <= c <= y for c, (x, y) in zip(raw, s, strict=True)) for s in sequences)
        assert hits == (low <= code <= high)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("(?=a)b", "character 2: groups that begin with"), (r"(a)\1", r"\\1 is not supported"), ("a*?", "lazy"),
        ("a++", "possessive"), ("*a", "nothing to repeat"), ("(a", "without its"), ("a)", "without its"),
        ("[a", "without its"), ("[b-a]", "backwards"), ("a{3,1}", "allows nothing"), ("a{9999}", "repetitions"),
        ("a^b", "at the ends"), (r"\bword", r"\\b is not supported"), ("[^\\x00-\\uffff😀-\U0010ffff]a[", "without"),
        ("(" * 70 + "a" + ")" * 70, "inside each other"), ("((a{1000}){1000})", "too large"), ("x" * 10001, "10001"),
        ("a{", "written"), ("\ud800", "surrogate"), ("a\\", "ends too early"),
    ],
)  # fmt: skip
def test_expressions_beyond_the_subset_are_refused_with_the_place(wrong: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        regular.compile_pattern(regular.parse(wrong))


def test_the_table_is_the_smallest() -> None:
    assert len(regular.compile_pattern(regular.parse("(a|b)*(a|b)|(a|b)")).accepting) == 2
    assert len(regular.compile_pattern(regular.parse("abc|xbc")).accepting) == 4


# --- tokens ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.text("ab1[],", min_size=0, max_size=4), min_size=1, max_size=40),
    pattern=st.sampled_from([r"\[(\d+(,\d+)*)?\]", "(ab|a1)*", "a{2,5}b?", "[ab]*1"]),
    left=st.integers(1, 8),
)
def test_allowed_tokens_are_exactly_those_after_which_the_text_can_end_in_time(
    words: list[str], pattern: str, left: int
) -> None:
    vocabulary = Vocabulary([word.encode() for word in words])
    table = regular.compile_pattern(regular.parse(pattern))
    distances = brute_distances(table, [word.encode() for word in words])
    if distances[0] == FAR:
        with pytest.raises(ConfigError, match="could write"):
            Constraint(vocabulary, expression(pattern))
        return
    constraint = Constraint(vocabulary, expression(pattern))
    allowed = Allowed(constraint, ())
    for state, distance in enumerate(distances):
        assert constraint.distance(state) == distance
        expected = [
            number
            for number, word in enumerate(words)
            if word and (to := run(table, state, word.encode())) != regular.DEAD and distances[to] < left
        ]
        assert list(allowed.tokens(state, left)) == (expected if distance <= left else [])
        for number, word in enumerate(words):
            expected_state = run(table, state, word.encode()) if word else regular.DEAD
            assert constraint.advance(state, number) == expected_state


def run(table: regular.Table, state: int, data: bytes) -> int:
    for byte in data:
        if state == regular.DEAD:
            break
        state = int(table.next[state, byte])
    return state


def brute_distances(table: regular.Table, words: list[bytes]) -> list[int]:
    distances = [0 if accepting else FAR for accepting in table.accepting]
    for _ in distances:
        for state in range(len(distances)):
            for word in filter(None, words):
                to = run(table, state, word)
                if to != regular.DEAD and distances[to] != FAR:
                    distances[state] = min(distances[state], distances[to] + 1)
    return distances


def test_bytes_of_tokens_are_those_the_tokenizer_writes() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(tiny_tokenizer_json())
    table = token_bytes(tokenizer.to_str(), 330)
    text = "Tool call failed: 11.4 V — ok? €😀\n\tΩ"
    assert b"".join(table[i] for i in tokenizer.encode(text).ids).decode() == text
    assert table[1] == b"" and table[329] == b"" and {bytes([b]) for b in range(256)} <= set(table)


def test_bytes_of_sentencepiece_tokens_are_known_and_of_other_kinds_refused() -> None:
    described = {
        "model": {"type": "BPE", "vocab": {"<s>": 0, "<0xE2>": 1, "\u2581the": 2, "é": 3}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
    }
    assert token_bytes(json.dumps(described), 5) == [b"", b"\xe2", b" the", "é".encode(), b""]
    described["decoder"] = {"type": "WordPiece"}
    with pytest.raises(ModelError, match="WordPiece"):
        token_bytes(json.dumps(described), 5)


# --- JSON schemas ----------------------------------------------------------------------------------------------------

SCHEMAS = int(os.environ.get("NIS_SCHEMAS", "30"))
"""Random schemas; NIS_SCHEMAS=2000 for the whole."""

names = st.text(st.sampled_from('abé"\\ 😀'), min_size=1, max_size=4)
constants = st.one_of(st.none(), st.booleans(), st.integers(-50, 50), st.text(max_size=5), st.just([1, {"a": "b"}]))


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    simple = ["integer", "number", "string", "boolean", "null", "enum", "const"]
    kind = draw(st.sampled_from([*simple, *(["object", "array", "tuple", "anyOf", "types", "ref"] if depth else [])]))
    if kind == "enum":
        return {"enum": draw(st.lists(constants, min_size=1, max_size=4))}
    if kind == "const":
        return {"const": draw(constants)}
    if kind == "integer":
        low, high = sorted((draw(st.integers(-1200, 1200)), draw(st.integers(-1200, 1200))))
        extra = draw(st.sampled_from([{}, {"minimum": low}, {"maximum": high}, {"minimum": low, "maximum": high}]))
        return {"type": "integer", "description": "ignored", **extra}
    if kind == "string":
        some = [
            {},
            {"maxLength": 3},
            {"minLength": 1, "maxLength": 2},
            {"pattern": "^[a-c]{1,3}x?$"},
            {"pattern": '^"$'},
        ]
        return {"type": "string", **draw(st.sampled_from(some))}
    inner = schemas(depth=depth - 1)
    if kind == "object":
        properties = draw(st.dictionaries(names, inner, max_size=4))
        required = [name for name in properties if draw(st.booleans())]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if kind == "array":
        bounds = draw(st.sampled_from([{}, {"minItems": 1}, {"maxItems": 2}, {"minItems": 2, "maxItems": 3}]))
        return {"type": "array", "items": draw(inner), **bounds}
    if kind == "tuple":
        heads = draw(st.lists(inner, min_size=1, max_size=3))
        rest = draw(st.sampled_from([{"items": False}, {"items": {"type": "boolean"}}, {}]))
        return {"type": "array", "prefixItems": heads, "maxItems": 4, "minItems": draw(st.integers(0, 1)), **rest}
    if kind == "anyOf":
        return {"anyOf": draw(st.lists(inner, min_size=1, max_size=3))}
    if kind == "types":
        return {"type": draw(st.lists(st.sampled_from(simple[:5]), min_size=1, max_size=3, unique=True))}
    if kind == "ref":
        return {"$ref": "#/$defs/volts"}
    return {"type": kind}


@settings(max_examples=SCHEMAS, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=schemas(), seed=st.integers(0, 2**32), temperature=st.sampled_from([1.0, 8.0, 60.0]))
def test_every_answer_to_a_random_schema_validates(
    model: Model, schema: dict[str, Any], seed: int, temperature: float
) -> None:
    schema = {**schema, "$defs": {"volts": {"type": "integer", "minimum": 0, "maximum": 48}}}
    constraint = Constraint(model.vocabulary, json_schema.parse_schema(json.dumps(schema)))
    room = constraint.distance(0) + 30
    wish = Wish(room, Sampling(temperature=temperature, seed=seed), constraint=constraint)
    answer = Answer(model, model.session(), [5], wish)
    text = answer.text()
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert answer.finish in ("complete", "end", "length")


def test_a_state_of_every_answer_allows_only_tokens_that_keep_it_valid(model: Model) -> None:
    """Not only what was drawn: every token that might have been drawn leads on to a valid end."""
    schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}, "b": {"enum": ["x", "yz"]}}}
    constraint = Constraint(model.vocabulary, json_schema.schema_pattern(schema))
    allowed = Allowed(constraint, (2,))
    for state in range(len(constraint.table.accepting)):
        for left in (1, 2, 5, 50):
            for token in allowed.tokens(state, left):
                if token == 2:
                    assert constraint.is_accepting(state)
                else:
                    assert constraint.distance(constraint.advance(state, int(token))) < left


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "object", "patternProperties": {}}, "'patternProperties' is not supported"),
        ({"type": "string", "format": "date"}, "'format' is not supported"),
        ({"type": "number", "minimum": 1}, "'minimum' is not supported here"),
        ({"type": "integer", "multipleOf": 3}, "'multipleOf'"),
        ({"oneOf": [{"type": "null"}]}, "'oneOf'"),
        ({"allOf": []}, "'allOf'"),
        ({"not": {}}, "'not'"),
        ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
        ({"minLength": 3}, 'needs a "type"'),
        ({"type": "thing"}, "type 'thing' is unknown"),
        ({"type": "object", "required": ["a"]}, "required property 'a'"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}, "contains itself"),
        ({"$ref": "http://x/y"}, "leads out"),
        ({"$ref": "#/nowhere"}, "leads nowhere"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no integer"),
        ({"type": "string", "pattern": "abc"}, r"begins with \^"),
        ({"type": "string", "pattern": "^a|b$"}, "in a group"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "less than minLength"),
        ({"type": "string", "maxLength": 5000}, "0 to 1000"),
        ({"type": "integer", "enum": ["a"]}, "allow nothing"),
        ({"type": "object", "properties": {"\ud800": {}}}, "surrogate"),
        (False, "a schema is an object or true"),
        (7, "a schema is an object or true"),
    ],
)  # fmt: skip
def test_schemas_beyond_the_subset_are_refused_by_keyword_and_place(schema: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        json_schema.schema_pattern(schema)


@pytest.mark.parametrize("source", ["", "{", "[" * 100_000, '"' + "x" * 300_000 + '"'])
def test_schema_texts_that_are_no_schema_are_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="JSON schema"):
        json_schema.parse_schema(source)


def test_a_deep_schema_is_refused_not_followed() -> None:
    deep: Any = {"type": "null"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    with pytest.raises(ConfigError, match="too deep"):
        json_schema.schema_pattern(deep)
    defs = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 4} for i in range(20)} | {"d20": {"type": "null"}}
    with pytest.raises(ConfigError, match="too"):
        json_schema.schema_pattern({"$ref": "#/$defs/d0", "$defs": defs})


def test_any_json_object_is_offered_without_a_schema(model: Model) -> None:
    constraint = Constraint(model.vocabulary, json_schema.json_object_pattern())
    for seed in range(6):
        wish = Wish(40, Sampling(temperature=20.0, seed=seed), constraint=constraint)
        assert isinstance(json.loads(Answer(model, model.session(), [5], wish).text()), dict)


def test_choices_out_of_range_are_refused() -> None:
    for wrong in ([], [""], ["a"] * 1001, ["a" * 5000]):
        with pytest.raises(ConfigError, match="choice"):
            choices(wrong)
