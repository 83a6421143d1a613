"""Arms and seeds of one image prompt: as an experiment, and as a loop of single calls.

    make bench ARGS=benchmarks/bench_experiment.py

A random checkpoint of the ``small`` size, an image prompt of about 280 tokens, 16 new tokens; 1, 4,
16 and 64 responses. Rounds of both ways alternate in one run; ``extra`` has the time of the
loop. As a script it prints the curve, with one round in a third of the time:

    python -m benchmarks.bench_experiment --rounds 1 --out curve.txt
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from benchmarks.random_checkpoint import SIZES, write_checkpoint
from vlmkit import generate
from vlmkit.config.document import parse_yaml
from vlmkit.experiment.files import load_experiment
from vlmkit.experiment.loaded import Loaded, load_group
from vlmkit.experiment.plan import Plan, make_plan
from vlmkit.experiment.prompting import prepare_sample
from vlmkit.experiment.running import Settings, run_group

NUM_TOKENS = 16
SHAPES = ((1, 1), (2, 2), (8, 2), (16, 4))  # arms, seeds
ROUNDS = 3


class Case(NamedTuple):
    """An experiment of some arms and seeds, loaded."""

    plan: Plan
    loaded: Loaded

    @property
    def rows(self) -> int:
        return self.plan.num_units


def write_data(folder: Path, size: str = "small", **options: int) -> None:
    """A checkpoint, and one question about one image."""
    write_checkpoint(folder / "model", size, **options)
    Image.linear_gradient("L").convert("RGB").resize((448, 448)).save(folder / "image.png")
    row = {"id": "0", "question": "How many circles are there?", "image": "image.png"}
    (folder / "data.jsonl").write_text(json.dumps(row) + "\n")


def load_case(folder: Path, arms: int, seeds: int, num_tokens: int = NUM_TOKENS) -> Case:
    temperatures = [1.0 + place / 10 for place in range(arms)]
    chains = {
        f"t{temperature:.1f}": [{"kind": "temperature", "temperature": temperature}]
        for temperature in temperatures
    }
    experiment = {
        "base": {
            "model": str(folder / "model"),
            "stopping": [{"kind": "max_tokens", "max_tokens": num_tokens}, {"kind": "eos"}],
        },
        "dataset": {"kind": "jsonl", "path": str(folder / "data.jsonl")},
        "grid": {"sampling": chains},
        "seeds": list(range(seeds)),
    }
    tree = parse_yaml(json.dumps(experiment), "bench.yaml")
    plan = make_plan(load_experiment(tree))
    return Case(plan, load_group(plan.groups[0], plan.experiment.arms, plan.experiment.seeds))


def as_experiment(case: Case) -> int:
    """All responses side by side; returns the tokens."""
    settings = Settings(batch_size=64)
    units = case.plan.new_units()
    responses = run_group(case.loaded, case.plan.samples, units, settings, is_over=lambda: False)
    return sum(one.record.generation_tokens for one in responses if one is not None)


def as_loop(case: Case, num_calls: int | None = None) -> int:
    """One call of ``generate`` after the other, all or the first few; returns the tokens."""
    model, processor = case.loaded.model, case.loaded.processor
    total = 0
    units = product(case.plan.experiment.arms, case.plan.experiment.seeds)
    for arm, seed in islice(units, num_calls):
        sample = case.plan.samples[0]
        request = prepare_sample(model, processor, arm, sample).request
        result = generate(
            model,
            processor,
            str(request.prompt),
            list(sample.images),
            max_tokens=arm.config.stopping[0].max_tokens,
            temperature=arm.config.sampling[0].temperature,
            seed=seed,
        )
        total += result.generation_tokens
    return total


def seconds(way: Callable[[Case], int], case: Case) -> float:
    began = time.perf_counter()
    way(case)
    return time.perf_counter() - began


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("data")
    write_data(path)
    return path


@pytest.mark.parametrize(("arms", "seeds"), SHAPES)
def test_experiment_against_loop(benchmark: Any, folder: Path, arms: int, seeds: int) -> None:
    case = load_case(folder, arms, seeds)
    assert as_experiment(case) == as_loop(case), "both ways have to generate as much"
    loops: list[float] = []

    def setup() -> None:
        loops.append(seconds(as_loop, case))

    benchmark.group = "responses to one prompt"
    benchmark.pedantic(as_experiment, (case,), setup=setup, rounds=ROUNDS)
    benchmark.extra_info["rows"] = case.rows
    benchmark.extra_info["loop_s"] = min(loops)


def curve(folder: Path, rounds: int, most: int) -> Iterator[str]:
    """Measure, and yield the table line by line as it comes; the fastest of the rounds counts."""
    yield "responses  loop s  experiment s  ratio"
    for place, (arms, seeds) in enumerate(SHAPES):
        if arms * seeds > most:
            return
        case = load_case(folder, arms, seeds)
        if place == 0:
            as_experiment(case)  # kernels and files are ready after the first
        pairs = [(seconds(as_loop, case), seconds(as_experiment, case)) for _ in range(rounds)]
        loop, own = (min(times) for times in zip(*pairs, strict=True))
        yield f"{case.rows:>9}  {loop:>6.2f}  {own:>12.2f}  {own / loop:>5.2f}"


def main() -> None:
    """Print the curve, and write it to a file if one is named."""
    parser = argparse.ArgumentParser(description="An experiment against a loop of single calls.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each size ({ROUNDS})")
    parser.add_argument("--responses", type=int, default=64, help="at most so many (64)")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the checkpoint (small)")
    parser.add_argument("--out", type=Path, help="a file for the table, which grows line by line")
    args = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name), args.size)
        for line in curve(Path(name), max(args.rounds, 1), args.responses):
            print(line, flush=True)
            lines.append(line)
            if args.out is not None:
                args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
