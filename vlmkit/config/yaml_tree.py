"""YAML files and ``a.b=c`` overrides as trees with origins.

YAML 1.1 is what PyYAML reads: ``1e-3`` arrives as text and becomes a number where one is wanted;
``off`` and ``no`` arrive as booleans and are refused where a number or text is wanted; numbers in
base 8 and 60 are refused, and dates are text (`vlmkit.config.scalars`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from vlmkit.config.budget import MAX_CONFIG_BYTES, Budget, check_depth
from vlmkit.config.document import parse_yaml
from vlmkit.config.tree import KeyPath, Node, Origin, merge_all, to_plain
from vlmkit.declare.packaged import PREFIX, configs_folder, packaged_config
from vlmkit.errors import VlmkitError
from vlmkit.files import read_file
from vlmkit.printable import one_line, shorten

INCLUDE = "include"
_INDEX = re.compile("[0-9]{1,18}")
_MAX_SHOWN = 200  # characters of an override


class LoadedYaml(NamedTuple):
    """A config and the files that it was read from."""

    tree: Node
    files: tuple[Path, ...]


def load_yaml(path: str | os.PathLike[str], *, home: Path | None = None) -> Node:
    """Read a YAML mapping and what it includes.

    ``include: [a.yaml, b.yaml]`` names files relative to the including file; they are merged in
    that order, and the including file's own keys win over them. Here as there,
    ``vlmkit:sampling/nucleus.yaml`` is a config that travels with the package.

    Args:
        path: the file.
        home: the folder outside which no file's contents are shown in messages; None: the file's.

    Raises:
        VlmkitError: no such file, no valid YAML, a repeated key, no mapping, an include cycle, or
            more than `vlmkit.config.budget` allows.
    """
    return load_files(path, home=home).tree


def load_files(path: str | os.PathLike[str], *, home: Path | None = None) -> LoadedYaml:
    """As `load_yaml`; also says which files were read."""
    name = os.fspath(path)
    main = packaged_config(name) if name.startswith(PREFIX) else Path(path)
    folder = main.parent if home is None else home
    reading = _Reading(Budget(), Path(os.path.abspath(folder)), None if home else main, [])
    tree = _load(reading, main, (), None)
    return LoadedYaml(tree, tuple(reading.files))


def parse_overrides(arguments: Sequence[str]) -> Node:
    """Turn ``a.b=c`` arguments into one tree; values are YAML, numbers in a key are list indices.

    Raises:
        VlmkitError: an argument without ``=``, an empty key, a value that is no YAML.

    >>> from vlmkit.config.tree import to_plain
    >>> to_plain(parse_overrides(["seed=3", "sampling.0.temperature=0.5"]))
    {'seed': 3, 'sampling': {0: {'temperature': 0.5}}}
    """
    root, budget = Node({}, Origin("override")), Budget()
    return merge_all([root, *(_parse_override(argument, budget) for argument in arguments)])


class _Reading(NamedTuple):
    """One config while its files are read."""

    budget: Budget
    folder: Path  # whose files' contents may stand in messages; absolute
    own: Path | None  # a file whose contents may, wherever it is
    files: list[Path]

    def is_outside(self, path: Path) -> bool:
        """Whether a file lies outside the folder, and not in the package."""
        if path == self.own:
            return False
        real = Path(os.path.realpath(path))
        homes = (self.folder, Path(os.path.realpath(self.folder)), configs_folder().resolve())
        return not any(real.is_relative_to(home) for home in homes)


def _load(reading: _Reading, path: Path, including: tuple[Path, ...], named: Origin | None) -> Node:
    """Read a file and what it includes; ``named`` is the line that includes it."""
    where = "" if named is None else f"{named}: include: "
    text = _read_text(path, where, reading.budget)
    reading.files.append(path)
    identity = Path(os.path.realpath(path))
    if identity in including:
        chain = " -> ".join(str(step.name) for step in (*including, identity))
        raise VlmkitError(f"{where}{path}: includes itself: {chain}")
    is_hidden = reading.is_outside(path)
    try:
        own, includes = _parse(text, path, reading.budget, is_hidden=is_hidden)
    except VlmkitError:
        if not is_hidden:
            raise
        raise VlmkitError(
            f"{where}{path}: is no config; it lies outside {reading.folder}, so what it says is "
            "not shown"
        ) from None
    parts = [
        _load(reading, _included(entry, path.parent), (*including, identity), entry.origin)
        for entry in includes
    ]
    return merge_all([*parts, own])


def _parse(text: str, path: Path, budget: Budget, *, is_hidden: bool) -> tuple[Node, list[Node]]:
    """A file's own values, and the names of what it includes."""
    node = parse_yaml(text, str(path), budget=budget, is_hidden=is_hidden)
    if node.value is None:
        node = node._replace(value={})
    if not isinstance(node.value, dict):
        raise VlmkitError(f"{node.origin}: a config is a mapping such as 'model: shapes'")
    own = dict(node.value)
    include = own.pop(INCLUDE, None)
    return node._replace(value=own), _include_entries(include)


def _included(entry: Node, folder: Path) -> Path:
    if not entry.value.startswith(PREFIX):
        return Path(os.path.normpath(folder / entry.value))
    try:
        return packaged_config(entry.value)
    except VlmkitError as error:
        raise VlmkitError(f"{entry.origin}: include: {error}") from None


def _read_text(path: Path, where: str, budget: Budget) -> str:
    try:
        content = read_file(path, MAX_CONFIG_BYTES)
    except FileNotFoundError:
        there = sorted(path.parent.glob("*.yaml"), key=lambda file: _likeness(file, path))
        near = [file.name for file in there[-1:-6:-1]]
        hint = f"; {path.parent} has {', '.join(near)}" if near else ""
        raise VlmkitError(f"{where}{path}: no such config file{hint}") from None
    except IsADirectoryError:
        is_model = (path / "config.json").exists()
        hint = "; a checkpoint is given as model, or --model" if is_model else ""
        raise VlmkitError(f"{where}{path}: is a folder; a config is a YAML file{hint}") from None
    except OSError as error:
        raise VlmkitError(f"{where}{path}: cannot be read: {error.strerror}") from None
    budget.take_file(len(content), f"{where}{path}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise VlmkitError(
            f"{where}{path}: cannot be read as a config: it is no text in UTF-8"
        ) from None


def _likeness(file: Path, other: Path) -> float:
    return SequenceMatcher(None, file.stem, other.stem).ratio()


def _include_entries(include: Node | None) -> list[Node]:
    if include is None:
        return []
    entries = include.value if isinstance(include.value, list) else [include]
    for entry in entries:
        if not isinstance(entry.value, str):
            raise VlmkitError(f"{entry.origin}: include: needs file names, not {to_plain(entry)!r}")
    return entries


def _parse_override(given: str, budget: Budget) -> Node:
    argument = shorten(one_line(given), _MAX_SHOWN)  # for messages
    name, equals, text = given.partition("=")
    _check_name(argument, name.strip())
    keys = parse_path(name)
    check_depth(len(keys), argument)
    if not equals or not keys:
        raise VlmkitError(
            f"{argument!r} is no override; write key=value, for example seed=3 or "
            f"sampling.0.temperature=0.5"
        )
    if keys[0] == INCLUDE:
        raise VlmkitError(
            f"{argument}: include: is for files; write one that includes what you need"
        )
    origin = Origin(argument)
    node = _with_origin(parse_yaml(text, argument, key=keys, budget=budget), origin)
    for key in reversed(keys):
        node = Node({key: node}, origin)
    return node


def _check_name(argument: str, name: str) -> None:
    """Refuse keys in the spelling of other tools."""
    problem = ""
    if name.endswith(("+", "-", ":")) or name.startswith(("+", "~")):
        problem = "an override only sets values: write key=value; a list is given as a whole, or "
        problem += "entry by entry as in sampling.0.temperature=0.5"
    elif re.search(r"(^|\.)-\d+(\.|$)", name):
        problem = "entries of a list count from 0, and there are no negative numbers"
    elif "[" in name:
        problem = f"write {name.replace('[', '.').replace(']', '')}=…"
    if problem:
        raise VlmkitError(f"{argument}: {name}: {problem}")


def parse_path(name: str) -> KeyPath:
    """Split ``a.0.b`` into keys; an empty tuple when a part is empty.

    >>> parse_path("sampling.0.temperature")
    ('sampling', 0, 'temperature')
    """
    parts = name.strip().split(".")
    if not all(parts):
        return ()
    return tuple(int(part) if _INDEX.fullmatch(part) else part for part in parts)


def _with_origin(node: Node, origin: Origin) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _with_origin(item, origin) for key, item in node.value.items()}, origin)
    if isinstance(node.value, list):
        return Node([_with_origin(item, origin) for item in node.value], origin)
    return Node(node.value, origin)
