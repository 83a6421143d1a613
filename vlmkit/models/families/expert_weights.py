"""The weights of experts, as each tool stores them, brought to one layout.

Ours is that of MLX tools, ``….mlp.switch_mlp.{gate,up,down}_proj.weight``: per projection one array
``[experts, outputs, inputs]``. transformers has ``….mlp.experts.gate_up_proj``, gate and up in one,
and ``….mlp.experts.down_proj``; older checkpoints have one ``….mlp.experts.N.gate_proj.weight`` per
expert and projection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import mlx.core as mx

from vlmkit.errors import VlmkitError
from vlmkit.models.config import ModelConfig
from vlmkit.models.text_config import ExpertsConfig

_STACKED = re.compile(r"(.*\.mlp)\.experts\.(gate_up|down)_proj(?:\.weight)?")
_SINGLE = re.compile(r"(.*\.mlp)\.experts\.(\d{1,6})\.((?:gate|up|down)_proj\.\w+)")


def arrange_experts(arrays: Mapping[str, mx.array], config: ModelConfig) -> dict[str, mx.array]:
    """Return a checkpoint's arrays with those of experts named and laid out as MLX tools do.

    Args:
        arrays: by their names in the checkpoint.
        config: has the experts' number and sizes.

    Raises:
        VlmkitError: stacked experts of another shape, or one of the experts is missing.
    """
    text, result = config.text_config, {}
    assert text.experts is not None
    upright = partial(_upright, text.experts)
    singles: dict[str, dict[int, mx.array]] = {}
    for name, array in arrays.items():
        if stacked := _STACKED.fullmatch(name):
            target = f"{stacked[1]}.switch_mlp."
            if stacked[2] == "down":
                outputs, inputs = text.hidden_size, text.experts.intermediate_size
                down = upright(name, array, outputs, inputs)
                result[f"{target}down_proj.weight"] = down
                continue
            outputs, inputs = 2 * text.experts.intermediate_size, text.hidden_size
            both = upright(name, array, outputs, inputs)
            for part, half in zip(("gate", "up"), mx.split(both, 2, axis=1), strict=True):
                result[f"{target}{part}_proj.weight"] = mx.contiguous(half)
        elif single := _SINGLE.fullmatch(name):
            target = f"{single[1]}.switch_mlp.{single[3]}"
            singles.setdefault(target, {})[int(single[2])] = array
        else:
            result[name] = array
    for target, found in singles.items():
        result[target] = _stack(target, found, text.experts.num_experts)
    return result


def _upright(
    experts: ExpertsConfig, name: str, array: mx.array, outputs: int, inputs: int
) -> mx.array:
    """Return ``[experts, outputs, inputs]``: some checkpoints have the transpose of each matrix.

    The shape decides; a square matrix is as it is stored, which is what transformers takes it for.
    """
    if array.shape == (experts.num_experts, outputs, inputs):
        return array
    if array.shape == (experts.num_experts, inputs, outputs):
        return mx.contiguous(array.swapaxes(1, 2))
    wanted = [experts.num_experts, outputs, inputs]
    raise VlmkitError(
        f"weight {name!r} is {list(array.shape)}; config.json: num_experts, hidden_size and "
        f"moe_intermediate_size ask for {wanted}"
    )


def _stack(target: str, found: Mapping[int, mx.array], number: int) -> mx.array:
    missing = [str(i) for i in range(number) if i not in found]
    if missing or len(found) > number:
        what = f"expert {missing[0]} is missing" if missing else f"there are {len(found)}"
        raise VlmkitError(f"weights of {target!r}: {what}; config.json: num_experts is {number}")
    if len({array.shape for array in found.values()}) > 1:
        raise VlmkitError(f"weights of {target!r}: the experts differ in shape")
    return mx.stack([found[i] for i in range(number)])
