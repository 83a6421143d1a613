"""A third party's stopping criterion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import Decision, StoppingCriterion, TokenEvent
from vlmkit.declare.external import External, make_external
from vlmkit.errors import VlmkitError

GROUP = "vlmkit.stopping"
_READABLE = frozenset({"entropy", "confidence", "elapsed_s"})


def external(config: External, *, num_ids: int | None = None) -> StoppingCriterion:
    """Build the criterion that an installed package or a module of yours offers.

    The factory gets ``config.config`` as keyword arguments and returns a ``StoppingCriterion``.

    Args:
        config: which factory, and its arguments.
        num_ids: token ids that the model knows; None does not check what a decision forces.

    Raises:
        VlmkitError: the factory can't be found, fails, or returns something else; its criterion
            reads what there is not; while running, an ``init`` or ``step`` that doesn't return
            ``(state, Decision)``, or that wants a token to be taken that the model does not have.
    """
    criterion = make_external(config, group=GROUP, result=StoppingCriterion)
    where = f"external: criterion {criterion.name!r} of factory {config.factory!r}"

    def init(prompt_ids: Sequence[int]) -> tuple[Pytree, Decision]:
        return _check(criterion.init(prompt_ids), where, "init", num_ids)

    def step(state: Pytree, event: TokenEvent) -> tuple[Pytree, Decision]:
        return _check(criterion.step(state, event), where, "step", num_ids)

    unknown = sorted(criterion.reads - _READABLE)
    if unknown:
        raise VlmkitError(
            f"{where}: it reads {unknown[0]!r}, which no token event offers (one of "
            f"{', '.join(sorted(_READABLE))})"
        )
    return StoppingCriterion(criterion.name, init, step, criterion.reads)


def _check(result: Any, where: str, function: str, num_ids: int | None) -> tuple[Pytree, Decision]:
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Decision):
        raise VlmkitError(f"{where}: {function} must return (state, Decision), not {result!r:.60}")
    decision = result[1]
    if decision.overrides_draws:
        forced = () if decision.forced_id is None else (decision.forced_id,)
        for token_id in (*forced, *(one for pair in decision.overrides for one in pair)):
            is_id = isinstance(token_id, int) and not isinstance(token_id, bool) and token_id >= 0
            if not is_id or (num_ids is not None and token_id >= num_ids):
                last = "" if num_ids is None else f" to {num_ids - 1}"
                raise VlmkitError(
                    f"{where}: {function} decided on token {token_id!r:.60}, but ids are whole "
                    f"numbers from 0{last}"
                )
    return result[0], decision
