"""JSON schemas through the grammar stage: what fits is allowed, nothing else, and none is stuck."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.languages import BYTES, EOS, TOKENS, host_of
from vlmkit.contracts.stages import HostReducer
from vlmkit.errors import VlmkitError
from vlmkit.sampling import Grammar, check_grammar, grammar_doubts

AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
ONLY_BY_PATTERN = {
    "type": "object",
    "properties": {"score": {"type": "integer", "multipleOf": 5}},
    "required": ["score"],
    "additionalProperties": False,
    "patternProperties": {"^score$": {"type": "integer"}},
}
NONE_LEFT = {"properties": {"a": {"const": 1}}, "patternProperties": {"": {"type": "integer"}}}
BY_ALL = {"allOf": [{"type": "object", "properties": {"a": True}}, NONE_LEFT]}
TWO_PATTERNS = {
    "type": "object",
    "patternProperties": {"^a$": {"type": "integer"}, "^b": {"type": "null"}},
    "required": ["a"],
    "additionalProperties": False,
}
LIST = {
    "type": "array",
    "items": {"anyOf": [{"$ref": "#/$defs/endless"}, {"const": 7}]},
    "$defs": {"endless": {"type": "array", "items": {"$ref": "#/$defs/endless"}, "minItems": 1}},
}


def allows(schema: Any, text: str) -> bool:
    """Whether byte after byte may come, and then the end."""
    host = host_of(BYTES, json_schema=schema, thinking=None)
    state = host.init([])
    for byte in text.encode():
        if not host.value(state)[1 + byte]:
            return False
        state = host.step(state, 1 + byte)
    return bool(host.value(state)[EOS])


@pytest.mark.parametrize(
    ("schema", "text", "fits"),
    [
        (True, '{"a": [1, null]}', True),
        (True, "nul", False),
        (AGE, '{"age":1,"\\u0061ge":"x"}', False),
        (AGE, '{"age":1,"a\\u0067e":2}', False),
        (AGE, '{"age":1,"age":"x"}', False),
        (AGE, '{"age":1,"ag":"x","é\\n\\"":"\\\\"}', True),
        (AGE, '{"age":1,"ag":"\\u0041"}', False),
        ({**AGE, "patternProperties": {"^n": {"type": "null"}}}, '{"age":1,"\\u006e":1}', False),
        ({**AGE, "patternProperties": {"^n": {"type": "null"}}}, '{"age":1,"n":null}', True),
        ({"type": "object", "properties": {"a": False}}, '{"\\u0061":1}', False),
        ({"type": "object", "properties": {"é": {"const": 1}}}, '{"\\u00e9":2}', False),
        ({"type": "object", "properties": {"é": {"const": 1}}}, '{"é":1}', True),
        ({"type": "object", "properties": {'a"\\': {"const": 1}}}, '{"a\\"\\\\":1}', True),
        ({"type": "object", "properties": {"a\x01": {"const": 1}}}, '{"a\\u0001":1}', True),
        ({"type": "object", "properties": {"a\x01": {"const": 1}}}, '{"a\\u0001":2}', False),
        ({"const": '\n\t/\\"'}, '"\\n\\t/\\\\\\""', True),
        ({"type": "string", "pattern": "^[^\\x00-\\x1f]+$"}, '"aé"', True),
        ({"type": "string", "pattern": "^[\\x00-\\x1f]$"}, '"\\n"', True),
        ({"type": "object", "minProperties": 1}, "{}", False),
        ({"type": "object", "minProperties": 1}, '{"a":1}', True),
        (ONLY_BY_PATTERN, '{"score":5}', True),
        (ONLY_BY_PATTERN, '{"score":7}', False),
        (TWO_PATTERNS, '{"a":1,"b":null,"bc":null}', True),
        (TWO_PATTERNS, '{"a":1,"b":1}', False),
        (BY_ALL, '{"a":1,"b":2}', True),
        (BY_ALL, '{"a":2}', False),
        (LIST, "[7,7]", True),
        (LIST, "[[", False),
        (True, "[\r\n\t 1]", True),
        (True, "[" + " " * 21 + "1]", False),
        (True, "[\n\n1]", False),
        ({"x-guidance": {"whitespace_pattern": " *"}}, "[" + " " * 21 + "1]", True),
    ],
    ids=str,
)
def test_a_text_is_allowed_where_it_fits(schema: Any, text: str, fits: bool) -> None:
    assert allows(schema, text) == fits


@pytest.mark.parametrize(
    ("schema", "text", "next_bytes"),
    [
        (ONLY_BY_PATTERN, '{"score":5', "0123456789}"),
        ({"type": "object", **NONE_LEFT}, '{"a":1', ",}"),
        ({"type": "object", "properties": {"a": True}, "patternProperties": {"": False}}, "{", "}"),
        (BY_ALL, "{", '"}'),
        ({**TWO_PATTERNS, "properties": {"bb": True}}, '{"bb":null', ","),
        (
            {"type": "object", "properties": {"a": {"const": 1}}, "required": ["b"]}
            | {"patternProperties": {"^[ab]$": {"const": 1}}, "additionalProperties": False},
            '{"b":1',
            "}",
        ),
    ],
    ids=str,
)
def test_no_comma_comes_before_no_key(schema: Any, text: str, next_bytes: str) -> None:
    compact = {**schema, "x-guidance": {"whitespace_flexible": False}}
    host = host_of(BYTES, json_schema=compact, thinking=None)
    state = host.init([])
    for byte in text.encode():
        state = host.step(state, 1 + byte)
    single = host.value(state)[1:257]
    assert bytes(np.flatnonzero(single).tolist()).decode() == "".join(sorted(next_bytes))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (False, r"^grammar: json_schema false: no value fits it$"),
        ({"$ref": "#"}, r"no value fits it: # would never end$"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            r"no value fits it: # would never end$",
        ),
        (
            {
                "$ref": "#/$defs/a~1b",
                "$defs": {
                    "a/b": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/c%20d"}},
                    "c d": {"anyOf": [{"$ref": "#/$defs/a~1b"}, False]},
                },
            },
            r"no value fits it: #/\$defs/a~1b, #/\$defs/c%20d would never end$",
        ),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "Unsatisfiable schema"),
        ({"type": "integer", "minimum": 0.1, "maximum": 0.9}, "contains no integer"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "Unsatisfiable schema"),
        ({"enum": []}, "Unsatisfiable schema"),
        ({"enum": ["a", {"b": ["a\x01"]}]}, r'enum: "a\\u0001" holds a control character'),
        ({"items": {"const": "\x7f"}}, r"const: .* holds a control character, .* as \\b, \\t,"),
        ({"type": "string", "pattern": "^a\\x01$"}, "Unsatisfiable schema: Regex is empty"),
        ({"x-guidance": 3}, "invalid type: integer `3`"),
        ({"$ref": ["#"]}, r"\$ref must be a string"),
        ({"properties": 3, "patternProperties": {"a": 3}}, "properties"),
        (
            {"type": "object", "patternProperties": {"^a": {}, "b$": {}}},
            "patternProperty regexes .* are not disjoint",
        ),
    ],
    ids=str,
)
def test_a_schema_that_nothing_fits_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as early:
        check_grammar(Grammar(json_schema=schema))
    assert "\n" not in str(early.value)
    with pytest.raises(VlmkitError, match=message):
        host_of(BYTES, json_schema=schema)


@pytest.mark.parametrize(
    ("schema", "doubts"),
    [
        (AGE, []),
        (True, []),
        ({"type": "object", "minProperties": 1}, []),
        ({"type": "object", "minProperties": 2, "required": ["a"]}, []),
        ({"type": "object", "minProperties": 2}, ["minProperties: 2 .* twice"]),
        ({"items": {"minProperties": 4, "required": ["a"]}}, ["minProperties: 4"]),
        ({"minProperties": 4, "additionalProperties": False}, []),
        ({**AGE, "x-guidance": {"json_allowed_escapes": 'nrbtf"\\u'}}, [r"dodge"]),
        ({"const": "\x01", "x-guidance": {"json_allowed_escapes": None}}, ["dodge"]),
        ({"x-guidance": {"lenient": True}}, ["lenient"]),
        ({"x-guidance": {"coerce_one_of": True}, "oneOf": [AGE, True]}, ["coerce_one_of"]),
        ({"x-guidance": {"coerce_one_of": True}, "anyOf": [AGE, True]}, []),
    ],
    ids=str,
)
def test_what_is_not_guaranteed_is_said(schema: Any, doubts: list[str]) -> None:
    found = grammar_doubts(Grammar(json_schema=schema))
    assert len(found) == len(doubts)
    assert all(re.search(wanted, doubt) for wanted, doubt in zip(doubts, found, strict=True))


_values = st.sampled_from(
    (
        {"type": "integer"},
        {"type": "integer", "multipleOf": 5},
        {"type": "string", "pattern": "^a"},
        {"type": ["null", "integer"]},
        {"const": "x"},
        True,
        False,
    )
)
_names = st.sampled_from(["a", "b", "ab", "é"])
_objects = st.fixed_dictionaries(
    {"type": st.just("object")},
    optional={
        "properties": st.dictionaries(_names, _values, max_size=3),
        "patternProperties": st.dictionaries(
            st.sampled_from(["^a$", "^[xy]", "^b$|^é$", ""]), _values, min_size=1, max_size=2
        ),
        "additionalProperties": st.just(False) | _values,
        "required": st.lists(_names, max_size=2, unique=True),
    },
)
_schemas = _objects | st.builds(lambda a, b: {"allOf": [a, b]}, _objects, _objects)


def fits(value: Any, schema: Any) -> bool:
    """The part of JSON Schema that ``_schemas`` uses."""
    if isinstance(schema, bool):
        return schema
    if "allOf" in schema:
        return all(fits(value, part) for part in schema["allOf"])
    if "const" in schema:
        return bool(value == schema["const"])
    kinds = {"integer": type(value) is int, "string": isinstance(value, str)}
    kinds |= {"null": value is None, "object": isinstance(value, dict)}
    wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(kinds[one] for one in wanted):
        return False
    if isinstance(value, str):
        return bool(re.search(schema.get("pattern", ""), value))
    if isinstance(value, int):
        return value % schema.get("multipleOf", 1) == 0
    if value is None:
        return True
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, item in value.items():
        own = [named[key]] if key in named else []
        own += [part for pattern, part in patterns.items() if re.search(pattern, key)]
        if not all(fits(item, part) for part in own or [schema.get("additionalProperties", True)]):
            return False
    return set(schema.get("required", [])) <= set(value)


def write(host: HostReducer, rng: np.random.Generator) -> str | None:
    """A random answer, None if it gets long; there is always a next token."""
    state, data = host.init([]), b""
    for _ in range(60):
        allowed = np.flatnonzero(host.value(state))
        assert len(allowed), data
        likely = [int(i) for i in allowed if i == EOS]
        likely += [i for i in allowed if len(TOKENS[i]) == 1 and TOKENS[i] in b'{}",:abxy50\\u6']
        choice = int(rng.choice(likely if likely and rng.random() < 0.9 else allowed))
        if choice == EOS:
            return data.decode()
        state, data = host.step(state, choice), data + TOKENS[choice]
    return None


def refused(schema: dict[str, Any]) -> str | None:
    try:
        check_grammar(Grammar(json_schema=schema))
    except VlmkitError as error:
        return str(error)
    return None


@settings(max_examples=scaled(120))
@given(schema=_schemas, seed=st.integers(0, 999))
def test_no_object_is_stuck_and_every_one_fits(schema: dict[str, Any], seed: int) -> None:
    compact = {**schema, "x-guidance": {"whitespace_flexible": False}}
    if (refusal := refused(compact)) is not None:
        assert re.search("Unsatisfiable|no value fits|disjoint|Unable to determine", refusal)
        return
    host = host_of(BYTES, json_schema=compact, thinking=None)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        text = write(host, rng)
        assert text is None or fits(json.loads(text), schema), text
