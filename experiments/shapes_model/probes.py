"""The model under training: with linear probes, and its gradient over a batch shared by workers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.shapes_model.data import IMAGE_TOKENS, NAMES, Batch
from experiments.shapes_model.model import ShapesModel, initialise
from vlmkit.experiment.shapes.scenes import COLOUR_NAMES

PROBE_WEIGHT = 0.1


class Probed(nn.Module):
    """The model with linear probes that exist only while it trains.

    They make every image token say what its cell holds (from the vision tower's output) and which
    row and column it is (after two text layers), a far denser signal than the answers alone.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.net = ShapesModel()
        initialise(self.net, seed)
        width, side = self.net.size.hidden, self.net.size.grid // self.net.size.merge
        self.sees = nn.Linear(width, 1 + len(NAMES) + 1 + len(COLOUR_NAMES))
        self.places = nn.Linear(width, 2 * side)
        for probe in (self.sees, self.places):
            nn.init.zeros_(probe.weight)
            nn.init.zeros_(probe.bias)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and ids of the targets, and the probes' mean loss."""
        tokens, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
        blocks = torch.from_numpy(batch.blocks)[:, :-1]
        hidden, seen, placed = self.net.packed(
            tokens[:, :-1], torch.from_numpy(batch.images), blocks
        )
        names, colours = (
            self.sees(seen).flatten(0, 1).split((1 + len(NAMES), 1 + len(COLOUR_NAMES)), -1)
        )
        rows, columns = self.places(placed).flatten(0, 1).chunk(2, -1)
        cells = torch.arange(names.shape[0]) % IMAGE_TOKENS
        side = rows.shape[1]
        wanted = (batch.names, batch.colours)
        pairs = [
            (p, torch.from_numpy(w).flatten())
            for p, w in zip((names, colours), wanted, strict=True)
        ]
        pairs += [(rows, cells // side), (columns, cells % side)]
        probes = torch.stack([F.cross_entropy(p, w) for p, w in pairs]).sum()
        return self.net.logits(hidden[targets[:, 1:]]), tokens[:, 1:][targets[:, 1:]], probes


class Measures(NamedTuple):
    """Mean cross entropy, share of targets guessed right, and the probes' loss."""

    loss: float
    token_accuracy: float
    probes: float


def add_up(tensor: Tensor) -> None:
    """Sum over the workers, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)


def gradients(model: Probed, batch: Batch, workers: int, seconds: float) -> tuple[Measures, float]:
    """Set the gradient of the mean cross entropy over all workers' targets.

    Args:
        batch: this worker's part.
        seconds: the clock of worker 0, zero on the others.

    Returns:
        The measures over the whole batch and the clock, the same for all workers.
    """
    logits, wanted, probes = model(batch)
    loss = F.cross_entropy(logits, wanted, reduction="sum")
    (loss + PROBE_WEIGHT * len(wanted) * probes).backward()
    hits = (logits.argmax(-1) == wanted).sum().item()
    facts = torch.tensor([loss.item(), hits, probes.item() / workers, len(wanted), seconds])
    joint = torch.cat([*(p.grad.flatten() for p in model.parameters()), facts])
    add_up(joint)
    total_loss, total_hits, seeing, count, clock = joint[-5:].tolist()
    start = 0
    for parameter in model.parameters():
        parameter.grad = joint[start : start + parameter.numel()].view_as(parameter) / count
        start += parameter.numel()
    return Measures(total_loss / count, total_hits / count, seeing), clock
