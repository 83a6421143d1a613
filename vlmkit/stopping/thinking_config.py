"""What may be said about thinking: the budget's config, preset messages, resolved markers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.tokens.ids import StopText

QWEN3_TRANSITION = (
    "Considering the limited time by the user, I have to give the solution based on the thinking "
    "directly now.\n</think>.\n\n"
)
"""What Qwen3 puts in when a thinking budget runs out; it holds the end marker (arXiv 2505.09388,
section 4.3)."""

S1_TRANSITION = "</think>\n\nFinal Answer:"
"""Budget forcing: the end of thinking, then a request for the answer (arXiv 2501.19393, section
3.1), with ``</think>`` as the end marker."""

S1_WAIT = "Wait"
"""Budget forcing: what takes the place of an end of thinking that comes too early (the same)."""


class ThinkingBudgetConfig(StageConfig):
    """How long a model may, and must, think.

    A thinking token is one after the start marker and before the end marker.
    """

    kind: Literal["thinking_budget"] = "thinking_budget"
    budget: Annotated[Int, Field(ge=0)] | None = Field(
        description="Thinking tokens after which the block is closed; null never closes it."
    )
    start: StopText = Field(default="<think>", description="What opens a block of thinking.")
    end: StopText = Field(default="</think>", description="What closes it.")
    transition: StopText | None = Field(
        default=None,
        description="What closes a block: this text, then the end marker, unless the text holds it "
        "already.",
    )
    scope: Literal["block", "total"] = Field(
        default="block",
        description="Whether a reopened block gets a fresh budget or what is left of it.",
    )
    count_prompt: bool = Field(
        default=False, description="Whether thinking tokens in the prompt use up the budget."
    )
    eos_inside: Literal["close", "stop"] = Field(
        default="close",
        description="An end-of-sequence token while thinking closes the block, or ends the row.",
    )
    stop_inside: Literal["ignore", "honor"] = Field(
        default="ignore", description="Whether stop sequences count while thinking."
    )
    min_tokens: Int = Field(
        default=0, ge=0, description="Thinking tokens before which the model can't close the block."
    )
    wait: StopText = Field(
        default=S1_WAIT,
        description="What takes the place of an end marker that comes before ``min_tokens``.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ThinkingBudgetConfig:
        if self.budget is not None and self.min_tokens > self.budget:
            raise ValueError(
                f"min_tokens {self.min_tokens} is more than budget {self.budget}; lower min_tokens"
            )
        if self.end in self.wait:
            raise ValueError(f"wait {self.wait!r} holds the end marker {self.end!r}; leave it out")
        return self


class ThinkingMarkers(NamedTuple):
    """The texts of a :class:`ThinkingBudgetConfig` as token ids."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    closing: tuple[int, ...]  # the transition and the end marker
    wait: tuple[int, ...]


def thinking_markers(
    config: ThinkingBudgetConfig,
    *,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str] | None = None,
    kind: str = "thinking_budget",
) -> ThinkingMarkers:
    """Resolve the markers; the transition is encoded around the end marker, which stays whole.

    Args:
        config: the texts.
        encode: text to token ids, no special tokens added.
        decode: token ids to text, special tokens kept; when given, markers must survive both ways.
        kind: whose markers they are, for the messages.

    Raises:
        VlmkitError: a marker that the tokenizer does not know. The default ``<think>`` and
            ``</think>`` must be tokens of their own; markers set in the config may be several.

    Example:
        >>> vocabulary = {"<think>": [1], "</think>": [2], "Stop.": [3, 4], "Wait": [5]}
        >>> config = ThinkingBudgetConfig(budget=8, transition="Stop.")
        >>> thinking_markers(config, encode=vocabulary.__getitem__).closing
        (3, 4, 2)
    """

    def marker(field: Literal["start", "end"]) -> tuple[int, ...]:
        text: str = config.start if field == "start" else config.end
        ids = tuple(encode(text))
        lossy = decode is not None and decode(ids).strip() != text.strip()
        if not ids or lossy or (len(ids) > 1 and field not in config.model_fields_set):
            raise VlmkitError(
                f"{kind}: the tokenizer has no token {text!r} ({field}); set `start` and `end` "
                f"to the markers that this model writes, or drop {kind}",
                path=(field,),
            )
        return ids

    start, end = marker("start"), marker("end")
    before, _, after = (config.transition or "").partition(config.end)
    closing = (*_part(before, encode), *end, *_part(after, encode))
    wait = tuple(encode(config.wait)) if config.min_tokens else ()
    if config.min_tokens and not wait:
        raise VlmkitError(
            f"{kind}: the tokenizer turns wait {config.wait!r} into no token; set `wait`",
            path=("wait",),
        )
    return ThinkingMarkers(start, end, closing, wait)


def _part(text: str, encode: Callable[[str], Sequence[int]]) -> tuple[int, ...]:
    return tuple(encode(text)) if text else ()
