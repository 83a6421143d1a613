"""Criteria combined: which decision counts, and who may not end a row inside a thinking block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stopping.simulate import Run, simulate
from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent
from vlmkit.errors import VlmkitError
from vlmkit.stopping import (
    EosConfig,
    MaxTokensConfig,
    StoppingConfig,
    StopSequencesConfig,
    ThinkingBudgetConfig,
    any_of,
    build_stopping,
)
from vlmkit.stopping.any_of import combine_decisions

NOTHING: frozenset[str] = frozenset()
PIECES = ["a", "b", "\n", "</", "think>", "<eos>", "<think>", "</think>", "Wait", "x\n"]
EOS_ID = 5
ENDS = Decision(finish=Finish("stop", "eos", 2, 1))


def encode(text: str) -> list[int]:
    return [PIECES.index(text)] if text in PIECES else [PIECES.index(piece) for piece in text]


def run_configs(configs: Sequence[StoppingConfig], text: Sequence[str], *prompt: str) -> Run:
    criterion = build_stopping(configs, encode, frozenset({EOS_ID}))
    draws = [PIECES.index(piece) for piece in text]
    prompt_ids = [PIECES.index(piece) for piece in prompt]
    return simulate(criterion, draws, PIECES.__getitem__, prompt_ids)


def thinking(**values: Any) -> ThinkingBudgetConfig:
    return ThinkingBudgetConfig.model_validate({"budget": None, **values})


def stop(*sequences: str) -> StopSequencesConfig:
    return StopSequencesConfig(sequences=sequences)


def test_the_first_forced_token_wins() -> None:
    decisions = [
        Decision(overrides=((1, 9), (2, 9))),
        Decision(forced_id=4, overrides=((6, 6),)),
        Decision(forced_id=5),
    ]
    assert combine_decisions(decisions, NOTHING) == Decision(forced_id=4, overrides=((6, 6),))


def test_the_first_override_of_an_id_wins() -> None:
    decisions = [
        Decision(overrides=((1, 9), (2, 9))),
        Decision(overrides=((1, 8),)),
        Decision(overrides=((2, 9), (3, 9))),
        Decision(overrides=((4, 8),)),
    ]
    combined = combine_decisions(decisions, NOTHING)
    assert dict(combined.overrides) == {1: 9, 2: 9, 3: 9, 4: 8}
    assert [combined.taken(drawn) for drawn in (1, 3, 4, 5)] == [9, 9, 8, 5]


def test_the_finish_that_leaves_the_least_text_wins() -> None:
    decisions = [
        Decision(finish=Finish("length", "max_tokens")),
        Decision(finish=Finish("stop", "other"), hold_from=7),
        Decision(finish=Finish("stop", "stop_sequences", "b", 5), hold_from=6),
        Decision(finish=Finish("stop", "eos", 2, 4)),
    ]
    kinds = []
    vetoed: frozenset[str] = frozenset()
    while (finish := combine_decisions(decisions, vetoed).finish) is not None:
        kinds.append(finish.kind)
        vetoed |= {finish.kind}
    assert kinds == ["eos", "stop_sequences", "other", "max_tokens"]
    assert combine_decisions(decisions, NOTHING).hold_from == 6
    assert combine_decisions(decisions[-1:], frozenset({"eos"})).finish is None


def test_a_veto_from_outside_counts_in_a_group() -> None:
    """Also for a criterion that does not look at ``vetoed`` itself."""
    deaf = StoppingCriterion(
        "deaf", lambda prompt_ids: ((), Decision()), lambda state, event: ((), ENDS)
    )
    group = any_of([deaf])
    state, _ = group.init([])
    assert group.step(state, TokenEvent(1, "a", 1))[1].finish == ENDS.finish
    vetoed = TokenEvent(1, "a", 1, vetoed=frozenset({"eos"}))
    assert group.step(state, vetoed)[1].finish is None


def test_eos_as_the_last_allowed_token_is_a_stop() -> None:
    run = run_configs([MaxTokensConfig(max_tokens=2), EosConfig()], ["a", "<eos>", "a"])
    assert run.finish == Finish("stop", "eos", EOS_ID, 1)


def test_no_criterion_never_ends() -> None:
    assert len(run_configs([], ["a"] * 5).token_ids) == 5


def test_a_stop_inside_thinking_is_ignored_then_and_later() -> None:
    configs = [stop("\n"), thinking()]
    run = run_configs(configs, ["a", "\n", "b", "</think>", "a", "x\n", "a"], "<think>")
    assert run.text == "a\nb</think>ax"
    assert run.segments[1] == "\n"


def test_a_stop_string_may_not_begin_inside_thinking() -> None:
    configs = [stop("b</think>a", "</think>b"), thinking()]
    run = run_configs(configs, ["a", "b", "</think>", "a", "b", "a"], "<think>")
    assert run.finish is None
    run = run_configs(configs, ["a", "b", "</think>", "b", "a"], "<think>")
    assert run.text == "ab"


def test_a_stop_inside_thinking_may_be_honored() -> None:
    configs = [stop("\n"), thinking(stop_inside="honor")]
    assert run_configs(configs, ["a", "\n", "b"], "<think>").text == "a"


def test_a_stop_may_be_a_marker() -> None:
    assert run_configs([stop("</think>"), thinking()], ["a", "</think>"], "<think>").text == "a"
    assert run_configs([stop("<think>"), thinking()], ["a", "<think>", "b"]).text == "a"
    closed = run_configs([stop("</think>"), thinking(budget=1)], ["a", "b", "a"], "<think>")
    assert closed.text == "a"
    message = thinking(budget=1, transition="</think>\n")
    assert run_configs([stop("</think>"), message], ["a", "b", "a"], "<think>").text == "a"


def test_a_stop_that_could_never_count_is_refused() -> None:
    configs = [stop("</think>\n"), thinking(end="</think>")]
    with pytest.raises(VlmkitError, match="stop_inside to 'honor'"):
        build_stopping(configs, lambda text: [3, 4] if text == "</think>" else [6], NOTHING)
    with pytest.raises(VlmkitError, match="two thinking_budget"):
        build_stopping([thinking(), thinking(budget=3)], encode, frozenset())


def test_eos_inside_thinking() -> None:
    text = ["a", "<eos>", "b", "<eos>", "b"]
    closed = run_configs([EosConfig(), thinking()], text, "<think>")
    assert closed.text == "a</think>b"
    assert closed.finish == Finish("stop", "eos", EOS_ID, len("a</think>b"))
    stopped = run_configs([EosConfig(), thinking(eos_inside="stop")], text, "<think>")
    assert stopped.text == "a"
    two = run_configs([EosConfig(tokens=("ab",)), thinking()], ["a", "b", "a", "a"], "<think>")
    assert two.full_text == "ab</think>a"
    assert two.finish is None


def test_an_eos_text_may_not_begin_inside_thinking_and_is_not_held_back_there() -> None:
    configs = [EosConfig(tokens=("ab",)), thinking(end="b")]
    run = run_configs(configs, ["a", "b", "x\n", "a", "b", "a"], "<think>")
    assert run.segments[0] == "a"
    assert run.text == "abx\n"


def test_a_stop_in_the_closing_message_is_ignored() -> None:
    configs = [stop("\n"), thinking(budget=1, transition="b\na")]
    run = run_configs(configs, ["a"] * 7, "<think>")
    assert run.text == "ab\na</think>aa"


def test_the_limit_counts_inside_thinking() -> None:
    run = run_configs([MaxTokensConfig(max_tokens=3), thinking(budget=2)], ["a"] * 5, "<think>")
    assert run.token_ids == (0, 0, 7)
    assert run.finish == Finish("length", "max_tokens")


SETS = st.lists(
    st.sampled_from(
        [
            MaxTokensConfig(max_tokens=6),
            EosConfig(tokens=("ba",)),
            stop("ab", "\n"),
            stop("bb<", "</think>a"),
            StopSequencesConfig(sequences=("aab",), include=True),
        ]
    ),
    max_size=4,
)
BUDGETS = st.sampled_from(
    [thinking(), thinking(budget=2), thinking(budget=4, min_tokens=2, stop_inside="honor")]
)
ROWS = st.lists(st.sampled_from(PIECES), max_size=20)


@given(configs=SETS, budget=BUDGETS, text=ROWS)
def test_streamed_text_is_the_final_text(
    configs: list[StoppingConfig], budget: ThinkingBudgetConfig, text: list[str]
) -> None:
    run = run_configs([*configs, budget], text, "<think>")
    assert "".join(run.segments) == run.text


@given(configs=SETS, budget=BUDGETS, text=ROWS, split=st.integers(0, 4))
def test_grouping_and_order_of_criteria_do_not_matter(
    configs: list[StoppingConfig], budget: ThinkingBudgetConfig, text: list[str], split: int
) -> None:
    draws = [PIECES.index(piece) for piece in text]

    def build(part: Sequence[StoppingConfig]) -> StoppingCriterion:
        return build_stopping(part, encode, frozenset({EOS_ID}))

    flat = simulate(build([*configs, budget]), draws, PIECES.__getitem__, [6])
    head, tail = configs[:split], [*configs[split:], budget]
    # the thinking budget needs to know of all eos configs
    tail += [config for config in head if config.kind == "eos"]
    for order in ((head, tail), (tail, head)):
        nested = any_of([build(part) for part in order])
        run = simulate(nested, draws, PIECES.__getitem__, [6])
        assert (run.token_ids, run.text) == (flat.token_ids, flat.text)
