"""What is kept of a timing: the raw samples, and all that they depend on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, quantiles, stdev
from typing import Any

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.files import read_file, write_file

FORMAT = "vlmkit bench 1"
MAX_BYTES = 2**26


@dataclass(frozen=True)
class BenchRow:
    """One timing of one policy; a row stands for itself, wherever it is copied to."""

    test: str  # "layer" | "decode" | "prefill"
    policy: str
    config: dict[str, Any]  # the policy's, whole
    context: int  # tokens of a row that are there, or that a prefill brings
    batch: int
    seconds: tuple[float, ...]  # each sample, in its order
    base_seconds: tuple[float, ...]  # of the dense cache, which took turns with it
    cache_bytes: int  # of the arrays, free slots of buffers included
    held_bytes: int  # of the tokens that are there, as stored
    base_held_bytes: int
    peak_bytes: int  # that MLX had allocated at most while this policy ran alone
    base_peak_bytes: int
    setup: dict[str, Any]  # model, layer, machine, commit, versions, date

    @property
    def median_s(self) -> float:
        """The middle sample."""
        return median(self.seconds)

    @property
    def iqr_s(self) -> float:
        """From the first quartile to the third."""
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return high - low

    @property
    def tokens_per_s(self) -> tuple[float, float]:
        """Mean and standard deviation over the samples, of all rows together."""
        tokens = self.batch * (self.context if self.test == "prefill" else 1)
        rates = [tokens / seconds for seconds in self.seconds]
        return fmean(rates), stdev(rates)

    @property
    def ratio(self) -> float:
        """Median time over the dense cache's; below 1 is faster."""
        return self.median_s / median(self.base_seconds)

    @property
    def held_ratio(self) -> float:
        """Bytes held over the dense cache's."""
        return self.held_bytes / max(self.base_held_bytes, 1)

    @property
    def case(self) -> tuple[str, str, int, int]:
        """What two files have in common where they measured the same."""
        return self.test, self.policy, self.context, self.batch


def to_json(rows: Sequence[BenchRow]) -> str:
    """Write rows as a JSON document."""
    return json.dumps({"format": FORMAT, "rows": [asdict(row) for row in rows]}, indent=1)


def write_rows(path: str | os.PathLike[str], rows: Sequence[BenchRow]) -> None:
    """Write rows to a file, which :func:`read_rows` reads.

    Raises:
        VlmkitError: it cannot be written.
    """
    write_file(path, to_json(rows).encode() + b"\n")


def read_rows(path: str | os.PathLike[str]) -> list[BenchRow]:
    """Read the rows of a file.

    Raises:
        VlmkitError: it cannot be read, or is no file of results; names it.
    """
    try:
        found = msgspec.json.decode(read_file(path, MAX_BYTES))
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise VlmkitError(f"{path}: is no JSON ({error}); give a file of 'vlmkit bench'") from None
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        raise VlmkitError(f"{path}: is no file of 'vlmkit bench'; give one that --out has written")
    try:
        return msgspec.convert(found["rows"], list[BenchRow])
    except (KeyError, msgspec.ValidationError) as error:
        raise VlmkitError(f"{path}: {error}; it is no file of this version's bench") from None
