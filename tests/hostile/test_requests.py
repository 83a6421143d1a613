"""Huge prompts, stop strings, token lists, numbers and grammars: a result or one line."""

from __future__ import annotations

import pytest

from tests.hostile.limited import run_code

GENERATE = """
from vlmkit.api import generate, load
from vlmkit.sampling import LogitBias, SuppressTokens
from vlmkit.stopping import StopTokenIdsConfig
from vlmkit.pipeline import PipelineConfig
model, processor = load("shapes")
def run(code):
    eval(code, {**globals(), "ask": lambda prompt="Hi", **given:
        generate(model, processor, prompt, max_tokens=2, **given)})
    return 0
"""
REQUESTS = {
    "ask('a b c ' * 1_700_000)": "prompt: 10,200,000 characters, more than 4,096 tokens",
    "ask('<think>' * 1_500_000)": "prompt: 10,500,000 characters",
    "ask([1] * 3_000_000)": "prompt: 3000000 tokens, but the model's context is 2048",
    "ask(stop='a' * 10**6)": "stop.0 must have at most 4,096 characters, got 1,000,000",
    "ask(stop=['a'] * 10**6)": "stop may have at most 1,024 items",
    "ask(eos_tokens='a' * 10**6)": "at most 4,096 characters",
    "ask(thinking_budget=1, thinking_end_token='a' * 10**6)": "at most 4,096 characters",
    "ask(logit_bias={10**30: 1.0})": "must be at most 2147483647, got 1000000",
    "ask(logit_bias={10**5000: 1.0})": "must be at most 2147483647, got a number of 5,001 digits",
    "ask(logit_bias=dict.fromkeys(range(10**6), 1.0))": "may have at most 300,000 entries",
    "ask(seed=10**5000)": "got a number of 5,001 digits",
    "ask(seed=-10**5000)": "got a number of 5,001 digits",
    "ask(temperature=10**5000)": "must be a finite number, got a number of 5,001 digits",
    "LogitBias(bias={'9' * 5000: 1.0})": "must be at most 2147483647",
    "LogitBias(bias={1: 10**5000})": "got a number of 5,001 digits",
    "SuppressTokens(token_ids=(10**5000,))": "got a number of 5,001 digits",
    "SuppressTokens(token_ids=('a' * 10**7,))": "may have at most 4,096 characters",
    "StopTokenIdsConfig(sequences=[[1]] * 10**5)": "may have at most 1,024 items",
    "PipelineConfig(seed=10**5000)": "got a number of 5,001 digits",
    "PipelineConfig(sampling=[{'kind': 'greedy'}] * 20_000)": "may have at most 1,000 items",
    "PipelineConfig(stopping=[{'kind': 'eos'}] * 20_000)": "may have at most 1,000 items",
    "ask(stop=[str(i) + 'a' * 4000 for i in range(1000)])": "",
}
GRAMMAR = """
from vlmkit.sampling import Grammar
from vlmkit.sampling.grammar_config import check_grammar, grammar_doubts
def nested(n, wrap):
    schema = {"type": "string"}
    for _ in range(n): schema = wrap(schema)
    return schema
def run(code):
    config = Grammar(**eval(code))
    check_grammar(config)
    grammar_doubts(config)
    return 0
"""
GRAMMARS = {
    "dict(json_schema=nested(300, lambda s: {'properties': {'a': s}}))": "more than 200 deep",
    "dict(json_schema=nested(10**5, lambda s: {'items': s}))": "nested more than 200 deep",
    "dict(json_schema=nested(90, lambda s: {'allOf': [s, s]}))": "more than 100,000 values",
    "dict(json_schema={'enum': list(range(10**6))})": "more than 100,000 values",
    "dict(json_schema={'const': 'a' * 10**7})": "more than 1,000,000 characters",
    "dict(json_schema={'const': 10**5000})": "a number of 5,001 digits",
    "dict(json_schema={'properties': {str(i): {} for i in range(10**4)}})": "more than 2,000 prop",
    "dict(json_schema={'patternProperties': {str(i): {} for i in range(10**4)}})": "more than 100",
    "dict(json_schema={'minItems': 10**9, 'maxItems': 10**9, 'type': 'array'})": "",
    "dict(json_schema={'minLength': 10**9, 'type': 'string'})": "",
    "dict(json_schema={'pattern': '(a{1000}){1000}', 'type': 'string'})": "",
    "dict(regex='(a{1000}){1000}')": "",
    "dict(regex='(' * 10**5 + ')' * 10**5)": "nested parentheses",
    "dict(regex='a' * (10**6 + 1))": "at most 1,000,000 characters",
    "dict(lark='start: A' + ''.join(f'\\nA{i}: A{i + 1} A{i + 1}' for i in range(60)))": "",
    "dict(lark='start: ' + '(' * 5000 + '1' + ')' * 5000)": "too deeply nested",
}


def check(setup: str, cases: dict[str, str]) -> None:
    for (case, told), line in zip(cases.items(), run_code(setup, list(cases)), strict=True):
        assert told in str(line), case
        assert not told or isinstance(line, str)


def test_requests() -> None:
    check(GENERATE, REQUESTS)


def test_grammars() -> None:
    pytest.importorskip("llguidance")
    check(GRAMMAR, GRAMMARS)


TEXTS = """
from vlmkit.sampling import SuppressTokens
from vlmkit.tokens.lookup import TokenLookup, resolve_tokens
names = [f"{n:06}" for n in range(50_000)]
lookup = TokenLookup(lambda text: [0, 0], str, lambda: [name.encode() for name in names],
    frozenset(), 50_000)
def run(number):
    return len(resolve_tokens(SuppressTokens(token_ids=names[:number]), lookup).token_ids)
"""


def test_a_vocabulary_is_looked_through_once() -> None:
    assert run_code(TEXTS, [20_000]) == [20_000]
