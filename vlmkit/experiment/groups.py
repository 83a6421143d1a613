"""Arms by what they share: a model, a prompt's prefill, a batch of the decode loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from vlmkit.backend.config import BackendConfig
from vlmkit.experiment.arms import Arm
from vlmkit.loading.bridge import ModelSource


class Batch(NamedTuple):
    """Arms whose rows are decoded side by side: equal cache, prefill and contrast."""

    arms: tuple[int, ...]  # places in the experiment
    prefill: str  # equal where a prompt of one may be taken for another's


class Group(NamedTuple):
    """Arms of one model."""

    model: str
    revision: str | None
    dtype: str | None
    backend: BackendConfig
    model_source: ModelSource
    batches: tuple[Batch, ...]
    prompts: tuple[str, ...]  # per arm of the experiment: equal where the prompt is prefilled once

    @property
    def arms(self) -> tuple[int, ...]:
        """Places of all its arms."""
        return tuple(sorted(place for batch in self.batches for place in batch.arms))

    @property
    def num_prefills(self) -> int:
        """Prefills for each sample, those of contrasts and searches not counted."""
        return len({self.prompts[place] for place in self.arms})


def group_arms(arms: Sequence[Arm]) -> tuple[Group, ...]:
    """Group arms by their model, in the order in which models first occur.

    Example:
        >>> from vlmkit.config.tree import DEFAULT, to_node
        >>> from vlmkit.experiment.arms import build_arms
        >>> patches = {
        ...     "a": {},
        ...     "b": {"sampling": [{"kind": "temperature", "temperature": 2.0}]},
        ...     "c": {"cache": {"kind": "affine"}},
        ... }
        >>> base = to_node({}, DEFAULT)
        >>> arms = build_arms(base, {k: to_node(v, DEFAULT) for k, v in patches.items()}, [])
        >>> (group,) = group_arms(arms)
        >>> [batch.arms for batch in group.batches], group.num_prefills
        ([(0, 1), (2,)], 2)
    """
    models: dict[tuple[str, str | None, str | None, BackendConfig, ModelSource], list[int]] = {}
    for place, arm in enumerate(arms):
        config = arm.config
        model = (
            config.model,
            config.revision,
            config.dtype,
            config.backend,
            config.model_source,
        )
        models.setdefault(model, []).append(place)
    prompts = tuple(_prompt_key(arm) for arm in arms)
    return tuple(Group(*model, _batches(arms, places), prompts) for model, places in models.items())


def _batches(arms: Sequence[Arm], places: Sequence[int]) -> tuple[Batch, ...]:
    shared: dict[str, list[int]] = {}
    for place in places:
        config = arms[place].config
        contrast = None if config.contrast is None else config.contrast.model_dump(mode="json")
        parts = (config.cache.model_dump(mode="json"), prefill_key(arms[place]), contrast)
        shared.setdefault(json.dumps(parts, sort_keys=True), []).append(place)
    return tuple(Batch(tuple(found), prefill_key(arms[found[0]])) for found in shared.values())


def prefill_key(arm: Arm) -> str:
    """Return what has to be equal for two arms to share the states of a prompt's tokens."""
    return arm.config.prefill.model_dump_json()


def request_key(arm: Arm) -> str:
    """Return what has to be equal for two arms to have the same prompt and pixels."""
    config = arm.config
    shared = config.model_dump(
        mode="json", include={"prompt", "messages", "template", "preprocess"}
    )
    return json.dumps(shared)


def _prompt_key(arm: Arm) -> str:
    return json.dumps(
        (request_key(arm), prefill_key(arm), arm.config.cache.model_dump_json()), sort_keys=True
    )
