"""The lockstep half of a kv-eval: records of all policies on the reference tokens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vlmkit.contracts.interface import PromptShape
from vlmkit.experiment.config import LimitsConfig
from vlmkit.experiment.data import Samples, load_samples
from vlmkit.experiment.files import Experiment
from vlmkit.experiment.groups import group_arms
from vlmkit.experiment.interrupts import Interrupts
from vlmkit.experiment.kv_eval.lockstep import Measured, Row, run_lockstep
from vlmkit.experiment.kv_eval.policies import check_applied, facts_of, new_cache
from vlmkit.experiment.kv_eval.records import (
    LOCKSTEP,
    LockstepRecord,
    read_lockstep,
    rounded,
)
from vlmkit.experiment.kv_eval.references import Reference, read_references
from vlmkit.experiment.kv_eval.sensitivity import layers_alone, sensitivity, sides_alone
from vlmkit.experiment.kv_eval.streams import Variant
from vlmkit.experiment.loaded import Loaded, group_rows, load_group
from vlmkit.experiment.prompting import prepare_sample
from vlmkit.experiment.recordfile import RecordFile

_ROWS = 32  # side by side; more bring little

Tell = Callable[[int, int], None]
"""Told how many of all lockstep records are there."""


class LockstepWork:
    """What is left of a run directory's lockstep records, and when it ends early.

    Args:
        experiment: whose arms are the policies, the baseline first.
        folder: of a run whose responses are complete; locked by the caller.
        batch_size: rows side by side at most; None: as before, or by the memory at hand.
        tell: told how many records there are.
        began: when the call began, by ``time.monotonic``.
    """

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
        """Write the records that are not there; return "complete" or why it ended early.

        Raises:
            VlmkitError: a policy that does nothing, or a sample without a reference.
        """
        experiment = self._experiment
        samples = load_samples(experiment.config.dataset, experiment.folder)
        if self._limits.samples is not None:
            samples = samples[: self._limits.samples]
        known = set(samples.ids)
        self._done = {unit for unit in self._done if unit[1] in known}
        number = len(samples) * len(self._names) * len(experiment.seeds)
        if self.num_done >= number:
            return "complete"
        with self._interrupts:
            (group,) = group_arms(experiment.arms)
            loaded = load_group(group, experiment.arms, experiment.seeds)
            references = read_references(experiment, self._folder, samples, loaded.processor)
            check_applied(experiment, loaded.model, references)
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

    def _is_over(self) -> bool:
        return self._over() is not None

    def _records(
        self, loaded: Loaded, samples: Samples, chunk: Sequence[Reference]
    ) -> list[LockstepRecord] | None:
        """All policies on some references; None where the run is over."""
        baseline = loaded.arms[0]
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
        caches = [new_cache(loaded.model, arm.config.cache) for arm in loaded.arms]
        step_size = baseline.config.prefill.step_size
        found = run_lockstep(
            loaded.model,
            rows,
            caches[0],
            [Variant(caches[0], num_batches=2), *map(Variant, caches[1:])],
            step_size=step_size,
            is_over=self._is_over,
        )
        if found is None:
            return None
        measured = [
            _record(loaded, place, one, row, found[place][number])
            for number, (one, row) in enumerate(zip(whole, rows, strict=True))
            for place in range(len(self._names))
        ]
        if (self._experiment.lockstep or {}).get("sensitivity"):
            for place in range(1, len(self._names)):
                policy = caches[place]
                by_layer, by_side = (
                    sensitivity(
                        loaded.model,
                        rows,
                        caches[0],
                        alone,
                        step_size=step_size,
                        is_over=self._is_over,
                    )
                    for alone in (
                        layers_alone(loaded.model, caches[0], policy),
                        sides_alone(loaded.model, rows, caches[0], policy),
                    )
                )
                if by_layer is None or by_side is None:
                    return None
                mine = measured[place :: len(self._names)]
                for record, layers, sides in zip(mine, by_layer, by_side, strict=True):
                    record.layer_kl, record.side_kl = rounded(layers), rounded(sides)
        return records + measured


def _record(
    loaded: Loaded,
    place: int,
    one: Reference,
    row: Row,
    found: Measured,
) -> LockstepRecord:
    arm, prompt = loaded.arms[place], PromptShape.of(row.inputs)
    facts = facts_of(loaded.model, arm.config.cache, prompt, len(one.token_ids))
    return LockstepRecord(
        arm=arm.name,
        sample=one.sample,
        seed=one.seed,
        prompt_tokens=prompt.length,
        images=[medium.span for medium in row.inputs.media],
        token_ids=list(one.token_ids),
        prompt_kl=rounded(found.prompt_kl),
        kl=rounded(found.kl),
        agrees=found.agrees,
        delta_logprobs=rounded(found.delta_logprobs),
        attention_error=rounded(found.attention_error),
        **facts._asdict(),
    )
