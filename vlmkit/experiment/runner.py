"""Run an experiment: whatever is not done yet, as fast as the device allows, never losing any."""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.config.locate import located
from vlmkit.errors import VlmkitError
from vlmkit.experiment import provenance
from vlmkit.experiment.config import metrics_of
from vlmkit.experiment.files import Experiment, load_experiment
from vlmkit.experiment.interrupts import Interrupts
from vlmkit.experiment.loaded import Loaded, load_group
from vlmkit.experiment.manifest import Manifest
from vlmkit.experiment.plan import Plan, identity, make_plan, read_done
from vlmkit.experiment.progress import Progress, Silent
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.recordfile import Appends
from vlmkit.experiment.records import Record
from vlmkit.experiment.running import Settings, run_group
from vlmkit.experiment.scores import score, text_reader
from vlmkit.experiment.store import RECORDS, Store
from vlmkit.experiment.units import Units
from vlmkit.files import find_file
from vlmkit.printable import mask_secrets


class Run(NamedTuple):
    """A run directory after a call of :func:`run_experiment`."""

    folder: Path
    status: str  # "complete", "interrupted", "limits.tokens" or "limits.minutes"
    num_units: int
    num_done: int
    num_errors: int

    def records(self) -> Iterator[Record]:
        """Read all records, in the order they were written."""
        path = self.folder / RECORDS
        return read_records(path) if find_file(path) else iter(())


def run_experiment(
    experiment: Experiment | str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    batch_size: int | None = None,
    share: bool = True,
    force_new: bool = False,
    fail_fast: bool = False,
    trust_code: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] | None = None,
) -> Run:
    """Run an experiment, or what is left of it; every response is a record in its folder at once.

    A response does not depend on what runs beside it, nor on how often the run was stopped. SIGINT
    finishes the step at hand and closes the run; a second one stops at once.

    Args:
        experiment: a YAML file, or what :func:`vlmkit.experiment.files.load_experiment` returned.
        folder: the run directory; None: ``runs/NAME``, after the experiment's file.
        overrides: ``a.b=c`` strings, where ``experiment`` is a file.
        batch_size: rows in flight at most; None: chosen from the memory at hand.
        share: False: every unit by itself with a prefill of its own; the tokens are the same.
        force_new: keep what another experiment left in the folder beside it, and begin anew.
        fail_fast: stop at the first unit that cannot run, in place of a record of its error.
        trust_code: let the file name code to run, where ``experiment`` is a file.
        progress: told of every record; None: silent.
        command: the command line, for the manifest; None: that of this process.

    Returns:
        The run, with what is done of it.

    Raises:
        VlmkitError: names what is wrong and what would work; before the first token wherever that
            can be known.

    Example:
        >>> import tempfile
        >>> from vlmkit.config.document import parse_yaml
        >>> text = '''
        ... dataset: {kind: shapes, num_samples: 2}
        ... arms: {greedy: {}, warm: {sampling: [{kind: temperature, temperature: 1.5}]}}
        ... '''
        >>> experiment = load_experiment(parse_yaml(text, "study.yaml"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = run_experiment(experiment, folder)
        ...     run.status, sorted(record.arm for record in run.records())
        ('complete', ['greedy', 'greedy', 'warm', 'warm'])
    """
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
        raise VlmkitError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
    if not isinstance(experiment, Experiment):
        experiment = load_experiment(experiment, overrides=overrides, trust_code=trust_code)
    plan = make_plan(experiment)
    target = Path("runs", experiment.name) if folder is None else Path(folder)
    manifest = make_manifest(plan, sys.argv if command is None else command)
    before = plan.new_units() if force_new else read_done(plan, target)
    loaded = None
    if before.num_left:
        loaded, manifest.caches = check_models(plan, lazy=len(plan.groups) > 1)
    with Store(target, manifest, force_new=force_new) as store:
        units = plan.new_units()
        units.read(target)
        runner = Runner(plan, store, units, fail_fast, progress or Silent())
        top_n = experiment.config.top_logprobs
        status = runner.run(Settings(batch_size, share, top_n), loaded)
    return Run(target, status, plan.num_units, units.num_done, units.num_errors)


def make_manifest(plan: Plan, command: Sequence[str]) -> Manifest:
    """Write down everything that a run's tokens come from.

    Raises:
        VlmkitError: a checkpoint that is not there.
    """
    experiment = plan.experiment
    config = experiment.config
    arms = {arm.name: arm.identity for arm in experiment.arms}
    weights, backends = {}, {}
    for group in plan.groups:
        with located(experiment.arms[group.arms[0]].tree, ("model",)):
            digest = provenance.weights_hash(group.model, group.revision)
        revision = "" if group.revision is None else f"@{group.revision}"
        weights[f"weights of {group.model}{revision}"] = digest
        with located(experiment.arms[group.arms[0]].tree):
            backends[f"{group.model}{revision}"] = provenance.backend_of(
                group.model, group.revision, group.dtype, group.backend
            )
    return Manifest(
        name=experiment.name,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        command=list(map(mask_secrets, command)),
        hashes={
            "config": plan.config_hash,
            "data": plan.data_hash,
            "code": provenance.code_hash([identity(experiment)]),
            **weights,
        },
        arms=arms,
        seeds=list(experiment.seeds),
        baseline=experiment.baseline,
        dataset=config.dataset.model_dump(mode="json"),
        folder=str(experiment.folder.resolve()),
        metrics=metrics_of(config),
        metrics_folder=str(experiment.metrics_folder.resolve()),
        limits=config.limits.model_dump(mode="json"),
        lockstep=experiment.lockstep,
        num_units=plan.num_units,
        git=provenance.git_state(experiment.folder),
        versions=provenance.versions(),
        device=provenance.device(),
        system=provenance.system(),
        backend=backends,
    )


def check_models(plan: Plan, *, lazy: bool) -> tuple[Loaded | None, dict[str, dict[str, Any]]]:
    """Find out what cannot run before anything is written.

    Args:
        plan: of the run.
        lazy: leave weights on disk; else the first model stays loaded.

    Returns:
        The model that is loaded, and what each arm's cache comes to on its layers.

    Raises:
        VlmkitError: a model cannot be loaded, or an arm cannot run on it.
    """
    arms, seeds = plan.experiment.arms, plan.experiment.seeds
    caches: dict[str, dict[str, Any]] = {}
    first: Loaded | None = None
    for group in plan.groups:
        loaded = load_group(group, arms, seeds, lazy=lazy)
        for place, resolved in loaded.resolved.items():
            caches[arms[place].name] = resolved[0].effective["cache"]
        first = loaded if first is None and not lazy else first
    return first, {arm.name: caches[arm.name] for arm in arms}


class Runner:
    """One call: where it writes to, and when it stops."""

    def __init__(
        self, plan: Plan, store: Appends, units: Units, fail_fast: bool, progress: Progress
    ) -> None:
        self._plan, self._store, self._units = plan, store, units
        self._fail_fast, self._progress = fail_fast, progress
        self._limits = plan.experiment.config.limits
        self._began = time.monotonic()
        self.interrupts = Interrupts()
        self._read = text_reader(plan.samples)

    def run(self, settings: Settings, loaded: Loaded | None) -> str:
        experiment, units = self._plan.experiment, self._units
        with self.interrupts, self._progress:
            self._progress.begin(units)
            for group in self._plan.groups:
                if self.over() or units.done[:, list(group.arms)].all():
                    continue
                if loaded is None or loaded.group != group:
                    loaded = None
                    mx.clear_cache()
                    loaded = load_group(group, experiment.arms, experiment.seeds)
                self.run_group(loaded, settings)
        if units.num_left == 0:
            return "complete"
        return self.over() or "complete"

    def run_group(
        self, loaded: Loaded, settings: Settings, places: Iterable[int] | None = None
    ) -> None:
        """Run what is left of a model's arms, or of those samples only whose places are given."""
        responses = run_group(
            loaded,
            self._plan.samples,
            self._units,
            settings,
            is_over=lambda: self.over() is not None,
            places=places,
        )
        with closing(responses):
            for response in responses:
                if response is not None:
                    self._take(response.unit.sample, response.record)
                if self.interrupts.is_set:
                    return

    def _take(self, place: int, record: Record) -> None:
        if record.error is not None and self._fail_fast:
            raise VlmkitError(
                f"sample {record.sample!r}, arm {record.arm!r}, seed {record.seed}: {record.error}"
            )
        if record.error is None:
            score(record, self._plan.scorers, self._read(place))
        self._store.append(record)
        self._units.mark(record.arm, record.sample, record.seed)
        self._units.count(record)
        self._progress.advance(record)

    def over(self) -> str | None:
        """Why no other row begins."""
        limits = self._limits
        if self.interrupts.is_set:
            return "interrupted"
        if limits.tokens is not None and self._units.num_tokens >= limits.tokens:
            return "limits.tokens"
        if limits.minutes is not None and time.monotonic() - self._began >= 60 * limits.minutes:
            return "limits.minutes"
        return None
