"""The ranks' parts of a decoder make the whole, and what does not divide is refused."""

from __future__ import annotations

import dataclasses

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.loading.checkpoints import make_config
from tests.models.tiny_configs import qwen3_5_moe
from vlmkit.backend.policy import PLAIN
from vlmkit.errors import VlmkitError
from vlmkit.models.families import find_family
from vlmkit.models.mlp import Experts
from vlmkit.models.shares import own_config, own_share, rows_of_vocabulary
from vlmkit.models.text_config import TextConfig
from vlmkit.ranks.group import ALONE, Ranks
from vlmkit.ranks.launched import launched_rank, ranks_timeout_s

LAYER = "language.layers.3."


def _parts(path: str, array: mx.array, size: int) -> list[np.ndarray]:
    return [np.array(own_share(path, array, Ranks(rank, size))) for rank in range(size)]


@pytest.mark.parametrize(
    ("path", "axis"),
    [
        ("self_attn.q_proj.weight", 0),
        ("self_attn.k_proj.bias", 0),
        ("self_attn.v_proj.scales", 0),
        ("self_attn.o_proj.weight", 1),
        ("mlp.gate_proj.weight", 0),
        ("mlp.up_proj.biases", 0),
        ("mlp.down_proj.scales", 1),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_make_the_whole(path: str, axis: int, size: int) -> None:
    shape = (12,) if path.endswith(".bias") else (12, 6)
    whole = mx.random.normal(shape)
    parts = _parts(LAYER + path, whole, size)
    assert {part.shape[axis] for part in parts} == {shape[axis] // size}
    np.testing.assert_array_equal(np.concatenate(parts, axis), np.array(whole))


def test_parts_of_experts_add_up() -> None:
    family = find_family(qwen3_5_moe())
    assert family is not None
    config = family.parse(qwen3_5_moe()).text_config
    whole, x = Experts(config, PLAIN.forms, ALONE), mx.random.normal((5, config.hidden_size))
    parameters = tree_flatten(whole.parameters())
    total = mx.zeros_like(x)
    for rank in range(2):
        ranks = Ranks(rank, 2)
        part = Experts(own_config(config, ranks), PLAIN.forms, ALONE)
        shares = [(path, own_share(f"{LAYER}mlp.{path}", x, ranks)) for path, x in parameters]
        part.load_weights(shares)
        total = total + part(x)
    np.testing.assert_allclose(total, whole(x), atol=1e-5)


def test_a_bias_of_outputs_is_added_once() -> None:
    whole = mx.random.normal((6,))
    parts = _parts(LAYER + "self_attn.o_proj.bias", whole, 3)
    np.testing.assert_array_equal(sum(parts), np.array(whole))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_vocabulary_of_any_size(size: int) -> None:
    whole = mx.random.normal((7, 2))
    parts = _parts("language.lm_head.weight", whole, size)
    assert [len(part) for part in parts] == [
        len(rows_of_vocabulary(7, Ranks(rank, size))) for rank in range(size)
    ]
    np.testing.assert_array_equal(np.concatenate(parts)[:7], np.array(whole))
    assert not np.concatenate(parts)[7:].any()


@pytest.mark.parametrize(
    "path",
    [
        "vision.blocks.0.mlp.down_proj.weight",
        "vision.merger.mlp.0.weight",
        LAYER + "input_layernorm.weight",
        LAYER + "self_attn.q_norm.weight",
        LAYER + "linear_attn.in_proj_qkv.weight",
        "language.norm.weight",
    ],
)
def test_the_rest_is_whole_on_each(path: str) -> None:
    whole = mx.random.normal((12, 6))
    assert own_share(path, whole, Ranks(1, 2)) is whole


def test_packed_numbers_are_not_cut() -> None:
    with pytest.raises(VlmkitError, match=r"2 ranks: .*down_proj.scales \[8, 3\] does not divide"):
        own_share(LAYER + "mlp.down_proj.scales", mx.zeros((8, 3)), Ranks(0, 2))


def test_a_part_keeps_nothing_of_the_whole() -> None:
    whole = mx.zeros((1024, 1024))
    mx.eval(whole)
    before = mx.get_active_memory()
    parts = [
        own_share(path, whole, Ranks(0, 4))
        for path in (LAYER + "mlp.up_proj.weight", "language.embed_tokens.weight")
    ]
    mx.eval(parts)
    assert mx.get_active_memory() - before >= 2 * whole.nbytes // 4
    del whole
    assert mx.get_active_memory() - before < 0


def _config() -> TextConfig:
    config = make_config()
    family = find_family(config)
    assert family is not None
    return family.parse(config).text_config


def test_a_rank_has_its_own_heads() -> None:
    whole = _config()
    own = own_config(whole, Ranks(1, 2))
    assert (own.num_attention_heads, own.num_key_value_heads, own.intermediate_size) == (2, 1, 32)
    assert own.head_dim == whole.head_dim
    assert own_config(whole, Ranks()) is whole


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "num_attention_heads 4 does not divide among them; launch 1 or 2"),
        ({"num_attention_heads": 12}, "num_key_value_heads 2 does not divide among them"),
        (
            {"num_attention_heads": 6, "num_key_value_heads": 6, "intermediate_size": 16},
            "intermediate_size 16 does not divide among them; launch 1 or 2",
        ),
        ({"num_key_value_heads": 1}, "num_attention_heads 4 does not divide among them; launch 1"),
    ],
)
def test_what_does_not_divide(changes: dict[str, int], line: str) -> None:
    config = dataclasses.replace(_config(), **changes)
    with pytest.raises(VlmkitError) as caught:
        own_config(config, Ranks(0, 3))
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({"MLX_RANK": "0"}, None),  # mlx.launch -n 1
        ({"MLX_RANK": "0", "MLX_HOSTFILE": ""}, None),
        ({"MLX_RANK": "x", "MLX_HOSTFILE": "hosts.json"}, None),
        ({"MLX_RANK": "0", "MLX_HOSTFILE": "hosts.json"}, 0),
        ({"MLX_RANK": "3", "MLX_WORLD_SIZE": "4"}, 3),
    ],
)
def test_who_was_launched(environ: dict[str, str], rank: int | None) -> None:
    assert launched_rank(environ) == rank


@pytest.mark.parametrize("written", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_that_is_none(written: str) -> None:
    with pytest.raises(VlmkitError, match="give seconds above 0, such as 300"):
        ranks_timeout_s({"VLMKIT_RANKS_TIMEOUT": written})
