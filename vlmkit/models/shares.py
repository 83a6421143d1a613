"""Which part of a text decoder each of several ranks has.

Reference: Shoeybi et al. (2019), "Megatron-LM", arXiv:1909.08053: attention is divided by heads, an
MLP, and each of several experts, by its inner columns, so each needs one sum over the ranks; the
embedding and the head are divided by the vocabulary.
"""

from __future__ import annotations

import dataclasses
import re

import mlx.core as mx

from vlmkit.errors import VlmkitError
from vlmkit.models.text_config import TextConfig
from vlmkit.ranks.group import Ranks

_DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
_MLP = r"mlp\.((switch_mlp|shared_expert)\.)?"
_OUTPUTS = re.compile(rf"^language\..*\.(self_attn\.[qkv]_proj|{_MLP}(gate|up)_proj)\.\w+$")
_INPUTS = re.compile(rf"^language\..*\.(self_attn\.o_proj|{_MLP}down_proj)\.\w+$")
_VOCABULARY = re.compile(r"^language\.(embed_tokens|lm_head)\.\w+$")


def own_config(config: TextConfig, ranks: Ranks) -> TextConfig:
    """Return the config of a rank's layers: fewer heads, fewer inner columns.

    Args:
        config: of the whole decoder.
        ranks: among which it is divided.

    Raises:
        VlmkitError: it does not divide among so many; says among how many it does.
    """
    if ranks.size == 1:
        return config
    sizes = {name: getattr(config, name) for name in _DIVIDED}
    experts = config.experts
    if experts is not None:
        sizes["moe_intermediate_size"] = experts.intermediate_size
        if experts.shared_size is not None:
            sizes["shared_expert_intermediate_size"] = experts.shared_size
    for name, size in sizes.items():
        if size % ranks.size:
            fitting = [
                str(number)
                for number in range(1, min(sizes.values()) + 1)
                if not any(value % number for value in sizes.values())
            ]
            raise VlmkitError(
                f"{ranks.size} ranks: config.json: {name} {size} does not divide among them; "
                f"launch {', '.join(fitting[:-1]) + ' or ' if fitting[1:] else ''}{fitting[-1]}"
            )
    own = {name: size // ranks.size for name, size in sizes.items()}
    return dataclasses.replace(
        config,
        num_attention_heads=own["num_attention_heads"],
        num_key_value_heads=own["num_key_value_heads"],
        intermediate_size=own["intermediate_size"],
        experts=experts
        and dataclasses.replace(
            experts,
            intermediate_size=own["moe_intermediate_size"],
            shared_size=own.get("shared_expert_intermediate_size"),
        ),
    )


def rows_of_vocabulary(vocab_size: int, ranks: Ranks) -> range:
    """Return the token ids that a rank embeds; beyond the vocabulary's end its rows are zero.

    Example:
        >>> [rows_of_vocabulary(5, Ranks(rank, 2)) for rank in range(2)]
        [range(0, 3), range(3, 6)]
    """
    each = -(-vocab_size // ranks.size)
    return range(ranks.rank * each, (ranks.rank + 1) * each)


def own_share(path: str, array: mx.array, ranks: Ranks) -> mx.array:
    """Return a rank's part of a parameter, packed or not, lazily; the rest is never kept.

    Args:
        path: of the parameter in the model.
        array: the whole parameter.
        ranks: among which it is divided.

    Raises:
        VlmkitError: it does not divide: packed numbers, or groups that share a scale, would be cut.

    Example:
        >>> path = "language.layers.0.mlp.down_proj.weight"
        >>> own_share(path, mx.array([[1, 2, 3, 4]]), Ranks(1, 2)).tolist()
        [[3, 4]]
    """
    if ranks.size == 1 or array.ndim == 0:
        return array
    if _VOCABULARY.search(path):
        rows = rows_of_vocabulary(array.shape[0], ranks)
        own = array[rows.start : rows.stop]
        missing = len(rows) - own.shape[0]
        padding = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
        return mx.pad(own, padding) if missing else mx.contiguous(own)
    if _INPUTS.search(path) and array.ndim == 1:  # a bias, to be added once
        return array if ranks.rank == 0 else mx.zeros_like(array)
    if _INPUTS.search(path):
        return _part(path, array, array.ndim - 1, ranks)
    return _part(path, array, max(array.ndim - 2, 0), ranks) if _OUTPUTS.search(path) else array


def _part(path: str, array: mx.array, axis: int, ranks: Ranks) -> mx.array:
    size = array.shape[axis]
    if size % ranks.size:
        raise VlmkitError(
            f"{ranks.size} ranks: {path} {list(array.shape)} does not divide among them; "
            "launch fewer ranks"
        )
    # A copy: a view would keep the whole array in memory.
    return mx.contiguous(mx.split(array, ranks.size, axis=axis)[ranks.rank])
