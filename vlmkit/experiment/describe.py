"""A plan in words, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmkit.errors import VlmkitError
from vlmkit.experiment.differences import differences
from vlmkit.experiment.groups import Group
from vlmkit.experiment.loaded import group_rows
from vlmkit.experiment.plan import Plan, most_tokens
from vlmkit.experiment.units import Units

_WIDTH = 40  # of the longest arm's name


def describe_plan(plan: Plan, units: Units, folder: Path) -> Iterator[str]:
    """Yield what a run would do.

    Args:
        plan: from :func:`vlmkit.experiment.plan.make_plan`.
        units: those of the plan, with what is done already.
        folder: the run directory.
    """
    experiment = plan.experiment
    arms, seeds = experiment.arms, experiment.seeds
    yield from _arms(plan)
    yield (
        f"units      {len(arms):,} arms x {len(plan.samples):,} samples x {len(seeds):,} seeds = "
        f"{plan.num_units:,}"
    )
    metrics = ", ".join(plan.scorers) or "none"
    yield f"metrics    {metrics}"
    for group in plan.groups:
        yield from _group(plan, group, len(seeds))
    yield f"done       {units.num_done:,} of {plan.num_units:,} in {folder}"
    yield from _estimate(plan, units)


def _arms(plan: Plan) -> Iterator[str]:
    yield f"arms       {len(plan.experiment.arms):,}, the baseline is {plan.experiment.baseline!r}"
    arms = plan.experiment.arms
    reference = next(arm for arm in arms if arm.name == plan.experiment.baseline)
    width = min(max(len(arm.name) for arm in arms), _WIDTH)
    for arm in arms:
        settings = differences(arm.identity, reference.identity)
        shown = ", ".join(f"{key}: {value}" for key, value in settings.items())
        yield f"  {arm.name:<{width}}  {shown or '-'}"


def _group(plan: Plan, group: Group, num_seeds: int) -> Iterator[str]:
    rows = len(group.arms) * num_seeds
    yield f"model      {group.model}: {len(group.arms):,} arms, {rows:,} responses to each sample"
    prefills = "1 prefill" if group.num_prefills == 1 else f"{group.num_prefills} prefills"
    batches = "one batch" if len(group.batches) == 1 else f"{len(group.batches)} batches"
    yield f"  shared   {prefills} for each sample, decoded in {batches}"
    try:
        number = group_rows(group, plan.experiment.arms)
        yield f"  rows     {number} side by side, by the memory at hand"
    except VlmkitError as error:
        yield f"  rows     not known: {error}"


def _estimate(plan: Plan, units: Units) -> Iterator[str]:
    tokens = most_tokens(plan, units)
    yield f"tokens     {'no limit' if tokens is None else f'{tokens:,} at most'} to generate"
    if units.num_done and units.num_left:
        mean = units.num_tokens / units.num_done
        busy = units.busy_s / units.num_done * units.num_left
        yield (
            f"           about {mean * units.num_left:,.0f}, by what is done so far; "
            f"{busy / 60:,.1f} minutes of single rows, less by as many as run side by side"
        )
