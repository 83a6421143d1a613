"""How many tokens of a prompt an eviction method keeps, and which of them it never drops."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field, model_validator

from vlmkit.cache.codec.build import CodecConfig, PlainConfig
from vlmkit.contracts.interface import PromptShape
from vlmkit.declare.configbase import Float, Int, StageConfig

_ROUNDING = 1e-9  # 0.29 * 100 is 28.999…


class EvictionConfig(StageConfig):
    """What all eviction methods are told: how much they keep of a prompt, and how it is stored."""

    ratio: Float | None = Field(
        None, gt=0, le=1, description="Share of a prompt's tokens kept; give this or budget."
    )
    budget: Int | None = Field(
        None, ge=1, description="Tokens of a prompt kept; shorter prompts stay whole."
    )
    image_ratio: Float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the tokens of images and videos kept, chosen among themselves; "
        "ratio is then of the other tokens. null = all are one.",
    )
    sinks: Int = Field(0, ge=0, description="First tokens that are never dropped.")
    keys: CodecConfig = Field(PlainConfig(), description="How keys are stored then: a codec.")
    values: CodecConfig = Field(PlainConfig(), description="How values are stored then: a codec.")

    @model_validator(mode="after")
    def _budget_fits(self) -> EvictionConfig:
        if (self.ratio is None) == (self.budget is None):
            raise ValueError("give ratio or budget, one of them: how much of a prompt is kept")
        if self.image_ratio is not None and self.ratio is None:
            raise ValueError("image_ratio goes with ratio, that of the other tokens; not budget")
        window = 0 if self.budget is None else self.num_window(self.budget)
        if self.budget is not None and self.budget <= self.sinks + window:
            raise ValueError(
                f"budget={self.budget} leaves nothing to choose beside sinks={self.sinks} and "
                f"window={window}; use {self.sinks + window + 1} or more"
            )
        return self

    def num_window(self, num_kept: int) -> int:
        """Return how many last tokens are never dropped, where the budget allows."""
        return 0


class Counts(NamedTuple):
    """How many tokens of one prompt are kept."""

    text: int  # of all tokens but images'; of all, where images are nothing special
    images: int
    sinks: int  # of the first tokens, never dropped
    window: int  # of the last tokens, never dropped

    @property
    def total(self) -> int:
        """Tokens kept."""
        return self.text + self.images


def share_of(ratio: float, count: int) -> int:
    """Return how many tokens a share of them is, rounded down; of at least one token one.

    >>> share_of(0.29, 100), share_of(0.01, 5), share_of(0.5, 0)
    (29, 1, 0)
    """
    return min(max(int(ratio * count + _ROUNDING), 1), count)


def count_kept(config: EvictionConfig, prompt: PromptShape, num_kept: int | None = None) -> Counts:
    """Count what is kept of a prompt.

    Where sinks and window would fill the budget, sinks get half of it at most, and the window half
    of what is left.

    Args:
        config: of the method.
        prompt: how long it is, and where images are.
        num_kept: tokens kept in one layer; None: as the config says.

    Example:
        >>> count_kept(EvictionConfig(ratio=0.25, sinks=4), PromptShape(100))
        Counts(text=25, images=0, sinks=4, window=0)
    """
    images = 0
    if num_kept is not None:
        text = min(max(num_kept, 1), prompt.length)
    elif config.budget is not None:
        text = min(config.budget, prompt.length)
    else:
        assert config.ratio is not None
        if config.image_ratio is None:
            text = share_of(config.ratio, prompt.length)
        else:
            images = share_of(config.image_ratio, prompt.num_image_tokens)
            text = share_of(config.ratio, prompt.length - prompt.num_image_tokens)
    sinks, window = min(config.sinks, text // 2), config.num_window(text)
    if window and sinks + window >= text:
        window = max((text - sinks) // 2, 1)
    return Counts(text, images, sinks, window)
