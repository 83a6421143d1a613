"""What one wants to know first of a step: how much was cut, and by which stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vlmkit.tracing.labels import MAX_SHOWN
from vlmkit.tracing.records import TraceStep


def removed_share(step: TraceStep) -> float:
    """The share of probability that the whole chain removed, in [0, 1].

    Each stage takes its ``removed_mass`` of what the stages before it have left:
    1 − Π(1 − mass).
    """
    kept = 1.0
    for stage in step.stages:
        kept *= 1.0 - min(stage.removed_mass, 1.0)
    return 1.0 - kept


def strictest_stage(step: TraceStep) -> str | None:
    """The name of the stage that removed most of what entered it; None if nothing was removed."""
    stage = max(step.stages, key=lambda stage: (stage.removed_mass, stage.num_removed))
    return stage.name if stage.num_removed else None


def most_cut_step(steps: Sequence[TraceStep]) -> int | None:
    """The position of the step that lost the largest share, the first of equals; None: no steps.

    Where nothing was removed at all: the one at which the model was least certain.
    """
    if not steps:
        return None
    keys = [(removed_share(step), step.stages[0].entropy_nats) for step in steps]
    return keys.index(max(keys))


def shown_tokens(step: TraceStep, *, num_own: int, num_late: int = 4) -> list[int]:
    """Choose tokens for a view: indices into ``step.tokens``, in the model's own order.

    The model's ``num_own`` most likely tokens, the one taken, the one drawn, and the ``num_late``
    most likely of those that a later stage brought forward.
    """
    shown = {
        index
        for index, token in enumerate(step.tokens)
        if token.rank <= num_own or token.id in (step.token_id, step.sampled_id)
    }
    best: dict[int, float] = {}
    for stage in step.stages[1:]:
        found = [(value, -index) for index, value in enumerate(stage.tracked) if value is not None]
        for value, place in sorted(found, reverse=True)[:num_own]:
            best[-place] = max(best.get(-place, -math.inf), value)
    late = sorted(best.keys() - shown, key=lambda index: (-best[index], index))
    return sorted(shown.union(late[:num_late]))


def context_text(steps: Sequence[TraceStep], position: int, num_tokens: int = 16) -> str:
    """The text just before a step, token by token as in the trace."""
    before = steps[max(0, position - num_tokens) : position]
    return "".join(step.text[-MAX_SHOWN:] for step in before)[-MAX_SHOWN:]
