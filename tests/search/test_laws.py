"""What holds for any search over any small distribution."""

from __future__ import annotations

import itertools

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.toy import Forward, Found, Tokens, logprobs_of, run, table
from vlmkit.search import (
    BeamSearch,
    ContrastiveSearch,
    DiverseBeamSearch,
    SearchConfig,
    build_search,
)

PROMPT = (1, 2)
SEEDS = st.integers(0, 2**31)
EARLY = st.sampled_from([True, False, "never"])
LENGTH_PENALTIES = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])


def decode(
    config: SearchConfig, forward: Forward, *, max_tokens: int = 5, eos: Tokens = (0,)
) -> Found:
    return run(build_search(config), forward, PROMPT, max_tokens=max_tokens, eos=eos)


def greedy(forward: Forward, *, max_tokens: int = 5, eos: Tokens = (0,)) -> Tokens:
    tokens = PROMPT
    while len(tokens) < len(PROMPT) + max_tokens and tokens[-1] not in eos:
        tokens += (int(mx.argmax(forward([tokens])[0][0]).item()),)
    return tokens[len(PROMPT) :]


def score(forward: Forward, generated: Tokens, length_penalty: float) -> float:
    """The normalised score of an answer, computed from its tokens alone."""
    total = 0.0
    for place, token_id in enumerate(generated):
        total += logprobs_of(forward, [PROMPT + generated[:place]])[0, token_id].item()
    return total / len(generated) ** length_penalty


def permuted(forward: Forward, order: np.ndarray) -> Forward:
    """The same model with token i called ``order[i]``; the prompt's ids keep their meaning."""
    back = np.argsort(order)

    def renamed(rows: list[Tokens]) -> tuple[mx.array, mx.array]:
        known = [row[:2] + tuple(int(back[each]) for each in row[2:]) for row in rows]
        logits, hidden = forward(known)
        return logits[:, mx.array(back)], hidden

    return renamed


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5, 2.0])
@given(seed=SEEDS, early=EARLY)
def test_as_many_beams_as_sequences_find_the_best_of_all(
    length_penalty: float, seed: int, early: bool | str
) -> None:
    forward, size, depth = table(seed, 3), 3, 3
    answers = {
        ids[: ids.index(0) + 1] if 0 in ids else ids
        for ids in itertools.product(range(size), repeat=depth)
    }
    expected = sorted((score(forward, ids, length_penalty) for ids in answers), reverse=True)
    config = BeamSearch(
        num_beams=size**depth,
        num_return=4,
        length_penalty=length_penalty,
        early_stopping=early,
    )
    best = decode(config, forward, max_tokens=depth).best
    assert [value for _, value in best] == pytest.approx(expected[:4], abs=1e-5)
    assert all(ids in answers for ids, _ in best)


@given(seed=SEEDS, early=st.booleans(), length_penalty=LENGTH_PENALTIES)
def test_one_beam_is_greedy(seed: int, early: bool, length_penalty: float) -> None:
    forward = table(seed, 6)
    config = BeamSearch(num_beams=1, early_stopping=early, length_penalty=length_penalty)
    if length_penalty >= 0:  # below, a short answer is worth less than a longer one
        assert decode(config, forward).best[0][0] == greedy(forward)


@given(seed=SEEDS, early=EARLY, length_penalty=LENGTH_PENALTIES, num_beams=st.integers(2, 6))
def test_scores_fall_and_are_those_of_the_tokens(
    seed: int, early: bool | str, length_penalty: float, num_beams: int
) -> None:
    forward = table(seed, 7)
    config = BeamSearch(
        num_beams=num_beams,
        num_return=num_beams,
        early_stopping=early,
        length_penalty=length_penalty,
    )
    best = decode(config, forward).best
    scores = [value for _, value in best]
    assert scores == sorted(scores, reverse=True)
    assert len({ids for ids, _ in best}) == len(best) == num_beams
    assert scores == pytest.approx([score(forward, ids, length_penalty) for ids, _ in best], 1e-4)
    assert all(ids[-1] == 0 or len(ids) == 5 for ids, _ in best)
    assert all(0 not in ids[:-1] for ids, _ in best)


@given(seed=SEEDS, early=EARLY, penalty=st.sampled_from([0.0, 1.0]))
def test_diverse_beam_search_without_diversity(
    seed: int, early: bool | str, penalty: float
) -> None:
    forward = table(seed, 8)
    beam = BeamSearch(num_beams=4, num_return=4, early_stopping=early)
    one = DiverseBeamSearch(
        num_beams=4, num_groups=1, diversity_penalty=penalty, num_return=4, early_stopping=early
    )
    assert decode(one, forward) == decode(beam, forward)
    # Groups without a penalty are so many equal beam searches.
    twice = one.model_copy(
        update={"num_beams": 8, "num_groups": 2, "num_return": 8, "diversity_penalty": 0.0}
    )
    expected = [each for each in decode(beam, forward).best for _ in range(2)]
    assert list(decode(twice, forward).best) == expected


@given(seed=SEEDS)
def test_a_large_penalty_keeps_groups_apart_at_the_first_token(seed: int) -> None:
    config = DiverseBeamSearch(num_beams=4, num_groups=4, diversity_penalty=100.0, num_return=4)
    best = decode(config, table(seed, 9), max_tokens=1, eos=()).best
    assert len({ids[0] for ids, _ in best}) == 4


@given(seed=SEEDS, k=st.integers(2, 5), alpha=st.sampled_from([0.0, 0.4, 1.0]))
def test_contrastive_search_equals_its_definition(seed: int, k: int, alpha: float) -> None:
    forward = table(seed, 7)
    tokens = PROMPT
    while len(tokens) < len(PROMPT) + 6 and tokens[-1] != 0:
        probs = np.exp(np.array(logprobs_of(forward, [tokens])[0], np.float64))
        context = np.array(forward([tokens])[1][0], np.float64)
        values = {}
        for token_id in sorted(range(7), key=lambda i: -probs[i])[:k]:
            new = np.array(forward([(*tokens, token_id)])[1][0, -1], np.float64)
            cosines = context @ new / np.linalg.norm(context, axis=1) / np.linalg.norm(new)
            values[token_id] = (1 - alpha) * probs[token_id] - alpha * cosines.max()
        tokens += (max(values, key=lambda i: values[i]),)
    config = ContrastiveSearch(top_k=k, alpha=alpha)
    found = decode(config, forward, max_tokens=6)
    assert found.best[0][0] == found.committed == tokens[len(PROMPT) :]
    assert set(found.widths[1:]) == {k}
    assert found.best[0][1] == pytest.approx(score(forward, found.committed, 0.0), abs=1e-4)
    if alpha == 0:
        assert found.committed == greedy(forward, max_tokens=6)


CONFIGS = [
    BeamSearch(num_beams=3, num_return=3),
    BeamSearch(num_beams=4, num_return=2, early_stopping=True, length_penalty=0.0),
    DiverseBeamSearch(num_beams=4, num_groups=2, diversity_penalty=0.7, num_return=4),
    ContrastiveSearch(top_k=3, alpha=0.5),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
@given(seed=SEEDS)
def test_names_of_tokens_do_not_matter(config: SearchConfig, seed: int) -> None:
    forward = table(seed, 8)
    order = np.random.default_rng(seed).permutation(8)
    first = decode(config, forward, eos=(0,))
    second = decode(config, permuted(forward, order), eos=(int(order[0]),))
    renamed = [tuple(int(order[each]) for each in ids) for ids, _ in first.best]
    assert [ids for ids, _ in second.best] == renamed
    assert [value for _, value in second.best] == pytest.approx(
        [s for _, s in first.best], abs=1e-4
    )


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
@given(seed=SEEDS)
def test_the_same_twice(config: SearchConfig, seed: int) -> None:
    assert decode(config, table(seed, 8)) == decode(config, table(seed, 8))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_a_state_can_be_branched(config: SearchConfig) -> None:
    # advance changes nothing that it is given: asked twice, it answers the same
    search = build_search(config)
    forward = table(3, 8)

    def twice(state: object, step: object, extend: object) -> object:
        first = search.advance(state, step, extend)  # type: ignore[arg-type]
        assert search.advance(state, step, extend)[1] == first[1]  # type: ignore[arg-type]
        return first

    doubled = search._replace(advance=twice)  # type: ignore[arg-type]
    assert run(doubled, forward, PROMPT, max_tokens=5, eos=(0,)) == decode(config, forward)
