"""A third party's sampler stage, held to the rules that batches rely on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.external import External, make_external
from vlmkit.errors import VlmkitError

GROUP = "vlmkit.sampling"


def external(config: External) -> SamplerStage:
    """Make the stage that an installed package or a module of yours offers.

    The factory gets ``config.config`` as keyword arguments and returns a ``SamplerStage``. Its
    logits must be float32 ``[B, V]`` and every leaf of its state an array ``[B, ...]``; both are
    checked by shape alone, which costs no wait for the device.

    Raises:
        VlmkitError: the factory can't be found, fails, or returns something else; while running,
            logits or a state of another shape.

    Example:
        >>> top_a = External(factory="experiments.own_stage:top_a", config={"a": 0.5})
        >>> external(top_a).apply((), mx.log(mx.array([[0.7, 0.2, 0.1]])), None)[0, 1:].tolist()
        [-inf, -inf]
    """
    stage = make_external(config, group=GROUP, result=SamplerStage)
    where = f"external: stage {stage.name!r} of factory {config.factory!r}"
    observe = stage.observe

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> Pytree:
        return _check_state(stage.init(prompts, vocab_size), len(prompts), where)

    def apply(state: Pytree, logits: mx.array, uniform: mx.array | None) -> mx.array:
        result = stage.apply(state, logits, uniform)
        if not isinstance(result, mx.array) or _kind(result) != _kind(logits):
            raise VlmkitError(f"{where}: apply gave {_show(result)}, not {_show(logits)}")
        return result

    def update(state: Pytree, token_ids: mx.array) -> Pytree:
        return _check_state(stage.update(state, token_ids), token_ids.shape[0], where)

    def checked_observe(function: Callable[[Pytree, mx.array], Pytree]) -> Callable[..., Pytree]:
        return lambda state, logits: _check_state(function(state, logits), len(logits), where)

    return stage._replace(
        init=init,
        apply=apply,
        update=update,
        observe=None if observe is None else checked_observe(observe),
    )


def _check_state(state: Pytree, num_rows: int, where: str) -> Pytree:
    leaves: dict[str, Any] = dict(tree_flatten(state))
    for path, leaf in leaves.items():
        if not isinstance(leaf, mx.array) or leaf.ndim == 0 or leaf.shape[0] != num_rows:
            name = f"state.{path}" if path else "the state"
            raise VlmkitError(
                f"{where}: {name} is {_show(leaf)}; every leaf needs one entry per row, "
                f"[{num_rows}, ...]"
            )
    return state


def _kind(array: mx.array) -> tuple[tuple[int, ...], mx.Dtype]:
    return array.shape, array.dtype


def _show(value: object) -> str:
    if not isinstance(value, mx.array):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('mlx.core.')} {list(value.shape)}"
