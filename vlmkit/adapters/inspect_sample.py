"""One record of a run as a sample of inspect_ai's log."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path
from typing import Any

from inspect_ai._util.error import EvalError  # in logs, but not among what inspect_ai exports
from inspect_ai.log import EvalSample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.scorer import Score

from vlmkit.adapters.inspect_output import split_thinking
from vlmkit.errors import VlmkitError
from vlmkit.experiment.choices import choices_of
from vlmkit.experiment.data.images import is_url
from vlmkit.experiment.manifest import Manifest
from vlmkit.experiment.provenance import config_hash
from vlmkit.experiment.records import Record
from vlmkit.experiment.samples import Sample
from vlmkit.files import read_file
from vlmkit.preprocess.images import MAX_IMAGE_BYTES


def to_sample(
    record: Record, sample: Sample, epoch: int, model: str, manifest: Manifest
) -> EvalSample:
    """Put a record and its sample into one.

    Args:
        record: the response.
        sample: what was asked.
        epoch: the number of its seed, from 1.
        model: what logs call the model.
        manifest: of the run.

    Raises:
        VlmkitError: an image that cannot be read.
    """
    asked = [ChatMessageUser(content=_content(sample, Path(manifest.folder)), source="input")]
    answered = ChatMessageAssistant(
        content=split_thinking(record.text), model=model, source="generate"
    )
    usage = _usage(record)
    messages: list[ChatMessage] = [*asked, answered]
    return EvalSample(
        id=record.sample,
        epoch=epoch,
        input=list(asked),
        choices=list(choices_of(sample.fields).values()) or None,
        target=list(sample.answers),
        messages=messages,
        output=ModelOutput(
            model=model,
            choices=[ChatCompletionChoice(message=answered, stop_reason=_stop_reason(record))],
            usage=usage,
            time=record.prompt_s + record.generation_s,
        ),
        scores=_scores(record),
        metadata={
            **{name: value for name, value in sample.fields.items() if _is_plain(value)},
            "seed": record.seed,
            "finish_kind": record.finish_kind,
            "num_forced": sum(record.forced),
            **record.extra,
        },
        model_usage={model: usage},
        total_time=record.prompt_s + record.generation_s,
        uuid=config_hash([manifest.hashes, record.arm, record.sample, record.seed]),
        error=_error(record),
    )


def _content(sample: Sample, base: Path) -> list[Content]:
    images = [ContentImage(image=_data_uri(image, base)) for image in sample.images]
    return [*images, ContentText(text=sample.question)]


def _data_uri(image: str | bytes, base: Path) -> str:
    kind = "image/png"
    if isinstance(image, str):
        if is_url(image):
            return image
        kind, path = mimetypes.guess_type(image)[0] or kind, base / image
        try:
            image = read_file(path, MAX_IMAGE_BYTES)
        except OSError as error:
            raise VlmkitError(f"{path}: cannot be read: {error.strerror}") from None
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"


def _usage(record: Record) -> ModelUsage:
    return ModelUsage(
        input_tokens=record.prompt_tokens - record.cached_tokens,
        input_tokens_cache_read=record.cached_tokens or None,
        output_tokens=record.generation_tokens,
        total_tokens=record.prompt_tokens + record.generation_tokens,
    )


def _stop_reason(record: Record) -> StopReason:
    if record.finish_reason == "length":
        return "model_length" if record.finish_kind == "context" else "max_tokens"
    return "stop" if record.finish_reason == "stop" else "unknown"


def _scores(record: Record) -> dict[str, Score]:
    return {
        name: Score(value=one.value, answer=one.parsed, metadata=dict(one.parts) or None)
        for name, one in record.scores.items()
        if one.value is not None
    }


def _error(record: Record) -> EvalError | None:
    if record.error is None:
        return None
    return EvalError(message=record.error, traceback="", traceback_ansi="")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))
