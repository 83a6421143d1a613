"""How times grow: with the prompt, the rows, the images, the vocabulary and the arms.

    python -m benchmarks.curves rows
    python -m benchmarks.curves --save

One curve after the other on the random checkpoint of the ``small`` size (0.1 B parameters);
medians over the rounds, which go over all places of a curve in turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.case import ROOT, make_case
from benchmarks.machine import commit, load_average
from benchmarks.random_checkpoint import SIZES, VOCAB_SIZE
from benchmarks.report import Figure, Report, markdown, save
from benchmarks.worker import System, Way, alternate

SAMPLING = {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "min_p": 0.05}


class Options(NamedTuple):
    """Of all curves."""

    rounds: int
    tokens: int
    size: str
    root: Path
    most: int | None  # places of a curve are at most so large; None: as they are


class Curve(NamedTuple):
    """What is varied, and the milliseconds measured by name and place."""

    x_label: str
    points: dict[str, dict[int, float]]


def _places(options: Options, places: Iterable[int]) -> list[int]:
    return [x for x in places if options.most is None or x <= options.most]


def _measured(ways: dict[tuple[str, int], Way], field: str, options: Options) -> dict[Any, float]:
    """Milliseconds by way: a warm-up, then the rounds."""
    named = {repr(key): way for key, way in ways.items()}
    for way in named.values():
        way()
    found = alternate(named, options.rounds)
    return {key: 1e3 * median(turn[field] for turn in found[repr(key)]) for key in ways}


def _by_name(found: dict[Any, float]) -> dict[str, dict[int, float]]:
    points: dict[str, dict[int, float]] = {}
    for (name, place), value in found.items():
        points.setdefault(name, {})[place] = value
    return points


def prompt_length(options: Options) -> Curve:
    """Prefill of a text, and a decode step behind it."""
    places = _places(options, (16, 64, 256, 1024, 4096))
    with System("vlmkit", make_case(options.size, root=options.root).model) as own:
        prefills: dict[tuple[str, int], Way] = {
            ("prefill", x): partial(own.ask, "prefill", length=x) for x in places
        }
        steps: dict[tuple[str, int], Way] = {
            ("step", x): partial(own.ask, "step", rows=1, length=x, shared=False) for x in places
        }
        found = _measured(prefills, "prefill_s", options) | _measured(steps, "step_s", options)
    return Curve("prompt tokens", _by_name(found))


def rows(options: Options) -> Curve:
    """A decode step of rows with prompts of their own, and with one prompt."""
    with System("vlmkit", make_case(options.size, root=options.root).model) as own:
        ways: dict[tuple[str, int], Way] = {
            (name, x): partial(own.ask, "step", rows=x, length=300, shared=name == "one prompt")
            for name in ("different prompts", "one prompt")
            for x in _places(options, (1, 2, 4, 8, 16, 32))
        }
        found = _measured(ways, "step_s", options)
    return Curve("rows", _by_name(found))


def images(options: Options) -> Curve:
    """Prefill of a prompt with several images of 448×448 pixels."""
    case = make_case(options.size, root=options.root)
    with System("vlmkit", case.model) as own:
        ways: dict[tuple[str, int], Way] = {
            ("prefill", x): partial(own.ask, "images", number=x, image=str(case.image))
            for x in _places(options, (1, 2, 4, 8))
        }
        found = _measured(ways, "prefill_s", options)
    return Curve("images", _by_name(found))


def vocabulary(options: Options) -> Curve:
    """A decode step, greedy and with a sampler chain, over vocabularies."""
    found: dict[Any, float] = {}
    for x in _places(options, (2048, 16_384, 65_536, VOCAB_SIZE, 262_144)):
        case = make_case(options.size, root=options.root, vocab_size=x)
        with System("vlmkit", case.model) as own:
            ask = partial(own.ask, "generate", tokens=options.tokens, **case.text_only)
            ways: dict[tuple[str, int], Way] = {
                ("greedy", x): ask,
                ("top_k, top_p, min_p, draw", x): partial(ask, sampling=SAMPLING),
            }
            found |= _measured(ways, "step_s", options)
    return Curve("vocabulary", _by_name(found))


def arms(options: Options) -> Curve:
    """An experiment of arms on one image prompt; of the loop of calls two are timed."""
    values = {"seeds": 1, "tokens": options.tokens}
    points: dict[str, dict[int, float]] = {"experiment": {}, "loop of calls": {}}
    with System("vlmkit", make_case(options.size, root=options.root).model) as own:
        for x in _places(options, (1, 4, 16, 64)):
            calls = min(x, 2)
            ways: dict[tuple[str, int], Way] = {
                ("experiment", x): partial(own.ask, "sweep", arms=x, **values),
                ("loop of calls", x): partial(own.ask, "loop", arms=x, calls=calls, **values),
            }
            found = _measured(ways, "seconds", options)
            points["experiment"][x] = found["experiment", x]
            points["loop of calls"][x] = found["loop of calls", x] * x / calls
    return Curve("arms", points)


CURVES: dict[str, Callable[[Options], Curve]] = {
    "prompt-length": prompt_length,
    "rows": rows,
    "images": images,
    "vocabulary": vocabulary,
    "arms": arms,
}


def table(curve: Curve) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: one per place."""
    names = list(curve.points)
    places = list(next(iter(curve.points.values())))
    lines = [[str(x), *(f"{curve.points[name][x]:.3g}" for name in names)] for x in places]
    return [curve.x_label, *(f"{name}, ms" for name in names)], lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("curves", nargs="*", choices=[*CURVES, []], metavar="CURVE",
                        help=f"of {', '.join(CURVES)}; all by default")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="over each curve (3)")
    parser.add_argument("--tokens", type=int, default=16, help="new tokens (16)")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the checkpoint (small)")
    parser.add_argument("--most", type=int, help="leave out places above")
    parser.add_argument("--root", type=Path, default=ROOT, help=f"for checkpoints ({ROOT})")
    parser.add_argument("--save", action="store_true", help="files under benchmarks/results")
    options = parser.parse_args()
    given = Options(options.rounds, options.tokens, options.size, options.root, options.most)
    for name in options.curves or CURVES:
        print(f"{name}: commit {commit()}, load {load_average()}", flush=True)
        curve = CURVES[name](given)
        headings, lines = table(curve)
        print(markdown(headings, lines), flush=True)
        if options.save:
            series = {label: list(points.items()) for label, points in curve.points.items()}
            command = f"python -m benchmarks.curves {name}"
            config = {**vars(options), "root": str(options.root)}
            report = Report(f"curve-{name}", command, config, headings, lines)
            figure = Figure("lines", curve.x_label, "ms", series)
            print(f"wrote {save(report, figure)}", flush=True)


if __name__ == "__main__":
    main()
