"""Some of a run's records: of one arm, of one sample, of a few samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.manifest import FILE
from vlmkit.experiment.plan import Plan
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.records import Record
from vlmkit.experiment.rows import Unit
from vlmkit.experiment.store import RECORDS
from vlmkit.printable import quoted


class Choice(NamedTuple):
    """Which responses of a run."""

    num_samples: int | None = None  # so many, spread evenly over those of the run; None: all
    sample: str | None = None  # the id of one; None: all
    arm: str | None = None  # the name of one; None: all


def read_chosen(path: Path, plan: Plan, choice: Choice) -> tuple[int, dict[Unit, Record]]:
    """Count a run's records, and read those that are chosen.

    Args:
        path: the run directory.
        plan: of the run, with its data set as it is now.
        choice: which records.

    Returns:
        How many records there are, and the chosen ones by their unit.

    Raises:
        VlmkitError: no such arm or sample, no record at all, or none of what is chosen.
    """
    arms = {arm.name: place for place, arm in enumerate(plan.experiment.arms)}
    samples = {name: place for place, name in enumerate(plan.samples.ids)}
    seeds = {seed: place for place, seed in enumerate(plan.experiment.seeds)}
    if choice.arm is not None and choice.arm not in arms:
        raise VlmkitError(
            f"{path}: no arm {choice.arm!r}{nearest(choice.arm, arms)}; the arms are "
            f"{', '.join(arms)}"
        )
    file = path / RECORDS
    if not file.exists():
        raise VlmkitError(f"{path}: has no records yet; the command that made it goes on with it")
    there = list(dict.fromkeys(record.sample for record in read_records(file)))
    chosen = _chosen_samples(path, sorted(there, key=lambda name: samples.get(name, -1)), choice)
    number, found = 0, {}
    for record in read_records(file):
        number += 1
        if record.sample not in chosen or choice.arm not in (None, record.arm):
            continue
        if record.sample not in samples:
            raise VlmkitError(
                f"{path}: its sample {record.sample!r} is no longer in the data set; put it back"
            )
        if record.arm not in arms or record.seed not in seeds:
            raise VlmkitError(
                f"{path}: has a record of arm {record.arm!r} with seed {quoted(record.seed)}, and "
                f"its {FILE} knows no such run; put the {FILE} back that belongs to it"
            )
        found[Unit(samples[record.sample], arms[record.arm], seeds[record.seed])] = record
    if not found:
        raise VlmkitError(f"{path}: has no record of what was chosen; leave --arm or --sample out")
    return number, found


def _chosen_samples(path: Path, there: Sequence[str], choice: Choice) -> set[str]:
    if choice.sample is not None and choice.num_samples is not None:
        raise VlmkitError("--samples and --sample both say which samples; give one of them")
    if choice.sample is not None:
        if choice.sample not in there:
            shown = ", ".join(there[:5]) + (", …" if len(there) > 5 else "")
            raise VlmkitError(f"{path}: no record of a sample {choice.sample!r}; there is {shown}")
        return {choice.sample}
    number = choice.num_samples
    if number is None:
        return set(there)
    if number < 1:
        raise VlmkitError(f"--samples is {number}; it must be 1 or more")
    count = min(number, len(there))
    return {there[place * len(there) // count] for place in range(count)}
