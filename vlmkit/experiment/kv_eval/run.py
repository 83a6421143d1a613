"""Run a kv-eval: responses of each policy by itself, then all policies on the baseline's tokens.

The first half is an ablation run like any other, so comparing, rescoring, exporting and
reproducing it work as they do there. The second half writes one line per policy, sample and seed
into ``lockstep.jsonl`` beside the responses.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from vlmkit.cache import CacheConfig, build_cache
from vlmkit.config.validate import error_at
from vlmkit.errors import VlmkitError
from vlmkit.experiment.config import LimitsConfig
from vlmkit.experiment.data import Samples, load_samples
from vlmkit.experiment.files import Experiment
from vlmkit.experiment.groups import group_arms
from vlmkit.experiment.interrupts import Interrupts
from vlmkit.experiment.kv_eval.applied import applied, thresholds
from vlmkit.experiment.kv_eval.lockstep import Measured, Row, run_lockstep
from vlmkit.experiment.kv_eval.planning import load_kv_eval
from vlmkit.experiment.kv_eval.records import (
    LOCKSTEP,
    LockstepRecord,
    read_lockstep,
    rounded,
)
from vlmkit.experiment.kv_eval.references import Reference, read_references
from vlmkit.experiment.kv_eval.sensitivity import layer_sensitivity
from vlmkit.experiment.kv_eval.streams import NewCache, Variant
from vlmkit.experiment.loaded import Loaded, group_rows, load_group
from vlmkit.experiment.progress import Progress
from vlmkit.experiment.prompting import prepare_sample
from vlmkit.experiment.recordfile import RecordFile
from vlmkit.experiment.runner import run_experiment
from vlmkit.experiment.store import claim
from vlmkit.interface import Cache

_ROWS = 32  # side by side; more bring little

Tell = Callable[[int, int], None]
"""Told how many of all lockstep records are there."""


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
        work = _Work(experiment, run.folder, batch_size, tell, began)
        status = work.run()
    finally:
        os.close(lock)
    return KvRun(run.folder, status, run.num_done + work.num_done, number, run.num_errors)


class _Work:
    """The lockstep half of one call."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        batch_size: int | None,
        tell: Tell,
        began: float,
    ) -> None:
        self._experiment, self._folder, self._tell = experiment, folder, tell
        self._batch_size, self._began = batch_size, began
        self._limits: LimitsConfig = experiment.config.limits
        self._interrupts = Interrupts()
        self._done: set[tuple[str, str, int]] = set()
        for record in read_lockstep(folder):
            self._done.add(record.unit)
            # Float rounding may depend on the rows beside a row: go on as it began.
            self._batch_size = record.batch_size
        self._names = [arm.name for arm in experiment.arms]

    @property
    def num_done(self) -> int:
        """Lockstep records that are there."""
        return len(self._done)

    def run(self) -> str:
        experiment = self._experiment
        samples = load_samples(experiment.config.dataset, experiment.folder)
        if self._limits.samples is not None:
            samples = samples[: self._limits.samples]
        number = len(samples) * len(self._names) * len(experiment.seeds)
        if self.num_done >= number:
            return "complete"
        with self._interrupts:
            (group,) = group_arms(experiment.arms)
            loaded = load_group(group, experiment.arms, experiment.seeds)
            references = read_references(experiment, self._folder, samples, loaded.processor)
            _check_applied(experiment, loaded, references)
            fitting = group_rows(group, experiment.arms, num_copies=len(self._names) + 1)
            size = self._batch_size or min(fitting, _ROWS)
            chunks = [references[i : i + size] for i in range(0, len(references), size)]
            file = RecordFile(self._folder / LOCKSTEP)
            try:
                for chunk in itertools.filterfalse(self._is_done, chunks):
                    records = self._records(loaded, samples, chunk)
                    if records is None:
                        return self._over() or "complete"
                    for record in records:
                        record.batch_size = size
                        if record.unit not in self._done:
                            file.append(record)
                            self._done.add(record.unit)
                    self._tell(self.num_done, number)
            finally:
                file.close()
        return "complete"

    def _is_done(self, chunk: Sequence[Reference]) -> bool:
        units = ((name, one.sample, one.seed) for one in chunk for name in self._names)
        return self._done.issuperset(units)

    def _over(self) -> str | None:
        limit = self._limits.minutes
        if self._interrupts.is_set:
            return "interrupted"
        if limit is not None and time.monotonic() - self._began >= 60 * limit:
            return "limits.minutes"
        return None

    def _records(
        self, loaded: Loaded, samples: Samples, chunk: Sequence[Reference]
    ) -> list[LockstepRecord] | None:
        """All policies on some references; None where the run is over."""
        baseline, *others = loaded.arms
        whole = [one for one in chunk if one.error is None]
        records = [
            LockstepRecord(arm=name, sample=one.sample, seed=one.seed, error=one.error)
            for one in chunk
            if one.error is not None
            for name in self._names
        ]
        if not whole:
            return records
        rows = [
            Row(
                prepare_sample(loaded.model, loaded.processor, baseline, samples[one.place]).inputs,
                one.token_ids,
            )
            for one in whole
        ]
        caches = [new_cache(loaded, arm.config.cache) for arm in loaded.arms]
        step_size = baseline.config.prefill.step_size

        def over() -> bool:
            return self._over() is not None

        found = run_lockstep(
            loaded.model,
            rows,
            caches[0],
            [Variant(caches[0], num_batches=2), *map(Variant, caches[1:])],
            step_size=step_size,
            is_over=over,
        )
        if found is None:
            return None
        layer_kl: list[list[list[float]]] = [[[] for _ in rows] for _ in self._names]
        if (self._experiment.lockstep or {}).get("sensitivity"):
            for place in range(1, len(others) + 1):
                own = layer_sensitivity(
                    loaded.model, rows, caches[0], caches[place], step_size=step_size, is_over=over
                )
                if own is None:
                    return None
                layer_kl[place] = own
        return records + [
            _record(loaded, place, one, row, found[place][number], layer_kl[place][number])
            for number, (one, row) in enumerate(zip(whole, rows, strict=True))
            for place in range(len(self._names))
        ]


def new_cache(loaded: Loaded, config: CacheConfig) -> NewCache:
    """Return what makes an empty cache of a policy for a model."""
    model = loaded.model

    def make(batch: int) -> Cache:
        attention = model.backend.forms.attention
        return build_cache(config, model.layer_specs, batch, model.dtype, attention=attention)

    return make


def _record(
    loaded: Loaded,
    place: int,
    one: Reference,
    row: Row,
    found: Measured,
    layer_kl: list[float],
) -> LockstepRecord:
    arm, num_prompt = loaded.arms[place], len(row.inputs.token_ids)
    facts = applied(
        new_cache(loaded, arm.config.cache)(0).kinds,
        loaded.model.layer_specs,
        loaded.model.dtype,
        num_prompt_tokens=num_prompt,
        num_tokens=num_prompt + len(one.token_ids) - 1,
    )
    return LockstepRecord(
        arm=arm.name,
        sample=one.sample,
        seed=one.seed,
        prompt_tokens=num_prompt,
        images=[medium.span for medium in row.inputs.media],
        token_ids=list(one.token_ids),
        prompt_kl=rounded(found.prompt_kl),
        kl=rounded(found.kl),
        agrees=found.agrees,
        delta_logprobs=rounded(found.delta_logprobs),
        attention_error=rounded(found.attention_error),
        layer_kl=rounded(layer_kl),
        **facts._asdict(),
    )


def _check_applied(experiment: Experiment, loaded: Loaded, references: Sequence[Reference]) -> None:
    """Refuse a policy that does nothing to any sample: its row would be the baseline's."""
    lengths = [
        (one.prompt_tokens + len(one.token_ids) - 1, one.prompt_tokens)
        for one in references
        if one.error is None
    ]
    if not lengths:
        raise VlmkitError(
            f"no sample has a reference: {references[0].error}" if references else "no samples"
        )
    num_tokens, num_prompt = max(lengths)
    for arm in experiment.arms:
        if arm.name == experiment.baseline:
            continue
        facts = applied(
            new_cache(loaded, arm.config.cache)(0).kinds,
            loaded.model.layer_specs,
            loaded.model.dtype,
            num_prompt_tokens=num_prompt,
            num_tokens=num_tokens,
        )
        if facts.layers:
            continue
        config = arm.identity["cache"]
        beyond = " and ".join(thresholds(config, num_tokens))
        why = f"{beyond} is never reached" if beyond else "it stores every token as computed"
        raise error_at(
            experiment.tree,
            ("arms", arm.name),
            f"policies.{arm.name}: applies to nothing: {why}, the longest sequence has "
            f"{num_tokens:,} tokens; lower it, or leave the policy out",
        )
