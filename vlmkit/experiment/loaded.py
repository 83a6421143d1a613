"""A model of an experiment, loaded, with everything that its arms need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vlmkit.api import load
from vlmkit.backend.memory import available_bytes
from vlmkit.config.locate import located
from vlmkit.contracts.interface import Model
from vlmkit.engine import Amateur
from vlmkit.errors import VlmkitError
from vlmkit.experiment.arms import Arm
from vlmkit.experiment.estimate import row_bytes, rows_in_flight
from vlmkit.experiment.groups import Group
from vlmkit.experiment.prompting import resolve_arm
from vlmkit.loading import read_config, resolve_checkpoint
from vlmkit.processors import Processor
from vlmkit.resolve import Method, Resolved, build_method
from vlmkit.stopping import token_limit

_PROMPT_TOKENS = 1024  # taken for a prompt's length where rows in flight are chosen


class Loaded(NamedTuple):
    """A model with everything that its arms need, built and checked."""

    model: Model
    processor: Processor
    group: Group
    arms: Sequence[Arm]  # of the experiment
    resolved: dict[int, list[Resolved]]  # by arm, one per seed
    methods: list[Method]  # one per batch of the group


def load_group(
    group: Group, arms: Sequence[Arm], seeds: Sequence[int], *, lazy: bool = False
) -> Loaded:
    """Load a model, and build all that its arms need.

    Args:
        group: which model, and which arms.
        arms: of the experiment.
        seeds: of the experiment.
        lazy: leave the weights on disk; enough to find out what cannot run.

    Raises:
        VlmkitError: the model cannot be loaded, or an arm cannot run on it.
    """
    first = arms[group.arms[0]]
    with located(first.tree, ("model",)):
        model, processor = load(
            group.model,
            revision=group.revision,
            dtype=group.dtype,
            lazy=lazy,
            backend=group.backend,
            model_source=group.model_source,
        )
    resolved = {place: resolve_arm(model, processor, arms[place], seeds) for place in group.arms}
    methods = []
    second: dict[str, Amateur] = {}  # each checkpoint is loaded once
    for batch in group.batches:
        arm, pipeline = arms[batch.arms[0]], resolved[batch.arms[0]][0].pipeline
        try:
            with located(arm.tree, ("contrast",)):
                methods.append(build_method(model, processor, pipeline, loaded=second))
        except VlmkitError as error:
            raise VlmkitError(f"{error} (in the arm {arm.name!r})", path=error.path) from error
    return Loaded(model, processor, group, arms, resolved, methods)


def group_rows(group: Group, arms: Sequence[Arm], *, num_copies: int = 1) -> int:
    """Return how many rows of a group's arms fit into the memory at hand.

    Args:
        group: which model, and which arms.
        arms: of the experiment.
        num_copies: how often each row is there, under another cache.

    Raises:
        VlmkitError: its checkpoint is not on this machine, or cannot be read.
    """
    free = available_bytes()
    share = None if free is None else free // num_copies
    return rows_in_flight(_config(group), tokens=_row_tokens(group, arms), available=share)


def _config(group: Group) -> dict[str, object]:
    return read_config(resolve_checkpoint(group.model, revision=group.revision))


def _row_tokens(group: Group, arms: Sequence[Arm]) -> int:
    limits = [token_limit(arms[place].config.stopping) for place in group.arms]
    return _PROMPT_TOKENS + max(limit if limit is not None else 1024 for limit in limits)


def prompt_bytes(group: Group) -> int | None:
    """Return the memory of one prompt's KV cache, about; None where the sizes are not known."""
    return row_bytes(_config(group), tokens=_PROMPT_TOKENS)
