"""What a run writes: one line of JSON per unit of work, appended and flushed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

# What can be in a file; a record that is made is not checked.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Seed = Annotated[int, msgspec.Meta(ge=0)]


class Scored(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one scorer says of one response."""

    value: float | None = None  # the number that is compared between arms; None: not scorable
    parsed: str | None = None  # the answer that was read out of the text
    parts: dict[str, float] = {}  # further numbers that the scorer's summary is made of


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One response: of one arm to one sample with one seed."""

    arm: str
    sample: str
    seed: Seed
    text: str = ""
    token_ids: list[Count] = []
    forced: list[bool] = []
    text_ends: list[Count] = []  # per token: where its text ends in `text`, in characters
    logprobs: list[float] = []  # per token: of the model itself
    top_logprobs: list[list[tuple[Count, float]]] = []  # per token: the model's most likely ones
    finish_reason: str | None = None  # "stop", "length" or "error"
    finish_kind: str | None = None
    error: str | None = None  # why there is no whole response
    answered: bool = True  # False: it ended while it was thinking, so there is no answer in it
    prompt_tokens: Count = 0
    cached_tokens: Count = 0
    generation_tokens: Count = 0
    prompt_s: float = 0.0  # of its prefill; what several rows share counts evenly for each
    generation_s: float = 0.0  # from its first token to its last, others beside it
    alone: bool = False  # it ran by itself, with a prefill of its own
    cache_bytes: Count = 0  # of its KV cache at its end; with a contrast or beams, of all of them
    scores: dict[str, Scored] = {}  # by metric name
    extra: dict[str, Any] = {}

    @property
    def unit(self) -> tuple[str, str, int]:
        """What makes a record unique in its run."""
        return self.arm, self.sample, self.seed
