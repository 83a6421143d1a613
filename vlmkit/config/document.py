"""One YAML document as a tree of values, each with its line."""

from __future__ import annotations

from typing import NamedTuple

import yaml

from vlmkit.config.scalars import read_scalar
from vlmkit.config.tree import Key, KeyPath, Node, Origin, format_path
from vlmkit.errors import VlmkitError

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def parse_yaml(text: str, source: str, *, key: KeyPath = ()) -> Node:
    """Parse one YAML document; every value remembers its line.

    Args:
        text: the document.
        source: what it is called in messages.
        key: the key of an override whose value the text is; its lines are not counted then.

    Raises:
        VlmkitError: no valid YAML, a key given twice in one mapping, or a number that YAML reads
            otherwise than people.
    """
    document = _Document(source, counts_lines=not key)
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        place = document.place(text.count("\n", 0, error.position))
        raise VlmkitError(
            f"{place}: not valid YAML: it holds the character U+{error.character:04X}"
        ) from None
    try:
        root = loader.get_single_node()
        if root is None:
            return Node(None, document.origin(0))
        return _convert(loader, root, document, key, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = source if mark is None else document.place(mark.line)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise VlmkitError(f"{place}: not valid YAML: {problem}") from None
    except RecursionError:
        raise VlmkitError(f"{source}: is nested too deeply") from None
    finally:
        loader.dispose()


class _Document(NamedTuple):
    """What a message calls the places of a document."""

    source: str
    counts_lines: bool

    def origin(self, line: int) -> Origin:
        """Of a line, counted from 0."""
        return Origin(self.source, line + 1 if self.counts_lines else None, is_file=True)

    def place(self, line: int) -> str:
        return str(self.origin(line))


def _convert(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    document: _Document,
    path: KeyPath,
    parents: tuple[yaml.Node, ...],
) -> Node:
    origin = document.origin(node.start_mark.line)
    if any(node is parent for parent in parents):
        raise VlmkitError(f"{origin}: an alias that contains itself")
    inside = (*parents, node)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise VlmkitError(f"{origin}: not valid YAML here: the tag {node.tag}")
    if isinstance(node, yaml.MappingNode):
        _check_keys(loader, node, document, path)
        loader.flatten_mapping(node)  # resolves `<<: *alias`
        items: dict[Key, Node] = {}
        for key_node, value in node.value:
            key = _read_key(loader, key_node, document, path)
            items[key] = _convert(loader, value, document, (*path, key), inside)
        return Node(items, origin)
    if isinstance(node, yaml.SequenceNode):
        return Node(
            [
                _convert(loader, item, document, (*path, index), inside)
                for index, item in enumerate(node.value)
            ],
            origin,
        )
    assert isinstance(node, yaml.ScalarNode)
    where = f"{origin}: {format_path(path)}: " if path else f"{origin}: "
    return Node(read_scalar(loader, node, where), origin)


def _read_key(loader: yaml.SafeLoader, node: yaml.Node, document: _Document, path: KeyPath) -> Key:
    origin = document.origin(node.start_mark.line)
    where = f"{origin}: {format_path(path)}: " if path else f"{origin}: "
    name = read_scalar(loader, node, where) if isinstance(node, yaml.ScalarNode) else None
    if isinstance(name, bool):
        raise VlmkitError(
            f"{origin}: key {node.value!r} is no text; YAML reads off, no, yes and on as booleans: "
            "put it in quotes"
        )
    if not isinstance(name, (str, int)):
        raise VlmkitError(f"{origin}: a key must be text or a whole number")
    return name


def _check_keys(
    loader: yaml.SafeLoader, node: yaml.MappingNode, document: _Document, path: KeyPath
) -> None:
    first_line: dict[Key, int] = {}
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        line = key.start_mark.line
        name = _read_key(loader, key, document, path)
        if name in first_line:
            first = f" (first in line {first_line[name] + 1})" if document.counts_lines else ""
            raise VlmkitError(f"{document.place(line)}: key {name!r} is given twice{first}")
        first_line[name] = line
        if node.flow_style and isinstance(name, str) and ":" in name and value.value == "":
            raise VlmkitError(
                f"{document.place(line)}: {name!r} is one word to YAML: write a space after the "
                f"colon, {name.replace(':', ': ', 1)!r}"
            )
