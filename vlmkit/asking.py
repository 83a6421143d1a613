"""What callers of generate ask: keyword parameters become a request and a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmkit.config.params import pipeline_from_params
from vlmkit.config.recommended import check_sampling_choice, checkpoint_sampling
from vlmkit.engine import Request
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import as_clips, as_sources, as_videos, check_prompt
from vlmkit.processors import Processor
from vlmkit.prompt_utils import with_thinking
from vlmkit.prompts import PromptCache


def read_prompt_cache(value: Any) -> PromptCache | None:
    """Check the ``prompt_cache`` parameter.

    Raises:
        VlmkitError: it is no prompt cache.
    """
    if value is None or isinstance(value, PromptCache):
        return value
    raise VlmkitError(
        f"prompt_cache is of type {type(value).__name__}; give a vlmkit.PromptCache, or None"
    )


def read_params(
    processor: Processor,
    prompt: object,
    images: object,
    audio: object,
    params: Mapping[str, Any],
    video: object = None,
) -> tuple[Request, PipelineConfig]:
    """Turn the keyword parameters of one prompt into what to generate from, and how.

    Raises:
        VlmkitError: an unknown name, a value out of range, or a prompt of the wrong type.
    """
    checked = check_prompt(prompt)
    rest = dict(params)
    enable_thinking = rest.pop("enable_thinking", False)
    sample = rest.pop("sample", 0)
    own = rest.pop("sampling", None)
    pipeline = pipeline_from_params(**rest)
    if own is not None:
        check_sampling_choice(own, rest)
        stages = checkpoint_sampling(processor)
        pipeline = pipeline.model_copy(update={"sampling": stages})
    if not isinstance(enable_thinking, bool):
        raise VlmkitError(f"enable_thinking must be True or False, got {enable_thinking!r}")
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        raise VlmkitError(f"sample must be a whole number, 0 or more, got {sample!r}")
    if enable_thinking:
        if not isinstance(checked, str):
            raise VlmkitError("enable_thinking: the prompt is token ids; set it before encoding")
        checked = with_thinking(processor, checked)
    sources = as_sources(images), as_clips(audio)
    return Request(checked, *sources, sample=sample, video=as_videos(video)), pipeline


def check_request(request: object, where: str = "") -> Request:
    """Return a request with its prompt and media in one form each.

    Raises:
        VlmkitError: no :class:`Request`, or a prompt that is neither text nor token ids.
    """
    if not isinstance(request, Request):
        raise VlmkitError(
            f"{where}request: {type(request).__name__} given; wrap the prompt, as in"
            " Request(prompt, images)"
        )
    return request._replace(
        prompt=check_prompt(request.prompt, f"{where}prompt"),
        images=as_sources(request.images),
        audio=as_clips(request.audio),
        video=as_videos(request.video),
    )
