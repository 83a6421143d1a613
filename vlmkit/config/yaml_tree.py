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

from vlmkit.config.document import parse_yaml
from vlmkit.config.tree import KeyPath, Node, Origin, merge_all, to_plain
from vlmkit.errors import VlmkitError
from vlmkit.packaged import PREFIX, packaged_config

INCLUDE = "include"


def load_yaml(path: str | os.PathLike[str]) -> Node:
    """Read a YAML mapping and what it includes.

    ``include: [a.yaml, b.yaml]`` names files relative to the including file; they are merged in
    that order, and the including file's own keys win over them. Here as there,
    ``vlmkit:sampling/nucleus.yaml`` is a config that travels with the package.

    Raises:
        VlmkitError: no such file, no valid YAML, a repeated key, no mapping, an include cycle.
    """
    name = os.fspath(path)
    return _load(packaged_config(name) if name.startswith(PREFIX) else Path(path), (), None)


def parse_overrides(arguments: Sequence[str]) -> Node:
    """Turn ``a.b=c`` arguments into one tree; values are YAML, numbers in a key are list indices.

    Raises:
        VlmkitError: an argument without ``=``, an empty key, a value that is no YAML.

    >>> from vlmkit.config.tree import to_plain
    >>> to_plain(parse_overrides(["seed=3", "sampling.0.temperature=0.5"]))
    {'seed': 3, 'sampling': {0: {'temperature': 0.5}}}
    """
    root = Node({}, Origin("override"))
    return merge_all([root, *(_parse_override(argument) for argument in arguments)])


def _load(path: Path, including: tuple[Path, ...], named: Origin | None) -> Node:
    """Read a file and what it includes; ``named`` is the line that includes it."""
    where = "" if named is None else f"{named}: include: "
    identity = path.resolve()
    if identity in including:
        chain = " -> ".join(str(step.name) for step in (*including, identity))
        raise VlmkitError(f"{where}{path}: includes itself: {chain}")
    node = parse_yaml(_read_text(path, where), str(path))
    if node.value is None:
        node = node._replace(value={})
    if not isinstance(node.value, dict):
        raise VlmkitError(f"{node.origin}: a config is a mapping such as 'model: shapes'")
    own = dict(node.value)
    include = own.pop(INCLUDE, None)
    parts = [
        _load(_included(entry, path.parent), (*including, identity), entry.origin)
        for entry in _include_entries(include)
    ]
    return merge_all([*parts, node._replace(value=own)])


def _included(entry: Node, folder: Path) -> Path:
    if not entry.value.startswith(PREFIX):
        return Path(os.path.normpath(folder / entry.value))
    try:
        return packaged_config(entry.value)
    except VlmkitError as error:
        raise VlmkitError(f"{entry.origin}: include: {error}") from None


def _read_text(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
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


def _parse_override(given: str) -> Node:
    argument = given if given.isprintable() else " ".join(given.split())  # for messages
    name, equals, text = given.partition("=")
    _check_name(argument, name.strip())
    keys = parse_path(name)
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
    node = _with_origin(parse_yaml(text, argument, key=keys), origin)
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
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _with_origin(node: Node, origin: Origin) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _with_origin(item, origin) for key, item in node.value.items()}, origin)
    if isinstance(node.value, list):
        return Node([_with_origin(item, origin) for item in node.value], origin)
    return Node(node.value, origin)
