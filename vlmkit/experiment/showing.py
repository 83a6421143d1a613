"""One sample of an experiment, run by itself; nothing is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.files import Experiment
from vlmkit.experiment.loaded import Loaded, load_group
from vlmkit.experiment.plan import Plan, choose_sample, make_plan
from vlmkit.experiment.prompting import prepare_sample
from vlmkit.experiment.records import Record
from vlmkit.experiment.running import Settings, run_group
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scores import score
from vlmkit.processors.literal import unmark


class Shown(NamedTuple):
    """A sample, and what arms say of it."""

    sample: Sample
    prompts: dict[str, str]  # by arm: as it is formatted; without those that cannot be
    image_sizes: dict[str, list[tuple[int, int]]]  # by arm: (width, height) in pixels
    records: list[Record]  # scored, arm by arm, seed by seed


def run_sample(experiment: Experiment, sample: str, arm: str | None = None) -> Shown:
    """Run one sample of an experiment; nothing is written.

    Args:
        experiment: from :func:`vlmkit.experiment.files.load_experiment`.
        sample: its id.
        arm: a name; None: every arm.

    Raises:
        VlmkitError: no such sample or arm, or an arm that cannot run at all.

    Example:
        >>> from vlmkit.config.document import parse_yaml
        >>> from vlmkit.experiment.files import load_experiment
        >>> text = "{dataset: {kind: shapes, num_samples: 2}, arms: {greedy: {}}}"
        >>> shown = run_sample(load_experiment(parse_yaml(text, "study.yaml")), "shapes-1")
        >>> [record.unit for record in shown.records], shown.image_sizes
        ([('greedy', 'shapes-1', 0)], {'greedy': [(112, 112)]})
    """
    names = [one.name for one in experiment.arms]
    if arm is not None and arm not in names:
        raise VlmkitError(
            f"--arm: no arm {arm!r}{nearest(arm, names)}; the arms are {', '.join(names)}"
        )
    plan = make_plan(experiment)
    place = choose_sample(plan.samples, sample)
    shown = Shown(plan.samples[place], {}, {}, [])
    chosen = {number for number, name in enumerate(names) if arm in (None, name)}
    for group in plan.groups:
        if own := sorted(chosen & set(group.arms)):
            loaded = load_group(group, experiment.arms, experiment.seeds)
            _prepare(loaded, own, shown)
            shown.records.extend(_responses(plan, loaded, place, own))
    for record in shown.records:
        if record.error is None:
            score(record, plan.scorers, shown.sample)
    shown.records.sort(key=lambda record: (names.index(record.arm), record.seed))
    return shown


def _prepare(loaded: Loaded, arms: list[int], shown: Shown) -> None:
    """Take down what each arm asks; what cannot be prepared is an error in its records."""
    for place in arms:
        arm = loaded.arms[place]
        try:
            prepared = prepare_sample(loaded.model, loaded.processor, arm, shown.sample)
        except VlmkitError:
            continue
        shown.prompts[arm.name] = unmark(str(prepared.request.prompt))
        shown.image_sizes[arm.name] = [image.size for image in prepared.images]


def _responses(plan: Plan, loaded: Loaded, place: int, arms: list[int]) -> Iterator[Record]:
    units = plan.new_units()
    units.done[:] = True
    units.done[place, arms] = False
    for one in run_group(loaded, plan.samples, units, Settings(), is_over=lambda: False):
        if one is not None:
            yield one.record
