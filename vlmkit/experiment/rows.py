"""Rows of the decode loop for units of work, made only as slots become free.

A sample's images are decoded and its prompt is laid out once for all arms that ask it alike; its
prefill is kept until the last of their rows has begun.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple

from vlmkit.config.formatting import with_negative
from vlmkit.engine import RowSpec, RunOptions, build_spec
from vlmkit.errors import VlmkitError
from vlmkit.experiment.arms import Arm
from vlmkit.experiment.groups import Batch, request_key
from vlmkit.experiment.loaded import Loaded
from vlmkit.experiment.prefills import PrefillShares
from vlmkit.experiment.prompting import Prepared, prepare_sample
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.units import Units
from vlmkit.resolve import Work


class Unit(NamedTuple):
    """One response that is asked for, by its places."""

    sample: int
    arm: int
    seed: int


class InFlight(NamedTuple):
    """A row of the decode loop."""

    unit: Unit
    prompt: Hashable  # equal where the prefill is one
    thinks: bool  # its prompt opened the thinking


class Placed(NamedTuple):
    """A sample and its place in the data set."""

    place: int
    sample: Sample


class Sharing:
    """What rows of several arms share while a few samples are at work.

    Args:
        loaded: the model and its arms.
        units: which of them are done.
        fail: called with a unit that cannot run, and why.
        trace: keep the logits after each stage in every step.
    """

    def __init__(
        self,
        loaded: Loaded,
        units: Units,
        fail: Callable[[Unit, VlmkitError], None],
        *,
        trace: bool = False,
    ) -> None:
        self._loaded, self._units, self._fail, self._trace = loaded, units, fail, trace
        self._requests = {place: request_key(loaded.arms[place]) for place in loaded.group.arms}
        self._prepared: dict[tuple[int, str], Prepared | VlmkitError] = {}
        self._left: Counter[tuple[int, str]] = Counter()  # rows to come of each prompt
        self._uses: Counter[tuple[int, str]] = Counter()  # rows to come of each request
        self.numbers: dict[int, InFlight] = {}
        self.prefills = PrefillShares()
        self._next = 0

    def announce(self, sample: int, batches: Iterable[Batch]) -> None:
        """Say that the units of a sample in some batches will follow."""
        for batch in batches:
            for unit in self.units_of(sample, batch):
                self._left[sample, self._loaded.group.prompts[unit.arm]] += 1
                self._uses[sample, self._requests[unit.arm]] += 1
                self.expect(unit)

    def expect(self, unit: Unit) -> None:
        """Say that the row of a unit will follow, which shares the time of its prefill."""
        self.prefills.expect((unit.sample, self._loaded.group.prompts[unit.arm]))

    def specs(self, place: int, samples: Iterable[Placed]) -> Iterator[RowSpec]:
        """Yield the rows of one batch of arms, sample by sample.

        Args:
            place: of the batch in the group.
            samples: what is asked; announced before.
        """
        batch = self._loaded.group.batches[place]
        for placed in samples:
            for unit in self.units_of(placed.place, batch):
                spec = self.spec(unit, placed.sample, place)
                if spec is not None:
                    yield spec

    def units_of(self, sample: int, batch: Batch) -> Iterator[Unit]:
        """Yield what is left of a sample in a batch of arms."""
        done = self._units.done
        for arm in batch.arms:
            for seed in range(done.shape[2]):
                if not done[sample, arm, seed]:
                    yield Unit(sample, arm, seed)

    def spec(self, unit: Unit, sample: Sample, place: int) -> RowSpec | None:
        """Make the row of one unit; None if it cannot run, which is reported."""
        loaded = self._loaded
        arm = loaded.arms[unit.arm]
        prompt = unit.sample, loaded.group.prompts[unit.arm]
        self._left[prompt] -= 1
        prepared = self._prepare(unit, arm, sample)
        if isinstance(prepared, VlmkitError):
            self._give_up(unit, prompt, prepared)
            return None
        images = prepared.images
        own = loaded.resolved[unit.arm][unit.seed]
        pipeline = with_negative(loaded.processor, arm.config, own.pipeline, num_images=len(images))
        work = Work(prepared.request, images, own._replace(pipeline=pipeline), prompt)
        self._next += 1
        try:
            spec = build_spec(
                loaded.methods[place],
                loaded.processor,
                work,
                prepared.inputs,
                options=RunOptions(trace=self._trace),
                number=self._next,
            )
        except VlmkitError as error:
            self._give_up(unit, prompt, error)
            return None
        self.numbers[spec.number] = InFlight(unit, prompt, prepared.thinks)
        return spec._replace(reused=self._left[prompt] > 0)

    def _give_up(self, unit: Unit, prompt: Hashable, error: VlmkitError) -> None:
        self.prefills.leave(prompt)
        self._fail(unit, error)

    def _prepare(self, unit: Unit, arm: Arm, sample: Sample) -> Prepared | VlmkitError:
        key = unit.sample, self._requests[unit.arm]
        self._uses[key] -= 1
        if key not in self._prepared:
            loaded = self._loaded
            try:
                self._prepared[key] = prepare_sample(loaded.model, loaded.processor, arm, sample)
            except VlmkitError as error:
                where = f"{sample.where}: " if sample.where else ""
                self._prepared[key] = VlmkitError(f"{where}{error}")
        found = self._prepared[key]
        if self._uses[key] <= 0:
            del self._prepared[key], self._uses[key]
        return found
