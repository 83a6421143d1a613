"""max_tokens, eos and stop sequences."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.stopping.simulate import Run, simulate
from vlmkit.contracts.stages import Finish
from vlmkit.errors import VlmkitError
from vlmkit.stopping import (
    EosConfig,
    MaxTokensConfig,
    StopSequencesConfig,
    ThinkingBudgetConfig,
    build_stopping,
)
from vlmkit.stopping.max_tokens import max_tokens
from vlmkit.stopping.stop_sequences import stop_sequences

STOPS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


def run_pieces(pieces: list[str], sequences: list[str], *, include: bool = False) -> Run:
    config = StopSequencesConfig(sequences=tuple(sequences), include=include)
    return simulate(stop_sequences(config), range(len(pieces)), pieces.__getitem__)


@pytest.mark.parametrize("limit", [0, 1, 2, 7])
def test_max_tokens_gives_exactly_that_many(limit: int) -> None:
    run = simulate(max_tokens(MaxTokensConfig(max_tokens=limit)), range(20))
    assert len(run.token_ids) == limit
    assert run.finish == Finish("length", "max_tokens")


@pytest.mark.parametrize("value", [-1, True, "no", None])
def test_max_tokens_refuses(value: object) -> None:
    with pytest.raises(VlmkitError):
        MaxTokensConfig.model_validate({"max_tokens": value})


@pytest.mark.parametrize("sequences", [(), ("",), ("a", ""), "a"])
def test_stop_sequences_refuses(sequences: object) -> None:
    with pytest.raises(VlmkitError):
        StopSequencesConfig.model_validate({"sequences": sequences})


def test_stop_string_across_tokens_is_held_back_and_cut() -> None:
    run = run_pieces(["the ", "E", "N", "x", "EN", "D of", "more"], ["END"])
    assert run.segments == ("the ", "", "", "ENx", "", "")
    assert run.text == "the ENx"
    assert run.finish == Finish("stop", "stop_sequences", "END", 7)
    assert len(run.token_ids) == 6


def test_included_stop_string_needs_no_holding_back() -> None:
    run = run_pieces(["the ", "EN", "D of"], ["END"], include=True)
    assert run.segments == ("the ", "EN", "D")
    assert run.finish == Finish("stop", "stop_sequences", "END", 7)


@pytest.mark.parametrize(
    ("sequences", "text", "matched", "kept"),
    [
        (["b", "ab"], "xab", "ab", "x"),  # the earliest start
        (["a", "ab"], "xab", "ab", "x"),  # then the longest
        (["bc", "abcd"], "abcd", "abcd", ""),
        (["aa"], "xaaa", "aa", "x"),
    ],
)
def test_several_matches_at_once(sequences: list[str], text: str, matched: str, kept: str) -> None:
    for order in (sequences, sequences[::-1]):
        run = run_pieces([text], order)
        assert run.finish is not None
        assert (run.finish.matched, run.text) == (matched, kept)


@given(pieces=st.lists(st.text("ab", max_size=4), max_size=12), sequences=STOPS)
def test_a_stop_string_never_appears_and_only_stops_cut(
    pieces: list[str], sequences: list[str]
) -> None:
    run = run_pieces(pieces, sequences)
    full = "".join(pieces)
    assert not any(sequence in run.text for sequence in sequences)
    assert (run.finish is None) == (not any(sequence in full for sequence in sequences))
    if run.finish is not None:
        assert full.startswith(run.text + str(run.finish.matched))
        # it came with the first token that completed any stop string
        before = "".join(pieces[: len(run.token_ids) - 1])
        assert not any(sequence in before for sequence in sequences)


@given(
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
    sequences=STOPS,
    cuts=st.lists(st.integers(0, 40), max_size=10),
)
def test_how_text_is_cut_into_tokens_does_not_matter(
    pieces: list[str], sequences: list[str], cuts: list[int]
) -> None:
    # where one stop string lies inside another, the longer one counts only if a token has it whole
    assume(not any(a in b[1:] for a in sequences for b in sequences))
    full = "".join(pieces)
    bounds = sorted({0, len(full), *(cut for cut in cuts if cut < len(full))})
    others = [full[a:b] for a, b in pairwise(bounds)]
    texts = {run_pieces(cut, sequences).text for cut in (pieces, others, list(full))}
    assert len(texts) == 1


@given(pieces=st.lists(st.text("ab", max_size=4), max_size=12), sequences=STOPS)
def test_no_more_is_held_back_than_needed(pieces: list[str], sequences: list[str]) -> None:
    run = run_pieces(pieces, sequences)
    text = streamed = ""
    for piece, segment in zip(pieces, run.segments, strict=False):
        text, streamed = text + piece, streamed + segment
        held = text[len(streamed) :]
        if held and not any(sequence in text for sequence in sequences):
            assert any(sequence.startswith(held) for sequence in sequences)


def test_eos_of_the_model_and_of_the_user() -> None:
    vocabulary = {"<end>": [3], "User:": [4, 5]}
    config = EosConfig(tokens=("<end>", "User:"), token_ids=(9,))
    criterion = build_stopping([config], vocabulary.__getitem__, frozenset({2}))
    pieces = ["A", "B", "<s>", "<end>", "Us", "er:", "U", "ser", ": C", "<9>"]

    def run(*draws: int) -> Run:
        return simulate(criterion, draws, pieces.__getitem__)

    assert run(0, 2, 1).finish == Finish("stop", "eos", 2, 1)
    assert run(0, 3, 1).finish == Finish("stop", "eos", 3, 1)
    assert run(0, 9, 1).finish == Finish("stop", "eos", 9, 1)
    spelled = run(0, 6, 7, 8)
    assert spelled.finish == Finish("stop", "eos", "User:", 1)
    assert spelled.segments == ("A", "", "", "")
    assert run(0, 1, 6, 2).text == "ABU"


def test_eos_markers_of_all_configs_close_a_block() -> None:
    vocabulary = {"<think>": [0], "</think>": [1], "ab": [2, 3], "ba": [3, 2]}
    configs = [EosConfig(tokens=("ab",)), EosConfig(tokens=("ba",))]
    budget = ThinkingBudgetConfig(budget=None)
    criterion = build_stopping([*configs, budget], vocabulary.__getitem__, frozenset())
    for draws in ([2, 3, 4, 4], [3, 2, 4, 4]):
        run = simulate(criterion, draws, ["<think>", "</think>", "a", "b", "c"].__getitem__, [0])
        assert run.token_ids == (*draws[:2], 1, 4)


def test_without_an_eos_config_nothing_is_an_end_of_sequence() -> None:
    criterion = build_stopping([MaxTokensConfig(max_tokens=3)], list, frozenset({2}))
    assert simulate(criterion, [2, 2, 2, 2]).token_ids == (2, 2, 2)


def test_eos_string_of_no_token_is_refused() -> None:
    with pytest.raises(VlmkitError, match="'<gone>' into no token"):
        build_stopping([EosConfig(tokens=("<gone>",))], lambda text: [], frozenset())


def test_defect_7_a_stop_string_is_never_reduced_to_its_last_token() -> None:
    vocabulary = {"User:": [4, 5]}
    criterion = build_stopping([EosConfig(tokens=("User:",))], vocabulary.__getitem__, frozenset())
    pieces = ["A", "B", "C", "D", "User", ":"]
    run = simulate(criterion, [0, 5, 4, 0, 4, 5, 1], pieces.__getitem__)
    assert run.text == "A:UserA"
    assert run.token_ids == (0, 5, 4, 0, 4, 5)


def test_defect_7_nothing_is_left_for_later_calls() -> None:
    def run(config: EosConfig) -> tuple[int, ...]:
        return simulate(build_stopping([config], list, frozenset({2})), [0, 1, 2, 3]).token_ids

    assert run(EosConfig()) == (0, 1, 2)
    assert run(EosConfig(token_ids=(1,))) == (0, 1)
    assert run(EosConfig()) == (0, 1, 2)
