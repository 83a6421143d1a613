"""Attention in a codec's own frame reads what the decoded tokens would give."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.cache.kinds import CONFIGS, SHAPE, expected, feed, random_tokens
from tests.cache.test_laws import assert_close
from vlmkit.backend.attention import Attention, fused_attention, matmul_attention
from vlmkit.cache import build_cache


@pytest.mark.parametrize("name", ["turboquant", "turboquant_rotating", "kvarn"])
@pytest.mark.parametrize("attention", [fused_attention, matmul_attention])
def test_every_form_of_attention_reads_the_same(name: str, attention: Attention) -> None:
    # With a sketch keys have more coordinates than values.
    cache = build_cache(CONFIGS[name], [SHAPE], 1, mx.float32, attention=attention)
    row = random_tokens(30, 1)
    _, [output] = feed(cache.kinds[0], cache.layers[0], [0], [row], [17, *[1] * 13])
    assert_close(output, expected(name, row))
