"""What generation returns. The first fields of each class are the documented public contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, List, Optional, Tuple, overload


class _LazyLogprobs:
    """A dataclass field that turns into a list of floats when it is first read.

    A vocabulary of 152k entries takes milliseconds to convert, so the conversion waits for a
    reader. Assign a list, ``None``, or a function without arguments that returns the list.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._slot = "_" + name

    @overload
    def __get__(self, instance: None, owner: type) -> None: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Optional[List[float]]: ...
    def __get__(self, instance: object | None, owner: type) -> Optional[List[float]]:
        if instance is None:
            return None  # the dataclass default
        value = instance.__dict__.get(self._slot)
        if callable(value):
            value = value()
            instance.__dict__[self._slot] = value
        return value

    def __set__(
        self, instance: object, value: Optional[List[float]] | Callable[[], List[float]]
    ) -> None:
        # The generated __init__ passes the field's default, which is this descriptor.
        instance.__dict__[self._slot] = None if isinstance(value, _LazyLogprobs) else value


@dataclass
class GenerationResult:
    """The outcome of ``generate``, or one step of ``stream_generate``.

    Attributes:
        text: the whole response (``generate``) or the newly decoded segment (``stream_generate``).
        token: id of the last generated token.
        logprobs: the model's own log-probabilities for the last token, before the sampler chain:
            float32, normalised, one per vocabulary entry. Converted to a list when first read.
        prompt_tokens: tokens in the prompt, image placeholders included.
        generation_tokens: tokens generated so far, a final end-of-sequence token included.
        total_tokens: ``prompt_tokens + generation_tokens``.
        prompt_tps: prompt tokens really processed (not taken from a cache) per second.
        generation_tps: tokens after the first, per second since the first; 0.0 for one token.
        peak_memory: highest memory use since the call began, in gigabytes (1e9 bytes).
        token_ids: all generated ids so far (``generate``) or this step's id (``stream_generate``).
        forced: for each of ``token_ids``, whether a stopping criterion chose it, not the sampler.
        finish_reason: ``"stop"``, ``"length"`` or, for a row of a batch that could not go on,
            ``"error"`` on the last step, else ``None``.
        finish_kind: the stopping criterion that ended the row, such as ``"eos"``.
        matched_stop: the stop string, the token id, or the sequence of ids that matched.
        cached_tokens: prompt tokens taken from a cache instead of being processed.
        score: what a search ranked this response by; ``None`` without a search.
        alternatives: a search's other results, from the next best down.
        trace: the step's logits after each stage, where that was asked for.
        effective: the effective configuration, defaults resolved.
        error: why the row could not go on; ``None`` unless ``finish_reason`` is ``"error"``.
    """

    text: str = ""
    token: Optional[int] = None
    logprobs: Optional[List[float]] = field(default=_LazyLogprobs(), repr=False)  # type: ignore
    prompt_tokens: int = 0
    generation_tokens: int = 0
    total_tokens: int = 0
    prompt_tps: float = 0.0
    generation_tps: float = 0.0
    peak_memory: float = 0.0
    token_ids: List[int] = field(default_factory=list)
    forced: List[bool] = field(default_factory=list)
    finish_reason: Optional[str] = None
    finish_kind: Optional[str] = None
    matched_stop: str | int | Tuple[int, ...] | None = None
    cached_tokens: int = 0
    score: Optional[float] = None
    alternatives: List[GenerationResult] = field(default_factory=list, repr=False)
    trace: Any = field(default=None, repr=False)
    effective: Optional[dict[str, Any]] = field(default=None, repr=False)
    error: Optional[str] = None


@dataclass
class BatchStats:
    """Totals of one ``batch_generate`` call. Times are in seconds, memory in gigabytes."""

    prompt_tokens: int = 0
    prompt_tps: float = 0
    prompt_time: float = 0
    generation_tokens: int = 0
    generation_tps: float = 0
    generation_time: float = 0
    peak_memory: float = 0


@dataclass
class BatchResponse:
    """What ``batch_generate`` returns, in the order of the prompts.

    Attributes:
        texts: the response to each prompt.
        stats: totals over the whole call.
        image_sizes: original (height, width) of each input image, in order.
        results: one full ``GenerationResult`` per prompt (token ids, finish reason, forced mask…).
    """

    texts: List[str]
    stats: BatchStats
    image_sizes: Optional[List[Tuple[int, int]]] = None
    results: List[GenerationResult] = field(default_factory=list, repr=False)


def describe_speed(result: GenerationResult) -> str:
    """The timing lines that ``verbose`` prints."""
    return (
        f"Prompt: {result.prompt_tokens} tokens, {result.prompt_tps:.1f} tokens/s\n"
        f"Generation: {result.generation_tokens} tokens, {result.generation_tps:.1f} tokens/s\n"
        f"Peak memory: {result.peak_memory:.3f} GB"
    )
