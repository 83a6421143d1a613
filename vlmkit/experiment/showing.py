"""One sample of an experiment, run by itself; nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.files import Experiment
from vlmkit.experiment.loaded import load_group
from vlmkit.experiment.plan import choose_sample, make_plan
from vlmkit.experiment.records import Record
from vlmkit.experiment.running import Settings, run_group
from vlmkit.experiment.scores import score


def run_sample(experiment: Experiment, sample: str, arm: str | None = None) -> Iterator[Record]:
    """Run one sample of an experiment and yield its scored responses, arm by arm.

    Args:
        experiment: from :func:`vlmkit.experiment.files.load_experiment`.
        sample: its id.
        arm: a name; None: every arm.

    Raises:
        VlmkitError: no such sample or arm.
    """
    names = [one.name for one in experiment.arms]
    if arm is not None and arm not in names:
        raise VlmkitError(
            f"--arm: no arm {arm!r}{nearest(arm, names)}; the arms are {', '.join(names)}"
        )
    plan = make_plan(experiment)
    place = choose_sample(plan.samples, sample)
    units = plan.new_units()
    units.done[:] = True
    units.done[place, [number for number, name in enumerate(names) if arm in (None, name)]] = False
    found: list[Record] = []
    for group in plan.groups:
        if units.done[:, list(group.arms)].all():
            continue
        loaded = load_group(group, experiment.arms, experiment.seeds)
        for one in run_group(loaded, plan.samples, units, Settings(), is_over=lambda: False):
            if one is not None:
                found.append(one.record)
    for record in found:
        if record.error is None:
            score(record, plan.scorers, plan.samples[place])
    yield from sorted(found, key=lambda record: (names.index(record.arm), record.seed))
