"""Train the embedded model on the CPU.

    python -m experiments.shapes_model.train --out DIR --minutes M

The learning rate follows a cosine of the elapsed share of the budget (minutes or steps), so the
run anneals to its end whatever the speed of the machine. A stopped run goes on from its last
checkpoint.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing

from experiments.shapes_model.checkpoints import log, resume, save
from experiments.shapes_model.data import HELD_OUT_SEED, QUESTIONS, batch_at, question_at
from experiments.shapes_model.generate import accuracy
from experiments.shapes_model.model import ShapesModel
from experiments.shapes_model.muon import Muon
from experiments.shapes_model.probes import Measures, Probed, add_up, gradients
from vlmkit.experiment.shapes.questions import MIXES

WARM_UP_STEPS = 100
MUON_FACTOR = 4.0
FINAL_RATE = 0.03


class Progress(NamedTuple):
    """What a run resumes from, beside the weights and the optimizer's state."""

    step: int = 0
    seconds: float = 0.0


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and the log")
    parser.add_argument(
        "--minutes", type=float, help="budget of wall-clock time, over all resumptions"
    )
    parser.add_argument("--steps", type=int, help="budget of steps, instead of or beside --minutes")
    parser.add_argument(
        "--pause-after", type=int, help="stop after this many steps; run again to go on"
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, help="images per step, each with several questions"
    )
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="muon")
    parser.add_argument("--mix", choices=tuple(MIXES), default="all", help="weights of the kinds")
    parser.add_argument("--start", type=Path, help="checkpoint whose weights begin a new run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that share every batch")
    parser.add_argument("--threads", type=int, default=1, help="threads per process")
    parser.add_argument("--checkpoint-seconds", type=float, default=60)
    parser.add_argument("--evaluate-seconds", type=float, default=600)
    parser.add_argument("--evaluate-samples", type=int, default=400)
    options = parser.parse_args(argv)
    if options.minutes is None and options.steps is None:
        parser.error("give --minutes, --steps or both")
    return options


def spent(options: argparse.Namespace, progress: Progress) -> float:
    """The share of the budget used, 0..1."""
    shares = [0.0]
    if options.minutes is not None:
        shares.append(progress.seconds / (60 * options.minutes))
    if options.steps is not None:
        shares.append(progress.step / options.steps)
    return min(1.0, max(shares))


def rate_factor(step: int, share: float) -> float:
    """Linear warm-up over steps, then a cosine over the budget down to `FINAL_RATE`."""
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def optimizers(
    model: Probed, options: argparse.Namespace, worker: int
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices inside blocks and AdamW for the rest."""
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.ndim == 2 and n.startswith("net.") and "embed" not in n]
    if options.optimizer == "adamw":
        matrices = []
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    adam = torch.optim.AdamW(
        rest, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    if not matrices:
        return [adam]
    return [adam, Muon(matrices, MUON_FACTOR * options.rate, worker, options.workers, add_up)]


def start(path: Path, model: Probed, tools: list[torch.optim.Optimizer]) -> Progress:
    """Begin a new budget with the weights and the optimizer's state of another run."""
    return Progress(step=resume(path, model, tools, Progress()).step)


def evaluate(model: ShapesModel, out: Path, progress: Progress, count: int) -> None:
    """Free generation on held-out questions, with and without thinking."""
    questions = [question_at(HELD_OUT_SEED, i) for i in range(count)]
    scores = {str(budget): accuracy(model, questions, budget) for budget in (None, 0)}
    shown = {b: {k: round(r / n, 3) for k, (r, n) in s.items()} for b, s in scores.items()}
    log(out, step=progress.step, thinking=shown["None"], direct=shown["0"])


def report(
    options: argparse.Namespace, progress: Progress, history: list[Measures], seconds: float
) -> None:
    """Log the means since the last report."""
    means = Measures(
        *(round(sum(column) / len(history), 4) for column in zip(*history, strict=True))
    )
    log(
        options.out,
        step=progress.step,
        images=progress.step * options.batch_size,
        questions=progress.step * options.batch_size * QUESTIONS,
        seconds=round(progress.seconds),
        share=round(spent(options, progress), 4),
        **means._asdict(),
        questions_per_s=round(len(history) * options.batch_size * QUESTIONS / seconds, 1),
    )


def work(worker: int, options: argparse.Namespace) -> Progress:
    """The training loop of one worker; worker 0 keeps the clock, the log and the checkpoints."""
    torch.set_num_threads(options.threads)
    model = Probed(options.seed)
    tools = optimizers(model, options, worker)
    path = options.out / "checkpoint.pt"
    if options.start and not path.exists():
        progress = start(options.start, model, tools)
    else:
        progress = resume(path, model, tools, Progress())
    rows = options.batch_size // options.workers
    last = progress.step + (options.pause_after or sys.maxsize)
    begun = time.monotonic() - progress.seconds
    saved = evaluated = progress.seconds
    history: list[Measures] = []
    while (share := spent(options, progress)) < 1 and progress.step < last:
        for tool in tools:
            for group in tool.param_groups:
                factor = MUON_FACTOR if isinstance(tool, Muon) else 1.0
                group["lr"] = factor * options.rate * rate_factor(progress.step, share)
        batch = batch_at(options.seed, progress.step, rows, worker, options.workers, options.mix)
        seconds = time.monotonic() - begun if worker == 0 else 0.0
        measures, clock = gradients(model, batch, options.workers, seconds)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for tool in tools:
            tool.step()
        model.zero_grad(set_to_none=True)
        history.append(measures)
        progress = Progress(progress.step + 1, clock)
        if worker == 0 and clock - saved >= options.checkpoint_seconds:
            save(path, model, tools, progress)
            report(options, progress, history, clock - saved)
            saved, history = clock, []
        if worker == 0 and clock - evaluated >= options.evaluate_seconds:
            evaluate(model.net, options.out, progress, options.evaluate_samples)
            evaluated = clock
    if worker == 0:
        save(path, model, tools, progress)
        if history:
            report(options, progress, history, progress.seconds - saved)
        evaluate(model.net, options.out, progress, options.evaluate_samples)
    return progress


def join(worker: int, options: argparse.Namespace) -> None:
    """Enter the group of workers and work."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{options.out.resolve()}/group",
        rank=worker,
        world_size=options.workers,
    )
    work(worker, options)
    dist.barrier()
    dist.destroy_process_group()


def train(options: argparse.Namespace) -> None:
    """Run to the end of the budget."""
    options.out.mkdir(parents=True, exist_ok=True)
    if options.workers == 1:
        work(0, options)
        return
    (options.out / "group").unlink(missing_ok=True)
    torch.multiprocessing.spawn(join, (options,), nprocs=options.workers)


if __name__ == "__main__":
    train(arguments())
