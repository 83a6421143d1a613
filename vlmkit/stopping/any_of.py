"""Several stopping criteria as one: whichever ends the row first."""

from __future__ import annotations

from collections.abc import Sequence

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent

_NOTHING = Decision()


def any_of(criteria: Sequence[StoppingCriterion]) -> StoppingCriterion:
    """Combine criteria; the row ends as soon as one of them says so and none vetoes it.

    - finish: the one that leaves the least text; then reason "stop" before "length"; then the
      order of the criteria. A veto removes the finishes of its kinds, and tells those criteria
      (``TokenEvent.vetoed``), so that they can forget what they saw there.
    - forced token: the first in the order of the criteria, with its overrides alone.
    - overrides, where nothing is forced: of all; for each id the first that names it.
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
        return tuple(state for state, _ in results), combine_decisions(decisions)

    def step(states: Pytree, event: TokenEvent) -> tuple[Pytree, Decision]:
        following, decisions, vetoed = step_all(members, states, event)
        return following, combine_decisions(decisions, vetoed)

    reads = frozenset[str]().union(*(member.reads for member in members))
    return StoppingCriterion("any_of", init, step, reads)


def step_all(
    criteria: Sequence[StoppingCriterion], states: Sequence[Pytree], event: TokenEvent
) -> tuple[tuple[Pytree, ...], list[Decision], frozenset[str]]:
    """Show one token to every criterion, and once more if one of them vetoes others.

    Returns:
        The states, the decisions, and the kinds whose finish does not count at this token.
    """
    pairs = list(zip(criteria, states, strict=True))
    results = [criterion.step(state, event) for criterion, state in pairs]
    vetoed = event.vetoed
    for _, decision in results:
        vetoed |= decision.veto
    if vetoed != event.vetoed:
        event = event._replace(vetoed=vetoed)
        results = [criterion.step(state, event) for criterion, state in pairs]
    return tuple([state for state, _ in results]), [decision for _, decision in results], vetoed


def combine_decisions(
    decisions: Sequence[Decision], vetoed: frozenset[str] = frozenset()
) -> Decision:
    """Merge the decisions of several criteria at one token, by the rules of :func:`any_of`.

    Args:
        decisions: in the order of the criteria.
        vetoed: kinds whose finish does not count, beside those that ``decisions`` veto.
    """
    active = [decision for decision in decisions if decision != _NOTHING]
    if not active:
        return _NOTHING
    if len(active) == 1 and active[0].finish is None:
        return active[0]
    veto = frozenset[str]().union(*[decision.veto for decision in active])
    vetoed |= veto
    finishes = [
        decision.finish
        for decision in active
        if decision.finish is not None and decision.finish.kind not in vetoed
    ]
    forcing = next((decision for decision in active if decision.forced_id is not None), None)
    holds = [decision.hold_from for decision in active if decision.hold_from is not None]
    return Decision(
        forced_id=forcing.forced_id if forcing else None,
        overrides=forcing.overrides if forcing else _merge_overrides(active),
        finish=earliest_finish(finishes),
        hold_from=min(holds, default=None),
        veto=veto,
    )


def earliest_finish(finishes: Sequence[Finish]) -> Finish | None:
    """Return the finish that leaves the least text, "stop" before "length"."""

    def rank(finish: Finish) -> tuple[float, bool]:
        end = float("inf") if finish.text_end is None else finish.text_end
        return end, finish.reason != "stop"

    return min(finishes, key=rank, default=None)


def _merge_overrides(decisions: Sequence[Decision]) -> tuple[tuple[int, int], ...]:
    merged: dict[int, int] = {}
    for decision in reversed(decisions):
        merged |= dict(decision.overrides)
    return tuple(merged.items())
