"""The two parts of a text model of mlx-lm or mlx-vlm: its body, and the head behind it.

The head is the same model called with a body that returns the hidden state, so scales, soft caps
and tied heads stay the architecture's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

_BODIES = ("model", "transformer", "backbone")
"""What the architectures call the part before the head."""

_INNER = "language_model"
"""What they call the text model that some wrap."""


class _Body(nn.Module):
    """Takes the place of a model's body: its children and attributes, another call."""

    def __init__(self, body: nn.Module, call: Callable[..., mx.array]) -> None:
        super().__init__()
        dict.update(self, body)
        vars(self).update(vars(body))
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        return self._call(*args, **kwargs)


def _body_path(lm: nn.Module) -> tuple[str, ...]:
    """Return the names that lead to the body; none if it has no name that we know."""
    for name in _BODIES:
        if name in lm:
            return (name,)
    inner = _body_path(lm[_INNER]) if _INNER in lm else ()
    return (_INNER, *inner) if inner else ()


def _with_body(lm: nn.Module, call: Callable[..., mx.array], path: Sequence[str]) -> nn.Module:
    clone, (name, *rest) = copy.copy(lm), path
    clone[name] = _with_body(lm[name], call, rest) if rest else _Body(lm[name], call)
    return clone


def run_body(lm: nn.Module, ids: mx.array, caches: Sequence[Any], **inputs: mx.array) -> mx.array:
    """Return the hidden state before the head; the logits themselves where there is no body.

    Args:
        lm: the model.
        ids: int32 ``[B, L]``.
        caches: one per layer.
        **inputs: what else it is called with.
    """
    path = _body_path(lm)
    if not path:
        return _logits(lm(ids, cache=caches, **inputs))
    outputs: list[mx.array] = []
    body = lm
    for name in path:
        body = body[name]

    def record(*args: Any, **kwargs: Any) -> mx.array:
        outputs.append(body(*args, **kwargs))
        return outputs[-1]

    # The head runs too, but nobody reads its logits: they are never computed.
    _with_body(lm, record, path)(ids, cache=caches, **inputs)
    return outputs[0]


def run_head(lm: nn.Module, hidden: mx.array) -> mx.array:
    """Return the logits of a hidden state ``[1, N, hidden]``."""
    path = _body_path(lm)
    if not path:
        return hidden
    ids = mx.zeros(hidden.shape[:2], mx.int32)
    return _logits(_with_body(lm, lambda *_, **__: hidden, path)(ids))


def _logits(output: Any) -> mx.array:
    """Return what a model gives: mlx-lm's give an array, mlx-vlm's one within an object."""
    logits: mx.array = output if isinstance(output, mx.array) else output.logits
    return logits
