"""A model whose outputs depend on the batch, as on devices whose kernels do."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mlx.core as mx


def drifting(model: Any, amount: float) -> Any:
    """A model that shares all weights with another, and errs by ``amount`` beside other rows.

    Args:
        model: from ``load``.
        amount: added to each hidden number for each further row, in a fixed pattern of signs.
    """

    class Drifting(type(model)):  # type: ignore[misc]
        def forward(self, piece: Any, cache: Any, span: Any, taps: Sequence[int] = ()) -> Any:
            found = super().forward(piece, cache, span, taps)
            pattern = mx.random.normal(found.hidden.shape[-1:], key=mx.random.key(1))
            drift = amount * (len(span.starts) - 1) * pattern
            return found._replace(hidden=found.hidden + drift.astype(found.hidden.dtype))

    twin = copy.copy(model)
    twin.__class__ = Drifting
    return twin
