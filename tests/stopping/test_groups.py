"""all_of and any_of as kinds of their own: nested, with messages that say where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stopping.simulate import measured, simulate
from vlmkit.config.run import load_run
from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent
from vlmkit.errors import VlmkitError
from vlmkit.stopping import (
    AllOfConfig,
    AnyOfConfig,
    EosConfig,
    External,
    MaxTokensConfig,
    StoppingConfig,
    StopSequencesConfig,
    ThinkingBudgetConfig,
    TimeLimitConfig,
    build_stopping,
    clock_kinds,
    each_config,
    token_limit,
)

PIECES = ["a", "b", "\n", "<eos>", "<think>", "</think>"]
EOS_ID = 3
TOKENS = st.lists(st.integers(0, 5), max_size=16)
LEAVES = st.sampled_from(
    [
        MaxTokensConfig(max_tokens=3),
        MaxTokensConfig(max_tokens=6),
        EosConfig(),
        StopSequencesConfig(sequences=("ab", "\n")),
        TimeLimitConfig(seconds=2.5),
    ]
)
TREES: st.SearchStrategy[StoppingConfig] = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda kind, criteria: kind(criteria=tuple(criteria)),
        st.sampled_from([AnyOfConfig, AllOfConfig]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


def encode(text: str) -> list[int]:
    return [PIECES.index(text)]


def build(*configs: StoppingConfig):
    return build_stopping(configs, encode, frozenset({EOS_ID}))


def ends(config: StoppingConfig, tokens: list[int], end: int) -> bool:
    """Whether a tree says at this token that the row ends, from its leaves alone."""
    if isinstance(config, AnyOfConfig):
        return any(ends(member, tokens, end) for member in config.criteria)
    if isinstance(config, AllOfConfig):
        return all(ends(member, tokens, end) for member in config.criteria)
    criterion = build(config)
    state, decision = criterion.init([])
    for count, token_id in enumerate(tokens[:end], 1):
        text = "".join(PIECES[i] for i in tokens[:count])
        event = TokenEvent(token_id, text, count, token_id)
        state, decision = criterion.step(state, measured(criterion, event))
    return decision.finish is not None


@given(tree=TREES, tokens=TOKENS)
def test_a_tree_ends_a_row_where_its_leaves_say_so(tree: StoppingConfig, tokens: list[int]) -> None:
    run = simulate(build(tree), tokens, PIECES.__getitem__)
    first = next((n for n in range(1, len(tokens) + 1) if ends(tree, tokens, n)), None)
    assert (run.finish is None) == (first is None)
    assert len(run.token_ids) == (first or len(tokens))
    assert "".join(run.segments) == run.text
    limit = token_limit([tree])
    assert limit is None or len(run.token_ids) <= limit
    only_limits = all(config.kind == "max_tokens" for _, config in each_config([tree]))
    if only_limits and len(tokens) > 6:
        assert len(run.token_ids) == limit


@given(trees=st.lists(TREES, max_size=3), tokens=TOKENS)
def test_any_of_is_the_list_itself(trees: list[StoppingConfig], tokens: list[int]) -> None:
    flat = simulate(build(*trees), tokens, PIECES.__getitem__)
    if trees:
        group = AnyOfConfig(criteria=tuple(trees))
        assert simulate(build(group), tokens, PIECES.__getitem__) == flat


def test_the_first_stop_string_from_the_nth_token_on() -> None:
    group = AllOfConfig(
        criteria=(MaxTokensConfig(max_tokens=3), StopSequencesConfig(sequences=("\n",)))
    )
    run = simulate(build(MaxTokensConfig(max_tokens=9), group), [0, 2, 0, 0, 2], PIECES.__getitem__)
    assert run.text == "a\naa"
    assert run.finish == Finish("stop", "stop_sequences", "\n", 4)


def test_an_eos_or_a_budget_counts_wherever_it_stands() -> None:
    budget = ThinkingBudgetConfig(budget=None)
    late_eos = AllOfConfig(criteria=(MaxTokensConfig(max_tokens=2), EosConfig()))
    run = simulate(
        build(AnyOfConfig(criteria=(budget,)), late_eos), [0, 3, 0, 3], PIECES.__getitem__, [4]
    )
    assert run.text == "a</think>a"  # the eos inside closes the block, the one outside ends the row
    with pytest.raises(VlmkitError, match="two thinking_budget"):
        build(budget, AnyOfConfig(criteria=(ThinkingBudgetConfig(budget=3),)))


def test_what_looks_at_the_clock_is_told() -> None:
    clock = TimeLimitConfig(seconds=9.0)
    assert clock_kinds([EosConfig(), MaxTokensConfig(max_tokens=3)]) == ()
    nested = AllOfConfig(criteria=(EosConfig(), AnyOfConfig(criteria=(clock, clock))))
    assert clock_kinds([nested, clock]) == ("time_limit",)
    assert build(nested).reads == {"elapsed_s"}


def reads_the_weather():
    return StoppingCriterion(
        "weather",
        lambda prompt_ids: ((), Decision()),
        lambda state, event: (state, Decision()),
        frozenset({"weather"}),
    )


def hurries():
    return reads_the_weather()._replace(reads=frozenset({"elapsed_s"}))


def test_a_third_party_may_read_what_there_is() -> None:
    here = "tests.stopping.test_groups"
    config = External(factory=f"{here}:hurries")
    assert clock_kinds([AnyOfConfig(criteria=(config,))]) == ("external",)
    assert build(config).reads == {"elapsed_s"}
    with pytest.raises(VlmkitError, match="reads 'weather', which no token event offers"):
        build(External(factory=f"{here}:reads_the_weather"))


def test_all_of_ends_no_row_with_a_stop_that_thinking_ignores() -> None:
    stop, late = StopSequencesConfig(sequences=("\n",)), MaxTokensConfig(max_tokens=2)
    budget = ThinkingBudgetConfig(budget=None)
    beside = [AllOfConfig(criteria=(stop, late)), budget]
    within = [AllOfConfig(criteria=(AnyOfConfig(criteria=(stop, budget)), late))]
    for configs in (beside, beside[::-1], within):
        run = simulate(build(*configs), [0, 2, 2, 5, 0, 2, 0], PIECES.__getitem__, [4])
        assert run.text == "a\n\n</think>a"


MISTAKES = {
    "unknown key": (
        "- {kind: stop_sequences, sequences: [a], includ: true}",
        "did you mean 'include'?",
        7,
    ),
    "unknown kind": ("- {kind: stop_sequence}", "'stop_sequence': write kind: stop_sequences", 7),
    "range": ("- {kind: max_tokens, max_tokens: -3}", "must be at least 0, got -3", 7),
    "no kind": ("- 7", "needs a mapping with a 'kind'", 7),
    "not a list": ("kind: eos", "must be a list", 7),
    "empty": ("[]", "at least 1 item", 7),
    "never ends": ("- {kind: thinking_budget, budget: 3}", "never ends a row", 5),
    "factory": ("- {kind: external, factory: 'no.such:thing'}", "can't be imported", 7),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_inside_a_group_names_its_line(name: str, tmp_path: Path) -> None:
    entry, message, line = MISTAKES[name]
    path = tmp_path / "run.yaml"
    path.write_text(
        "stopping:\n- kind: eos\n- kind: any_of\n  criteria:\n"
        f"  - kind: all_of\n    criteria:\n      {entry}\n"
    )
    with pytest.raises(VlmkitError) as caught:
        load_run(path, trust_code=True)
    text = str(caught.value)
    assert message in text
    place, where = text.split(": ")[:2]
    assert place == f"{path}:{line}", text
    assert where.startswith("stopping.1.criteria.0"), text
