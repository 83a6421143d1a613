"""The grammar stage: one clear error for each mistake."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.languages import (
    BYTES,
    EOS,
    TOKENS,
    host_of,
    spell,
)
from vlmkit.config.run import load_run
from vlmkit.errors import VlmkitError
from vlmkit.sampling import Grammar, ThinkingBlock, build_chain, check_grammar
from vlmkit.tokens.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"regex": "[a-z"}, r'^grammar: regex "\[a-z": unclosed character class$'),
        ({"regex": "(?=a)b"}, r"look-ahead and look-behind, is not supported$"),
        ({"json_schema": {"type": "bla"}}, r'^grammar: json_schema {"type": "bla"}: Invalid type'),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, r"Unimplemented.*uniqueItems"),
        ({"lark": "start: a"}, r'^grammar: lark "start: a": at 1\(8\): unknown name: "a"$'),
    ],
    ids=str,
)
def test_a_bad_grammar_is_one_line(config, message):
    with pytest.raises(VlmkitError, match=message) as early:
        check_grammar(Grammar(**config))
    with pytest.raises(VlmkitError, match=message):
        host_of(**config)
    assert "\n" not in str(early.value)


def test_other_mistakes(monkeypatch):
    with pytest.raises(VlmkitError, match=r"unknown special token: \"<\|im_foo\|>\""):
        host_of(lark="start: <|im_foo|>")
    with pytest.raises(VlmkitError, match="no token of this model can lead to a match"):
        host_of(regex=r"[^\s\S]")
    with pytest.raises(VlmkitError, match=r"pass vocabulary=processor\.vocabulary"):
        build_chain([Grammar(regex="a")])
    with pytest.raises(VlmkitError, match=r"no token '</think>'; set start and end"):
        host_of(BYTES, regex="a", thinking=ThinkingBlock(start="x"))
    endless = Vocabulary(lambda: TOKENS, len(TOKENS), frozenset(), frozenset(), spell)
    with pytest.raises(VlmkitError, match="no end-of-sequence token"):
        host_of(endless, regex="a")
    for forms in ({}, {"regex": "a", "lark": "start: /a/"}):
        with pytest.raises(ValueError, match="needs one of json_schema, regex and lark"):
            Grammar(**forms)


def test_limits_of_the_parser_are_an_error_and_no_early_end(monkeypatch):
    import llguidance

    limits = llguidance.LLParserLimits(step_max_items=8)
    monkeypatch.setattr(llguidance, "LLMatcher", partial(llguidance.LLMatcher, limits=limits))
    small = Vocabulary(lambda: TOKENS, len(TOKENS), frozenset(), frozenset({EOS}), spell)
    with pytest.raises(VlmkitError, match=r"llguidance gave up: .*; make the grammar simpler"):
        host_of(small, lark='start: x\nx: x x | "a" | "b" | "c" x | "d" x "e"')


def test_a_run_file_says_where(tmp_path):
    path = tmp_path / "run.yaml"
    for written, message in (
        ('regex: "[a"', r'run\.yaml:3: sampling\.0: grammar: regex "\[a": unclosed'),
        ("json_schema: 3", r"run\.yaml:3: sampling\.0\.json_schema: must be a mapping, .* got 3$"),
        ("json_schema: false", r"run\.yaml:3: sampling\.0: grammar: json_schema false: no value"),
        ("json_schema: {$ref: '#'}", r"run\.yaml:3: sampling\.0: grammar: .*would never end"),
        ("thinking: on", r"thinking: needs a mapping with keys such as start, end, got True"),
        ("regexp: a", r"unknown key; did you mean 'regex'\?"),
    ):
        path.write_text(f"sampling:\n  - kind: grammar\n    {written}\n")
        with pytest.raises(VlmkitError, match=message):
            load_run(path)


_KEYWORDS = ("type", "properties", "patternProperties", "additionalProperties", "required", "$ref")
_KEYWORDS += (
    "items",
    "prefixItems",
    "minItems",
    "minProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "$defs",
)
_KEYWORDS += ("const", "enum", "pattern", "x-guidance", "json_allowed_escapes", "a")
_any_json = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["#", "a", "object", "array"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYWORDS), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=scaled(300))
@given(schema=st.dictionaries(st.sampled_from(_KEYWORDS), _any_json, max_size=4))
def test_whatever_a_schema_holds_it_works_or_is_refused_in_one_line(schema):
    config = Grammar(json_schema=schema)
    try:
        check_grammar(config)
    except VlmkitError as error:
        refusal = str(error)
    else:
        host = host_of(BYTES, json_schema=schema)
        assert host.value(host.init([])).any()
        return
    assert refusal.startswith("grammar: json_schema {")
    assert "\n" not in refusal


def test_a_run_may_allow_any_json_value(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("sampling:\n  - kind: grammar\n    json_schema: true\n")
    assert load_run(path).config.sampling == (Grammar(json_schema=True),)
    by_override = load_run(overrides=["sampling=[{kind: grammar, json_schema: true}]"])
    assert by_override.config.sampling[0].form == "json_schema"


def test_without_llguidance(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    config = Grammar(regex="a")
    with pytest.raises(VlmkitError, match=r"^grammar needs llguidance: pip install 'vlmkit\["):
        check_grammar(config)
    fresh = Vocabulary(lambda: TOKENS, len(TOKENS), frozenset(), frozenset({EOS}), spell)
    with pytest.raises(VlmkitError, match="grammar needs llguidance"):
        build_chain([config], vocabulary=fresh)


def test_llguidance_is_loaded_only_for_a_grammar():
    modules = "sys, vlmkit, vlmkit.sampling, vlmkit.config.run"
    script = f"import {modules}; print('llguidance' in sys.modules)"
    reply = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert reply.stdout == b"False\n"
