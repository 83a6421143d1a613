"""Muon: momentum whose update is orthogonalised by Newton-Schulz iterations, in float32.

Matrices of one shape are updated in one batched product, and shapes are shared out among workers.
Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the update is scaled to
AdamW's usual size as in arXiv:2502.16982.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.775, 2.0315)


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Bring the singular values of float32[N, rows, columns], rows <= columns, near one."""
    a, b, c = COEFFICIENTS
    x = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Muon over two-dimensional parameters.

    Args:
        worker, workers: which of the shapes this process orthogonalises.
        add_up: sums a tensor over the workers in place.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        worker: int = 0,
        workers: int = 1,
        add_up: Callable[[Tensor], None] = lambda tensor: None,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.worker, self.workers, self.add_up = worker, workers, add_up

    def _gather(self) -> dict[tuple[int, int], list[tuple[Tensor, Tensor]]]:
        """Move the momenta; (parameter, wide update before orthogonalisation) by shape."""
        shapes: defaultdict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(momentum, group["momentum"])
                wide = update if update.shape[0] <= update.shape[1] else update.T
                shapes[(wide.shape[0], wide.shape[1])].append((parameter, wide))
        return shapes

    def _mine(self, costs: dict[tuple[int, int], int]) -> set[tuple[int, int]]:
        """The shapes of this worker: the dearest first, each to the least burdened worker."""
        loads, mine = [0] * self.workers, set()
        for shape, cost in sorted(costs.items(), key=lambda pair: -pair[1]):
            worker = loads.index(min(loads))
            loads[worker] += cost
            if worker == self.worker:
                mine.add(shape)
        return mine

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter; all must have a gradient."""
        shapes = self._gather()
        mine = self._mine({s: len(m) * s[0] ** 2 * s[1] for s, m in shapes.items()})
        updates = [
            orthogonalise(torch.stack([wide for _, wide in members])).flatten()
            if shape in mine
            else torch.zeros(len(members) * shape[0] * shape[1])
            for shape, members in shapes.items()
        ]
        joint = torch.cat(updates)
        self.add_up(joint)
        rate, decay = self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]
        start = 0
        for shape, members in shapes.items():
            for parameter, _ in members:
                update = joint[start : start + shape[0] * shape[1]].view(shape)
                start += shape[0] * shape[1]
                tall = parameter.shape[0] > parameter.shape[1]
                parameter.mul_(1 - rate * decay)
                parameter.sub_(0.2 * max(shape) ** 0.5 * rate * (update.T if tall else update))
