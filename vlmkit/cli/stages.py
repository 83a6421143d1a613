"""``vlmkit stages``: what a config can name, one line each, or one of them explained."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say
from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.config.explain import Explanation

_MAX_WIDTH, _MIN_WIDTH = 96, 40  # columns
_TRY = '--prompt "Count the objects." --image vlmkit:shapes/samples/count_all.png'


def run_stages(args: argparse.Namespace) -> None:
    """List every kind of every stage, those of one section, or explain one."""
    require_mlx()
    from vlmkit.config.catalogue import all_kinds, find_stages, installed_stages, sections
    from vlmkit.config.explain import explain

    if args.names and args.name is not None:
        raise VlmkitError(f"--names lists all names: leave out {args.name!r}")
    if args.names:
        kinds, installed = all_kinds(), installed_stages()
        names = [*sections(), *(kind.name for kind in kinds), *(stage.name for stage in installed)]
        lines = iter(dict.fromkeys(names))
    elif args.name is None:
        lines = _list(tuple(sections()))
    elif args.name in _divided():
        lines = _list((args.name,))
    else:
        explanations = [explain(stage) for stage in find_stages(args.name)]
        lines = iter("\n\n".join("\n".join(_show(each)) for each in explanations).split("\n"))
    say(*lines)


def _divided() -> set[str]:
    """The sections that have kinds."""
    from vlmkit.config.catalogue import all_kinds

    return {kind.section for kind in all_kinds() if kind.has_kind}


def _list(chosen: tuple[str, ...]) -> Iterator[str]:
    from vlmkit.config.catalogue import all_kinds, group_of, installed_stages, sections

    kinds, installed, purposes = all_kinds(), installed_stages(), sections()
    names = [kind.name for kind in kinds] + [stage.name for stage in installed]
    width = 2 + max(map(len, names))
    for section in chosen:
        yield from ([""] if section != chosen[0] else [])
        yield f"{section}: {purposes[section]}"
        group = ""
        for kind in (kind for kind in kinds if kind.section == section):
            if group_of(kind) != group:
                group = group_of(kind)
                yield f"  {group}"
            yield f"    {kind.name:<{width}}  {kind.summary}"
        for stage in (stage for stage in installed if stage.section == section):
            yield f"      {stage.name:<{width - 2}}  {stage.summary}"


def _show(stage: Explanation) -> Iterator[str]:
    width = max(min(shutil.get_terminal_size((_MAX_WIDTH, 0)).columns, _MAX_WIDTH), _MIN_WIDTH)
    yield stage.title
    yield from _wrap(stage.summary, width, "  ")
    for paragraph in stage.paragraphs:
        yield ""
        yield from _wrap(paragraph, width, "  ")
    if stage.parameters:
        yield from ("", "parameters")
    for parameter in stage.parameters:
        end = "required" if parameter.default is None else f"default {parameter.default}"
        yield f"  {parameter.name}: {'; '.join(filter(None, [parameter.type, end]))}"
        yield from _wrap(parameter.description, width, "      ")
    yield from ("", f"example: {stage.example_name}".rstrip(": "))
    yield from textwrap.indent(stage.example.strip("\n"), "  ").split("\n")
    if stage.example_name and not stage.is_external:
        yield from ("", "try it", f"  vlmkit generate {stage.example_name} {_TRY}")
    if stage.related:
        yield from ("", "related")
        yield from _wrap(", ".join(stage.related), width, "  ")
    yield from ("", "source")
    for source in stage.source:
        yield from _wrap(source, width, "  ")


def _wrap(text: str, width: int, indent: str) -> Iterator[str]:
    """Fill lines; a list keeps its items apart."""
    parts = text.split("\n- ") if text.startswith("- ") else [text]
    for number, part in enumerate(parts):
        mark = "- " if number else ""
        yield from textwrap.wrap(
            " ".join((mark + part).split()),
            width,
            initial_indent=indent,
            subsequent_indent=indent + ("  " if len(parts) > 1 else ""),
            break_on_hyphens=False,
            break_long_words=False,
        )
