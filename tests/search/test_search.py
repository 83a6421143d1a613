"""Ends, forced tokens, ties and mistakes of the searches."""

from __future__ import annotations

import re
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tests.search.toy import Tokens, logprobs_of, run, table
from vlmkit.errors import VlmkitError
from vlmkit.search import (
    BeamSearch,
    ContrastiveSearch,
    DiverseBeamSearch,
    Extended,
    SearchConfig,
    SearchStart,
    SearchStep,
    build_search,
)
from vlmkit.search.candidates import Beam, best_candidates

CONFIGS: dict[str, SearchConfig] = {
    "beam": BeamSearch(num_beams=3, num_return=3, early_stopping="never"),
    "diverse_beam": DiverseBeamSearch(
        num_beams=4, num_groups=2, diversity_penalty=0.5, num_return=4
    ),
    "contrastive_search": ContrastiveSearch(top_k=3, alpha=0.6),
}
each_search = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def test_a_stop_in_the_middle_removes_only_that_hypothesis() -> None:
    forward, prompt = table(11, 9), (1,)
    config = BeamSearch(num_beams=3, num_return=3, early_stopping="never", length_penalty=0.0)
    plain = run(build_search(config), forward, prompt, max_tokens=4)
    second = plain.best[1][0]
    ended = run(
        build_search(config), forward, prompt, max_tokens=4, ends=lambda path: path == second[:2]
    )
    answers = [ids for ids, _ in ended.best]
    assert second[:2] in answers
    assert all(ids[:2] != second[:2] or ids == second[:2] for ids in answers)
    others = [each for each in plain.best if each[0][:2] != second[:2]]
    assert others
    assert all(each in ended.best for each in others if each[1] > ended.best[-1][1])


@each_search
def test_a_forced_token_is_taken_by_every_row_and_costs_nothing(config: SearchConfig) -> None:
    forward, forced = table(5, 9), {1: 7, 2: 3}

    def process(rows: list[Tokens], logprobs: mx.array) -> mx.array:
        token_id = forced.get(len(rows[0]) - 1)
        if token_id is None:
            return logprobs
        only = np.full(logprobs.shape, -np.inf, np.float32)
        only[:, token_id] = 0
        return mx.array(only)

    found = run(build_search(config), forward, (1,), max_tokens=4, process=process)
    for ids, score in found.best:
        assert ids[1:3] == (7, 3)
        if config.kind == "beam":
            free = sum(
                logprobs_of(forward, [(1, *ids[:place])])[0, ids[place]].item() for place in (0, 3)
            )
            assert score == pytest.approx(free / 4, abs=1e-5)


@each_search
def test_tokens_that_the_chain_removed_never_come(config: SearchConfig) -> None:
    def process(rows: list[Tokens], logprobs: mx.array) -> mx.array:
        kept = np.full(logprobs.shape, -np.inf, np.float32)
        kept[:, 4] = np.log(0.75)
        kept[:, 6] = np.log(0.25)
        return mx.array(kept)

    found = run(build_search(config), table(5, 9), (1,), max_tokens=3, process=process)
    assert all(set(ids) <= {4, 6} for ids, _ in found.best)


@each_search
def test_no_token_left(config: SearchConfig) -> None:
    def removed(rows: list[Tokens], logprobs: mx.array) -> mx.array:
        return mx.full(logprobs.shape, mx.nan if len(rows[0]) == 2 else -mx.inf)

    with pytest.raises(VlmkitError, match="the sampler chain removed every token"):
        run(build_search(config), table(5, 9), (1, 2), max_tokens=3, process=removed)
    with pytest.raises(VlmkitError, match="the sampler chain removed every token"):
        run(build_search(config), table(5, 9), (1,), max_tokens=3, process=removed)


@each_search
def test_one_token_only(config: SearchConfig) -> None:
    found = run(build_search(config), table(5, 9), (1,), max_tokens=1)
    logprobs = np.array(logprobs_of(table(5, 9), [(1,)])[0])
    if config.kind != "contrastive_search":
        assert found.best[0][0] == (int(logprobs.argmax()),)
        assert found.widths == (1,)
    else:
        assert len(found.committed) == 1


def test_beams_that_no_rule_stops_end_without_a_limit() -> None:
    config = BeamSearch(num_beams=2, early_stopping="never", length_penalty=1.0)
    search = build_search(config)
    state, paths = search.init(SearchStart()), ((),)
    for _ in range(4):
        logits = mx.zeros((len(paths), 5))
        step = SearchStep(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        state, outcome = search.advance(
            state,
            step,
            lambda row, token_id, paths=paths: Extended((*paths[row], token_id), token_id == 0),
        )
        assert not outcome.done  # with no limit, a longer answer could always be better
        paths = outcome.paths


@pytest.mark.parametrize(
    ("settings", "max_tokens", "stops"),
    [
        ({"early_stopping": "never"}, 2, True),  # −2.0 over 2 tokens is no better than −1.0 over 1
        ({"early_stopping": "never"}, 3, False),
        ({"early_stopping": "never"}, None, False),
        ({"early_stopping": "never", "length_penalty": 0.0}, 9, True),
        ({"early_stopping": "never", "length_penalty": -1.0}, 9, True),
        ({"early_stopping": False}, 9, True),
        ({"early_stopping": True}, 9, True),
    ],
)
def test_when_one_beam_stops(settings: dict[str, Any], max_tokens: int | None, stops: bool) -> None:
    search = build_search(BeamSearch(num_beams=1, **settings))
    step = SearchStep(mx.array([[-1.0, -2.0, -3.0]]))
    state = search.init(SearchStart(max_tokens))
    _, outcome = search.advance(state, step, lambda row, i: Extended((i,), i == 0))
    assert outcome.done == stops
    if stops:
        assert outcome.best == (((0,), -1.0),)


def test_with_a_negative_length_penalty_no_length_but_the_present_counts() -> None:
    config = BeamSearch(num_beams=2, early_stopping="never", length_penalty=-0.3)
    search = build_search(config)
    state = search.init(SearchStart(1000))

    def ends_with_0(row: int, token_id: int) -> Extended:
        return Extended(None, token_id == 0)

    first = mx.array([[-1.0, -0.9, -5.0]])
    state, outcome = search.advance(state, SearchStep(first), ends_with_0)
    assert outcome.token_ids == (1, 2)
    second = mx.array([[-2.4, -9.0, -0.1], [-1.0, -1.0, -1.0]])
    state, outcome = search.advance(state, SearchStep(second), ends_with_0)
    # Finished: −1.0 and −3.3 · 2**0.3. Live: −1.0 · 2**0.3 now, much less at a thousand tokens.
    assert not outcome.done


def test_equal_scores_go_to_the_earlier_beam_and_the_lower_id() -> None:
    for size in (50, 40_000):
        found = best_candidates(mx.zeros((2, size)), [[Beam(1, -1.0), Beam(0, -1.0)]], 5)
        assert [(each.row, each.token_id) for each in found[0]] == [(1, i) for i in range(5)]
        places = [7, size // 3, size - 1]
        logprobs = np.full((2, size), -3.0, np.float32)
        logprobs[:, places] = -1.0
        [found_] = best_candidates(mx.array(logprobs), [[Beam(0, 0.0), Beam(1, 0.0)]], 5)
        expected = [(0, i) for i in places] + [(1, i) for i in places[:2]]
        assert [(each.row, each.token_id) for each in found_] == expected


@pytest.mark.parametrize("size", [3, 100, 9_001, 151_936])
@pytest.mark.parametrize("count", [2, 8, 40])
def test_candidates_are_the_largest_of_all(size: int, count: int) -> None:
    rng = np.random.default_rng(size + count)
    logprobs = np.round(rng.standard_normal((3, size)).astype(np.float32), 2)  # with ties
    logprobs[0, : size // 2] = -np.inf
    scores = np.array([[-0.5], [-1.25], [0.25]], np.float32)
    totals = (logprobs + scores).reshape(-1)
    order = [at for at in np.argsort(-totals, kind="stable")[:count] if totals[at] > -np.inf]
    beams = [Beam(row, score.item()) for row, score in enumerate(scores)]
    [found] = best_candidates(mx.array(logprobs), [beams], count)
    assert [each.row * size + each.token_id for each in found] == [int(at) for at in order]
    assert [each.score for each in found] == [totals[at] for at in order]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "beam", "num_beams": 2, "num_return": 3}, "num_return is 3.*num_beams: 2"),
        ({"kind": "beam", "num_beams": 0}, "num_beams.*greater than or equal to 1"),
        ({"kind": "beam", "num_beams": True}, "needs a number, not True"),
        ({"kind": "beam", "num_beams": 2, "early_stopping": "always"}, "'never'"),
        (
            {"kind": "diverse_beam", "num_beams": 6, "num_groups": 4, "diversity_penalty": 1.0},
            "num_groups is 4, which does not divide num_beams: 6; use one of 1, 2, 3, 6",
        ),
        (
            {
                "kind": "diverse_beam",
                "num_beams": 2,
                "num_groups": 1,
                "diversity_penalty": 1.0,
                "num_return": 4,
            },
            "num_return is 4",
        ),
        (
            {"kind": "diverse_beam", "num_beams": 2, "num_groups": 2, "diversity_penalty": -1.0},
            "diversity_penalty.*greater than or equal to 0",
        ),
        ({"kind": "contrastive_search", "top_k": 1}, "top_k.*greater than or equal to 2"),
        ({"kind": "contrastive_search", "alpha": 1.5}, "alpha.*less than or equal to 1"),
        ({"kind": "beem"}, "'beam', 'diverse_beam', 'contrastive_search'"),
        ({"kind": "beam", "num_beam": 2}, "num_beam"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(SearchConfig).validate_python(values)
    assert re.search(message, str(caught.value).replace("\n", " "))
