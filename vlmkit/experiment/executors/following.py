"""Reading what other workers write, as they write it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.experiment.reading import MAX_RECORD_BYTES, ScoreLine, record_files
from vlmkit.experiment.records import Record
from vlmkit.experiment.store import RECORDS
from vlmkit.experiment.units import Units
from vlmkit.files import check_keys, each_line, open_file


class Following:
    """Reads each whole line of a run's files of records once, however often it is asked.

    Args:
        folder: the run directory.
        without: a file to leave out, such as one's own.
    """

    def __init__(self, folder: Path, *, without: Path | None = None) -> None:
        self._folder, self._without = folder, without
        self._read: dict[Path, int] = {}  # bytes
        self._decoder = msgspec.json.Decoder(ScoreLine)

    def mark(self, units: Units) -> Iterator[ScoreLine]:
        """Mark what was done since the last call; yield each unit that was not marked before.

        Raises:
            VlmkitError: a line that is no record of this experiment.
        """
        for path in record_files(self._folder / RECORDS):
            if path != self._without:
                for line in self._lines(path):
                    if units.take(line):
                        yield line

    def _lines(self, path: Path) -> Iterator[ScoreLine]:
        try:
            with open_file(path) as file:
                file.seek(self._read.get(path, 0))
                for line in each_line(file, MAX_RECORD_BYTES):
                    if not line.endswith(b"\n"):
                        return
                    self._read[path] = self._read.get(path, 0) + len(line)
                    check_keys(line)
                    yield self._decoder.decode(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise VlmkitError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise VlmkitError(f"{path}: no record of a run: {error}") from None


def unit_of(line: ScoreLine) -> Record:
    """Return a record that says which unit a line is of, for what shows progress."""
    return Record(arm=line.arm, sample=line.sample, seed=line.seed, error=line.error)
