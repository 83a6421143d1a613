"""One YAML document as a tree of values, each with its line."""

from __future__ import annotations

from typing import NamedTuple

import yaml

from vlmkit.config.budget import MAX_NODES, Budget, check_depth
from vlmkit.config.scalars import read_scalar
from vlmkit.config.tree import Key, KeyPath, Node, Origin, format_path
from vlmkit.errors import VlmkitError

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_MERGE = "tag:yaml.org,2002:merge"


def parse_yaml(
    text: str,
    source: str,
    *,
    key: KeyPath = (),
    budget: Budget | None = None,
    is_hidden: bool = False,
) -> Node:
    """Parse one YAML document; every value remembers its line.

    Args:
        text: the document.
        source: what it is called in messages.
        key: the key of an override whose value the text is; its lines are not counted then.
        budget: of the config that it is a part of; None: its own.
        is_hidden: its values are not to stand in messages.

    Raises:
        VlmkitError: no valid YAML, a key given twice in one mapping, a number that YAML reads
            otherwise than people, too many values, or too deep a nesting.
    """
    document = _Document(source, not key, is_hidden, Budget() if budget is None else budget)
    try:
        loader = _Loader(text, document)
    except yaml.reader.ReaderError as error:
        place = document.place(text.count("\n", 0, error.position))
        raise VlmkitError(
            f"{place}: not valid YAML: it holds the character U+{error.character:04X}"
        ) from None
    try:
        root = loader.get_single_node()
        if root is None:
            return Node(None, document.origin(0))
        return _convert(loader, root, key, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = source if mark is None else document.place(mark.line)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise VlmkitError(f"{place}: not valid YAML: {problem}") from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, VlmkitError):
            raise
        place = document.place(loader.line)  # an escape such as "\UFFFFFFFF"
        raise VlmkitError(f"{place}: not valid YAML: an escape that is no character") from None
    except RecursionError:
        raise VlmkitError(f"{source}: is nested too deeply") from None
    finally:
        loader.dispose()


class _Document(NamedTuple):
    """What a message calls the places of a document, and what it may cost."""

    source: str
    counts_lines: bool
    is_hidden: bool
    budget: Budget

    def origin(self, line: int) -> Origin:
        """Of a line, counted from 0."""
        number = line + 1 if self.counts_lines else None
        return Origin(self.source, number, is_file=True, is_hidden=self.is_hidden)

    def place(self, line: int) -> str:
        return str(self.origin(line))


class _Loader(yaml.SafeLoader):
    """Stops at the limits while it composes, before a document is whole."""

    def __init__(self, text: str, document: _Document) -> None:
        super().__init__(text)
        self.document = document
        self._depth = self._num_composed = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._num_composed += 1
        check_depth(self._depth, self.document.place(self.line))
        if self._num_composed > MAX_NODES:
            self.document.budget.take_nodes(self._num_composed, self.document.place(self.line))
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve ``<<: *alias``; an earlier mapping of a list wins over a later one."""
        pairs, merges = [], []
        for key, value in node.value:
            (merges if key.tag == _MERGE else pairs).append((key, value))
        node.value = pairs
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        for key, value in merges:
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in reversed(sources):
                if not isinstance(source, yaml.MappingNode):
                    problem = "'<<' needs a mapping, or a list of mappings"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                self.flatten_mapping(source)
                place = self.document.place(key.start_mark.line)
                self.document.budget.take_nodes(len(source.value), place)
                merged += source.value
        node.value = merged + pairs


def _convert(
    loader: _Loader, node: yaml.Node, path: KeyPath, parents: tuple[yaml.Node, ...]
) -> Node:
    origin = loader.document.origin(node.start_mark.line)
    if any(node is parent for parent in parents):
        raise VlmkitError(f"{origin}: an alias that contains itself")
    loader.document.budget.take_nodes(1, origin)
    check_depth(len(path), origin)
    inside = (*parents, node)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise VlmkitError(f"{origin}: not valid YAML here: the tag {node.tag}")
    if isinstance(node, yaml.MappingNode):
        _check_keys(loader, node, path)
        loader.flatten_mapping(node)
        items: dict[Key, Node] = {}
        for key_node, value in node.value:
            key = _read_key(loader, key_node, path)
            items[key] = _convert(loader, value, (*path, key), inside)
        return Node(items, origin)
    if isinstance(node, yaml.SequenceNode):
        return Node(
            [
                _convert(loader, item, (*path, index), inside)
                for index, item in enumerate(node.value)
            ],
            origin,
        )
    assert isinstance(node, yaml.ScalarNode)
    where = f"{origin}: {format_path(path)}: " if path else f"{origin}: "
    return Node(read_scalar(loader, node, where), origin)


def _read_key(loader: _Loader, node: yaml.Node, path: KeyPath) -> Key:
    origin = loader.document.origin(node.start_mark.line)
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


def _check_keys(loader: _Loader, node: yaml.MappingNode, path: KeyPath) -> None:
    document = loader.document
    first_line: dict[Key, int] = {}
    for key, value in node.value:
        if key.tag == _MERGE:
            continue
        line = key.start_mark.line
        name = _read_key(loader, key, path)
        if name in first_line:
            first = f" (first in line {first_line[name] + 1})" if document.counts_lines else ""
            raise VlmkitError(f"{document.place(line)}: key {name!r} is given twice{first}")
        first_line[name] = line
        if node.flow_style and isinstance(name, str) and ":" in name and value.value == "":
            raise VlmkitError(
                f"{document.place(line)}: {name!r} is one word to YAML: write a space after the "
                f"colon, {name.replace(':', ': ', 1)!r}"
            )
