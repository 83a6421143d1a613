"""Searches find what transformers finds, token for token and score for score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.search.cases import ALL, NUM_PROMPTS, Case, golden, ours

# transformers 4.49 with early_stopping: an end of sequence in the last step that fills a group's
# pool keeps out what reaches the length limit in that step, better or not. transformers 5 takes
# both, and so do we.
LAST_STEP = {
    ("2 groups of 4, 0.5, True", 2),
    ("2 groups of 6, 1.0, True", 2),
    ("3 groups of 6, 5.0, True", 2),
}
EVERY = [(kind, name) for kind, cases in ALL.items() for name in cases]


def found(kind: str, case: Case, seed: int) -> list[tuple[list[int], float]]:
    """Run a case; 4.49's groups write the first of several end-of-sequence ids for any of them."""
    best = [(list(token_ids), score) for token_ids, score in ours(kind, case, seed).best]
    ids = case["eos_token_id"]
    if kind == "diverse_beam":
        return [([*ids_, ids[0]] if end in ids else [*ids_, end], s) for (*ids_, end), s in best]
    return best


def assert_same(best: list[tuple[list[int], float]], expected: Sequence[Any]) -> None:
    assert [token_ids for token_ids, _ in best] == [token_ids for token_ids, _ in expected]
    for (_, score), (_, wanted) in zip(best, expected, strict=True):
        if wanted is not None:
            assert score == pytest.approx(wanted, rel=1e-5, abs=2e-5)


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=[": ".join(each) for each in EVERY])
def test_same_tokens_and_scores_as_the_golden_files(kind: str, name: str) -> None:
    for seed, expected in enumerate(golden(kind)[name]):
        best = found(kind, ALL[kind][name], seed)
        if (name, seed) not in LAST_STEP:
            assert_same(best, expected)
            continue
        assert all(s >= t - 2e-5 for (_, s), (_, t) in zip(best, expected, strict=True))
        new = [ids for ids, _ in best if ids not in [ids for ids, _ in expected]]
        assert new
        assert {len(ids) for ids in new} == {ALL[kind][name]["max_new_tokens"]}


def test_golden_files_hold_every_case() -> None:
    for kind, cases in ALL.items():
        data = golden(kind)
        assert list(data) == list(cases)
        assert {len(prompts) for prompts in data.values()} == {NUM_PROMPTS}


@pytest.mark.torch
@pytest.mark.parametrize("name", ALL["beam"])
def test_beam_search_on_more_prompts_live(name: str) -> None:
    from tests.search import oracle

    case = ALL["beam"][name]
    model = oracle.build(case["scale"])
    for seed in range(100, 104):
        expected = oracle.generate(model, case, seed)
        assert_same(found("beam", case, seed), expected)
