"""A worker: runs shares of a run directory beside others, on this machine or elsewhere."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import mlx.core as mx

from vlmkit.errors import VlmkitError
from vlmkit.experiment.executors.about import About
from vlmkit.experiment.executors.claims import FOLDER, Claims
from vlmkit.experiment.executors.following import Following, unit_of
from vlmkit.experiment.executors.heartbeat import LEASE_S, Heartbeat
from vlmkit.experiment.executors.shares import Share, is_done, shares_of
from vlmkit.experiment.loaded import Loaded, load_group
from vlmkit.experiment.manifest import Manifest, read_manifest
from vlmkit.experiment.plan import Plan, make_plan
from vlmkit.experiment.progress import Progress, Silent
from vlmkit.experiment.reading import WORKERS
from vlmkit.experiment.rebuild import rebuild_experiment
from vlmkit.experiment.recordfile import RecordFile
from vlmkit.experiment.runner import Run, Runner, make_manifest
from vlmkit.experiment.running import Settings
from vlmkit.experiment.store import LOCK, lock
from vlmkit.experiment.units import Units
from vlmkit.files import append_file

_LONGEST_WAIT_S = 2.0


def work(
    folder: str | os.PathLike[str],
    *,
    lease_s: float = LEASE_S,
    batch_size: int | None = None,
    share: bool = True,
    fail_fast: bool = False,
    trust_code: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] | None = None,
) -> Run:
    """Run what is left of a run directory, together with other workers that do the same.

    Workers share nothing but the folder: each claims some samples at a time, writes to a file of
    its own, and takes over what a dead worker had claimed once its lease has expired. It returns
    when nothing is left, or when it was interrupted; records are those of a local run.

    Args:
        folder: the run directory; all machines find it, its data and its checkpoints at the same
            paths.
        lease_s: others take this worker's samples after so many seconds without a sign of life,
            0.1 to 86,400.
        batch_size: rows in flight at most; None: chosen from the memory at hand.
        share: False: every unit by itself with a prefill of its own.
        fail_fast: stop at the first unit that cannot run.
        trust_code: let the run name code to run.
        progress: told of every record of the run; None: silent.
        command: the command line, for the worker's own file; None: that of this process.

    Raises:
        VlmkitError: no run directory, one that a local run writes to, or weights, data or code
            that are not those that the run was begun with.
    """
    if not 0.1 <= lease_s <= 86_400:
        raise VlmkitError(f"lease_s is {lease_s!r}; it must be 0.1 to 86400 seconds")
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
        raise VlmkitError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
    path = Path(folder)
    with ExitStack() as stack:
        handle = join_run(path)
        stack.callback(os.close, handle)
        about = About(path, lease_s, sys.argv if command is None else command)
        try:
            manifest = read_manifest(path)
            plan = make_plan(rebuild_experiment(path, manifest, trust_code=trust_code))
            _check_same(path, manifest, make_manifest(plan, ()))
            worker = _Worker(plan, path, about.name, lease_s, fail_fast, progress or Silent())
            top_n = plan.experiment.config.top_logprobs
            run = worker.run(Settings(batch_size, share, top_n))
        except BaseException as error:
            about.end("failed", str(error) if isinstance(error, VlmkitError) else repr(error))
            raise
        about.end(run.status)
        return run


class _Worker:
    """One worker's call."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        name: str,
        lease_s: float,
        fail_fast: bool,
        progress: Progress,
    ) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        own = folder / WORKERS / f"{name}.jsonl"
        self._units: Units = plan.new_units()
        self._following = Following(folder, without=own)
        self._file = RecordFile(own)
        self._runner = Runner(plan, self._file, self._units, fail_fast, progress)
        self._heart = Heartbeat(folder / WORKERS, name, lease_s=lease_s, on_stop=self._stop)
        self._claims = Claims(folder / FOLDER, name, is_dead=self._heart.is_dead, lease_s=lease_s)
        self._loaded: Loaded | None = None
        self._held: list[Share] = []
        self._has_begun = False

    def run(self, settings: Settings) -> Run:
        """Run until nothing is left, or until it is time to end."""
        with ExitStack() as stack:
            stack.enter_context(self._heart)
            stack.callback(self._give_back)
            stack.callback(self._file.close)
            stack.enter_context(self._runner.interrupts)
            stack.enter_context(self._progress)
            self._follow()
            self._progress.begin(self._units)
            self._has_begun = True
            wait = min(self._heart.every_s, _LONGEST_WAIT_S)
            while self._units.num_left and not self._runner.over():
                if not self._round(settings):
                    time.sleep(wait)  # for others to end, or for their leases to expire
                self._follow()
        if self._heart.failure is not None:
            raise self._heart.failure
        units = self._units
        status = "complete" if units.num_left == 0 else self._runner.over() or "complete"
        return Run(self._folder, status, units.done.size, units.num_done, units.num_errors)

    def _round(self, settings: Settings) -> bool:
        """Run what can be claimed, model by model; tell whether that was anything."""
        found = False
        for number, group in enumerate(self._plan.groups):
            places = self._claimed(number)
            first = next(places, None)
            if first is None:
                continue
            found = True
            if self._loaded is None or self._loaded.group != group:
                self._loaded = None
                mx.clear_cache()
                experiment = self._plan.experiment
                self._loaded = load_group(group, experiment.arms, experiment.seeds)
            self._runner.run_group(self._loaded, settings, chain([first], places))
            self._give_back()
        return found

    def _claimed(self, group: int) -> Iterator[int]:
        """Claim shares one by one, as their samples are asked for; yield places of samples."""
        for share in shares_of(self._plan, group):
            if self._runner.over():
                return
            if is_done(self._plan, self._units, share) or not self._claims.take(share.name):
                continue
            self._held.append(share)
            self._follow()  # an earlier owner may have done a part
            for place in range(share.start, share.stop):
                left = Share(group, place, place + 1)
                if not is_done(self._plan, self._units, left) and self._claims.holds(share.name):
                    yield place

    def _give_back(self) -> None:
        """Release all shares of which something is left, and forget the others."""
        for share in self._held:
            if is_done(self._plan, self._units, share):
                self._claims.forget(share.name)
            else:
                self._claims.release(share.name)
        self._held.clear()

    def _follow(self) -> None:
        """Take in what others have done."""
        for line in self._following.mark(self._units):
            if self._has_begun:
                self._progress.advance(unit_of(line))

    def _stop(self) -> None:
        self._runner.interrupts.is_set = True


def join_run(folder: Path) -> int:
    """Lock a run directory together with other workers; returns what to close."""
    read_manifest(folder)
    try:
        handle = append_file(folder / LOCK)
    except OSError as error:
        raise VlmkitError(f"{folder}: cannot be written: {error.strerror}") from None
    lock(folder, handle, fcntl.LOCK_SH, "'vlmkit worker'")
    return handle


def _check_same(folder: Path, begun: Manifest, here: Manifest) -> None:
    changed = sorted(
        name
        for name in begun.hashes.keys() | here.hashes.keys()
        if begun.hashes.get(name) != here.hashes.get(name)
    )
    if changed:
        raise VlmkitError(
            f"{folder}: the run was begun with another {' and '.join(changed)} than this worker "
            "finds; give it the same vlmkit, data and checkpoints at the same paths"
        )
