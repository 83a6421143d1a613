"""What a config may cost: limits that hold for its files, includes and overrides together.

A file of a few lines can stand for any number of values (aliases of aliases, files that include
one another), so what counts is what it stands for.
"""

from __future__ import annotations

from vlmkit.errors import VlmkitError

MAX_CONFIG_BYTES = 2**20
"""Of all files of one config: YAML is read at some 300 kB a second, and by hand nobody writes so
much; data belong into data files."""

MAX_NODES = 20_000
"""Values, lists and mappings, each alias counted as what it stands for; they are read at some 8,000
a second."""

MAX_DEPTH = 100
"""Levels of nesting, and keys of an override: each costs several calls within one another."""

MAX_INCLUDES = 100
"""Files that are included, each time counted: two that include two, twenty deep, are a million."""

MAX_NUMBER_CHARACTERS = 100
"""Of a number; 2**64 has 20 digits, and Python refuses to print more than 4,300."""


class Budget:
    """Counts what the parts of one config cost."""

    def __init__(self) -> None:
        self._num_nodes = 0
        self._num_bytes = 0
        self._num_files = -1  # the first is not included

    def take_nodes(self, number: int, place: object) -> None:
        """Count values.

        Raises:
            VlmkitError: they are too many; begins with ``place``.
        """
        self._num_nodes += number
        if self._num_nodes > MAX_NODES:
            raise VlmkitError(
                f"{place}: the config has more than {MAX_NODES:,} values, aliases counted as what "
                "they stand for; write fewer, or put data into a data file"
            )

    def take_file(self, num_bytes: int, place: str) -> None:
        """Count a file.

        Raises:
            VlmkitError: there are too many, or they are too large together.
        """
        self._num_files += 1
        if self._num_files > MAX_INCLUDES:
            raise VlmkitError(
                f"{place}: more than {MAX_INCLUDES} files are included; include each once"
            )
        self._num_bytes += num_bytes
        if self._num_bytes > MAX_CONFIG_BYTES:
            raise VlmkitError(
                f"{place}: with it the config is larger than {MAX_CONFIG_BYTES / 2**20:g} MiB; put "
                "data into a data file"
            )


def check_depth(depth: int, place: object) -> None:
    """Refuse what is nested too deeply.

    Raises:
        VlmkitError: begins with ``place``.
    """
    if depth > MAX_DEPTH:
        raise VlmkitError(f"{place}: is nested too deeply; at most {MAX_DEPTH} levels are read")
