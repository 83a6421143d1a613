"""One model's share of a run: its rows, batch by batch of arms, and the records they become."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

from vlmkit.engine import RowSpec, RunOptions, Step, run_specs
from vlmkit.errors import VlmkitError
from vlmkit.experiment.cachesize import cache_sizes
from vlmkit.experiment.data import Samples
from vlmkit.experiment.groups import Group
from vlmkit.experiment.loaded import Loaded, group_rows, prompt_bytes
from vlmkit.experiment.records import Record
from vlmkit.experiment.rows import Placed, Sharing, Unit
from vlmkit.experiment.scoring import has_answer
from vlmkit.experiment.toplogprobs import TopLogprobs
from vlmkit.experiment.units import Units
from vlmkit.prompts import PromptCache

_FORGET_EVERY = 256  # samples
_CACHE_BYTES = 1 << 30  # of prompts that wait for arms of another batch


class Response(NamedTuple):
    """A unit and its record."""

    unit: Unit
    record: Record


class Settings(NamedTuple):
    """How units run, none of which changes their tokens."""

    batch_size: int | None = None  # rows in flight; None: chosen from the memory at hand
    share: bool = True  # False: every unit alone, with a prefill of its own
    top_logprobs: int = 0  # most likely tokens to record with each token


def run_group(
    loaded: Loaded,
    samples: Samples,
    units: Units,
    settings: Settings,
    *,
    is_over: Callable[[], bool],
    watch: Callable[[Unit, Step], None] | None = None,
    places: Iterable[int] | None = None,
) -> Generator[Response | None, None, None]:
    """Run what is left of a group.

    Args:
        loaded: the model and its arms.
        samples: all samples.
        units: which are done; marked by the caller as responses come.
        settings: how they run.
        is_over: asked before a row begins: True lets no other one begin.
        watch: shown each step with its logits, and what the stages did to them.
        places: of the samples to run, read as rows become free; None: all.

    Yields:
        A response when it is whole, else None: one item per step of a row.
    """
    failed: list[Response] = []

    def fail(unit: Unit, error: VlmkitError) -> None:
        failed.append(Response(unit, _failed(loaded, samples, units, unit, error)))

    sharing = Sharing(loaded, units, fail, trace=watch is not None)
    placed = _left_of(
        loaded.group, samples, units, range(len(samples)) if places is None else places
    )
    if settings.share:
        steps = _shared_steps(loaded, placed, units, settings, sharing, is_over)
    else:
        steps = _single_steps(loaded, placed, sharing, is_over)
    gathered: dict[int, list[Step]] = {}
    sizes, tops = cache_sizes(loaded), TopLogprobs(settings.top_logprobs)
    for step in steps:
        yield from _drain(failed)
        row = sharing.numbers[step.row]
        tops.add(step)
        if watch is not None:
            watch(row.unit, step)
        if step.row not in gathered:
            gathered[step.row] = []
            sharing.prefills.add(row.prompt, step.first_token_s, step.timing.prompt_s)
        gathered[step.row].append(step._replace(logits=None, trace=None))
        if step.finish is None:
            yield None
            continue
        record = _blank(loaded, samples, units, row.unit)
        _add_steps(gathered.pop(step.row), record)
        record.answered = record.error is not None or has_answer(record.text, opened=row.thinks)
        record.alone = not settings.share
        tokens = record.prompt_tokens + max(record.generation_tokens - 1, 0)
        record.cache_bytes = sizes[row.unit.arm](step.prompt, tokens)
        if record.error is None:
            record.prompt_s = step.timing.others_s + sharing.prefills.take(row.prompt)
        else:
            sharing.prefills.leave(row.prompt)
        tops.write(step.row, record)
        del sharing.numbers[step.row]
        yield Response(row.unit, record)
    yield from _drain(failed)


def _drain(failed: list[Response]) -> Iterator[Response]:
    while failed:
        yield failed.pop(0)


def _shared_steps(
    loaded: Loaded,
    placed: Iterator[Placed],
    units: Units,
    settings: Settings,
    sharing: Sharing,
    is_over: Callable[[], bool],
) -> Iterator[Step]:
    """Batch after batch; where there are several, for a few samples at a time."""
    group, rows = loaded.group, settings.batch_size
    size = group_rows(group, loaded.arms) if rows is None else rows
    caches: dict[str, PromptCache] = {}
    chunk = _chunk_size(loaded, units, size)
    while True:
        if len(group.batches) == 1:
            some: Iterable[Placed] = _cleared(caches, _announced(sharing, group, placed))
        else:
            some = list(_announced(sharing, group, islice(placed, chunk)))
            if not some:
                return
        for place, batch in enumerate(group.batches):
            cache = caches.setdefault(batch.prefill, PromptCache(max_bytes=_CACHE_BYTES))
            pipeline = loaded.resolved[batch.arms[0]][0].pipeline
            specs = _until(is_over, sharing.specs(place, some))
            yield from run_specs(
                loaded.methods[place],
                specs,
                pipeline,
                RunOptions(batch_size=size, prompt_cache=cache, keep_prompts=False),
            )
        if len(group.batches) == 1 or is_over():
            return
        for cache in caches.values():
            cache.clear()


def _single_steps(
    loaded: Loaded,
    samples: Iterator[Placed],
    sharing: Sharing,
    is_over: Callable[[], bool],
) -> Iterator[Step]:
    """Every unit by itself."""
    for placed in samples:
        for place, batch in enumerate(loaded.group.batches):
            for unit in sharing.units_of(placed.place, batch):
                if is_over():
                    return
                sharing.expect(unit)
                spec = sharing.spec(unit, placed.sample, place)
                pipeline = loaded.resolved[unit.arm][unit.seed].pipeline
                specs = [] if spec is None else [spec]
                yield from run_specs(loaded.methods[place], specs, pipeline, RunOptions())


def _announced(sharing: Sharing, group: Group, placed: Iterable[Placed]) -> Iterator[Placed]:
    for one in placed:
        sharing.announce(one.place, group.batches)
        yield one


def _cleared(caches: Mapping[str, PromptCache], placed: Iterable[Placed]) -> Iterator[Placed]:
    """Forget the images of earlier samples now and then; else each look-up takes longer."""
    for number, one in enumerate(placed, start=1):
        if number % _FORGET_EVERY == 0:
            for cache in caches.values():
                cache.clear()
        yield one


def _left_of(
    group: Group, samples: Samples, units: Units, places: Iterable[int]
) -> Iterator[Placed]:
    """Read the samples of which something is left."""
    arms = list(group.arms)
    for place in places:
        if not units.done[place, arms].all():
            yield Placed(place, samples[place])


def _chunk_size(loaded: Loaded, units: Units, size: int) -> int:
    """Samples at a time: enough to keep the rows busy, few enough to keep all their prompts."""
    fewest = min(len(batch.arms) for batch in loaded.group.batches) * units.done.shape[2]
    wanted = math.ceil(4 * size / fewest)
    one = prompt_bytes(loaded.group)
    kept = wanted if one is None else _CACHE_BYTES // (one * loaded.group.num_prefills)
    return max(1, min(int(wanted), kept))


def _until(is_over: Callable[[], bool], specs: Iterator[RowSpec]) -> Iterator[RowSpec]:
    while not is_over() and (spec := next(specs, None)) is not None:
        yield spec


def _blank(loaded: Loaded, samples: Samples, units: Units, unit: Unit) -> Record:
    return Record(
        arm=loaded.arms[unit.arm].name,
        sample=samples.ids[unit.sample],
        seed=units.seeds[unit.seed],
    )


def _failed(
    loaded: Loaded, samples: Samples, units: Units, unit: Unit, error: VlmkitError
) -> Record:
    record = _blank(loaded, samples, units, unit)
    record.finish_reason = record.finish_kind = "error"
    record.error = str(error)
    return record


def _add_steps(steps: Sequence[Step], record: Record) -> None:
    """Put all steps of a row into its record."""
    last = steps[-1]
    assert last.finish is not None
    taken = [step for step in steps if step.token_id is not None]
    record.text = "".join(step.text for step in steps)
    record.token_ids = [step.token_id for step in taken if step.token_id is not None]
    record.forced = [step.forced for step in taken]
    record.text_ends = list(accumulate(len(step.text) for step in taken))
    record.finish_reason, record.finish_kind = last.finish.reason, last.finish.kind
    if last.finish.error is not None:
        text = str(last.finish.error) or type(last.finish.error).__name__
        record.error = text.removeprefix(f"row {last.row}: ")
    record.prompt_tokens = last.prompt.length
    record.cached_tokens = last.timing.cached_tokens
    record.generation_tokens = last.num_tokens
    if taken:
        record.generation_s = max(time.perf_counter() - last.first_token_s, 0.0)
    if last.hypotheses:
        record.extra = {"score": last.hypotheses[0][0]}
