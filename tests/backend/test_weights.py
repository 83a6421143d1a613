"""How matrices are held: what fits is chosen, and every form gives the same logits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tests.loading.checkpoints import (
    logits_of,
    make_config,
    make_inputs,
    random_weights,
    relative_error,
    write_checkpoint,
)
from vlmkit.backend.choices import Choices
from vlmkit.errors import VlmkitError
from vlmkit.loading import load_model, load_model_and_report

SCHEME = {"group_size": 64, "bits": 4, "mode": "affine"}
CPU = Choices(device="cpu")
FREE = "vlmkit.loading.install.free_bytes"


def packed(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Pack the projections, and the embedding, which is the head too."""
    result: dict[str, Any] = {}
    for name, value in weights.items():
        if name.endswith(("_proj.weight", "embed_tokens.weight")):
            base, whole = name.removesuffix("weight"), mx.array(value).astype(mx.bfloat16)
            parts = mx.quantize(whole, **SCHEME)
            names = [base + part for part in ("weight", "scales", "biases")]
            result |= dict(zip(names, parts, strict=True))
        else:
            result[name] = value
    return result


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = make_config(tied=True)
    weights, folder = random_weights(config), tmp_path_factory.mktemp("plain")
    return write_checkpoint(folder, config, weights, dtype=mx.bfloat16)


@pytest.fixture(scope="module")
def packed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = make_config(tied=True) | {"quantization": SCHEME}
    weights, folder = packed(random_weights(config)), tmp_path_factory.mktemp("packed")
    return write_checkpoint(folder, config, weights, dtype=mx.bfloat16)


def sizes_of(folder: Path, forms: tuple[str, ...]) -> dict[str, int]:
    choices = {form: CPU._replace(weights=form) for form in forms}  # type: ignore[arg-type]
    return {
        form: load_model_and_report(folder, backend=one)[1].num_bytes
        for form, one in choices.items()
    }


def test_a_cpu_takes_the_fastest_form_that_fits(
    packed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sizes_of(packed_folder, ("full", "half", "packed"))
    assert sizes["full"] > sizes["half"] > sizes["packed"]
    for available, expected in (
        (10**9, "full"),
        (None, "full"),
        (int(sizes["half"] / 0.6) + 1, "half"),
        (int(sizes["packed"] / 0.6) + 1, "packed"),
        (sizes["packed"], "packed"),  # tight, but nothing smaller is to be had
    ):
        monkeypatch.setattr(FREE, lambda value=available: value)
        _, report = load_model_and_report(packed_folder, backend=CPU)
        assert report.backend.weights == expected
        assert report.dequantized is (expected != "packed")
        assert report.num_bytes == sizes[expected]


def test_too_little_memory_is_said_before_loading(
    packed_folder: Path, plain_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sizes_of(packed_folder, ("full", "half", "packed"))
    monkeypatch.setattr("vlmkit.loading.install._read", lambda _: pytest.fail("was read"))
    for free, choices, said in (
        (sizes["packed"] - 1, CPU, "of memory are free; a smaller or quantized checkpoint"),
        (sizes["packed"], CPU._replace(weights="half"), r"half\), and .*weights: packed \(.*fits"),
        (sizes["half"], CPU._replace(weights="full"), "weights: half .* or weights: packed"),
    ):
        monkeypatch.setattr(FREE, lambda value=free: value)
        with pytest.raises(VlmkitError, match=said) as caught:
            load_model(packed_folder, backend=choices)
        assert caught.value.path == ("backend", "weights")
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(FREE, lambda: 10**9)
    with pytest.raises(VlmkitError, match=r"packed is not to be had.*use full or half"):
        load_model(plain_folder, backend=CPU._replace(weights="packed"))


@pytest.mark.parametrize("form", ["half", "packed"])
def test_every_form_gives_the_same_logits(
    form: str, plain_folder: Path, packed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmkit.backend.held.PART", 5 * 64)  # several parts, and a rest
    folder = plain_folder if form == "half" else packed_folder
    expected = logits_of(load_model(folder, backend=CPU), make_inputs())
    model = load_model(folder, backend=CPU._replace(weights=form))  # type: ignore[arg-type]
    assert model.dtype == mx.float32
    assert relative_error(logits_of(model, make_inputs()), expected) < 1e-5
    one_row = mx.ones((1, 1, model.config.text_config.hidden_size))
    whole = load_model(folder, backend=CPU)
    assert relative_error(model.logits(one_row), whole.logits(one_row)) < 1e-5


def test_dequantize_is_a_choice_of_its_own(packed_folder: Path) -> None:
    for dequantize, expected in ((True, "full"), (False, "packed"), (None, "full")):
        _, report = load_model_and_report(packed_folder, dequantize=dequantize, backend=CPU)
        assert report.backend.weights == expected
