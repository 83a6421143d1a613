"""Laws of merging, and origins that follow the values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.config.tree import DEFAULT, Node, Origin, find, merge, merge_all, to_node, to_plain
from vlmkit.errors import VlmkitError

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text("abc", max_size=3))
KEYS = st.text("abcd", min_size=1, max_size=2)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(KEYS, VALUES, max_size=4)


def node(value: Any, source: str = "here") -> Node:
    return to_node(value, Origin(source))


def paths(tree: Node, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = {}
    if isinstance(tree.value, dict):
        items = tree.value
    elif isinstance(tree.value, list):
        items = dict(enumerate(tree.value))
    return [prefix, *(path for key in items for path in paths(items[key], (*prefix, key)))]


@given(MAPPINGS)
def test_plain_round_trip(value: dict[str, Any]) -> None:
    assert to_plain(node(value)) == value


@given(MAPPINGS)
def test_merge_is_idempotent_with_empty_as_identity(value: dict[str, Any]) -> None:
    tree, empty = node(value), node({})
    assert to_plain(merge(tree, tree)) == value
    assert to_plain(merge(empty, tree)) == value
    assert to_plain(merge(tree, empty)) == value


@given(MAPPINGS, MAPPINGS)
def test_later_wins_and_nothing_else_is_lost(first: dict[str, Any], second: dict[str, Any]) -> None:
    merged = to_plain(merge(node(first), node(second)))
    assert merged.keys() == first.keys() | second.keys()
    for key in first.keys() - second.keys():
        assert merged[key] == first[key]
    for key, value in second.items():
        if not isinstance(value, dict):
            assert merged[key] == value


@given(MAPPINGS, MAPPINGS)
def test_origins_follow_the_values(first: dict[str, Any], second: dict[str, Any]) -> None:
    old, new = node(first, "old"), node(second, "new")
    merged = merge(old, new)
    for path in paths(merged):
        found, origin = find(merged, path), {"old": old, "new": new}
        assert found is not None
        source = find(origin[found.origin.source], path)
        assert source is not None
        if not isinstance(found.value, dict):
            assert to_plain(source) == to_plain(found)


@given(MAPPINGS, MAPPINGS)
def test_merging_changes_neither_argument(first: dict[str, Any], second: dict[str, Any]) -> None:
    old, new = node(first), node(second)
    merge(old, new)
    assert (to_plain(old), to_plain(new)) == (first, second)


def test_another_kind_replaces_the_mapping() -> None:
    old = node({"cache": {"kind": "affine", "bits": 8}})
    assert to_plain(merge(old, node({"cache": {"kind": "dense"}}))) == {"cache": {"kind": "dense"}}
    same = merge(old, node({"cache": {"kind": "affine", "group_size": 32}}))
    assert to_plain(same)["cache"] == {"kind": "affine", "bits": 8, "group_size": 32}


def test_indices_edit_a_list_in_place() -> None:
    old = node({"sampling": [{"p": 1}, {"t": 2}]})
    edited = merge(old, node({"sampling": {1: {"t": 3}}}, "flag"))
    assert to_plain(edited) == {"sampling": [{"p": 1}, {"t": 3}]}
    changed = find(edited, ("sampling", 1, "t"))
    kept = find(edited, ("sampling", 0, "p"))
    assert changed is not None
    assert kept is not None
    assert (changed.origin.source, kept.origin.source) == ("flag", "here")


def test_an_index_beyond_the_list_is_refused() -> None:
    with pytest.raises(VlmkitError, match=r"sampling\.2: the list has 1 entries"):
        merge_all([node({"sampling": [1]}), node({"sampling": {2: 0}})])


def test_find_outside_the_tree() -> None:
    tree = to_node({"a": [1]}, DEFAULT)
    assert find(tree, ("a", 1)) is None
    assert find(tree, ("a", 0, "b")) is None
    assert find(tree, ("b",)) is None
