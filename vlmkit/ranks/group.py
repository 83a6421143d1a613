"""The ranks of one model: who they are, and what they compute together.

Every rank runs the same code over its own share of the decoder's weights. What any decision is made
from (embeddings, logits, seconds) is the same bytes on all ranks: it is summed or gathered, and a
sum over the ring is computed once and copied.

Reference: Shoeybi et al. (2019), "Megatron-LM", arXiv:1909.08053.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import mlx.core as mx

from vlmkit.errors import RanksError, VlmkitError
from vlmkit.ranks.guard import Guard, start_guard
from vlmkit.ranks.launched import GONE, TIMEOUT_VARIABLE, launched_rank, ranks_timeout_s

T = TypeVar("T")


class Ranks(NamedTuple):
    """This process among those that compute a model together."""

    rank: int = 0
    size: int = 1
    group: Any = None  # of mx.distributed; None: alone
    guard: Guard | None = None

    def sum(self, x: mx.array) -> mx.array:
        """Add up what the ranks have, an array of one shape and dtype; all get the same bytes."""
        return x if self.size == 1 else mx.distributed.all_sum(x, group=self.group)

    def gather(self, x: mx.array) -> mx.array:
        """Join the ranks' arrays ``[..., n]`` along the last axis: ``[..., size * n]``."""
        if self.size == 1:
            return x
        parts = mx.distributed.all_gather(x[None], group=self.group)
        return mx.moveaxis(parts, 0, -2).reshape(*x.shape[:-1], -1)

    def of_first(self, x: mx.array) -> mx.array:
        """Give all ranks what rank 0 has; the others need not compute theirs."""
        return x if self.size == 1 else self.sum(x if self.rank == 0 else mx.zeros_like(x))

    def first_seconds(self, seconds: float) -> float:
        """Give all ranks rank 0's reading of a clock, to a microsecond; waits for them."""
        if self.size == 1:
            return seconds
        whole, part = divmod(round(seconds * 1_000_000), 1_000_000)
        agreed: Any = self.of_first(mx.array([whole, part], mx.int32)).tolist()
        return float(agreed[0] + agreed[1] / 1_000_000)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the guard end this process when what is done inside takes too long.

        Raises:
            RanksError: another rank is no longer there.
        """
        if self.guard is not None:
            self.guard.arm()
        try:
            yield
        except RuntimeError as error:
            if "[ring]" not in str(error) and "[distributed]" not in str(error):
                raise
            raise RanksError(GONE) from error
        finally:
            if self.guard is not None:
                self.guard.disarm()


ALONE = Ranks()


@functools.cache
def join_ranks() -> Ranks:
    """Return this process's place among the ranks that ``mlx.launch`` started; once per process.

    Raises:
        VlmkitError: the others cannot be reached.

    Example:
        >>> join_ranks().size
        1
    """
    rank = launched_rank()
    if rank is None:
        return ALONE
    seconds = ranks_timeout_s(os.environ)
    line = (
        f"vlmkit: error: rank {rank}: the other ranks did not answer for {seconds:g} s; "
        f"see whether they all run, or wait longer with {TIMEOUT_VARIABLE}"
    )
    # Rank 0 is the first to say so; the others then see that it has gone.
    guard = start_guard(seconds + min(rank, 1), line, os.getpid())
    guard.arm()
    try:
        group: Any = mx.distributed.init()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise VlmkitError(f"rank {rank}: the ranks cannot be connected: {reason}") from error
    finally:
        guard.disarm()
    if group.size() == 1:
        return ALONE
    return Ranks(group.rank(), group.size(), group, guard)


def watched(steps: Iterator[T]) -> Iterator[T]:
    """Return the same steps, each within the time that the ranks have for one.

    Raises:
        RanksError: in a step, another rank is no longer there.

    Example:
        >>> list(watched(iter([1, 2])))
        [1, 2]
    """
    ranks = join_ranks()
    return steps if ranks.size == 1 else _watched(steps, ranks)


def _watched(steps: Iterator[T], ranks: Ranks) -> Iterator[T]:
    while True:
        with ranks.waiting():
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step
