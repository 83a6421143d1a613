"""Run a kv-eval: responses of each policy by itself, then all policies on the baseline's tokens.

The first half is an ablation run like any other, so comparing, rescoring, exporting and
reproducing it work as they do there. The second half writes one line per policy, sample and seed
into ``lockstep.jsonl`` beside the responses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vlmkit.experiment.files import Experiment
from vlmkit.experiment.kv_eval.planning import load_kv_eval
from vlmkit.experiment.kv_eval.work import LockstepWork, Tell
from vlmkit.experiment.progress import Progress
from vlmkit.experiment.runner import run_experiment
from vlmkit.experiment.store import claim


class KvRun(NamedTuple):
    """A run directory after a call of :func:`run_kv_eval`."""

    folder: Path
    status: str  # "complete", "interrupted", "limits.tokens" or "limits.minutes"
    num_done: int  # responses and lockstep records
    num_units: int
    num_errors: int


def run_kv_eval(
    experiment: Experiment | str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    batch_size: int | None = None,
    force_new: bool = False,
    fail_fast: bool = False,
    trust_code: bool = False,
    progress: Progress | None = None,
    tell: Tell = lambda done, of: None,
    command: Sequence[str] | None = None,
) -> KvRun:
    """Run a kv-eval, or what is left of it.

    Args:
        experiment: a YAML file, or what :func:`load_kv_eval` returned.
        folder: the run directory; None: ``runs/NAME``, after the file.
        overrides: ``a.b=c`` strings, where ``experiment`` is a file.
        batch_size: rows side by side at most; None: chosen from the memory at hand.
        force_new: keep what another run left in the folder beside it, and begin anew.
        fail_fast: stop at the first response that cannot be had.
        trust_code: let the file name code to run, where ``experiment`` is a file.
        progress: told of every response; None: silent.
        tell: told how many lockstep records there are.
        command: the command line, for the manifest; None: that of this process.

    Raises:
        VlmkitError: names what is wrong and what would work, a policy that does nothing to any
            sample among it.

    Example:
        >>> import tempfile
        >>> from vlmkit.config.document import parse_yaml
        >>> text = '''
        ... dataset: {kind: shapes, num_samples: 1}
        ... policies: {4 bits: {kind: affine, bits: 4, group_size: 32}}
        ... '''
        >>> study = load_kv_eval(parse_yaml(text, "study.yaml"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = run_kv_eval(study, folder)
        >>> run.status, run.num_done
        ('complete', 4)
    """
    if not isinstance(experiment, Experiment):
        experiment = load_kv_eval(experiment, overrides=overrides, trust_code=trust_code)
    began = time.monotonic()
    run = run_experiment(
        experiment,
        folder,
        batch_size=batch_size,
        force_new=force_new,
        fail_fast=fail_fast,
        progress=progress,
        command=command,
    )
    number = 2 * run.num_units
    if run.status != "complete":
        return KvRun(run.folder, run.status, run.num_done, number, run.num_errors)
    lock = claim(run.folder)
    try:
        work = LockstepWork(experiment, run.folder, batch_size, tell, began)
        status = work.run()
    finally:
        os.close(lock)
    return KvRun(run.folder, status, run.num_done + work.num_done, number, run.num_errors)
