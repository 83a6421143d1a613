"""The kinds of stopping criteria, alone and in groups, and what a list of them says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vlmkit.declare.configbase import StageConfig
from vlmkit.declare.external import External
from vlmkit.errors import KeyPath, within
from vlmkit.stopping.eos import EosConfig
from vlmkit.stopping.external import external
from vlmkit.stopping.max_tokens import MaxTokensConfig
from vlmkit.stopping.repetition_loop import RepetitionLoopConfig
from vlmkit.stopping.stop_sequences import StopSequencesConfig
from vlmkit.stopping.stop_token_ids import StopTokenIdsConfig
from vlmkit.stopping.thinking_config import ThinkingBudgetConfig
from vlmkit.stopping.time_limit import TimeLimitConfig
from vlmkit.stopping.uncertainty import ConfidenceStop, EntropyStop, UncertaintyConfig


class AnyOfConfig(StageConfig):
    """Whichever ends the row first; as if its criteria stood in the list themselves."""

    kind: Literal["any_of"] = "any_of"
    criteria: tuple[StoppingConfig, ...] = Field(
        min_length=1, description="one of these is enough to end the row"
    )


class AllOfConfig(StageConfig):
    """End the row only at a token at which each of the criteria would."""

    kind: Literal["all_of"] = "all_of"
    criteria: tuple[StoppingConfig, ...] = Field(
        min_length=1, description="all of these have to end the row at the same token"
    )

    @model_validator(mode="after")
    def _can_end(self) -> AllOfConfig:
        for config in self.criteria:
            if never_ends(config):
                raise ValueError(
                    f"{config.kind} never ends a row, so all of them together never would; put it "
                    "beside the all_of"
                )
        return self


StoppingConfig = Annotated[
    MaxTokensConfig
    | TimeLimitConfig
    | EosConfig
    | StopSequencesConfig
    | StopTokenIdsConfig
    | ThinkingBudgetConfig
    | RepetitionLoopConfig
    | EntropyStop
    | ConfidenceStop
    | AnyOfConfig
    | AllOfConfig
    | External,
    Field(discriminator="kind"),
]
"""Any criterion's config, told apart by ``kind``."""


def never_ends(config: StoppingConfig) -> bool:
    """Whether a criterion only forces tokens.

    Example:
        >>> never_ends(ThinkingBudgetConfig(budget=8)), never_ends(MaxTokensConfig(max_tokens=8))
        (True, False)
    """
    if isinstance(config, AnyOfConfig):
        return all(map(never_ends, config.criteria))
    if isinstance(config, UncertaintyConfig):
        return config.action == "close_thinking"
    return isinstance(config, ThinkingBudgetConfig)


def each_config(
    configs: Sequence[StoppingConfig], path: KeyPath = ()
) -> Iterator[tuple[KeyPath, StoppingConfig]]:
    """Yield every config that is no group, in order, and where it stands.

    Example:
        >>> group = AllOfConfig(criteria=(EosConfig(), MaxTokensConfig(max_tokens=9)))
        >>> [(path, config.kind) for path, config in each_config([group])]
        [((0, 'criteria', 0), 'eos'), ((0, 'criteria', 1), 'max_tokens')]
    """
    for index, config in enumerate(configs):
        if isinstance(config, AnyOfConfig | AllOfConfig):
            yield from each_config(config.criteria, (*path, index, "criteria"))
        else:
            yield (*path, index), config


def clock_kinds(configs: Sequence[StoppingConfig]) -> tuple[str, ...]:
    """Return the kinds that look at the clock: with one of them a run can't be repeated exactly.

    A third party's criterion is made, to see what it reads.

    Example:
        >>> clock_kinds([EosConfig(), AnyOfConfig(criteria=(TimeLimitConfig(seconds=9.5),))])
        ('time_limit',)

    Raises:
        VlmkitError: a third party's criterion that can't be made.
    """
    kinds = []
    for path, config in each_config(configs, ("stopping",)):
        with within(*path):
            if isinstance(config, TimeLimitConfig) or (
                isinstance(config, External) and "elapsed_s" in external(config).reads
            ):
                kinds.append(config.kind)
    return tuple(dict.fromkeys(kinds))


def token_limit(configs: Sequence[StoppingConfig]) -> int | None:
    """Return the number of tokens at which the criteria end a row for sure; None without one.

    Example:
        >>> short, long = MaxTokensConfig(max_tokens=4), MaxTokensConfig(max_tokens=9)
        >>> token_limit([short, long]), token_limit([AllOfConfig(criteria=(short, long))])
        (4, 9)
        >>> token_limit([AllOfConfig(criteria=(short, EosConfig()))])
    """
    limits = [limit for limit in map(_limit, configs) if limit is not None]
    return min(limits, default=None)


def _limit(config: StoppingConfig) -> int | None:
    if isinstance(config, AnyOfConfig):
        return token_limit(config.criteria)
    if isinstance(config, AllOfConfig):
        limits = list(map(_limit, config.criteria))
        known = [limit for limit in limits if limit is not None]
        return max(known) if len(known) == len(limits) else None
    return config.max_tokens if isinstance(config, MaxTokensConfig) else None
