"""Run an experiment by workers: make the run directory, start them, watch until nothing is left."""

from __future__ import annotations

import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmkit.errors import VlmkitError, VlmkitWarning, nearest
from vlmkit.experiment.executors.about import read_workers
from vlmkit.experiment.executors.claims import FOLDER
from vlmkit.experiment.executors.fleet import Fleet, Start
from vlmkit.experiment.executors.following import Following, unit_of
from vlmkit.experiment.executors.heartbeat import LEASE_S, STOP
from vlmkit.experiment.executors.on_ray import ray_tasks
from vlmkit.experiment.executors.on_slurm import slurm
from vlmkit.experiment.executors.processes import processes
from vlmkit.experiment.files import Experiment, load_experiment
from vlmkit.experiment.interrupts import Interrupts
from vlmkit.experiment.plan import Plan, make_plan, read_done
from vlmkit.experiment.progress import Progress, Silent
from vlmkit.experiment.reading import WORKERS
from vlmkit.experiment.runner import Run, check_models, make_manifest
from vlmkit.experiment.store import Store
from vlmkit.experiment.units import Units

EXECUTORS: dict[str, Callable[[Start], Callable[[], Fleet]]] = {
    "worker": processes,
    "slurm": slurm,
    "ray": ray_tasks,
}
"""How workers are started, by name."""

_LOOK_S = 0.2


def run_with(
    executor: str,
    experiment: Experiment | str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    num_workers: int = 2,
    resources: Mapping[str, Any] | None = None,
    lease_s: float = LEASE_S,
    overrides: Sequence[str] = (),
    batch_size: int | None = None,
    share: bool = True,
    force_new: bool = False,
    fail_fast: bool = False,
    trust_code: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] | None = None,
) -> Run:
    """Run an experiment, or what is left of it, by several workers; its records are the same.

    SIGINT asks the workers to finish their step; a second one kills them. Workers of Slurm or Ray,
    and processes too, go on when this process is killed.

    Args:
        executor: "worker" (processes of this machine), "slurm" or "ray".
        experiment: as for :func:`vlmkit.experiment.runner.run_experiment`, like all that is not
            named here.
        folder: the run directory, which every worker finds at the same path.
        num_workers: how many to start; 0: make the run directory alone, for workers that are
            started elsewhere.
        resources: what each worker needs, in words of the executor: parameters of submitit, or
            resources of Ray.
        lease_s: after so many seconds of silence a worker is held for dead, and others run its
            samples; 0.1 to 86,400.
        overrides: see there, as what follows.

    Raises:
        VlmkitError: what :func:`vlmkit.experiment.runner.run_experiment` refuses, an executor that
            is not there, or workers that all ended before the run did.
    """
    if executor not in EXECUTORS:
        raise VlmkitError(
            f"executor: {executor!r} is none{nearest(executor, EXECUTORS)}; there are "
            f"{', '.join(EXECUTORS)}, and run_experiment for this process"
        )
    if isinstance(num_workers, bool) or not 0 <= num_workers <= 10_000:
        raise VlmkitError(f"num_workers is {num_workers!r}; it must be 0 to 10000")
    if not 0.1 <= lease_s <= 86_400:
        raise VlmkitError(f"lease_s is {lease_s!r}; it must be 0.1 to 86400 seconds")
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
        raise VlmkitError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
    if not isinstance(experiment, Experiment):
        experiment = load_experiment(experiment, overrides=overrides, trust_code=trust_code)
    plan = make_plan(experiment)
    target = (Path("runs", experiment.name) if folder is None else Path(folder)).resolve()
    given = sys.argv if command is None else command
    options = {
        "lease_s": lease_s,
        "batch_size": batch_size,
        "share": share,
        "fail_fast": fail_fast,
        "trust_code": trust_code,
    }
    start = Start(target, num_workers, options, dict(resources or {}))
    begin = EXECUTORS[executor](start) if num_workers else None
    _prepare(plan, target, given, force_new=force_new)
    units = plan.new_units()
    following = Following(target)
    for _ in following.mark(units):
        pass
    shown = Path("runs", experiment.name) if folder is None else Path(folder)
    if begin is None or units.num_left == 0:
        status = "complete" if units.num_left == 0 else "prepared"
        return Run(shown, status, plan.num_units, units.num_done, units.num_errors)
    before = {worker["name"] for worker in read_workers(target)}
    watch = _Watch(start, begin(), units, following, progress or Silent())
    asked = watch.run()
    status = _status(start, watch.fleet, units, before, asked=asked)
    return Run(shown, status, plan.num_units, units.num_done, units.num_errors)


def _prepare(plan: Plan, folder: Path, command: Sequence[str], *, force_new: bool) -> None:
    """Make the run directory, and clear away what workers of earlier calls left."""
    manifest = make_manifest(plan, command)
    before = plan.new_units() if force_new else read_done(plan, folder)
    if before.num_left:
        manifest.caches = check_models(plan, lazy=True)[1]
    with Store(folder, manifest, force_new=force_new):
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        for path in [*(folder / WORKERS).glob("*.beat"), folder / WORKERS / STOP]:
            path.unlink(missing_ok=True)


class _Watch:
    """Follows a run while workers are at it."""

    def __init__(
        self, start: Start, fleet: Fleet, units: Units, following: Following, progress: Progress
    ) -> None:
        self._start, self._units = start, units
        self._following, self._progress = following, progress
        self.fleet = fleet

    def run(self) -> bool:
        """Wait until all workers have ended; tell whether they were asked to."""
        asked = told = False
        try:
            with Interrupts() as interrupts, self._progress:
                self._progress.begin(self._units)
                while self.fleet.num_alive():
                    failed = self._start.options["fail_fast"] and self.fleet.problems()
                    if not told and (interrupts.is_set or failed):
                        told, asked = True, interrupts.is_set
                        self._ask_to_stop()
                    self._follow()
                    time.sleep(_LOOK_S)
                self._follow()
        except BaseException:
            self.fleet.kill()
            raise
        finally:
            self._stop_file.unlink(missing_ok=True)
        return asked

    @property
    def _stop_file(self) -> Path:
        return self._start.folder / WORKERS / STOP

    def _ask_to_stop(self) -> None:
        self._stop_file.touch()
        self.fleet.stop()

    def _follow(self) -> None:
        for line in self._following.mark(self._units):
            self._progress.advance(unit_of(line))


def _status(start: Start, fleet: Fleet, units: Units, before: set[str], *, asked: bool) -> str:
    """How a run ended whose workers have all ended.

    Raises:
        VlmkitError: they left something, and nobody had asked them to.
    """
    own = [worker for worker in read_workers(start.folder) if worker["name"] not in before]
    ended_early = fleet.problems()
    problems = [str(worker["error"]) for worker in own if "error" in worker] + ended_early
    if units.num_left == 0:
        if ended_early:
            warnings.warn(
                f"{len(ended_early)} of {start.num_workers} workers ended early, and others did "
                f"their part: {problems[0]}",
                VlmkitWarning,
                stacklevel=3,
            )
        return "complete"
    if asked:
        return "interrupted"
    limits = [worker["status"] for worker in own if worker.get("status", "").startswith("limits.")]
    if limits and not problems:
        return str(limits[0])
    raise VlmkitError(
        f"{start.folder}: all workers have ended with {units.num_done:,} of {units.done.size:,} "
        f"units done: {problems[0] if problems else 'they were stopped'}; see "
        f"{start.folder / WORKERS}, and give the same command again to go on"
    )
