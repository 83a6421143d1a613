"""Points where all ranks say what they are about to do, and whether they can."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np

from vlmkit.errors import RanksError, VlmkitError
from vlmkit.ranks.group import Ranks, join_ranks

_NOTE_BYTES = 4096
_MAX_CHARACTERS = 600  # of an error; each is up to six bytes of JSON
_OPEN = {"is": True}  # whether the others will come to a meeting when this rank fails


def meet(parts: Mapping[str, str], *, is_last: bool = False) -> None:
    """Wait for all ranks, and compare what each has; alone, do nothing.

    Args:
        parts: what must be the same on all ranks: its name, and a text or a hash of it.
        is_last: from here on the ranks compute together: one that fails is one that goes.

    Raises:
        RanksError: the ranks do not have the same, or one has failed; all raise it.
    """
    ranks = join_ranks()
    if ranks.size == 1:
        return
    _compare(_exchange(ranks, dict(parts)))
    if is_last:
        _OPEN["is"] = False


def last_words(error: VlmkitError) -> str | None:
    """Return what this rank is to say of an error; None: another rank says it.

    Before the ranks compute together, those that can go on learn here of one that cannot.

    Args:
        error: why this rank ends.
    """
    try:
        ranks = join_ranks()
        if ranks.size == 1:
            return str(error)
        if not isinstance(error, RanksError) and _OPEN["is"]:
            _exchange(ranks, {"error": str(error)[:_MAX_CHARACTERS]})
            return str(error) if ranks.rank == 0 else None
    except RanksError:  # those that have gone cannot say it
        return str(error)
    except VlmkitError as unreached:
        return str(unreached)
    if ranks.rank == 0:
        return str(error)
    return None if isinstance(error, RanksError) else f"rank {ranks.rank}: {error}"


def _exchange(ranks: Ranks, note: Mapping[str, str]) -> list[dict[str, str]]:
    own = np.frombuffer(json.dumps(note).encode().ljust(_NOTE_BYTES), np.uint8)
    assert own.size == _NOTE_BYTES
    with ranks.waiting():
        gathered = mx.distributed.all_gather(mx.array(own)[None], group=ranks.group)
        mx.eval(gathered)
    return [json.loads(bytes(row)) for row in np.array(gathered)]


def _compare(notes: Sequence[Mapping[str, str]]) -> None:
    for rank, note in enumerate(notes):
        if "error" in note:
            raise RanksError(note["error"] if rank == 0 else f"rank {rank}: {note['error']}")
    for rank, note in enumerate(notes):
        for name, value in notes[0].items():
            if note.get(name) != value:
                raise RanksError(
                    f"rank {rank} differs from rank 0 in its {name}; start all ranks with the same"
                )
