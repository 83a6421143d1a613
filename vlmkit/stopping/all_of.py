"""Several stopping criteria as one: end a row only where all of them would."""

from __future__ import annotations

from collections.abc import Sequence

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import Decision, StoppingCriterion, TokenEvent
from vlmkit.stopping.any_of import combine_decisions, step_all


def all_of(criteria: Sequence[StoppingCriterion]) -> StoppingCriterion:
    """Combine criteria; the row ends at the first token at which each of them says so.

    Everything but the finish is merged as in :func:`vlmkit.stopping.any_of.any_of`; what is
    reported is the finish that leaves the least text. So ``max_tokens: 100`` and a stop string
    together mean: the first stop string from the 100th token on.

    Raises:
        ValueError: no criteria.

    Example:
        >>> from vlmkit.stopping.max_tokens import MaxTokensConfig, max_tokens
        >>> both = all_of([max_tokens(MaxTokensConfig(max_tokens=n)) for n in (1, 2)])
        >>> state, decision = both.init([])
        >>> state, decision = both.step(state, TokenEvent(7, "a", 1))
        >>> decision.finish
        >>> both.step(state, TokenEvent(7, "aa", 2))[1].finish.reason
        'length'
    """
    members = tuple(criteria)
    if not members:
        raise ValueError("all_of: no criteria; give at least one")

    def combine(decisions: Sequence[Decision], vetoed: frozenset[str]) -> Decision:
        combined = combine_decisions(decisions, vetoed)
        vetoed |= combined.veto
        agreed = all(
            decision.finish is not None and decision.finish.kind not in vetoed
            for decision in decisions
        )
        return combined if agreed else combined._replace(finish=None)

    def init(prompt_ids: Sequence[int]) -> tuple[Pytree, Decision]:
        results = [member.init(prompt_ids) for member in members]
        decisions = [decision for _, decision in results]
        return tuple(state for state, _ in results), combine(decisions, frozenset())

    def step(states: Pytree, event: TokenEvent) -> tuple[Pytree, Decision]:
        following, decisions, vetoed = step_all(members, states, event)
        return following, combine(decisions, vetoed)

    reads = frozenset[str]().union(*(member.reads for member in members))
    return StoppingCriterion("all_of", init, step, reads)
