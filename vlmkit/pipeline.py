"""Every stage from a request to its text, as one frozen config. The engine runs what it says."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from vlmkit.cache import CacheConfig, DenseConfig
from vlmkit.contrast import ContrastConfig
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.passes.prefill import PrefillConfig
from vlmkit.preprocess import PreprocessConfig
from vlmkit.sampling import Greedy, SamplerConfig
from vlmkit.search import SearchConfig
from vlmkit.stopping import EosConfig, MaxTokensConfig, StoppingConfig, clock_kinds

DEFAULT_MAX_TOKENS = 256
MAX_STAGES = 1_000
"""Of one list: each takes its time at every token; the longest chains in use have a dozen."""


class PipelineConfig(StageConfig):
    """How a request becomes text. The stages run in the order of the fields.

    Example:
        >>> PipelineConfig(seed=7).sampling
        (Greedy(kind='greedy'),)
    """

    preprocess: PreprocessConfig = Field(
        default=PreprocessConfig(), description="how images are fetched and sized"
    )
    prefill: PrefillConfig = Field(
        default=PrefillConfig(), description="how the prompt goes through the model"
    )
    cache: CacheConfig = Field(default=DenseConfig(), description="how keys and values are kept")
    contrast: ContrastConfig | None = Field(
        default=None,
        description="what the model's logits are contrasted with before they are sampled from",
    )
    sampling: tuple[SamplerConfig, ...] = Field(
        default=(Greedy(),),
        max_length=MAX_STAGES,
        description="stages that turn logits into a token, in this order; a run may say "
        "'checkpoint' for those that the model's own generation_config.json recommends",
    )
    search: SearchConfig | None = Field(
        default=None,
        description="null: one token is drawn per step; else several rows are searched for one",
    )
    stopping: tuple[StoppingConfig, ...] = Field(
        default=(MaxTokensConfig(max_tokens=DEFAULT_MAX_TOKENS), EosConfig()),
        max_length=MAX_STAGES,
        description="when a row ends, and what it is forced to say; the first to match ends it",
    )
    seed: Int = Field(
        default=0, ge=0, lt=2**64, description="with the sample number and position: every draw"
    )
    reproducible: bool = Field(
        default=True, description="false: allow stopping criteria that look at the clock"
    )
    skip_special_tokens: bool = Field(
        default=False, description="leave special tokens out of the text"
    )

    @model_validator(mode="before")
    @classmethod
    def _search_without_greedy(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("sampling") == "checkpoint":
            raise VlmkitError(
                "sampling: 'checkpoint' needs the checkpoint: give "
                "vlmkit.config.recommended.checkpoint_sampling(processor)",
                path=("sampling",),
            )
        # The one place that decides what is sampled where nothing is said: the default chain keeps
        # one token, which would leave a search nothing to choose from.
        if isinstance(values, dict) and values.get("search") and "sampling" not in values:
            return {**values, "sampling": ()}
        return values

    @field_validator("sampling", "stopping", mode="before")
    @classmethod
    def _no_lone_stage(cls, value: Any) -> Any:
        # pydantic would take a config for the list of its own fields
        if isinstance(value, StageConfig):
            raise ValueError(f"must be a list: put {type(value).__name__} in brackets")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.search is not None and any(stage.kind == "greedy" for stage in self.sampling):
            raise VlmkitError(
                f"sampling has a greedy stage, which leaves {self.search.kind} one token to choose "
                "from; leave it out (sampling: [] is all that a search needs)",
                path=("sampling",),
            )
        return self


def check_clock(pipeline: PipelineConfig) -> None:
    """Refuse criteria that look at the clock, unless the pipeline need not be reproducible.

    No part of the config's own validation: a third party's criterion has to be made for it.

    Raises:
        VlmkitError: names the criteria.

    Example:
        >>> from vlmkit.stopping import TimeLimitConfig
        >>> pipeline = PipelineConfig(stopping=(TimeLimitConfig(seconds=1.0),))
        >>> check_clock(pipeline)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        vlmkit.errors.VlmkitError: stopping: time_limit depends on the clock; leave it out, or ...
    """
    if pipeline.reproducible and (kinds := clock_kinds(pipeline.stopping)):
        raise VlmkitError(
            f"stopping: {', '.join(kinds)} depends on the clock; leave it out, or write "
            "reproducible: false",
            path=("stopping",),
        )
