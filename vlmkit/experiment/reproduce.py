"""Run a run's responses again from its own directory, and compare them token by token."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import mlx.core as mx
import msgspec

from vlmkit.engine import Step
from vlmkit.errors import VlmkitError
from vlmkit.experiment.chosen import Choice, read_chosen
from vlmkit.experiment.divergence import (
    Distribution,
    Divergence,
    compare_records,
    describe_distribution,
    recorded_distribution,
)
from vlmkit.experiment.loaded import load_group
from vlmkit.experiment.plan import Plan, most_tokens
from vlmkit.experiment.progress import Progress, Silent
from vlmkit.experiment.records import Record
from vlmkit.experiment.restore import Change, restore
from vlmkit.experiment.rows import Unit
from vlmkit.experiment.running import Settings, run_group
from vlmkit.experiment.shown import counted
from vlmkit.experiment.units import Units

MAX_TOKENS = 500_000
"""That running again may take without being told to: a run directory of somebody else's asks for as
many as its writer liked. Hours on a laptop, minutes on a server."""

Decode = Callable[[Sequence[int]], str]


class ArmOutcome(msgspec.Struct, kw_only=True):
    """How an arm's responses came out."""

    arm: str
    num_units: int = 0
    num_exact: int = 0


class Reproduction(msgspec.Struct, kw_only=True):
    """What running again has found."""

    run: str  # the run directory
    created: str  # when the run was made
    changes: list[Change]  # what is no longer as it was then
    num_recorded: int  # responses of the whole run
    arms: list[ArmOutcome]
    divergences: list[Divergence]  # in the order of the arms

    @property
    def num_units(self) -> int:
        """How many responses ran again."""
        return sum(arm.num_units for arm in self.arms)

    @property
    def num_exact(self) -> int:
        """How many of them are as recorded: equal tokens, ending and text."""
        return sum(arm.num_exact for arm in self.arms)


def reproduce(
    folder: str | os.PathLike[str],
    choice: Choice = Choice(),  # noqa: B008
    settings: Settings = Settings(),  # noqa: B008
    *,
    top_n: int = 5,
    max_tokens: int | None = MAX_TOKENS,
    trust_code: bool = False,
    progress: Progress | None = None,
    announce: Callable[[list[Change]], None] | None = None,
) -> Reproduction:
    """Run responses of a run again, and say which are token-exact; nothing is written.

    Everything is read from the run directory: arms, seeds, data set. Records of errors count as
    well: the same error has to come again.

    Args:
        folder: the run directory.
        choice: which responses.
        settings: rows in flight, and whether prefills are shared; neither should change a token.
        top_n: how many tokens of a distribution to list where a response diverges.
        max_tokens: refuse to begin where more may be generated, by the limits of the run's arms;
            None: however many.
        trust_code: let the run's arms name code to run.
        progress: told of every response; None: silent.
        announce: called with what has changed since the run, before anything is computed.

    Raises:
        VlmkitError: no run directory, none of its records is chosen, it may take more than
            ``max_tokens``, or the run cannot be made again: data or a checkpoint are gone, or an
            arm no longer runs.

    Example:
        >>> import tempfile
        >>> from vlmkit.config.document import parse_yaml
        >>> from vlmkit.experiment.files import load_experiment
        >>> from vlmkit.experiment.runner import run_experiment
        >>> text = "{dataset: {kind: shapes, num_samples: 2}, arms: {greedy: {}}}"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = run_experiment(load_experiment(parse_yaml(text, "study.yaml")), folder)
        ...     found = reproduce(folder)
        >>> found.num_units, found.num_exact, found.changes
        (2, 2, [])
    """
    if top_n < 1:
        raise VlmkitError(f"top_n is {top_n}; it must be 1 or more")
    path = Path(folder)
    manifest, plan, changes = restore(path, trust_code=trust_code)
    num_recorded, recorded = read_chosen(path, plan, choice)
    units = plan.new_units()
    units.done[:] = True
    for unit in recorded:
        units.done[unit.sample, unit.arm, unit.seed] = False
    if announce is not None:
        announce(changes)
    _check_tokens(path, most_tokens(plan, units), recorded, max_tokens)
    outcomes = {arm.name: ArmOutcome(arm=arm.name) for arm in plan.experiment.arms}
    divergences = []
    for unit, divergence in _run_again(
        plan, units, recorded, settings, top_n, progress or Silent()
    ):
        outcome = outcomes[plan.experiment.arms[unit.arm].name]
        outcome.num_units += 1
        outcome.num_exact += divergence is None
        if divergence is not None:
            divergences.append((unit.arm, unit.sample, unit.seed, divergence))
    return Reproduction(
        run=str(path),
        created=manifest.created,
        changes=changes,
        num_recorded=num_recorded,
        arms=[outcome for outcome in outcomes.values() if outcome.num_units],
        divergences=[one[-1] for one in sorted(divergences, key=lambda one: one[:3])],
    )


def _check_tokens(
    path: Path, most: int | None, recorded: dict[Unit, Record], max_tokens: int | None
) -> None:
    if max_tokens is None or (most is not None and most <= max_tokens):
        return
    responses = counted(len(recorded), "response")
    before = sum(len(record.token_ids) for record in recorded.values())
    takes = "any number of tokens" if most is None else f"up to {most:,} tokens"
    raise VlmkitError(
        f"{path}: to run {responses} again takes {takes} (recorded are {before:,}), and "
        f"{max_tokens:,} are allowed; choose fewer with --samples or --arm, or add --long"
    )


def _run_again(
    plan: Plan,
    units: Units,
    recorded: dict[Unit, Record],
    settings: Settings,
    top_n: int,
    progress: Progress,
) -> Iterator[tuple[Unit, Divergence | None]]:
    """Yield each unit with how it differs from its record."""
    arms, seeds = plan.experiment.arms, plan.experiment.seeds
    shown = _shown(plan, recorded)
    with progress:
        progress.begin(shown)
        for group in plan.groups:
            if units.done[:, list(group.arms)].all():
                continue
            loaded = load_group(group, arms, seeds)
            decode = partial(loaded.processor.tokenizer.decode, skip_special_tokens=False)
            watch = _Watch(recorded, decode, top_n)
            for response in run_group(
                loaded, plan.samples, units, settings, is_over=lambda: False, watch=watch
            ):
                if response is None:
                    continue
                unit, now = response
                shown.count(now)
                progress.advance(now)
                yield unit, compare_records(recorded[unit], now, watch.take(unit), decode)
            del loaded
            mx.clear_cache()


def _shown(plan: Plan, recorded: dict[Unit, Record]) -> Units:
    """The units that progress is about."""
    names = [arm.name for arm in plan.experiment.arms]
    arms = sorted({unit.arm for unit in recorded})
    samples = sorted({unit.sample for unit in recorded})
    shown = Units(
        [names[place] for place in arms],
        [plan.samples.ids[place] for place in samples],
        plan.experiment.seeds,
    )
    shown.done[:] = True
    for unit in recorded:
        shown.done[bisect_left(samples, unit.sample), bisect_left(arms, unit.arm), unit.seed] = 0
    return shown


class _Watch:
    """Keeps what the first token of a row that differs from its record was drawn from."""

    def __init__(self, recorded: dict[Unit, Record], decode: Decode, top_n: int) -> None:
        self._recorded, self._decode, self._top_n = recorded, decode, top_n
        self._found: dict[Unit, list[Distribution]] = {}

    def __call__(self, unit: Unit, step: Step) -> None:
        if step.token_id is None or unit in self._found:
            return
        expected, position = self._recorded[unit].token_ids, step.num_tokens - 1
        if position < len(expected) and expected[position] == step.token_id:
            return
        recorded_id = expected[position] if position < len(expected) else None
        then = recorded_distribution(
            self._recorded[unit], position, now_id=step.token_id, decode=self._decode
        )
        self._found[unit] = [] if then is None else [then]
        self._found[unit] += [
            describe_distribution(
                name,
                logits,
                recorded_id=recorded_id,
                now_id=step.token_id,
                decode=self._decode,
                top_n=self._top_n,
            )
            for name, logits in _distributions(step)
        ]

    def take(self, unit: Unit) -> list[Distribution]:
        """Return what a unit's token was drawn from; empty where it did not differ."""
        return self._found.pop(unit, [])


def _distributions(step: Step) -> list[tuple[str, mx.array]]:
    """The model's own, and what was drawn from where the chain or a contrast has changed it."""
    if step.trace is not None:
        own, *later = step.trace.logits
        return [("model", own), *([("drawn from", later[-1])] if later else [])]
    return [] if step.logits is None else [("model", step.logits)]
