"""Train the album model on one CPU core.

    python -m experiments.album_model.train --out DIR --steps N

It begins with the weights of shapes, which can already see, and with short albums; they grow
whenever the questions about them are answered. The learning rate is flat and falls over the last
part of the steps. A stopped run goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from experiments.album_model.data import LEVELS, STREAM, batch_at
from experiments.album_model.model import AlbumModel, begun
from experiments.shapes_model.checkpoints import log, resume, save
from experiments.shapes_model.export import ASSETS
from experiments.shapes_model.muon import Muon

WARM_UP_STEPS = 50
MUON_FACTOR = 4.0
FALLING_SHARE = 0.35
CLIMB_AT = 0.85
MEMORY = 0.9
RIGHT_BEFORE = 0.5
PATIENCE = 100
SHORTER_SHARE = 0.3


class Progress(NamedTuple):
    """What a run resumes from, beside the weights and the optimizer's state."""

    step: int = 0
    level: int = 0
    right: float = RIGHT_BEFORE  # running share of right answers at this level, of either kind
    steps: int = 0  # at this level
    seconds: float = 0.0


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and the log")
    parser.add_argument("--steps", type=int, required=True, help="budget, over all resumptions")
    parser.add_argument(
        "--pause-after", type=int, help="stop after this many steps; run again to go on"
    )
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--level", type=int, default=0, help="begin no lower than this level")
    parser.add_argument("--picture-weight", type=float, default=4.0, help="of a picture's digit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, default=ASSETS / "model.safetensors")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint-steps", type=int, default=50)
    return parser.parse_args(argv)


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, flat, then falling linearly to zero at the end."""
    left = (steps - step) / max(1.0, FALLING_SHARE * steps)
    return min(1.0, (step + 1) / WARM_UP_STEPS, left)


def optimizers(model: AlbumModel, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for the rest."""
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.ndim == 2 and "embed" not in n and "merger" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    return [adam, Muon(matrices, MUON_FACTOR * rate)]


def level_at(seed: int, progress: Progress) -> int:
    """The level of a step: mostly the highest reached, some shorter albums among them."""
    rng = Random((seed + 1) * STREAM - 1 - progress.step)
    if progress.level and rng.random() < SHORTER_SHARE:
        return rng.randrange(progress.level)
    return progress.level


def learn(model: AlbumModel, tools: list[Any], options: Any, now: Progress) -> tuple[int, list]:
    """One step; the level it was of, and (kind, right, loss) per answered digit."""
    for tool in tools:
        factor = MUON_FACTOR if isinstance(tool, Muon) else 1.0
        for group in tool.param_groups:
            group["lr"] = factor * options.rate * rate_factor(now.step, options.steps)
    level = level_at(options.seed, now)
    batch = batch_at(options.seed, now.step, level)
    logits, wanted = model(batch)
    losses = F.cross_entropy(logits, wanted, reduction="none")
    kinds = batch.targets[batch.targets > 0]
    weights = torch.from_numpy(np.where(kinds == 1, options.picture_weight, 1.0)).float()
    (losses * weights).mean().backward()
    for weight in model.parameters():  # notes alone say nothing of the vision tower
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for tool in tools:
        tool.step()
    model.zero_grad(set_to_none=True)
    hits = (logits.argmax(-1) == wanted).numpy()
    found = zip(kinds, hits, losses.detach().numpy(), strict=True)
    return level, [(int(k), bool(h), float(x)) for k, h, x in found if k < 3]


def climbed(now: Progress, level: int, answers: list[tuple[int, bool, float]]) -> Progress:
    """What is known after a step; the next level once this one is answered, or old."""
    if level != now.level:
        return now
    share = min(
        sum(h for k, h, _ in answers if k == kind) / sum(k == kind for k, _, _ in answers)
        for kind in {k for k, _, _ in answers}
    )
    right = MEMORY * now.right + (1 - MEMORY) * share
    if (right > CLIMB_AT or now.steps >= PATIENCE) and now.level + 1 < len(LEVELS):
        return now._replace(level=now.level + 1, right=RIGHT_BEFORE, steps=0)
    return now._replace(right=right, steps=now.steps + 1)


def train(options: argparse.Namespace) -> None:
    """Run to the end of the budget."""
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    model = begun(options.start, options.seed)
    tools = optimizers(model, options.rate)
    path = options.out / "checkpoint.pt"
    now = resume(path, model, tools, Progress())
    now = now._replace(level=max(now.level, options.level))
    begun_at = time.monotonic() - now.seconds
    history: list[tuple[int, int, bool, float]] = []
    end = min(options.steps, now.step + (options.pause_after or options.steps))
    while now.step < end:
        level, answers = learn(model, tools, options, now)
        history += [(level, *answer) for answer in answers]
        now = climbed(now, level, answers)
        now = now._replace(step=now.step + 1, seconds=time.monotonic() - begun_at)
        if now.step % options.checkpoint_steps == 0 or now.step == end:
            save(path, model, tools, now)
            top = max(row[0] for row in history)
            shares = {}
            for kind, name in ((1, "picture"), (2, "note")):
                hits = [h for lv, k, h, _ in history if k == kind and lv == top]
                shares[name] = round(sum(hits) / max(len(hits), 1), 3)
            loss = sum(row[3] for row in history) / len(history)
            log(options.out, step=now.step, level=now.level, of=top, **shares,
                loss=round(loss, 4), seconds=round(now.seconds))  # fmt: skip
            history = []


if __name__ == "__main__":
    train(arguments())
