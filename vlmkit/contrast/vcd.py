"""Visual contrastive decoding: the image against a noised image."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.difference import away_from
from vlmkit.contrast.streams import StreamMarkers
from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.errors import VlmkitError

NUM_NOISE_STEPS = 1000


class VcdConfig(StageConfig):
    """Move away from what the model would say of a noised image."""

    kind: Literal["vcd"] = "vcd"
    alpha: Float = Field(
        default=1.0,
        ge=0.0,
        description="strength; 0 leaves the plausibility cut alone, min_p(beta)",
    )
    beta: Float = Field(
        default=0.1, ge=0.0, le=1.0, description="keep tokens with p ≥ beta · max p; 0 is off"
    )
    noise_step: Int = Field(
        default=500,
        ge=0,
        lt=NUM_NOISE_STEPS,
        description="diffusion step of the noised image: 0 is hardly changed, 999 is noise",
    )


def vcd(config: VcdConfig) -> Contrast:
    """Return ``(1 + α) z − α z'`` where ``z ≥ ln β + max z``, else −inf; z' of the noised image.

    Example:
        >>> import mlx.core as mx
        >>> look = vcd(VcdConfig(alpha=1.0, beta=0.1))
        >>> seen, noised = mx.array([[2.0, 1.9, -5.0]]), mx.array([[[2.0, 0.9, 0.0]]])
        >>> look.combine(seen, noised, mx.array([0])).round(2).tolist()
        [[2.0, 2.8999998569488525, -inf]]

    Reference:
        Leng et al., "Mitigating object hallucinations in large vision-language models through
        visual contrastive decoding", CVPR 2024, arXiv:2311.16922; ``vcd_sample.py`` and the
        settings α = 1, β = 0.1, step 500 of the authors' code (DAMO-NLP-SG/VCD).
    """
    return Contrast("vcd", away_from(alpha=config.alpha, beta=config.beta))


def vcd_inputs(
    inputs: Inputs, markers: StreamMarkers, *, step: int, seed: int, sample: int
) -> Inputs:
    """Return the same prompt with noised images and videos.

    Raises:
        VlmkitError: the prompt has none.
    """
    seen = [medium for medium in inputs.media if medium.kind != "audio"]
    if not seen:
        raise VlmkitError(
            "vcd: the prompt has no image to noise; give it one, or use cfg with a negative_prompt"
        )
    patches = np.concatenate([medium.data for medium in seen])
    noised = noise_patches(patches, markers.patch_shape, step=step, seed=seed, sample=sample)
    media, start = [], 0
    for medium in inputs.media:
        if medium.kind == "audio":
            media.append(medium)
            continue
        data = noised[start : start + len(medium.data)]
        media.append(Media.of(medium.kind, data, medium.shape, medium.span, medium.seconds))
        start += len(data)
    return Inputs.of(inputs.token_ids, media)


def image_share(step: int) -> float:
    """Return ᾱ: the share of the image in the variance after a diffusion step; noise has 1 − ᾱ.

    ``ᾱ_t = Π (1 − β_s)`` for s up to t, ``β_s = 1e-5 + (5e-3 − 1e-5) · sigmoid(x_s)``, x_s from
    −6 to 6 in 1000 steps.

    Example:
        >>> [round(image_share(step), 4) for step in (0, 500, 999)]
        [1.0, 0.7448, 0.0812]

    Reference:
        ``vcd_add_noise.py`` of DAMO-NLP-SG/VCD.
    """
    betas = 1e-5 + (5e-3 - 1e-5) / (1.0 + np.exp(-np.linspace(-6.0, 6.0, NUM_NOISE_STEPS)))
    return float(np.prod(1.0 - betas[: step + 1]))


def noise_patches(
    patches: NDArray[np.float32],
    patch_shape: tuple[int, int, int],
    *,
    step: int,
    seed: int,
    sample: int,
) -> NDArray[np.float32]:
    """Return ``√ᾱ x + √(1 − ᾱ) ε`` for normalised patches, ε standard normal per pixel.

    A still image fills all frames of a patch, so each pixel's noise is drawn once and repeated
    over them. The noise is NumPy's Philox stream with the key (seed, sample): it doesn't depend on
    the batch, and a NumPy release may change it.

    Args:
        patches: ``[N, channels * frames * size * size]`` of all images of a prompt, normalised.
        patch_shape: (channels, frames, size).
        step: diffusion step, ``0 <= step < 1000``.
        seed, sample: ``0 <= n < 2**64``.

    Raises:
        VlmkitError: seed or sample is out of range, or the patches have another size.

    Example:
        >>> blank = np.zeros((4, 24), np.float32)
        >>> noised = noise_patches(blank, (3, 2, 2), step=999, seed=0, sample=0)
        >>> bool((noised.reshape(4, 3, 2, 4)[:, :, 0] == noised.reshape(4, 3, 2, 4)[:, :, 1]).all())
        True
    """
    for name, value in (("seed", seed), ("sample", sample)):
        if not 0 <= value < 1 << 64:
            raise VlmkitError(f"{name} {value}: needs an integer from 0 to 2**64 - 1")
    channels, frames, size = patch_shape
    if patches.shape[1] != channels * frames * size * size:
        raise VlmkitError(
            f"patches of {patches.shape[1]} numbers don't divide into {channels} channels,"
            f" {frames} frames and {size}x{size} pixels"
        )
    key = np.array([seed, sample], np.uint64)
    pixels = (len(patches), channels, 1, size * size)
    noise = np.random.Generator(np.random.Philox(key=key)).standard_normal(pixels, np.float32)
    kept = image_share(step)
    cut = patches.reshape(len(patches), channels, frames, size * size)
    noised = np.float32(kept**0.5) * cut + np.float32((1.0 - kept) ** 0.5) * noise
    return noised.reshape(patches.shape)
