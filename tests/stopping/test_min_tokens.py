"""``min_tokens`` of a stop: the first tokens never end the row."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stopping.simulate import simulate
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.cli.main import main
from vlmkit.contracts.stages import Finish, StoppingCriterion
from vlmkit.engine import Request
from vlmkit.pipeline import PipelineConfig
from vlmkit.stopping import EosConfig, StopSequencesConfig, StopTokenIdsConfig, held_ids
from vlmkit.stopping.eos import EosMarkers, eos
from vlmkit.stopping.stop_sequences import stop_sequences
from vlmkit.stopping.stop_token_ids import stop_token_ids

EOS_ID, PIECES = 3, ("a", "b", "ab", "<e>")
TOKENS = st.lists(st.integers(0, 3), max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


def first_stop(texts: list[str], stops: list[str], num_first: int) -> tuple[int, int, str] | None:
    """The token, character and string of the first stop that a token behind the first completes.

    Args:
        texts: the text after each token.
        stops: stop strings.
        num_first: tokens that never end the row.
    """
    floor = len(texts[num_first - 1]) if 0 < num_first <= len(texts) else 0
    for count in range(num_first + 1, len(texts) + 1):
        text = texts[count - 1]
        found = [
            (begin, -len(stop), stop)
            for stop in stops
            for begin in range(len(text) - len(stop) + 1)
            if text.startswith(stop, begin) and begin + len(stop) > floor
        ]
        if found:
            begin, _, stop = min(found)
            return count, begin, stop
    return None


def grown(draws: list[int]) -> list[str]:
    return ["".join(PIECES[i] for i in draws[: count + 1]) for count in range(len(draws))]


def assert_ends(
    criterion: StoppingCriterion, kind: str, draws: list[int], expected: tuple[int, int, Any] | None
) -> None:
    run = simulate(criterion, draws, PIECES.__getitem__)
    if expected is None:
        assert (run.finish, run.token_ids) == (None, tuple(draws))
        return
    count, begin, matched = expected
    assert run.token_ids == tuple(draws[:count])
    assert run.finish == Finish("stop", kind, matched, begin)
    assert "".join(run.segments) == run.text


@given(draws=TOKENS, stops=STOPS, min_tokens=st.integers(0, 8))
def test_stop_strings(draws: list[int], stops: list[str], min_tokens: int) -> None:
    criterion = stop_sequences(StopSequencesConfig(sequences=tuple(stops), min_tokens=min_tokens))
    expected = first_stop(grown(draws), stops, min_tokens)
    assert_ends(criterion, "stop_sequences", draws, expected)


@given(draws=TOKENS, stops=STOPS, min_tokens=st.integers(0, 8))
def test_texts_that_end_a_sequence(draws: list[int], stops: list[str], min_tokens: int) -> None:
    criterion = eos(EosMarkers(frozenset(), tuple(stops)), min_tokens=min_tokens)
    assert_ends(criterion, "eos", draws, first_stop(grown(draws), stops, min_tokens))


@given(draws=TOKENS, min_tokens=st.integers(0, 8))
def test_tokens_that_end_a_sequence(draws: list[int], min_tokens: int) -> None:
    criterion = eos(EosMarkers(frozenset({EOS_ID}), ()), min_tokens=min_tokens)
    places = [i for i, token_id in enumerate(draws) if token_id == EOS_ID and i >= min_tokens]
    texts = ["", *grown(draws)]
    expected = (places[0] + 1, len(texts[places[0]]), EOS_ID) if places else None
    assert_ends(criterion, "eos", draws, expected)


@given(
    draws=TOKENS,
    sequences=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=3),
    min_tokens=st.integers(0, 8),
)
def test_sequences_of_ids(draws: list[int], sequences: list[list[int]], min_tokens: int) -> None:
    config = StopTokenIdsConfig(sequences=sequences, min_tokens=min_tokens)
    complete = [
        (end, -len(ids))
        for ids in sequences
        for end in range(max(len(ids), min_tokens + 1), len(draws) + 1)
        if draws[end - len(ids) : end] == ids
    ]
    expected = None
    if complete:
        end, length = min(complete)
        expected = end, len(["", *grown(draws)][end + length]), tuple(draws[end + length : end])
    assert_ends(stop_token_ids(config), "stop_token_ids", draws, expected)


def test_a_stop_string_that_begins_early_counts_and_is_held_back() -> None:
    pieces = ["xE", "END", "E", "ND", "more"]
    criterion = stop_sequences(StopSequencesConfig(sequences=("END",), min_tokens=3))
    run = simulate(criterion, range(5), pieces.__getitem__)
    assert run.segments == ("x", "EEND", "", "")
    assert run.text == "xEEND"


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ([EosConfig()], {}),
        ([EosConfig(min_tokens=2)], {2: (9,)}),
        ([EosConfig(min_tokens=2, token_ids=(5,), tokens=("x", "long"))], {2: (5, 9, 120)}),
        ([EosConfig(min_tokens=4, token_ids=(5,)), EosConfig()], {4: (5,)}),
        ([EosConfig(min_tokens=4), EosConfig(min_tokens=2, token_ids=(7,))], {2: (7, 9)}),
        ([StopTokenIdsConfig(sequences=((1,), (2, 3)), min_tokens=6)], {6: (1,)}),
        (
            [EosConfig(min_tokens=4), StopTokenIdsConfig(sequences=((1,), (9,)), min_tokens=6)],
            {4: (9,), 6: (1,)},
        ),
        ([StopSequencesConfig(sequences=("a",), min_tokens=6)], {}),
    ],
)
def test_what_is_not_drawn_before(configs: list[Any], expected: dict[int, Any]) -> None:
    assert held_ids(configs, lambda text: [ord(x) for x in text], frozenset({9})) == expected


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


def tokens(shapes: tuple[Any, Any], *stopping: dict[str, Any]) -> list[Any]:
    limit = {"kind": "max_tokens", "max_tokens": 12}
    pipeline = PipelineConfig.model_validate({"stopping": [limit, *stopping]})
    return list(stream_pipeline(*shapes, Request("How many circles?"), pipeline))


def test_the_model_goes_on_instead_of_ending(shapes: tuple[Any, Any]) -> None:
    ends = shapes[1].eos_token_ids
    short = tokens(shapes, {"kind": "eos"})
    assert len(short) < 8
    long = tokens(shapes, {"kind": "eos", "min_tokens": 8})
    assert len(long) > 8
    assert not ends & {result.token for result in long[:8]}
    assert long[0].effective["pipeline"]["stopping"][1]["min_tokens"] == 8
    free = tokens(shapes)
    first = next(i for i, result in enumerate(free) if result.token in ends)
    assert [r.token for r in long[:first]] == [r.token for r in free[:first]]
    assert not any(long[-1].forced)


def test_a_stop_string_counts_from_then_on(shapes: tuple[Any, Any]) -> None:
    free = "".join(result.text for result in tokens(shapes))
    stop = free[0]
    config = {"kind": "stop_sequences", "sequences": [stop]}
    assert len(tokens(shapes, config)) == 1
    held = tokens(shapes, {**config, "min_tokens": 1})
    assert "".join(result.text for result in held).startswith(stop)


@pytest.mark.parametrize("kind", ["eos", "stop_sequences", "stop_token_ids"])
@pytest.mark.parametrize(
    ("value", "message"), [(-1, "must be at least 0, got -1"), (1.5, "must be a whole number")]
)
def test_what_is_no_number_of_tokens_is_refused(
    kind: str, value: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = "" if kind == "eos" else "sequences: [a], "
    assert main(["generate", f"stopping=[{{kind: {kind}, {rest}min_tokens: {value}}}]"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "stopping.0.min_tokens: " + message in captured.err
