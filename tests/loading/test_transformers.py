"""Checkpoints that transformers wrote: our logits are transformers'."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.loading.checkpoints import (
    VISION,
    logits_of,
    make_config,
    make_inputs,
    relative_error,
)
from tests.media import grids_of, patches_of
from vlmkit.loading import load_model, read_checkpoint

pytestmark = pytest.mark.torch
TOLERANCE = 1e-4


def _write(folder: Path, model_type: str, *, shard: str) -> NDArray[np.float32]:
    """Save a random model with transformers; return its logits."""
    import torch
    import transformers

    config_class, model_class = {
        "qwen2_vl": (transformers.Qwen2VLConfig, transformers.Qwen2VLForConditionalGeneration),
        "qwen2_5_vl": (
            transformers.Qwen2_5_VLConfig,
            transformers.Qwen2_5_VLForConditionalGeneration,
        ),
    }[model_type]
    values = make_config(model_type, nested=True)
    torch.manual_seed(0)
    model: Any = model_class(config_class(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 1.0 if parameter.ndim == 1 else parameter[0].numel() ** 0.5
            parameter.normal_(0, 1 / scale)
    model.save_pretrained(folder, max_shard_size=shard)
    inputs = make_inputs()
    ids = torch.tensor(inputs.token_ids, dtype=torch.long)[None]
    with torch.no_grad():
        output = model(
            input_ids=ids,
            pixel_values=torch.tensor(patches_of(inputs)),
            image_grid_thw=torch.tensor(grids_of(inputs)),
            mm_token_type_ids=(ids == values["image_token_id"]).int(),
        )
    return np.array(output.logits[0])


def _flatten_config(folder: Path, model_type: str) -> None:
    """Replace the config.json of transformers 5 by the flat one of the hub."""
    (folder / "config.json").write_text(json.dumps(make_config(model_type)))


@pytest.mark.parametrize("shard", ["5GB", "100KB"])
@pytest.mark.parametrize("model_type", VISION)
def test_both_config_layouts(model_type: str, shard: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        expected = _write(tmp_path, model_type, shard=shard)
    assert (len(read_checkpoint(tmp_path).files) > 1) == (shard == "100KB")
    assert "text_config" in read_checkpoint(tmp_path).config
    nested = logits_of(load_model(tmp_path, dtype="float32"), make_inputs())
    assert relative_error(nested, expected) < TOLERANCE
    _flatten_config(tmp_path, model_type)
    flat = logits_of(load_model(tmp_path, dtype="float32"), make_inputs())
    assert np.array_equal(flat, nested)
    assert load_model(tmp_path, dtype="float32").dtype == mx.float32
