"""A third party's stopping criterion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.external import External, make_external
from vlmkit.interface import Pytree
from vlmkit.stages import Decision, StoppingCriterion, TokenEvent

GROUP = "vlmkit.stopping"
_READABLE = frozenset({"entropy", "confidence", "elapsed_s"})


def external(config: External) -> StoppingCriterion:
    """Build the criterion that an installed package or a module of yours offers.

    The factory gets ``config.config`` as keyword arguments and returns a ``StoppingCriterion``.

    Raises:
        VlmkitError: the factory can't be found, fails, or returns something else; its criterion
            reads what there is not; while running, an ``init`` or ``step`` that doesn't return
            ``(state, Decision)``.
    """
    criterion = make_external(config, group=GROUP, result=StoppingCriterion)
    where = f"external: criterion {criterion.name!r} of factory {config.factory!r}"

    def init(prompt_ids: Sequence[int]) -> tuple[Pytree, Decision]:
        return _check(criterion.init(prompt_ids), where, "init")

    def step(state: Pytree, event: TokenEvent) -> tuple[Pytree, Decision]:
        return _check(criterion.step(state, event), where, "step")

    unknown = sorted(criterion.reads - _READABLE)
    if unknown:
        raise VlmkitError(
            f"{where}: it reads {unknown[0]!r}, which no token event offers (one of "
            f"{', '.join(sorted(_READABLE))})"
        )
    return StoppingCriterion(criterion.name, init, step, criterion.reads)


def _check(result: Any, where: str, function: str) -> tuple[Pytree, Decision]:
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Decision):
        raise VlmkitError(f"{where}: {function} must return (state, Decision), not {result!r:.60}")
    return result[0], result[1]
