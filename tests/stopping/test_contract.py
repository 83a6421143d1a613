"""What every stopping criterion promises. A new kind gets these tests by its row in the table."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tests.stopping.simulate import measured, simulate
from vlmkit.contracts.stages import TokenEvent
from vlmkit.errors import VlmkitError
from vlmkit.stopping import (
    AllOfConfig,
    AnyOfConfig,
    ConfidenceStop,
    EntropyStop,
    EosConfig,
    External,
    MaxTokensConfig,
    RepetitionLoopConfig,
    StoppingConfig,
    StopSequencesConfig,
    StopTokenIdsConfig,
    ThinkingBudgetConfig,
    TimeLimitConfig,
    all_of,
    any_of,
    build_stopping,
    each_config,
)

PIECES = ("a", "b", "ab", "ba ", "<think>", "</think>", "<eos>", "c")
EOS_ID = 6
MAX_LINES = "tests.external_package.vlmkit_example_stages.max_lines:max_lines"
ADAPTER: TypeAdapter[StoppingConfig] = TypeAdapter(StoppingConfig)

CONTRACT: dict[str, tuple[StoppingConfig, ...]] = {
    "max_tokens": (MaxTokensConfig(max_tokens=0), MaxTokensConfig(max_tokens=5)),
    "eos": (
        EosConfig(),
        EosConfig(tokens=("abab", "c"), token_ids=(3,)),
        EosConfig(tokens=("abab", "ba"), min_tokens=3),
    ),
    "stop_sequences": (
        StopSequencesConfig(sequences=("bb", "abc")),
        StopSequencesConfig(sequences=("a<think>",), include=True),
        StopSequencesConfig(sequences=("ab", "bcab"), min_tokens=4),
    ),
    "stop_token_ids": (
        StopTokenIdsConfig(sequences=((1, 1), (0, 1, 7))),
        StopTokenIdsConfig(sequences=((0, 4), (3,)), include=True),
        StopTokenIdsConfig(sequences=((0, 1, 0, 1), (1, 0)), min_tokens=3),
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
    "time_limit": (TimeLimitConfig(seconds=0.1), TimeLimitConfig(seconds=2.75)),
    "entropy_stop": (
        EntropyStop(above=2.0, window=2, patience=2),
        EntropyStop(below=0.75, action="close_thinking", transition="ba "),
    ),
    "confidence_stop": (
        ConfidenceStop(below=0.3, window=3, min_tokens=4),
        ConfidenceStop(above=0.4, action="close_thinking", patience=2, min_tokens=2),
    ),
    "any_of": (
        AnyOfConfig(criteria=(MaxTokensConfig(max_tokens=7),)),
        AnyOfConfig(criteria=(ThinkingBudgetConfig(budget=2), EosConfig(), EntropyStop(above=2.9))),
    ),
    "all_of": (
        AllOfConfig(criteria=(MaxTokensConfig(max_tokens=4), EosConfig(tokens=("abab", "c")))),
        AllOfConfig(
            criteria=(
                StopSequencesConfig(sequences=("a",)),
                AnyOfConfig(criteria=(TimeLimitConfig(seconds=2.0), EntropyStop(below=0.2))),
            )
        ),
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
def test_what_is_read_is_asked_for_and_its_absence_refused(config: StoppingConfig) -> None:
    criterion = build(config)
    nested = any_of([all_of([criterion]), any_of([])])
    assert nested.reads == criterion.reads
    expected = {
        {"time_limit": "elapsed_s", "entropy_stop": "entropy", "confidence_stop": "confidence"}.get(
            one.kind, ""
        )
        for _, one in each_config([config])
    }
    assert criterion.reads == expected - {""}
    if criterion.reads:
        state, _ = criterion.init([4])
        with pytest.raises(VlmkitError, match="token 1 came without its"):
            criterion.step(state, TokenEvent(0, "a", 1))


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
        event = measured(criterion, TokenEvent(token_id, text, num_tokens))
        elsewhere = measured(criterion, TokenEvent(1, "elsewhere", 1))
        before = hash(state)
        other = criterion.step(state, elsewhere)
        following, decision = criterion.step(state, event)
        assert criterion.step(state, event) == (following, decision)
        assert criterion.step(state, elsewhere) == other
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
    kinds = {
        "max_lines" if one.kind == "external" else one.kind for _, one in each_config([config])
    }
    assert run.finish is None or run.finish.kind in kinds


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
