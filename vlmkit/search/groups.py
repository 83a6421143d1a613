"""Beam search in groups. Plain beam search is the case of one group.

The rules are those of transformers 5: from the 2·K best continuations of a step (more where
several end-of-sequence ids exist) the K best that go on are the next beams, and those among the K
best that end go to the pool of finished hypotheses, which keeps the K best by normalised score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from vlmkit.errors import VlmkitError
from vlmkit.search.candidates import Beam, Candidate, best_candidates
from vlmkit.search.protocol import (
    Extend,
    Hypothesis,
    Outcome,
    Path,
    Search,
    SearchStart,
    SearchStep,
)

EarlyStopping = bool | Literal["never"]


class Rules(NamedTuple):
    """What does not change during a search."""

    num_beams: int  # of all groups together
    num_groups: int
    diversity_penalty: float
    length_penalty: float
    early_stopping: EarlyStopping
    num_return: int


class Group(NamedTuple):
    """Beams that compete with one another."""

    beams: tuple[Beam, ...]  # live, from the best down; none: the group has ended
    pool: tuple[Hypothesis, ...] = ()  # finished, from the best down, at most one per beam


class GroupsState(NamedTuple):
    """A search in flight."""

    groups: tuple[Group, ...]
    start: SearchStart
    num_tokens: int  # taken by every live row


class _Choice(NamedTuple):
    """What a group made of its candidates."""

    group: Group  # its beams' rows are places among ``live``
    live: tuple[Candidate, ...]
    paths: tuple[Path, ...]
    taken: tuple[int, ...]  # token ids that later groups avoid


def group_search(name: str, rules: Rules) -> Search:
    """Return the search that the rules describe."""

    def init(start: SearchStart) -> GroupsState:
        return GroupsState((Group((Beam(0, 0.0),)),) * rules.num_groups, start, 0)

    def advance(
        state: GroupsState, step: SearchStep, extend: Extend
    ) -> tuple[GroupsState, Outcome]:
        going = [group for group in state.groups if group.beams]
        count = _num_candidates(rules, state.start)
        found = iter(best_candidates(step.logprobs, [group.beams for group in going], count))
        taken = Counter[int]()
        live: list[Candidate] = []
        paths: list[Path] = []
        groups = []
        for group in state.groups:
            if group.beams:
                choice = _choose(rules, state, group, _diversify(rules, next(found), taken), extend)
                group = _place(choice.group, len(live))
                live += choice.live
                paths += choice.paths
                taken.update(choice.taken)
            groups.append(group)
        state = GroupsState(tuple(groups), state.start, state.num_tokens + 1)
        rows = tuple(candidate.row for candidate in live)
        token_ids = tuple(candidate.token_id for candidate in live)
        best = () if live else _best(rules, state)
        return state, Outcome(rows, token_ids, tuple(paths), done=not live, best=best)

    return Search(name, rules.num_beams, rules.num_return, False, True, init, advance)


def _group_size(rules: Rules) -> int:
    return rules.num_beams // rules.num_groups


def _num_wanted(rules: Rules, start: SearchStart) -> int:
    """How many candidates a group looks at: enough for K to go on when every beam could end."""
    return max(2, 1 + start.num_eos) * _group_size(rules)


def _num_candidates(rules: Rules, start: SearchStart) -> int:
    """How many to ask the device for: those wanted, and as many as a penalty could push down."""
    size = _group_size(rules)
    others = rules.num_beams - size if rules.diversity_penalty else 0
    return _num_wanted(rules, start) + others * size


def _diversify(
    rules: Rules, candidates: Sequence[Candidate], taken: Counter[int]
) -> list[Candidate]:
    """Lower the tokens that earlier groups take in this step, and order the candidates again."""
    if not rules.diversity_penalty or not taken:
        return list(candidates)
    penalty = np.float32(rules.diversity_penalty)
    lowered = []
    for candidate in candidates:
        logprob = np.float32(candidate.logprob) - penalty * np.float32(taken[candidate.token_id])
        score = float(logprob + np.float32(candidate.before))
        lowered.append(candidate._replace(logprob=float(logprob), score=score))
    return sorted(lowered, key=lambda candidate: -candidate.score)


def _choose(
    rules: Rules, state: GroupsState, group: Group, candidates: Sequence[Candidate], extend: Extend
) -> _Choice:
    """Sort candidates into beams that go on and hypotheses that end, and see whether to stop."""
    size = _group_size(rules)
    length = state.num_tokens + 1
    live: list[Candidate] = []
    paths: list[Path] = []
    pool = list(group.pool)
    for rank, candidate in enumerate(candidates[: _num_wanted(rules, state.start)]):
        path, finished = extend(candidate.row, candidate.token_id)
        if not finished:
            live.append(candidate)
            paths.append(path)
        elif rank < size:
            pool.append(Hypothesis(path, _normalise(candidate.score, length, rules)))
        if len(live) == size:
            break
    pool = sorted(pool, key=lambda hypothesis: -hypothesis.score)[:size]
    # Where nothing goes on, as at the length limit, the best that end stand for the beams.
    taken = tuple(candidate.token_id for candidate in live or candidates[:size])
    if not live or _may_stop(rules, state.start, pool, live[0].score, length):
        return _Choice(Group((), tuple(pool)), (), (), taken)
    beams = tuple(Beam(place, candidate.score) for place, candidate in enumerate(live))
    return _Choice(Group(beams, tuple(pool)), tuple(live), tuple(paths), taken)


def _normalise(score: float, length: float, rules: Rules) -> float:
    return float(score / length**rules.length_penalty)


def _may_stop(
    rules: Rules, start: SearchStart, pool: Sequence[Hypothesis], best: float, length: int
) -> bool:
    """Whether no live beam can improve the pool, by what ``early_stopping`` says of that.

    Args:
        best: the largest score of a live beam.
        length: tokens that the live beams have.
    """
    if len(pool) < _group_size(rules):
        return False
    if rules.early_stopping is True:
        return True
    longest: float = length
    if rules.early_stopping == "never" and rules.length_penalty > 0:
        longest = float("inf") if start.max_tokens is None else start.max_tokens
    return _normalise(best, longest, rules) <= pool[-1].score


def _place(group: Group, offset: int) -> Group:
    """Say where the group's rows stand among all."""
    return group._replace(beams=tuple(beam._replace(row=offset + beam.row) for beam in group.beams))


def _best(rules: Rules, state: GroupsState) -> tuple[Hypothesis, ...]:
    """Return the best hypotheses of all groups' pools."""
    found = [hypothesis for group in state.groups for hypothesis in group.pool]
    if not found:
        raise VlmkitError(
            f"search: no beam can go on after {state.num_tokens - 1} tokens: the sampler chain "
            "removed every token; check its biases and allowed tokens",
            path=("search",),
        )
    return tuple(sorted(found, key=lambda hypothesis: -hypothesis.score)[: rules.num_return])
