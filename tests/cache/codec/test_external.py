"""A codec of one's own: trusted by name, checked at every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from experiments.own_codec import ternary
from tests.cache.kinds import feed, random_tokens
from vlmkit.cache import Codec, External, QuantizedConfig, build_cache, describe_cache
from vlmkit.cache.codec.external import external_codec
from vlmkit.config.run import load_run
from vlmkit.contracts.interface import KVSpec
from vlmkit.errors import VlmkitError

HERE = "tests.cache.codec.test_external"
OWN = {"kind": "external", "factory": "experiments.own_codec:ternary"}
SPEC = KVSpec(2, 32, 32)


def broken(*, breaks: str) -> Any:
    """Keep a tensor as it is, but for one rule."""
    made: dict[str, Any] = {
        "codec": 3,
        "tuple": Codec(lambda x: x, lambda stored, dtype: stored),
        "array": Codec(lambda x: (x, 3), lambda stored, dtype: stored[0]),
        "slots": Codec(lambda x: (x.mean(2),), lambda stored, dtype: stored[0]),
        "decoded": Codec(lambda x: (x,), lambda stored, dtype: stored[0][:, :1]),
        "dtype": Codec(lambda x: (x,), lambda stored, dtype: stored[0].astype(mx.float16)),
    }
    return made[breaks]


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        ("codec", "returned a int, not a vlmkit.cache.Codec"),
        ("tuple", "encode gave a array; it must be a tuple of arrays"),
        ("array", "encode gave a int at place 1 for [1, 2, 3, 32]; every array must be [1, 2, 3,"),
        ("slots", "encode gave float32 [1, 2, 32] at place 0"),
        ("decoded", "decode gave float32 [1, 1, 3, 32]; it must be float32 [1, 2, 3, head_dim]"),
        ("dtype", "decode gave float16 [1, 2, 3, 32]; it must be float32"),
    ],
)
def test_what_breaks_a_rule_is_said(breaks: str, said: str) -> None:
    config = External(factory=f"{HERE}:broken", config={"breaks": breaks})

    def run() -> None:
        codec = external_codec(config)
        codec.decode(codec.encode(mx.ones((1, 2, 3, 32))), mx.float32)

    with pytest.raises(VlmkitError) as error:
        run()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_three_values_and_a_scale() -> None:
    codec = ternary()
    x = mx.array([3.0, -3.0, 0.1, 0.0] * 8)[None, None, None]
    words, scale = codec.encode(x)
    assert (words.dtype, words.shape, scale.item()) == (mx.uint32, (1, 1, 1, 2), 3.0)
    assert codec.decode((words, scale), mx.float32).tolist()[0][0][0] == [3, -3, 0, 0] * 8


def test_its_bytes_are_counted_and_its_window_is_exact() -> None:
    config = QuantizedConfig(keys=OWN, values={"kind": "plain"}, recent=8)
    facts = describe_cache(config, [SPEC], mx.float32)
    assert facts["key_bits_per_element"] == 2 + 16 / 32 + 8 * 32 / 4096
    cache = build_cache(config, [SPEC], 1, mx.float32)
    dense = build_cache(QuantizedConfig(keys={"kind": "plain"}, values={"kind": "plain"}),
                        [SPEC], 1, mx.float32)  # fmt: skip
    row = random_tokens(8, 1)
    for own, other in zip(
        *(feed(c.kinds[0], c.layers[0], [0], [row], [8])[1] for c in (cache, dense)), strict=True
    ):
        np.testing.assert_allclose(np.array(own), np.array(other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "path"),
    [
        (f"keys: {OWN}", "cache.keys.factory"),
        (f"values: {{kind: hadamard, codec: {OWN}}}", "cache.values.codec.factory"),
    ],
)
def test_it_is_code_and_needs_trust(tmp_path: Path, side: str, path: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"cache:\n  kind: quantized\n  {side}\n")
    with pytest.raises(VlmkitError, match="names code to run") as error:
        load_run(file)
    assert f"{file}:3: {path}" in str(error.value)
    load_run(file, trust_code=True)
    file.write_text(file.read_text().replace("ternary", "absent"))
    with pytest.raises(VlmkitError, match="absent"):
        load_run(file, trust_code=True)
