"""What is measured against which target, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.case import Case, make_case, work_of
from benchmarks.startup import commands, in_turn, staged_s, whole_s
from benchmarks.worker import Answer, System, Way, alternate

ARMS, SEEDS, SWEEP_TOKENS = 16, 4, 64
LOOP_CALLS = 2
"""Of the loops in the sweep items: timed and multiplied."""


class Options(NamedTuple):
    """Of all items."""

    rounds: int
    tokens: int
    size: str | None  # of all checkpoints in place of the items' own
    root: Path

    @property
    def is_trial(self) -> bool:
        """Whether the commands are tried rather than the targets."""
        return self.size is not None

    def case(self, size: str, bits: int | None = None) -> Case:
        """Return the checkpoint of an item."""
        return make_case(self.size or size, root=self.root, bits=bits)


class Line(NamedTuple):
    """One figure beside its target."""

    what: str
    ours: float
    other: float | None  # what it is compared with
    unit: str
    ratio: float
    target: float
    at_least: bool  # the ratio is to be so large; False: at most so large
    limit: str = ""  # of the hardware

    @property
    def is_reached(self) -> bool:
        """Whether the target is reached."""
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target


class Item(NamedTuple):
    """One or several lines that are measured together."""

    measure: Callable[[Options], Iterator[Line]]
    needs: tuple[str, ...] = ()


def of_peer(
    options: Options, *, peer: str, dtype: str | None, size: str, targets: tuple[float, float]
) -> Iterator[Line]:
    """Prefill and decode of a prompt with an image, against a peer."""
    case, slow = options.case(size), peer == "mlx-vlm"
    tokens = max(options.tokens, 2)
    with System("vlmkit", case.model, dtype) as own, System(peer, case.model, dtype) as other:
        ways: dict[str, Way] = {
            "own": partial(own.ask, "generate", tokens=tokens, **case.with_image),
            "other": partial(other.ask, "generate", tokens=tokens, **case.with_image),
        }
        if slow:  # minutes: its warm-up is a short prompt, and one turn of it has to do
            other.ask("generate", tokens=2, **case.text_only)
            ways["own"]()
            found = _once(ways)
        else:
            for way in ways.values():
                way()
            found = alternate(ways, options.rounds)
        speeds = own.ask("speeds", quick=options.is_trial)
    length = found["own"][0]["prompt_tokens"]
    assert length == found["other"][0]["prompt_tokens"], "the prompts differ"
    width = 2 if dtype == "bfloat16" else 4
    work = work_of(case.model, num_tokens=length, num_images=1, bytes_per_number=width)
    name = f"{peer} {dtype or 'as installed'}"
    rates = (work.gflop, speeds["gflops"], "GFLOP/s"), (work.step_gb, speeds["gb_per_s"], "GB/s")
    for field, target, rate in zip(("prefill_s", "step_s"), targets, rates, strict=True):
        count = length if field == "prefill_s" else 1
        ours, others = ([count / turn[field] for turn in found[side]] for side in ("own", "other"))
        what = f"{'prefill' if count > 1 else 'decode'} against {name}"
        limit = _limit(rate[0] * median(ours) / count, *rate[1:])
        yield Line(what, median(ours), median(others), "tokens/s", _ratio(ours, others), target,
                   True, limit)  # fmt: skip


def _once(ways: dict[str, Way]) -> dict[str, list[Answer]]:
    """Take the other's turn once, between two of our own."""
    first, other, second = (alternate({key: ways[key]}, 1)[key] for key in ("own", "other", "own"))
    return {"own": first + second, "other": other * 2}


def _limit(reached: float, most: float, unit: str) -> str:
    return f"{reached:.3g} of {most:.3g} {unit} ({reached / most:.2f})"


def _ratio(first: list[float], second: list[float]) -> float:
    return median(one / other for one, other in zip(first, second, strict=True))


def bandwidth(options: Options) -> Iterator[Line]:
    """Decode against what the memory allows, measured before and after each turn."""
    case = options.case("medium")
    with System("vlmkit", case.model, "float32") as own:
        ask = partial(own.ask, "step", rows=1, length=278, shared=False, steps=options.tokens)
        ask()
        found = alternate(
            {"step": ask, "speeds": partial(own.ask, "speeds", quick=options.is_trial)},
            options.rounds,
        )
    read_gb = work_of(case.model, num_tokens=278).step_gb
    ours = [read_gb / turn["step_s"] for turn in found["step"]]
    most = [turn["gb_per_s"] for turn in found["speeds"]]
    ratio = _ratio(ours, most)
    yield Line("decode against the memory", median(ours), median(most), "GB/s", ratio, 0.7, True,
               f"{read_gb:.2f} GB per token")  # fmt: skip


def batch_rows(options: Options) -> Iterator[Line]:
    """A step of 16 rows against a step of one."""
    case, rows, length = options.case("medium"), 16, 300
    with System("vlmkit", case.model, "float32") as own:
        speeds = own.ask("speeds", quick=options.is_trial)
        ways: dict[str, Way] = {
            "one": partial(own.ask, "step", rows=1, length=length, shared=False),
            "different": partial(own.ask, "step", rows=rows, length=length, shared=False),
            "equal": partial(own.ask, "step", rows=rows, length=length, shared=True),
        }
        for way in ways.values():
            way()
        found = alternate(ways, options.rounds)
    times = {name: [1e3 * turn["step_s"] for turn in turns] for name, turns in found.items()}
    gflop = work_of(case.model, num_tokens=1).gflop
    for name in ("different", "equal"):
        ms = median(times[name])
        limit = _limit(rows * gflop / ms * 1e3, speeds["gflops"], "GFLOP/s")
        yield Line(f"step of {rows} rows, {name} prompts, against one row", ms,
                   median(times["one"]), "ms", _ratio(times[name], times["one"]), 3.2, False,
                   limit)  # fmt: skip


def four_bits(options: Options) -> Iterator[Line]:
    """Decode of a 4-bit checkpoint after a short prompt, against mlx-vlm."""
    case = options.case("medium", bits=4)
    few = min(options.tokens, 3)  # seconds each, and so takes each token of the prompt
    with System("vlmkit", case.model) as own, System("mlx-vlm", case.model) as other:
        own.ask("generate", tokens=2, **case.text_only)
        ways: dict[str, Way] = {
            "own": partial(own.ask, "generate", tokens=options.tokens, **case.text_only),
            "other": partial(other.ask, "generate", tokens=few, **case.text_only),
        }
        found = _once(ways)
        speeds, held = own.ask("speeds", quick=options.is_trial), own.ask("backend")
    ours, others = ([1 / turn["step_s"] for turn in found[side]] for side in ("own", "other"))
    read_gb = work_of(case.model, num_tokens=found["own"][0]["prompt_tokens"]).step_gb
    limit = f"weights held: {held['weights']}"
    if held["weights"] == "full":
        limit = _limit(read_gb * median(ours), speeds["gb_per_s"], "GB/s")
    yield Line("decode of 4 bits against mlx-vlm as installed", median(ours), median(others),
               "tokens/s", _ratio(ours, others), 15, True, limit)  # fmt: skip


def start_up(options: Options) -> Iterator[Line]:
    """The import, and the embedded model's first token."""
    cases = commands()

    def imports(name: str) -> Callable[[], list[float]]:
        return lambda: whole_s(cases[name]["vlmkit"])

    taken = in_turn({name: imports(name) for name in ("import mlx.core", "import")}, options.rounds)
    base, own = (1e3 * taken[name][0] for name in ("import mlx.core", "import"))
    yield Line("`import vlmkit` beyond `import mlx.core`", own, base, "ms", own - base, 60, False,
               "ratio: the difference in ms")  # fmt: skip
    tools = ("vlmkit", "mlx-vlm")
    firsts = in_turn({tool: partial(staged_s, tool) for tool in tools}, options.rounds)
    first, peer = (firsts[tool][-1] for tool in tools)
    yield Line("process start to first token", first, None, "s", first, 0.8, False)
    yield Line("the same against mlx-vlm", first, peer, "s", first / peer, 1 / 6, False)


def shared_prefix(options: Options) -> Iterator[Line]:
    """Attention of rows that share a prompt, against copies of it read by MLX's kernel."""
    values: dict[str, Any] = {"rows": 16, "length": 2000}
    if options.is_trial:
        values = {"rows": 2, "length": 300}
    with System("vlmkit", options.case("tiny").model) as own:
        ways: dict[str, Way] = {
            name: partial(own.ask, "shared_prefix", way=name, **values)
            for name in ("sdpa", "shared")
        }
        for way in ways.values():
            way()
        found = alternate(ways, 3 * options.rounds)
    times = {name: [1e3 * turn["seconds"] for turn in turns] for name, turns in found.items()}
    sizes = {name: turns[0]["bytes"] / 1e6 for name, turns in found.items()}
    apart = max(turn["largest_difference"] for turn in found["shared"])
    assert apart < 1e-5, f"the ways differ by {apart}"
    layers = found["sdpa"][0]["layers"]
    yield Line(
        f"attention, {values['rows']} rows of one prompt of {values['length']}, {layers} layers,"
        " against copies",
        median(times["shared"]),
        median(times["sdpa"]),
        "ms",
        _ratio(times["shared"], times["sdpa"]),
        0.5,
        False,
        f"{sizes['shared']:.0f} of {sizes['sdpa']:.0f} MB; results within {apart:.0e}",
    )


def sweep(options: Options, *, size: str, peer: bool) -> Iterator[Line]:
    """An experiment of 16 arms and 4 seeds against single calls, ours or mlx-vlm's."""
    case = options.case(size)
    arms, seeds, tokens = (ARMS, SEEDS, SWEEP_TOKENS) if not options.is_trial else (2, 1, 2)
    calls = 1 if peer or options.is_trial else LOOP_CALLS
    values = {"arms": arms, "seeds": seeds, "tokens": tokens}
    with System("vlmkit", case.model) as own:
        own.ask("loop", calls=1, **values)
        ways: dict[str, Way] = {"sweep": partial(own.ask, "sweep", **values)}
        if peer:
            with System("mlx-vlm", case.model) as other:
                other.ask("generate", tokens=2, **case.text_only)
                call = partial(other.ask, "generate", tokens=tokens, **case.with_image)
                found = alternate({**ways, "loop": lambda: _whole_call(call(), tokens)}, 1)
        else:
            ways["loop"] = partial(own.ask, "loop", calls=calls, **values)
            found = alternate(ways, min(options.rounds, 2))
        speeds = own.ask("speeds", quick=options.is_trial)
    rows = arms * seeds
    ours = [turn["seconds"] for turn in found["sweep"]]
    loops = [turn["seconds"] * rows / calls for turn in found["loop"]]
    gflop = rows * tokens * work_of(case.model, num_tokens=1).gflop
    limit = _limit(gflop / median(ours), speeds["gflops"], "GFLOP/s")
    name = "mlx-vlm calls as installed" if peer else "our own calls"
    what = f"{arms} arms × {seeds} seeds × {tokens} tokens, {size}, against {name}"
    what += f" ({calls} timed, × {rows // calls})"
    yield Line(what, median(ours), median(loops), "s", _ratio(ours, loops),
               1 / 20 if peer else 1 / 8, False, limit)  # fmt: skip


def _whole_call(answer: Answer, tokens: int) -> Answer:
    return {"seconds": answer["prefill_s"] + (tokens - 1) * answer["step_s"]}


def _peer(peer: str, dtype: str | None, prefill: float, decode: float) -> Item:
    targets = (prefill, decode)
    return Item(partial(of_peer, peer=peer, dtype=dtype, size="medium", targets=targets), (peer,))


ITEMS = {
    "float32": _peer("transformers", "float32", 2, 1.5),
    "bfloat16": _peer("transformers", "bfloat16", 1, 1.1),
    "mlx-vlm": _peer("mlx-vlm", None, 15, 3),
    "bandwidth": Item(bandwidth),
    "rows": Item(batch_rows),
    "4-bit": Item(four_bits, ("mlx-vlm",)),
    "start-up": Item(start_up, ("mlx-vlm",)),
    "shared-prefix": Item(shared_prefix),
    "sweep-small": Item(partial(sweep, size="small", peer=False)),
    "sweep-small-mlx-vlm": Item(partial(sweep, size="small", peer=True), ("mlx-vlm",)),
    "sweep-medium": Item(partial(sweep, size="medium", peer=False)),
    "sweep-medium-mlx-vlm": Item(partial(sweep, size="medium", peer=True), ("mlx-vlm",)),
}
