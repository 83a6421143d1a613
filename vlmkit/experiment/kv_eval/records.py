"""What one policy did to one sample's tokens: one line of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from vlmkit.experiment.reading import read_lines
from vlmkit.files import find_file

LOCKSTEP = "lockstep.jsonl"
"""The file of a run directory, beside its responses."""


class LockstepRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One policy on the reference tokens of one sample and seed.

    The record of the baseline is the noise floor: the baseline a second time, in other company.
    Position t of the prompt is compared by what follows it, token t + 1; the last one is the
    first of the answer.
    """

    arm: str  # the policy
    sample: str
    seed: int
    error: str | None = None  # why there are no reference tokens
    prompt_tokens: int = 0
    images: list[tuple[int, int]] = []  # [start, end) of each medium's tokens in the prompt
    token_ids: list[int] = []  # that every policy was fed
    prompt_kl: list[float] = []  # nats, positions 0 … prompt_tokens - 2
    kl: list[float] = []  # nats, per reference token
    agrees: list[bool] = []  # per reference token: same most likely token
    delta_logprobs: list[float] = []  # of each reference token, policy minus baseline
    attention_error: list[float] = []  # per attention layer: relative L2 over the decode steps
    layer_kl: list[float] = []  # per attention layer: mean KL with the policy in it alone
    side_kl: list[float] = []  # mean KL with the policy in the keys alone, in the values alone
    held_bytes: int = 0  # of keys and values as stored, scales included
    batch_size: int = 0  # rows side by side at most, which float rounding may depend on
    layers: list[int] = []  # attention layers in which the policy stored or dropped something
    num_layers: int = 0  # attention layers of the model
    quantized_tokens: int = 0  # in the layer that has most of them
    held_tokens: int = 0  # in the layer that has fewest
    dropped_tokens: int = 0  # in the layer that dropped most

    @property
    def unit(self) -> tuple[str, str, int]:
        """What makes a record unique in its run."""
        return self.arm, self.sample, self.seed


def rounded(values: list[float]) -> list[float]:
    """Return numbers with six digits, all that float32 is good for here.

    >>> rounded([0.1234567891, 1e-9])
    [0.123457, 1e-09]
    """
    return [float(f"{value:.6g}") for value in values]


def read_lockstep(folder: Path) -> Iterator[LockstepRecord]:
    """Yield the lockstep records of a run directory; nothing where there are none yet.

    Raises:
        VlmkitError: the file cannot be read, or a line is no such record.
    """
    path = folder / LOCKSTEP
    return read_lines(path, LockstepRecord) if find_file(path) else iter(())
