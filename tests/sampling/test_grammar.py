"""The grammar stage: its masks against brute force, its states, thinking, and mistakes."""

from __future__ import annotations

import json
import re
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.languages import (
    BYTES,
    EOS,
    SHAPES,
    START,
    TOKENS,
    Language,
    brute_force,
    derive,
    follow,
    host_of,
    languages,
    spell,
)
from vlmkit.errors import VlmkitError
from vlmkit.sampling import Grammar, build_chain, build_stage
from vlmkit.tokens.vocabulary import Vocabulary

BOTH = pytest.mark.parametrize("vocabulary", [BYTES, SHAPES], ids=["bytes", "shapes"])
MAX_STEPS = 40


def pick(rng: np.random.Generator, allowed: np.ndarray, eos_ids: frozenset[int], late: bool) -> int:
    """Draw an allowed token; end as soon as possible when it gets late."""
    ends = [token_id for token_id in eos_ids if allowed[token_id]]
    return int(rng.choice(ends if ends and late else np.flatnonzero(allowed)))


def test_derivatives_know_what_matches():
    node = Language("", ("star", ("bytes", frozenset(b"ab")))).node
    assert follow(node, b"abba") == node
    assert derive(node, ord("c")) == ("none",)


@BOTH
@settings(max_examples=scaled(25))
@given(language=languages, seed=st.integers(0, 999))
def test_masks_equal_brute_force_and_texts_match(vocabulary, language, seed):
    host = host_of(vocabulary, regex=language.regex, thinking=None)
    rng, state, data, node = np.random.default_rng(seed), host.init([]), b"", language.node
    for number in range(MAX_STEPS):
        allowed = host.value(state)
        assert allowed.tolist() == brute_force(node, vocabulary)
        assert allowed.any()
        token_id = pick(rng, allowed, vocabulary.eos_ids, number > 6)
        state = host.step(state, token_id)
        if token_id in vocabulary.eos_ids:
            assert re.fullmatch(language.regex, data.decode())
            assert np.flatnonzero(host.value(state)).tolist() == sorted(vocabulary.eos_ids)
            return
        data += vocabulary.tokens[token_id]
        node = follow(node, vocabulary.tokens[token_id])


@BOTH
@settings(max_examples=scaled(15))
@given(language=languages, seed=st.integers(0, 999))
def test_states_are_values(vocabulary, language, seed):
    """Old states still say the same, a branch leaves its origin alone, a replay says the same."""
    host = host_of(vocabulary, regex=language.regex)
    rng, states, taken, values = np.random.default_rng(seed), [host.init([])], [], []
    for _ in range(8):
        values.append(host.value(states[-1]).copy())
        branches = np.flatnonzero(values[-1])[:3]
        for token_id in branches:
            host.value(host.step(states[-1], int(token_id)))
        taken.append(pick(rng, values[-1], vocabulary.eos_ids, late=False))
        states.append(host.step(states[-1], taken[-1]))
    again = host_of(vocabulary, regex=language.regex)
    replayed = again.init([])
    for state, value, token_id in zip(states, values, taken, strict=False):
        np.testing.assert_array_equal(host.value(state), value)
        np.testing.assert_array_equal(again.value(replayed), value)
        replayed = again.step(replayed, token_id)


_strings = st.sampled_from(["red", "blue", "é", "日本", 'a"b', "<think>", ""])
_numbers = st.integers(-200, 200)
_leaves = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)},
        _numbers,
        _numbers,
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(_strings | _numbers, min_size=1, unique=True, max_size=4),
    ),
    st.builds(lambda value: {"const": value}, _strings),
    st.just({"type": "string", "maxLength": 4}),
    st.just({"type": "string", "pattern": "^[a-c]{2,3}$"}),
)


def _object(properties: dict[str, Any], optional: int) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties)[optional:],
        "additionalProperties": False,
    }


def _wrap(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["shape", "n", "é", "a b"])
    return (
        st.builds(_object, st.dictionaries(names, inner, max_size=3), st.integers(0, 1))
        | st.builds(
            lambda items, low, extra: {
                "type": "array",
                "items": items,
                "minItems": low,
                "maxItems": low + extra,
            },
            inner,
            st.integers(0, 2),
            st.integers(0, 1),
        )
        | st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=2))
    )


schemas = st.recursive(_leaves, _wrap, max_leaves=4)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """The part of JSON Schema that ``schemas`` uses."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    match schema["type"]:
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "string" if isinstance(value, str):
            wanted = schema.get("pattern", "(?s:.*)")
            return len(value) <= schema.get("maxLength", 9) and bool(re.search(wanted, value))
        case "array" if isinstance(value, list):
            items = [fits(item, schema["items"]) for item in value]
            return all(items) and schema["minItems"] <= len(value) <= schema["maxItems"]
    if schema["type"] != "object" or not isinstance(value, dict):
        return False
    known = schema["properties"]
    return set(schema["required"]) <= set(value) <= set(known) and all(
        fits(item, known[name]) for name, item in value.items()
    )


@BOTH
@settings(max_examples=scaled(30))
@given(schema=schemas, seed=st.integers(0, 999))
def test_every_answer_fits_its_schema(vocabulary, schema, seed):
    """Through the chain: random logits, the draw, the token taken."""
    compact = {**schema, "x-guidance": {"whitespace_flexible": False}}
    chain = build_chain([Grammar(json_schema=compact, thinking=None)], vocabulary=vocabulary)
    host = chain.stages[0].host
    rng, state, data = np.random.default_rng(seed), host.init([]), b""
    for _ in range(200):
        logits = mx.array(rng.normal(size=(1, vocabulary.num_ids)).astype(np.float32) * 3)
        uniforms = mx.array(rng.random((1, 1)), dtype=mx.float32)
        token_id = chain.sample((mx.array(host.value(state))[None],), logits, uniforms)[1].item()
        state = host.step(state, token_id)
        if token_id in vocabulary.eos_ids:
            break
        data += vocabulary.tokens[token_id]
    assert fits(json.loads(data), schema), data


def test_a_lark_grammar():
    host = host_of(BYTES, lark='start: "(" start ")" | DIGIT\nDIGIT: /[0-9]/', thinking=None)
    state = host.init([])
    for token_id in spell("((7)"):
        assert host.value(state)[token_id]
        state = host.step(state, token_id)
    assert np.flatnonzero(host.value(state)).tolist() == spell(")")


def test_spaces_between_tokens_of_json_are_the_schemas_choice():
    schema = {"type": "array", "items": {"type": "null"}}
    for flexible in (True, False):
        host = host_of(json_schema={**schema, "x-guidance": {"whitespace_flexible": flexible}})
        state = host.step(host.init([]), SHAPES.encode("[")[0])
        assert host.value(state)[SHAPES.encode(" ")[0]] == flexible


@pytest.mark.parametrize("regex", [r"\\d", "a/b", r"a\/b", "[/]", "(?i)ab", "^ab$", "a\nb"])
def test_regexes_mean_what_they_mean_elsewhere(regex):
    host = host_of(BYTES, regex=regex, thinking=None)
    texts = [r"\d", "7", "a/b", "/", "AB", "ab", "a\nb"]
    for text in texts:
        state, ok = host.init([]), True
        for token_id in spell(text):
            ok = ok and bool(host.value(state)[token_id])
            state = host.step(state, token_id) if ok else state
        assert (ok and bool(host.value(state)[EOS])) == bool(re.fullmatch(regex, text)), text


def test_all_end_of_sequence_ids_end():
    host = host_of(regex="ab?", thinking=None)
    state = host.step(host.init([]), 64)
    assert np.flatnonzero(host.value(state)).tolist() == [65, 625, 627]
    for eos in (625, 627):
        ended = host.step(state, eos)
        assert np.flatnonzero(host.value(host.step(ended, eos))).tolist() == [625, 627]


def test_values_have_one_shape_and_can_be_stacked():
    stage = build_stage(Grammar(regex="[0-9]+"), vocabulary=SHAPES)
    values = [stage.host.value(stage.host.init(prompt)) for prompt in ([], [START])]
    assert {(value.shape, value.dtype) for value in values} == {((640,), np.dtype(bool))}
    prompts = [np.array([1], np.int32), np.array([START], np.int32)]
    state = stage.init(prompts, 640)
    np.testing.assert_array_equal(np.array(state), np.stack(values))
    narrow = np.array(stage.apply(state, mx.zeros((2, 630)), None))
    np.testing.assert_array_equal(np.isneginf(narrow), ~np.stack(values)[:, :630])
    with pytest.raises(VlmkitError, match=r"641 logits.*know 640 ids"):
        stage.init(prompts, 641)


def test_a_grammar_is_compiled_once_for_a_vocabulary(monkeypatch):
    import llguidance

    counted = {"LLMatcher": 0, "LLTokenizer": 0}

    class Counting:
        def __init__(self, name: str) -> None:
            self.name, self.make = name, getattr(llguidance, name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            counted[self.name] += 1
            return self.make(*args, **kwargs)

    for name in counted:
        monkeypatch.setattr(llguidance, name, Counting(name))
    vocabulary = Vocabulary(lambda: TOKENS, len(TOKENS), frozenset(), frozenset({EOS}), spell)
    for _ in range(3):
        for lark in ("start: /a+/", "start: /b+/"):
            build_chain([Grammar(lark=lark)], vocabulary=vocabulary)
    assert counted == {"LLMatcher": 2, "LLTokenizer": 1}
