"""The one place where keyword parameters become a pipeline config.

Their names and defaults are those of the documented Python API; 0 or ``None`` mean "off" here and
nowhere else. The stages come in the order that mlx-lm and mlx-vlm use for the same parameters:
logit_bias, repetition, presence, frequency, then top_p, min_p, top_k and temperature; temperature 0
is greedy.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from vlmkit.cache import AffineConfig, CacheConfig, DenseConfig, RotatingConfig
from vlmkit.declare.configbase import StageConfig, parse_config
from vlmkit.errors import VlmkitError, brief, dotted, nearest
from vlmkit.mistakes.explain import explain
from vlmkit.mistakes.jsonschema import json_schema, kind_sections
from vlmkit.names.words import PIPELINE, keyword_words, off_param_words
from vlmkit.passes.prefill import PrefillConfig
from vlmkit.pipeline import DEFAULT_MAX_TOKENS, PipelineConfig
from vlmkit.preprocess import PreprocessConfig
from vlmkit.processors.video_rules import MAX_FRAMES
from vlmkit.sampling import (
    FrequencyPenalty,
    Greedy,
    LogitBias,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    SamplerConfig,
    Temperature,
    TopK,
    TopP,
)
from vlmkit.stopping import (
    EosConfig,
    MaxTokensConfig,
    StoppingConfig,
    StopSequencesConfig,
    ThinkingBudgetConfig,
)
from vlmkit.tokens.ids import StopText, StopTexts, TokenKey, check_count

DEFAULT_KEEP = RotatingConfig.model_fields["keep"].default


def _number(value: Any) -> Any:
    # Also NumPy's numbers; no booleans, and no text that looks like a number.
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"must be a number, got {brief(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"must be a finite number, got {brief(value)}") from None


def _whole_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"must be a whole number, got {brief(value)}")
    return int(value)


def _strings(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _height_and_width(value: Any) -> Any:
    if value is not None and (not isinstance(value, Sequence) or len(value) != 2):
        raise ValueError(f"must be (height, width) in pixels, got {brief(value)}")
    return value


Number = Annotated[float, BeforeValidator(_number)]
Count = Annotated[int, BeforeValidator(_whole_number)]
Side = Annotated[Count, Field(ge=1)]
Texts = Annotated[StopTexts | None, BeforeValidator(_strings)]


class GenerationParams(StageConfig):
    """The keyword parameters of ``generate``, ``stream_generate`` and ``batch_generate``."""

    max_tokens: Count = Field(default=DEFAULT_MAX_TOKENS, ge=0)
    temperature: Number = Field(default=0.0, ge=0.0)
    top_p: Number = Field(default=1.0, gt=0.0, le=1.0)
    top_k: Count = Field(default=0, ge=0)
    min_p: Number = Field(default=0.0, ge=0.0, le=1.0)
    repetition_penalty: Number | None = Field(default=None, gt=0.0)
    repetition_context_size: Count = Field(default=20, ge=1)
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    logit_bias: Annotated[dict[TokenKey, Number] | None, check_count] = None
    seed: Count | None = Field(default=None, ge=0, lt=2**64)
    resize_shape: Annotated[tuple[Side, Side] | None, BeforeValidator(_height_and_width)] = None
    fps: Number | None = Field(default=None, gt=0.0, le=1000.0)
    max_frames: Count | None = Field(default=None, ge=1, le=MAX_FRAMES)
    kv_bits: Literal[2, 3, 4, 5, 6, 8] | None = None
    kv_group_size: Literal[32, 64, 128] = 64
    max_kv_size: Count | None = Field(default=None, ge=1)
    prefill_step_size: Count = Field(default=2048, ge=1)
    eos_tokens: Texts = None
    stop: Texts = None
    skip_special_tokens: bool = Field(default=False, strict=True)
    thinking_budget: Count | None = Field(default=None, ge=0)
    thinking_start_token: StopText | None = None
    thinking_end_token: StopText | None = None


_REQUEST_NAMES = (
    *("image", "audio", "video", "verbose", "enable_thinking", "sample", "sampling", "prompt"),
)


def pipeline_from_params(**given: Any) -> PipelineConfig:
    """Turn keyword parameters into a pipeline config.

    Args:
        **given: fields of :class:`GenerationParams`.

    Raises:
        VlmkitError: an unknown name (says the nearest), or a value out of range.

    Example:
        >>> pipeline = pipeline_from_params(temperature=0.7, top_p=0.9)
        >>> [stage.kind for stage in pipeline.sampling]
        ['top_p', 'temperature']
        >>> pipeline_from_params(temp=0.7)
        Traceback (most recent call last):
        ...
        vlmkit.errors.VlmkitError: unknown parameter 'temp': use temperature
    """
    params = parse_params(given)
    return PipelineConfig.model_construct(  # of parts that are valid, and fit where no search is
        preprocess=PreprocessConfig(
            resize_shape=params.resize_shape, fps=params.fps, max_frames=params.max_frames
        ),
        prefill=PrefillConfig(step_size=params.prefill_step_size),
        cache=_cache(params),
        sampling=_sampling(params),
        stopping=_stopping(params),
        seed=params.seed or 0,
        skip_special_tokens=params.skip_special_tokens,
    )


def parse_params(given: Mapping[str, Any]) -> GenerationParams:
    """Check keyword parameters.

    Raises:
        VlmkitError: names the parameter, the value and what is allowed.
    """
    for name in given:
        if name not in GenerationParams.model_fields:
            raise VlmkitError(_unknown(name))
    try:
        return parse_config(GenerationParams, dict(given))
    except ValidationError as error:
        mistake = explain(GenerationParams, error)[0]
    path = dotted(mistake.path)
    off = off_param_words(path, given.get(path))
    raise VlmkitError(
        f"{path} {mistake.message}{'' if off is None else f'; {off}'}", path=mistake.about
    )


def _unknown(name: str) -> str:
    if name in ("prompt", "image", "audio", "video"):  # generate takes these by name
        return f"unknown parameter {name!r}: batch_generate has {name}s"
    words = keyword_words(name)
    if words is None and (section := kind_sections(json_schema(PipelineConfig)).get(name)):
        words = f"give it as a kind of {section} {PIPELINE}"
    if words is None and name in PipelineConfig.model_fields:
        words = f"give it {PIPELINE}"
    if words is not None:
        return f"unknown parameter {name!r}: {words}"
    known = [*GenerationParams.model_fields, *_REQUEST_NAMES]
    hint = nearest(name, known) or f"; known: {', '.join(known)}"
    return f"unknown parameter {name!r}{hint}"


def _sampling(params: GenerationParams) -> tuple[SamplerConfig, ...]:
    stages: list[SamplerConfig] = []
    if params.logit_bias:
        stages.append(LogitBias(bias=params.logit_bias))
    if params.repetition_penalty is not None:
        stages.append(
            RepetitionPenalty(
                penalty=params.repetition_penalty, context_size=params.repetition_context_size
            )
        )
    if params.presence_penalty is not None:
        stages.append(PresencePenalty(penalty=params.presence_penalty))
    if params.frequency_penalty is not None:
        stages.append(FrequencyPenalty(penalty=params.frequency_penalty))
    if params.temperature == 0.0:
        return (*stages, Greedy())  # the argmax survives every truncation
    if params.top_p < 1.0:
        stages.append(TopP(p=params.top_p))
    if params.min_p > 0.0:
        stages.append(MinP(p=params.min_p))
    if params.top_k > 0:
        stages.append(TopK(k=params.top_k))
    return (*stages, Temperature(temperature=params.temperature))


def _stopping(params: GenerationParams) -> tuple[StoppingConfig, ...]:
    criteria: list[StoppingConfig] = [
        MaxTokensConfig(max_tokens=params.max_tokens),
        EosConfig(tokens=params.eos_tokens or ()),
    ]
    if params.stop:
        criteria.append(StopSequencesConfig(sequences=params.stop))
    markers = {"start": params.thinking_start_token, "end": params.thinking_end_token}
    given = {name: text for name, text in markers.items() if text is not None}
    if params.thinking_budget is not None:
        criteria.append(ThinkingBudgetConfig(budget=params.thinking_budget, **given))
    return tuple(criteria)


def _cache(params: GenerationParams) -> CacheConfig:
    max_size = params.max_kv_size
    keep = {} if max_size is None or max_size > DEFAULT_KEEP else {"keep": max_size - 1}
    if params.kv_bits is not None:
        return AffineConfig(
            bits=params.kv_bits, group_size=params.kv_group_size, max_size=max_size, **keep
        )
    return DenseConfig() if max_size is None else RotatingConfig(max_size=max_size, **keep)
