"""The search that shows how to write one's own, against its definition."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.search.toy import Forward, Tokens, run, table
from vlmkit.declare.external import External
from vlmkit.search import build_search

PROMPT = (1, 2)
EOS = 0


def greedy_from(forward: Forward, first: int, max_tokens: int) -> tuple[Tokens, float]:
    """The greedy answer after a first token, and the mean gap between its two best tokens."""
    tokens, gaps = [first], []
    while tokens[-1] != EOS and len(tokens) < max_tokens:
        probs = mx.softmax(forward([(*PROMPT, *tokens)])[0][0])
        second, best = mx.sort(probs)[-2:].tolist()
        gaps.append(best - second)
        tokens.append(int(mx.argmax(probs).item()))
    return tuple(tokens), sum(gaps) / max(len(gaps), 1)


@pytest.mark.parametrize("max_tokens", [1, 2, 7])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_the_surest_of_the_first_tokens_wins(seed: int, k: int, max_tokens: int) -> None:
    forward = table(seed, 8)
    config = External(factory="experiments.own_search:first_tokens", config={"k": k})
    found = run(build_search(config), forward, PROMPT, max_tokens=max_tokens, eos=(EOS,)).best
    firsts = mx.argsort(-forward([PROMPT])[0][0])[:k].tolist()
    wanted = dict(greedy_from(forward, first, max_tokens) for first in firsts)
    assert {ids for ids, _ in found} == set(wanted)
    assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)
    for ids, score in found:
        assert score == pytest.approx(wanted[ids], abs=1e-5)
