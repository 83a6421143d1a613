"""The union of the contrast methods, and what is built from it."""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.cfg import CfgConfig, cfg, cfg_inputs
from vlmkit.contrast.contrastive_decoding import ContrastiveDecodingConfig, contrastive_decoding
from vlmkit.contrast.dola import DolaConfig, dola
from vlmkit.contrast.external import external, external_inputs
from vlmkit.contrast.icd import IcdConfig, icd, icd_inputs
from vlmkit.contrast.m3id import M3idConfig, m3id
from vlmkit.contrast.streams import StreamMarkers, without_images
from vlmkit.contrast.vcd import VcdConfig, vcd, vcd_inputs
from vlmkit.declare.external import External

ContrastConfig = Annotated[
    CfgConfig
    | ContrastiveDecodingConfig
    | DolaConfig
    | VcdConfig
    | IcdConfig
    | M3idConfig
    | External,
    Field(discriminator="kind"),
]
"""Any contrast method's config, told apart by ``kind``."""


def build_contrast(config: ContrastConfig, *, num_layers: int, tied_embeddings: bool) -> Contrast:
    """Make the method that a config describes, for a model of this shape.

    Raises:
        VlmkitError: DoLa with a layer that the model doesn't have; an external factory that can't
            be found or fails.

    Example:
        >>> build_contrast(VcdConfig(alpha=0.5), num_layers=4, tied_embeddings=True).name
        'vcd'
    """
    match config:
        case CfgConfig():
            return cfg(config)
        case ContrastiveDecodingConfig():
            return contrastive_decoding(config)
        case DolaConfig():
            return dola(config, num_layers=num_layers, tied_embeddings=tied_embeddings)
        case VcdConfig():
            return vcd(config)
        case IcdConfig():
            return icd(config)
        case M3idConfig():
            return m3id(config)
        case External():
            return external(config, num_layers=num_layers)
        case _:
            assert_never(config)


def other_inputs(
    config: ContrastConfig,
    inputs: Inputs,
    markers: StreamMarkers,
    *,
    seed: int,
    sample: int,
    negative: Inputs | None = None,
) -> tuple[Inputs, ...]:
    """Return the prompts of the other streams that run on the same model.

    Args:
        inputs: the row's own prompt.
        seed, sample: choose the noise of ``vcd``.
        negative: the prepared ``negative_prompt`` of ``cfg``.

    Returns:
        One prompt, or none for ``contrastive_decoding`` (another model on the same prompt) and
        ``dola`` (early layers); ``external`` as its method says.

    Raises:
        VlmkitError: the method needs an image that the prompt doesn't have.

    Example:
        >>> import numpy as np
        >>> text = Inputs.of(np.array([4, 5, 6], np.int32))
        >>> markers = StreamMarkers(lambda text: (), frozenset({9}), {7}, {8}, (3, 2, 14))
        >>> other_inputs(CfgConfig(), text, markers, seed=0, sample=0)[0].token_ids.tolist()
        [6]
    """
    match config:
        case CfgConfig():
            return (cfg_inputs(config, inputs, markers, negative),)
        case ContrastiveDecodingConfig() | DolaConfig():
            return ()
        case VcdConfig():
            step = config.noise_step
            return (vcd_inputs(inputs, markers, step=step, seed=seed, sample=sample),)
        case IcdConfig():
            return (icd_inputs(config, inputs, markers),)
        case M3idConfig():
            return (without_images(inputs, markers, kind="m3id"),)
        case External():
            return external_inputs(config, inputs, markers)
        case _:
            assert_never(config)
