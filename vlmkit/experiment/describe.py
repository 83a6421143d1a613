"""A plan in words, line by line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from vlmkit.errors import VlmkitError
from vlmkit.experiment.differences import differences
from vlmkit.experiment.groups import Group
from vlmkit.experiment.loaded import group_rows
from vlmkit.experiment.plan import Plan, most_tokens
from vlmkit.experiment.shown import counted
from vlmkit.experiment.units import Units

_NAME = 32  # characters of an arm's name that what it changes stands beside


def describe_plan(plan: Plan, units: Units, folder: Path, *, width: int = 100) -> Iterator[str]:
    """Yield what a run would do.

    Args:
        plan: from :func:`vlmkit.experiment.plan.make_plan`.
        units: those of the plan, with what is done already.
        folder: the run directory.
        width: of the lines that say what arms change; longer ones go on below.
    """
    experiment = plan.experiment
    arms, seeds = experiment.arms, experiment.seeds
    yield from _arms(plan, width)
    yield (
        f"units      {counted(len(arms), 'arm')} x {counted(len(plan.samples), 'sample')} x "
        f"{counted(len(seeds), 'seed')} = {plan.num_units:,}"
    )
    metrics = ", ".join(plan.scorers) or "none"
    yield f"metrics    {metrics}"
    for group in plan.groups:
        yield from _group(plan, group, len(seeds))
    yield f"done       {units.num_done:,} of {plan.num_units:,} in {folder}"
    yield from _estimate(plan, units)


def _arms(plan: Plan, width: int) -> Iterator[str]:
    arms = plan.experiment.arms
    yield f"arms       {len(arms):,}, the baseline is {plan.experiment.baseline!r}"
    reference = next(arm for arm in arms if arm.name == plan.experiment.baseline)
    column = 4 + max((len(arm.name) for arm in arms if len(arm.name) <= _NAME), default=0)
    for arm in arms:
        settings = differences(arm.identity, reference.identity)
        shown = ", ".join(f"{key}: {value}" for key, value in settings.items()) or "-"
        head = f"  {arm.name}  ".ljust(column)
        if len(head) > column:
            yield head.rstrip()
            head = " " * column
        yield from textwrap.wrap(
            shown,
            max(width, 2 * column),
            initial_indent=head,
            subsequent_indent=" " * column,
            break_long_words=False,
            break_on_hyphens=False,
        )


def _group(plan: Plan, group: Group, num_seeds: int) -> Iterator[str]:
    rows = len(group.arms) * num_seeds
    arms, responses = counted(len(group.arms), "arm"), counted(rows, "response")
    yield f"model      {group.model}: {arms}, {responses} to each sample"
    prefills = counted(group.num_prefills, "prefill")
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
