"""What every stopping criterion promises. A new kind gets these tests by its row in the table."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tests.stopping.simulate import simulate
from vlmkit.stopping import (
    EosConfig,
    External,
    MaxTokensConfig,
    RepetitionLoopConfig,
    StoppingConfig,
    StopSequencesConfig,
    ThinkingBudgetConfig,
    build_stopping,
)
from vlmkit.types import TokenEvent

PIECES = ("a", "b", "ab", "ba ", "<think>", "</think>", "<eos>", "c")
EOS_ID = 6
MAX_LINES = "tests.external_package.vlmkit_example_stages.max_lines:max_lines"
ADAPTER: TypeAdapter[StoppingConfig] = TypeAdapter(StoppingConfig)

CONTRACT: dict[str, tuple[StoppingConfig, ...]] = {
    "max_tokens": (MaxTokensConfig(max_tokens=0), MaxTokensConfig(max_tokens=5)),
    "eos": (EosConfig(), EosConfig(tokens=("abab", "c"), token_ids=(3,))),
    "stop_sequences": (
        StopSequencesConfig(sequences=("bb", "abc")),
        StopSequencesConfig(sequences=("a<think>",), include=True),
    ),
    "repetition_loop": (
        RepetitionLoopConfig(max_period=2, num_repeats=2, min_tokens=1),
        RepetitionLoopConfig(max_period=5, num_repeats=2, min_tokens=6),
    ),
    "thinking_budget": (
        ThinkingBudgetConfig(budget=0),
        ThinkingBudgetConfig(budget=3, min_tokens=2, wait="c", transition="ba "),
        ThinkingBudgetConfig(budget=None, eos_inside="stop", stop_inside="honor", scope="total"),
    ),
    "external": (External(factory=MAX_LINES, config={"num_lines": 3, "newline": "a"}),),
}
CASES = [config for configs in CONTRACT.values() for config in configs]
TOKENS = st.lists(st.integers(0, len(PIECES) - 1), max_size=20)
every_config = pytest.mark.parametrize("config", CASES, ids=lambda config: config.kind)


def encode(text: str) -> list[int]:
    """Cut a text into pieces, longest first."""
    ids = []
    while text:
        token_id = max(
            (i for i, piece in enumerate(PIECES) if text.startswith(piece)),
            key=lambda i: len(PIECES[i]),
        )
        ids.append(token_id)
        text = text[len(PIECES[token_id]) :]
    return ids


def build(config: StoppingConfig) -> Any:
    return build_stopping([config], encode, frozenset({EOS_ID}))


def test_the_table_has_every_kind() -> None:
    members = get_args(get_args(StoppingConfig)[0])
    assert {member.model_fields["kind"].default for member in members} == set(CONTRACT)


@every_config
def test_config_survives_json_and_refuses_unknown_keys(config: StoppingConfig) -> None:
    assert ADAPTER.validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="extra"):
        ADAPTER.validate_python({**config.model_dump(), "surprise": 1})


@every_config
@given(tokens=TOKENS, prompt=TOKENS)
def test_steps_are_pure_and_states_immutable(
    config: StoppingConfig, tokens: list[int], prompt: list[int]
) -> None:
    criterion = build(config)
    state, decision = criterion.init(prompt)
    assert criterion.init(prompt) == (state, decision)
    text = ""
    for num_tokens, token_id in enumerate(tokens, 1):
        text += PIECES[token_id]
        event = TokenEvent(token_id, text, num_tokens)
        before = hash(state)
        other = criterion.step(state, TokenEvent(1, "elsewhere", 1))
        following, decision = criterion.step(state, event)
        assert criterion.step(state, event) == (following, decision)
        assert criterion.step(state, TokenEvent(1, "elsewhere", 1)) == other
        assert hash(state) == before
        state = following


@every_config
@given(draws=TOKENS, prompt=TOKENS)
def test_streamed_text_is_the_final_text(
    config: StoppingConfig, draws: list[int], prompt: list[int]
) -> None:
    run = simulate(build(config), draws, PIECES.__getitem__, prompt)
    assert "".join(run.segments) == run.text
    assert run.full_text.startswith(run.text)
    kind = "max_lines" if isinstance(config, External) else config.kind
    assert run.finish is None or run.finish.kind == kind


@every_config
@given(draws=TOKENS, prompt=TOKENS, more=TOKENS)
def test_later_draws_change_nothing_before(
    config: StoppingConfig, draws: list[int], prompt: list[int], more: list[int]
) -> None:
    criterion = build(config)
    short = simulate(criterion, draws, PIECES.__getitem__, prompt)
    long = simulate(criterion, draws + more, PIECES.__getitem__, prompt)
    assert long.token_ids[: len(short.token_ids)] == short.token_ids
    if short.finish is not None:
        assert long == short
