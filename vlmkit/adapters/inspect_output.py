"""Answers as inspect_ai's model output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    Content,
    ContentReasoning,
    ContentText,
    Logprob,
    Logprobs,
    ModelOutput,
    ModelUsage,
    StopReason,
    TopLogprob,
)

from vlmkit.adapters.decoding import Answer, TokenLogprob
from vlmkit.errors import VlmkitError
from vlmkit.results import GenerationResult

_START, _END = "<think>", "</think>"


def to_output(
    answers: Sequence[Answer], *, model: str, seconds: float, metadata: dict[str, Any]
) -> ModelOutput:
    """Put the answers to one prompt into one output.

    Args:
        answers: at least one.
        model: what logs call it.
        seconds: from the question to the last answer.
        metadata: what else is to be in the log.

    Raises:
        VlmkitError: an answer that could not be had, and why.
    """
    for answer in answers:
        if answer.result.finish_reason == "error":
            raise VlmkitError(answer.result.error or "the response could not be had")
    results = [answer.result for answer in answers]
    own = {
        "finish_kinds": [result.finish_kind for result in results],
        "num_forced": [sum(result.forced) for result in results],
    }
    return ModelOutput(
        model=model,
        choices=[_choice(answer, model) for answer in answers],
        usage=_usage(results),
        time=seconds,
        metadata={**metadata, **own},
    )


def _choice(answer: Answer, model: str) -> ChatCompletionChoice:
    opened = answer.prompt.rstrip().endswith(_START)
    message = ChatMessageAssistant(
        content=split_thinking(answer.result.text, opened=opened), model=model, source="generate"
    )
    logprobs = None
    if answer.logprobs is not None:
        logprobs = Logprobs(content=[_logprob(one) for one in answer.logprobs])
    return ChatCompletionChoice(
        message=message, stop_reason=_stop_reason(answer.result), logprobs=logprobs
    )


def split_thinking(text: str, *, opened: bool = False) -> str | list[Content]:
    """Cut a response into its thinking and its answer, at the last ``</think>``.

    Args:
        text: the whole response.
        opened: the prompt ends in ``<think>``.

    Returns:
        The text as it is where there is no thinking in it.
    """
    before, mark, answer = text.rpartition(_END)
    if not mark and (opened or text.lstrip().startswith(_START)):
        before, answer = text, ""
    elif not mark:
        return text
    thinking = before.strip().removeprefix(_START).strip()
    return [ContentReasoning(reasoning=thinking), ContentText(text=answer.strip())]


def _stop_reason(result: GenerationResult) -> StopReason:
    if result.finish_reason == "length":
        return "model_length" if result.finish_kind == "context" else "max_tokens"
    return "stop"


def _usage(results: Sequence[GenerationResult]) -> ModelUsage:
    first = results[0]  # further answers begin with the prompt of the first
    output = sum(result.generation_tokens for result in results)
    return ModelUsage(
        input_tokens=first.prompt_tokens - first.cached_tokens,
        input_tokens_cache_read=first.cached_tokens or None,
        output_tokens=output,
        total_tokens=first.prompt_tokens + output,
    )


def _logprob(one: TokenLogprob) -> Logprob:
    others = [TopLogprob(token=token, logprob=logprob) for token, logprob in one.others]
    return Logprob(token=one.token, logprob=one.logprob, top_logprobs=others)
