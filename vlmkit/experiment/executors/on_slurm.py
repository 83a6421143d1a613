"""Workers as jobs of Slurm, by submitit.

Reference: https://github.com/facebookincubator/submitit, ``AutoExecutor`` and its checkpointing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.experiment.executors.fleet import Fleet, Start, run_worker
from vlmkit.experiment.reading import WORKERS


class Job:
    """What one job calls; Slurm may preempt it, and then it waits for its turn again."""

    def __init__(self, folder: str, options: dict[str, Any]) -> None:
        self._folder, self._options, self._cwd = folder, options, os.getcwd()

    def __call__(self) -> str:
        return run_worker(self._folder, self._options, self._cwd)

    def checkpoint(self) -> Any:
        """Return what the job does when it is started again: nothing is lost in between."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def slurm(start: Start) -> Callable[[], Fleet]:
    """Return what submits workers as jobs.

    ``start.resources`` are parameters of submitit, such as ``slurm_partition=gpu``,
    ``gpus_per_node=1`` or ``timeout_min=240``; ``cluster=local`` runs the jobs on this machine.

    Raises:
        VlmkitError: submitit is not installed, this machine submits no jobs, or there is no such
            parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise VlmkitError(
            f"--executor slurm needs submitit ({error}): pip install 'vlmkit[slurm]'"
        ) from None
    resources = dict(start.resources)
    cluster = str(resources.pop("cluster", "slurm"))
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise VlmkitError(
            "--executor slurm: no sbatch on this machine; give the command where jobs are "
            "submitted, or --resource cluster=local to run the jobs here"
        )

    def make_executor(folder: str | Path) -> Any:
        try:
            executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            executor.update_parameters(**{"name": "vlmkit", **resources})
        except (NameError, TypeError, ValueError, RuntimeError) as error:
            raise _refused(error) from error
        return executor

    with tempfile.TemporaryDirectory() as folder:  # for it makes its folder at once
        make_executor(folder)
    return lambda: _submit(make_executor(start.folder / WORKERS / "jobs"), start)


def _submit(executor: Any, start: Start) -> Fleet:
    try:
        with executor.batch():
            jobs = [
                executor.submit(Job(str(start.folder), start.options))
                for _ in range(start.num_workers)
            ]
    except RuntimeError as error:
        raise _refused(error) from error

    def cancel(states: tuple[str, ...] | None) -> None:
        for job in jobs:
            if not job.done() and (states is None or job.state in states):
                job.cancel()

    return Fleet(
        num_alive=lambda: sum(not job.done() for job in jobs),
        stop=lambda: cancel(("PENDING", "REQUEUED")),
        kill=lambda: cancel(None),
        problems=lambda: [text for job in jobs if job.done() for text in _problem(job)],
    )


def _refused(error: Exception) -> VlmkitError:
    return VlmkitError(f"--resource: submitit refuses the jobs: {' '.join(str(error).split())}")


def _problem(job: Any) -> list[str]:
    if not job.paths.result_pickle.exists():
        return [f"job {job.job_id} left no result: {job.state}; see {job.paths.stderr}"]
    error = job.exception()
    if error is None:
        return []
    lines = str(error).strip().splitlines()
    return [f"job {job.job_id}: {lines[-1] if lines else error!r}"]
