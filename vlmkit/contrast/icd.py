"""Instruction contrastive decoding: the instruction against a disturbed one."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.difference import away_from
from vlmkit.contrast.streams import StreamMarkers, end_of_images
from vlmkit.declare.configbase import Float, StageConfig
from vlmkit.errors import VlmkitError

DISTURBANCE = (
    "You are a confused objects detector to provide a fuzzy overview or impression of the image."
)


class IcdConfig(StageConfig):
    """Move away from what the model would say under a confusing instruction."""

    kind: Literal["icd"] = "icd"
    alpha: Float = Field(
        default=1.0,
        ge=0.0,
        description="strength; 0 leaves the plausibility cut alone, min_p(beta)",
    )
    beta: Float = Field(
        default=0.1, ge=0.0, le=1.0, description="keep tokens with p ≥ beta · max p; 0 is off"
    )
    disturbance: str = Field(
        default=DISTURBANCE,
        min_length=1,
        description="goes between the last image and the question",
    )


def icd(config: IcdConfig) -> Contrast:
    """Return ``(1 + α) z − α z'`` where ``z ≥ ln β + max z``, else −inf.

    z' are the logits of the disturbed prompt.

    Example:
        >>> icd(IcdConfig()).name
        'icd'

    Reference:
        Wang et al., "Mitigating hallucinations in large vision-language models with instruction
        contrastive decoding", Findings of ACL 2024, arXiv:2403.18715; ``icd_sample_llava.py``, the
        settings α = 1, β = 0.1 and the sentence of the authors' code (p1k0pan/ICD).
    """
    return Contrast("icd", away_from(alpha=config.alpha, beta=config.beta))


def icd_inputs(config: IcdConfig, inputs: Inputs, markers: StreamMarkers) -> Inputs:
    """Return the prompt with the disturbance right after the last image.

    All up to there equals the plain prompt. (The authors' code for LLaVA puts the sentence into
    the system message, before the image.)

    Raises:
        VlmkitError: the prompt has no image, or the disturbance has no token.
    """
    place = end_of_images(inputs, markers)
    if place is None:
        raise VlmkitError(
            "icd: the prompt has no image for the disturbance to follow; use cfg with a"
            " negative_prompt"
        )
    ids = np.asarray(markers.encode(config.disturbance), np.int32)
    if not len(ids):
        raise VlmkitError(
            f"icd: the disturbance {config.disturbance!r} has no token", path=("disturbance",)
        )
    before, after = inputs.token_ids[:place], inputs.token_ids[place:]
    return Inputs.of(np.concatenate([before, ids, after]), inputs.media)
