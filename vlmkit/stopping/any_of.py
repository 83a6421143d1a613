"""Several stopping criteria as one: whichever ends the row first."""

from __future__ import annotations

from collections.abc import Sequence

from vlmkit.types import Decision, Finish, Pytree, StoppingCriterion, TokenEvent


def any_of(criteria: Sequence[StoppingCriterion]) -> StoppingCriterion:
    """Combine criteria; the row ends as soon as one of them says so and none vetoes it.

    - finish: the one that leaves the least text; then reason "stop" before "length"; then the
      order of the criteria. A veto removes the finishes of its kinds, and tells those criteria
      (``TokenEvent.vetoed``), so that they can forget what they saw there.
    - forced token: the first in the order of the criteria. It makes substitutions void.
    - substitution: the first; later ones that put in the same id add theirs.
    - text held back: from the earliest character that any criterion names.

    Example:
        >>> from vlmkit.stopping.max_tokens import MaxTokensConfig, max_tokens
        >>> both = any_of([max_tokens(MaxTokensConfig(max_tokens=n)) for n in (3, 1)])
        >>> state, decision = both.init([])
        >>> both.step(state, TokenEvent(7, "a", 1))[1].finish.kind
        'max_tokens'
    """
    members = tuple(criteria)

    def init(prompt_ids: Sequence[int]) -> tuple[Pytree, Decision]:
        results = [member.init(prompt_ids) for member in members]
        decisions = [decision for _, decision in results]
        vetoed = frozenset[str]().union(*(decision.veto for decision in decisions))
        return tuple(state for state, _ in results), combine_decisions(decisions, vetoed)

    def step(states: Pytree, event: TokenEvent) -> tuple[Pytree, Decision]:
        results = step_all(members, states, event)
        vetoed = event.vetoed.union(*(decision.veto for _, decision in results))
        if vetoed != event.vetoed:
            results = step_all(members, states, event._replace(vetoed=vetoed))
        decisions = [decision for _, decision in results]
        return tuple(state for state, _ in results), combine_decisions(decisions, vetoed)

    return StoppingCriterion("any_of", init, step)


def step_all(
    criteria: Sequence[StoppingCriterion], states: Sequence[Pytree], event: TokenEvent
) -> list[tuple[Pytree, Decision]]:
    """Show one token to every criterion."""
    return [criterion.step(state, event) for criterion, state in zip(criteria, states, strict=True)]


def combine_decisions(decisions: Sequence[Decision], vetoed: frozenset[str]) -> Decision:
    """Merge the decisions of several criteria at one token, by the rules of :func:`any_of`."""
    finishes = [
        decision.finish
        for decision in decisions
        if decision.finish is not None and decision.finish.kind not in vetoed
    ]
    forcing = next((decision for decision in decisions if decision.forced_id is not None), None)
    holds = [decision.hold_from for decision in decisions if decision.hold_from is not None]
    return Decision(
        forced_id=forcing.forced_id if forcing else None,
        forced_unless=forcing.forced_unless if forcing else None,
        substitute=None if forcing else _merge_substitutes(decisions),
        finish=earliest_finish(finishes),
        hold_from=min(holds, default=None),
        veto=frozenset[str]().union(*(decision.veto for decision in decisions)),
    )


def earliest_finish(finishes: Sequence[Finish]) -> Finish | None:
    """Return the finish that leaves the least text, "stop" before "length"."""

    def rank(finish: Finish) -> tuple[float, bool]:
        end = float("inf") if finish.text_end is None else finish.text_end
        return end, finish.reason != "stop"

    return min(finishes, key=rank, default=None)


def _merge_substitutes(decisions: Sequence[Decision]) -> tuple[tuple[int, ...], int] | None:
    offers = [decision.substitute for decision in decisions if decision.substitute is not None]
    if not offers:
        return None
    replacement = offers[0][1]
    ids = dict.fromkeys(i for offer in offers if offer[1] == replacement for i in offer[0])
    return tuple(ids), replacement
