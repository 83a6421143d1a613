"""What transformers' own implementation computes for the small checkpoints. Needs torch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from tests.media import grids_of, patches_of
from tests.models.tiny import stored
from tests.models.tiny_configs import IMAGE
from vlmkit.contracts.inputs import Inputs
from vlmkit.models.families import find_family

CLASSES = {
    "qwen2_vl": (
        transformers.Qwen2VLConfig,
        transformers.Qwen2VLForConditionalGeneration,
    ),
    "qwen2_5_vl": (
        transformers.Qwen2_5_VLConfig,
        transformers.Qwen2_5_VLForConditionalGeneration,
    ),
    "qwen3_vl": (
        transformers.Qwen3VLConfig,
        transformers.Qwen3VLForConditionalGeneration,
    ),
    "qwen3_vl_moe": (
        transformers.Qwen3VLMoeConfig,
        transformers.Qwen3VLMoeForConditionalGeneration,
    ),
    "qwen3_5": (
        transformers.Qwen3_5Config,
        transformers.Qwen3_5ForConditionalGeneration,
    ),
    "qwen3_5_moe": (
        transformers.Qwen3_5MoeConfig,
        transformers.Qwen3_5MoeForConditionalGeneration,
    ),
}

# transformers 5.24 gave the argument another name.
_PARAMETERS = inspect.signature(transformers.Qwen2VLForConditionalGeneration.forward).parameters
_CACHE = "cache" if "cache" in _PARAMETERS else "past_key_values"


def build(config: dict[str, Any]) -> torch.nn.Module:
    """Return transformers' model with the weights of :func:`tests.models.tiny.stored`."""
    family = find_family(config)
    assert family is not None
    config_class, model_class = CLASSES[family.name]
    model = model_class._from_config(config_class(**config), attn_implementation="eager")
    model = model.to(torch.float32).eval()
    parsed = family.parse(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            path = family.rename(name, parsed)
            assert path is not None
            parameter.copy_(torch.from_numpy(stored(family, parsed, path, parameter.shape)))
    return model


def logits(
    model: torch.nn.Module,
    prompts: Sequence[Inputs],
    continuations: np.ndarray,
    *,
    image_token_id: int = IMAGE,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Run a left-padded batch and then feed it ``continuations [B, N]`` token by token.

    Returns:
        Logits ``[T_b, V]`` of each prompt and ``[B, N, V]`` of the steps.
    """
    lengths = [len(inputs.token_ids) for inputs in prompts]
    width = max(lengths)
    ids = np.zeros((len(prompts), width), np.int64)
    mask = np.zeros((len(prompts), width), np.int64)
    for row, (inputs, length) in enumerate(zip(prompts, lengths, strict=True)):
        ids[row, width - length :] = inputs.token_ids
        mask[row, width - length :] = 1
    kinds = torch.from_numpy((ids == image_token_id).astype(np.int32))
    arguments: dict[str, Any] = {"mm_token_type_ids": kinds}
    grids = [grid for inputs in prompts for grid in grids_of(inputs)]
    if grids:
        patches = [patches_of(inputs) for inputs in prompts if inputs.media]
        arguments["pixel_values"] = torch.from_numpy(np.concatenate(patches))
        arguments["image_grid_thw"] = torch.tensor(grids)
    with torch.no_grad():
        out = model(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            use_cache=True,
            **arguments,
        )
        prompt_logits = out.logits.numpy()
        deltas = model.model.rope_deltas.numpy() if grids else np.zeros((1, 1), np.int64)
        steps = []
        for step in range(continuations.shape[1]):
            mask = np.concatenate([mask, np.ones((len(prompts), 1), np.int64)], axis=1)
            # As its generate() does: the count of real tokens so far, shifted by the images' delta.
            positions = mask.sum(axis=1, keepdims=True) - 1 + deltas
            out = model(
                input_ids=torch.from_numpy(continuations[:, step : step + 1].astype(np.int64)),
                attention_mask=torch.from_numpy(mask),
                position_ids=torch.from_numpy(
                    np.broadcast_to(positions, (3, len(prompts), 1)).copy()
                ),
                use_cache=True,
                **{_CACHE: out[_CACHE]},
            )
            steps.append(out.logits.numpy())
    rows = [prompt_logits[row, width - length :] for row, length in enumerate(lengths)]
    return rows, np.concatenate(steps, axis=1)
