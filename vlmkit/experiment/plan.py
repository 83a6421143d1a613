"""What a run will do, all of it checked before the first token: arms, units, what is shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.config.validate import error_at, nearest_origin
from vlmkit.errors import VlmkitError
from vlmkit.experiment.data import Samples, data_hash, load_samples
from vlmkit.experiment.files import Experiment
from vlmkit.experiment.groups import Group, group_arms
from vlmkit.experiment.manifest import FILE, read_manifest
from vlmkit.experiment.provenance import config_hash
from vlmkit.experiment.scoring import Scorer, check_samples, make_scorer
from vlmkit.experiment.units import Units
from vlmkit.files import find_file
from vlmkit.stopping import token_limit


class Plan(NamedTuple):
    """Everything that is known before a model is loaded."""

    experiment: Experiment
    samples: Samples  # of the data set, those that limits.samples leaves
    scorers: dict[str, Scorer]  # by metric
    groups: tuple[Group, ...]  # arms by model, and by what they share
    config_hash: str
    data_hash: str

    @property
    def num_units(self) -> int:
        """Responses of the whole run."""
        return len(self.samples) * self.experiment.units_per_sample

    def new_units(self) -> Units:
        """Return all units, none of them done."""
        names = [arm.name for arm in self.experiment.arms]
        return Units(names, self.samples.ids, self.experiment.seeds)


def make_plan(experiment: Experiment) -> Plan:
    """Open the data and the scorers, and group the arms by what they share.

    Raises:
        VlmkitError: bad data, a metric that needs what the data lack, or too many units.
    """
    config = experiment.config
    try:
        found = load_samples(config.dataset, experiment.folder)
    except VlmkitError as error:
        raise error_at(experiment.tree, ("dataset",), f"dataset: {error}") from error
    limit = config.limits.samples
    samples = found if limit is None else found[:limit]
    number = len(samples) * experiment.units_per_sample
    if number > config.limits.units:
        raise VlmkitError(
            f"{nearest_origin(experiment.tree, ('grid',))}: {len(experiment.arms):,} arms x "
            f"{len(samples):,} samples x {len(experiment.seeds):,} seeds are {number:,} units; "
            f"limits.units allows {config.limits.units:,}: give fewer, set limits.samples, or "
            "raise the limit"
        )
    return Plan(
        experiment=experiment,
        samples=samples,
        scorers=_scorers(experiment, samples),
        groups=group_arms(experiment.arms),
        config_hash=config_hash(identity(experiment)),
        data_hash=data_hash(config.dataset, experiment.folder, found),
    )


def identity(experiment: Experiment) -> dict[str, Any]:
    """Return all of a config that decides over tokens; not how they are scored."""
    found = {
        "arms": {arm.name: arm.identity for arm in experiment.arms},
        "seeds": list(experiment.seeds),
        "dataset": experiment.config.dataset.model_dump(mode="json"),
    }
    return found if experiment.lockstep is None else {**found, "lockstep": experiment.lockstep}


def _scorers(experiment: Experiment, samples: Samples) -> dict[str, Scorer]:
    """Make the scorers; every sample must have what they need."""
    scorers = {}
    for name, config in experiment.config.metrics.items():
        place = ("metrics", name)
        if config.name is not None:
            raise error_at(
                experiment.tree,
                place,
                f"metrics.{name}.name: {name!r} is its name already; leave this one out",
            )
        try:
            scorers[name] = make_scorer(config, experiment.metrics_folder)._replace(name=name)
        except VlmkitError as error:
            raise error_at(experiment.tree, place, f"metrics.{name}: {error}") from error
    if scorers:
        check_samples(list(scorers.values()), samples.texts())
    return scorers


def read_done(plan: Plan, folder: Path) -> Units:
    """Return the units, with those marked that a run directory has records of.

    Raises:
        VlmkitError: the directory is of another experiment or of other data.
    """
    units = plan.new_units()
    if not find_file(folder / FILE):
        return units
    old = read_manifest(folder)
    for name, own in (("config", plan.config_hash), ("data", plan.data_hash)):
        if old.hashes.get(name) != own:
            raise VlmkitError(
                f"{folder}: holds a run of another {name}; choose another folder with --out, or "
                "begin anew with --force-new"
            )
    units.read(folder)
    return units


def most_tokens(plan: Plan, units: Units) -> int | None:
    """Return how many tokens are generated at most; None where an arm that is left has no limit.

    Only what the arms' own stopping criteria say, times the units that are not done.
    """
    total = 0
    for place, arm in enumerate(plan.experiment.arms):
        left = units.done.shape[0] * units.done.shape[2] - int(units.done[:, place].sum())
        if not left:
            continue
        limit = token_limit(arm.config.stopping)
        if limit is None:
            return None
        total += limit * left
    return total


def choose_sample(samples: Samples, wanted: str) -> int:
    """Return the place of a sample by its id.

    Raises:
        VlmkitError: there is none.
    """
    if wanted not in samples.ids:
        shown = ", ".join(samples.ids[:5]) + (", …" if len(samples.ids) > 5 else "")
        raise VlmkitError(f"--sample: no sample {wanted!r}; the ids are {shown}")
    return samples.ids.index(wanted)
