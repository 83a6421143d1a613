"""From an arm and a sample to what the engine takes: the formatted prompt and decoded images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL.Image import Image

from vlmkit.config.locate import located
from vlmkit.contrast import CfgConfig
from vlmkit.engine import Request, Resolved, load_images, prepare_inputs, resolve
from vlmkit.errors import VlmkitError
from vlmkit.experiment.arms import QUESTION, Arm
from vlmkit.experiment.samples import Sample
from vlmkit.inputs import Inputs
from vlmkit.interface import Model
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.prompt_utils import apply_chat_template


class Prepared(NamedTuple):
    """One sample under the prompt, template and preprocess of some arms."""

    request: Request  # with its images decoded
    images: tuple[Image, ...]
    inputs: Inputs


def format_prompt(processor: Processor, arm: Arm, text: str, num_images: int) -> str:
    """Put a user's text into the chat template, as the arm says."""
    template = arm.config.template
    if not template.apply:
        return text
    return apply_chat_template(
        processor,
        None,
        text,
        num_images=num_images,
        enable_thinking=template.enable_thinking,
    )


def prepare_sample(model: Model, processor: Processor, arm: Arm, sample: Sample) -> Prepared:
    """Decode a sample's images and lay its prompt out as token ids.

    Raises:
        VlmkitError: an image that cannot be read, or a prompt that does not fit the model.
    """
    pipeline = arm.config.pipeline
    text = arm.config.prompt.replace(QUESTION, sample.question)
    images = load_images(Request(text, sample.images), pipeline)
    request = Request(format_prompt(processor, arm, text, len(images)), images)
    return Prepared(request, images, prepare_inputs(model, processor, request, pipeline))


def resolve_arm(
    model: Model, processor: Processor, arm: Arm, seeds: Sequence[int]
) -> list[Resolved]:
    """Build an arm's pipeline once per seed.

    Raises:
        VlmkitError: it cannot run on this model; names the arm.
    """
    pipelines = [
        PipelineConfig.model_validate({**dict(arm.config.pipeline), "seed": seed}) for seed in seeds
    ]
    try:
        with located(arm.tree):
            return [resolve(model, processor, pipeline) for pipeline in pipelines]
    except VlmkitError as error:
        raise VlmkitError(f"{error} (in the arm {arm.name!r})") from error


def with_negative(processor: Processor, arm: Arm, resolved: Resolved, num_images: int) -> Resolved:
    """Put a negative prompt into the chat template, as the prompt itself is."""
    contrast = resolved.pipeline.contrast
    if not isinstance(contrast, CfgConfig) or contrast.negative_prompt is None:
        return resolved
    shown = num_images if contrast.negative_images else 0
    negative = format_prompt(processor, arm, contrast.negative_prompt, shown)
    contrast = contrast.model_copy(update={"negative_prompt": negative})
    pipeline = resolved.pipeline.model_copy(update={"contrast": contrast})
    return resolved._replace(pipeline=pipeline)
