"""The policies of a kv-eval on its model: their caches, and what they do to a row."""

from __future__ import annotations

from collections.abc import Sequence

from vlmkit.cache import CacheConfig, build_cache
from vlmkit.config.validate import error_at
from vlmkit.contracts.interface import Cache, Model, PromptShape
from vlmkit.errors import VlmkitError
from vlmkit.experiment.files import Experiment
from vlmkit.experiment.kv_eval.applied import Applied, applied, thresholds
from vlmkit.experiment.kv_eval.references import Reference
from vlmkit.experiment.kv_eval.streams import NewCache


def new_cache(model: Model, config: CacheConfig) -> NewCache:
    """Return what makes an empty cache of a policy for a model."""

    def make(batch: int) -> Cache:
        attention = model.backend.forms.attention
        return build_cache(config, model.layer_specs, batch, model.dtype, attention=attention)

    return make


def facts_of(model: Model, config: CacheConfig, prompt: PromptShape, num_answer: int) -> Applied:
    """Count what a policy does to a prompt and its answer, whose last token is never fed."""
    return applied(
        new_cache(model, config)(0).kinds,
        model.layer_specs,
        model.dtype,
        prompt=prompt,
        num_tokens=prompt.length + num_answer - 1,
    )


def check_applied(experiment: Experiment, model: Model, references: Sequence[Reference]) -> None:
    """Refuse a policy that does nothing to any sample: its row would be the baseline's.

    Args:
        experiment: whose arms are the policies.
        model: the model's functions.
        references: of all samples.

    Raises:
        VlmkitError: names the policy, its threshold, and the longest sequence.
    """
    whole = [one for one in references if one.error is None]
    if not whole:
        raise VlmkitError(
            f"no sample has tokens to compare policies on: {references[0].error}"
            if references
            else "no sample is there to compare policies on"
        )
    longest = max(whole, key=lambda one: one.prompt_tokens + len(one.token_ids))
    num_tokens = longest.prompt_tokens + len(longest.token_ids) - 1
    for arm in experiment.arms:
        if arm.name == experiment.baseline:
            continue
        # Where images lie is not known yet: what applies to one of both may apply.
        length = longest.prompt_tokens
        shapes = PromptShape(length), PromptShape(length, ((0, length),))
        if any(
            facts_of(model, arm.config.cache, shape, len(longest.token_ids)).layers
            for shape in shapes
        ):
            continue
        beyond = " and ".join(thresholds(arm.identity["cache"], num_tokens))
        why, remedy = "it stores every token as computed", "use another kind"
        if beyond:
            why, remedy = f"{beyond} is never reached", "lower it"
        raise error_at(
            experiment.tree,
            ("arms", arm.name),
            f"policies.{arm.name}: applies to nothing: {why}, the longest sequence has "
            f"{num_tokens:,} tokens; {remedy}, or leave the policy out",
        )
