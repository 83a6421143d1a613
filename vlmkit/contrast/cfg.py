"""Classifier-free guidance: the prompt against a negative prompt, or against less of the prompt."""

from __future__ import annotations

from typing import Literal, Self

import mlx.core as mx
from pydantic import Field, model_validator

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.difference import keep_support, logprobs, only
from vlmkit.contrast.streams import StreamMarkers, has_images, without_images
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.errors import VlmkitError


class CfgConfig(StageConfig):
    """Move away from what the model would say without the prompt, or with another one."""

    kind: Literal["cfg"] = "cfg"
    scale: Float = Field(
        default=1.5,
        ge=0.0,
        description="guidance γ: 1 is off, above 1 follows the prompt more, below 1 less; at 0 the"
        " negative prompt alone decides",
    )
    negative_prompt: str | None = Field(
        default=None,
        description="what to move away from; null: the same prompt without its images, or, for a"
        " prompt without images, its last token alone",
    )
    negative_images: bool = Field(
        default=False, description="true: the negative prompt sees the prompt's images too"
    )

    @model_validator(mode="after")
    def _something_to_contrast(self) -> Self:
        if self.negative_images and self.negative_prompt is None:
            raise ValueError(
                "negative_images: true needs a negative_prompt: the same prompt with the same"
                " images leaves nothing to contrast"
            )
        return self


def cfg(config: CfgConfig) -> Contrast:
    """Return ``u + γ(c − u)`` on log-probabilities: c with the prompt, u with the negative one.

    γ = 1 returns the logits unchanged. Removed tokens (−inf in c) stay removed.

    Example:
        >>> guide = cfg(CfgConfig(scale=2.0))
        >>> c, u = mx.log(mx.array([[0.5, 0.5]])), mx.log(mx.array([[[0.8, 0.2]]]))
        >>> mx.softmax(guide.combine(c, u, mx.array([0])), axis=-1).round(3).tolist()
        [[0.20000000298023224, 0.800000011920929]]

    Reference:
        Sanchez et al., "Stay on topic with classifier-free guidance", ICML 2024,
        arXiv:2306.17806; ``UnbatchedClassifierFreeGuidanceLogitsProcessor`` of
        transformers.
    """

    def combine(logits: mx.array, others: mx.array, num_tokens: mx.array) -> mx.array:
        if config.scale == 1.0:
            return logits
        with_prompt, without = logprobs(logits), logprobs(only(others))
        return keep_support(without + config.scale * (with_prompt - without), logits)

    return Contrast("cfg", combine)


def cfg_inputs(
    config: CfgConfig, inputs: Inputs, markers: StreamMarkers, negative: Inputs | None
) -> Inputs:
    """Return the prompt to move away from.

    Raises:
        VlmkitError: the config has a negative prompt that was not prepared, or nothing remains of
            the prompt without its images.
    """
    if config.negative_prompt is not None:
        if negative is None:
            raise VlmkitError("cfg: negative_prompt was not prepared; pass it as negative")
        return negative
    if has_images(inputs, markers):
        return without_images(inputs, markers, kind="cfg")
    return Inputs.of(inputs.token_ids[-1:])
