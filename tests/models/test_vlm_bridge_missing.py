"""What a model source says where it cannot serve; none of it needs mlx-vlm."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import vlmkit
from vlmkit.cli.main import main
from vlmkit.contracts.packed_parts import pack_parts, unpack_parts
from vlmkit.errors import VlmkitError


def test_an_unknown_source() -> None:
    with pytest.raises(VlmkitError, match=r"model_source='mlx_vlm': one of vlmkit, mlx-vlm; did"):
        vlmkit.load("shapes", model_source="mlx_vlm")  # type: ignore[arg-type]


def test_mlx_vlm_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "mlx_vlm" else known(name)
    )
    assert main(["generate", "--prompt", "How many?", "model_source=mlx-vlm"]) == 2
    error = capsys.readouterr().err
    assert "model_source: mlx-vlm is not installed; pip install 'vlmkit[mlx-vlm]'" in error
    assert error.count("\n") == 1


def test_parts_come_back_as_they_were() -> None:
    rng = np.random.default_rng(0)
    parts = {
        "pixel_values": rng.standard_normal((2, 3, 4)).astype(np.float32),
        "image_sizes": np.array([[14, 28]]),
        "pixel_attention_mask": np.ones((1, 2, 2), bool),
    }
    found = unpack_parts(*pack_parts(parts))
    assert list(found) == list(parts)
    for name, part in parts.items():
        assert found[name].dtype.kind == part.dtype.kind
        assert np.array_equal(found[name], part)
    with pytest.raises(VlmkitError, match="image_sizes: a number in it is too large"):
        pack_parts({"image_sizes": [2**24 + 1]})
    with pytest.raises(VlmkitError, match="what a processor gives as 'depth' is not known"):
        pack_parts({"depth": [1]})
