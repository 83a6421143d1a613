"""YAML files and ``a.b=c`` overrides as trees with origins.

YAML 1.1 is what PyYAML reads: ``1e-3`` arrives as text and becomes a number where one is wanted;
``off`` and ``no`` arrive as booleans and are refused where a number or text is wanted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import yaml

from vlmkit.config.tree import Key, KeyPath, Node, Origin, merge_all, to_plain
from vlmkit.errors import VlmkitError

INCLUDE = "include"
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def load_yaml(path: str | os.PathLike[str]) -> Node:
    """Read a YAML mapping and what it includes.

    ``include: [a.yaml, b.yaml]`` names files relative to the including file; they are merged in
    that order, and the including file's own keys win over them.

    Raises:
        VlmkitError: no such file, no valid YAML, a repeated key, no mapping, an include cycle.
    """
    return _load(Path(path), (), None)


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
        _load(
            Path(os.path.normpath(path.parent / entry.value)),
            (*including, identity),
            entry.origin,
        )
        for entry in _include_entries(include)
    ]
    return merge_all([*parts, node._replace(value=own)])


def _read_text(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = sorted(path.parent.glob("*.yaml"), key=lambda file: _likeness(file, path))
        near = [file.name for file in there[-1:-6:-1]]
        hint = f"; {path.parent} has {', '.join(near)}" if near else ""
        raise VlmkitError(f"{where}{path}: no such config file{hint}") from None
    except IsADirectoryError:
        raise VlmkitError(f"{where}{path}: is a folder; a config is a YAML file") from None
    except OSError as error:
        raise VlmkitError(f"{where}{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise VlmkitError(f"{where}{path}: cannot be read: {error}") from None


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


def parse_yaml(text: str, source: str) -> Node:
    """Parse one YAML document; every value remembers its line.

    Raises:
        VlmkitError: no valid YAML, or a key given twice in one mapping.
    """
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        raise VlmkitError(
            f"{source}:{number}: not valid YAML: it holds the character U+{error.character:04X}"
        ) from None
    try:
        root = loader.get_single_node()
        if root is None:
            return Node(None, Origin(source, 1, is_file=True))
        return _convert(loader, root, source, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise VlmkitError(f"{source}{line}: not valid YAML: {problem}") from None
    finally:
        loader.dispose()


def _convert(
    loader: yaml.SafeLoader, node: yaml.Node, source: str, parents: tuple[yaml.Node, ...]
) -> Node:
    origin = Origin(source, node.start_mark.line + 1, is_file=True)
    if any(node is parent for parent in parents):
        raise VlmkitError(f"{origin}: an alias that contains itself")
    inside = (*parents, node)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise VlmkitError(f"{origin}: not valid YAML here: the tag {node.tag}")
    if isinstance(node, yaml.MappingNode):
        _check_keys(loader, node, source)
        loader.flatten_mapping(node)  # resolves `<<: *alias`
        items: dict[Key, Node] = {}
        for key, value in node.value:
            items[loader.construct_object(key)] = _convert(loader, value, source, inside)
        return Node(items, origin)
    if isinstance(node, yaml.SequenceNode):
        return Node([_convert(loader, item, source, inside) for item in node.value], origin)
    return Node(loader.construct_object(node), origin)


def _check_keys(loader: yaml.SafeLoader, node: yaml.MappingNode, source: str) -> None:
    first_line: dict[Any, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        name = loader.construct_object(key) if isinstance(key, yaml.ScalarNode) else None
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise VlmkitError(
                f"{source}:{line}: key {key.value!r} is no text; YAML reads off, no, yes and on "
                f"as booleans: put it in quotes"
                if isinstance(name, bool)
                else f"{source}:{line}: a key must be text or a whole number"
            )
        if name in first_line:
            raise VlmkitError(
                f"{source}:{line}: key {name!r} is given twice (first in line {first_line[name]})"
            )
        first_line[name] = line


def _parse_override(argument: str) -> Node:
    name, equals, text = argument.partition("=")
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
    node = _with_origin(parse_yaml(text, argument), origin)
    for key in reversed(keys):
        node = Node({key: node}, origin)
    return node


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
