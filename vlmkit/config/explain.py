"""One stage explained, from its own docstrings, field descriptions and example file."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import yaml

from vlmkit.config.catalogue import Installed, Kind, all_kinds, group_of
from vlmkit.config.docstrings import read_docstring
from vlmkit.config.parameters import Parameter, config_parameters, factory_parameters
from vlmkit.declare.external import External
from vlmkit.declare.packaged import PREFIX, config_names, packaged_config
from vlmkit.errors import VlmkitError

_SAMPLES = {"int": 1, "float": 1.0, "str": "text", "bool": True}
# What stands beside a criterion in an example: without it a row might never end.
_ENDS = [{"kind": "max_tokens", "max_tokens": 64}, {"kind": "eos"}]


class Explanation(NamedTuple):
    """What there is to say of a stage."""

    title: str
    summary: str
    paragraphs: tuple[str, ...]  # what it does, with its formula
    parameters: list[Parameter]
    example_name: str  # vlmkit:PATH; empty where it is no file
    example: str  # YAML
    related: list[str]
    source: list[str]  # what is cited, then where the code is
    is_external: bool  # the example names a function outside vlmkit


def explain(stage: Kind | Installed) -> Explanation:
    """Explain a stage. The package of an installed one is imported; nothing is called.

    Raises:
        VlmkitError: an installed stage whose package cannot be imported.

    Example:
        >>> from vlmkit.config.catalogue import find_stages
        >>> explain(find_stages("tail_free")[0]).source[0]
        'Phénix and Egan, "Tail free sampling", 2019, trentbrick.github.io/Tail-Free-Sampling.'
    """
    return _explain_installed(stage) if isinstance(stage, Installed) else _explain_kind(stage)


def _explain_kind(kind: Kind) -> Explanation:
    of_config = read_docstring(kind.config)
    factory = find_factory(kind)
    of_factory = read_docstring(factory)
    parameters = config_parameters(kind.config)
    texts = [*of_config.paragraphs, *of_factory.paragraphs]
    described = " ".join([*texts, *(parameter.description for parameter in parameters)])
    mentions = of_config.mentions | of_factory.mentions
    name, example = find_example(kind)
    cited = [reference for reference in (of_config.reference, of_factory.reference) if reference]
    return Explanation(
        title=f"{kind.name} ({kind.section})" if kind.has_kind else kind.name,
        summary=kind.summary,
        paragraphs=(*of_config.paragraphs[1:], *of_factory.paragraphs),
        parameters=parameters,
        example_name=name,
        example=example,
        related=_related(kind, described, mentions),
        source=[*cited, _place(kind.config if factory is None else factory)],
        is_external=kind.config is External,
    )


def _explain_installed(stage: Installed) -> Explanation:
    where = f"{stage.section}: factory {stage.name!r} ({stage.summary})"
    try:
        factory = stage.entry.load()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise VlmkitError(f"{where} can't be imported: {reason}") from error
    if not callable(factory):
        raise VlmkitError(f"{where} is of type {type(factory).__name__}, not a function")
    docstring = read_docstring(factory)
    parameters = factory_parameters(factory)
    needed = {
        parameter.name: _SAMPLES.get(parameter.type)
        for parameter in parameters
        if parameter.default is None
    }
    entry = {"kind": "external", "factory": stage.name, "config": needed}
    stages: Any = entry  # a contrast and a search stand alone, the others in a list
    if stage.section in ("sampling", "stopping"):
        stages = [*_ENDS, entry] if stage.section == "stopping" else [entry]
    return Explanation(
        title=f"{stage.name} ({stage.section}, kind: external)",
        summary=(docstring.paragraphs or (stage.summary,))[0],
        paragraphs=docstring.paragraphs[1:],
        parameters=parameters,
        example_name="",
        example=yaml.safe_dump({stage.section: stages}, sort_keys=False),
        related=["external"],
        source=[*([docstring.reference] if docstring.reference else []), stage.summary],
        is_external=True,
    )


def find_factory(kind: Kind) -> Callable[..., Any] | None:
    """Return the function that makes a stage: it bears the kind's name. None: there are no kinds.

    Example:
        >>> from vlmkit.config.catalogue import find_stages
        >>> find_factory(find_stages("diverse_beam")[0]).__name__
        'diverse_beam_search'
    """
    if not kind.has_kind:
        return None
    package = importlib.import_module(f"vlmkit.{kind.section}")
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name in (kind.name, *(f"{kind.name}_{what}" for what in ("search", "cache", "tokens"))):
            found = vars(module).get(name)
            if inspect.isfunction(found) and found.__module__ == module.__name__:
                return found
    return None


def find_example(kind: Kind) -> tuple[str, str]:
    """Return the simplest packaged config that shows a kind, and its text below the schema's line.

    Example:
        >>> from vlmkit.config.catalogue import find_stages
        >>> print(*find_example(find_stages("greedy")[0]), sep="\\n")
        vlmkit:sampling/greedy.yaml
        # The most likely token, every time.
        sampling:
          - kind: greedy
        <BLANKLINE>
    """
    found = []
    for name, text, config in _fragments():
        part = config.get(kind.section)
        kinds = list(_kinds_in(part))
        shows = kind.name in kinds if kind.has_kind else part is not None
        if shows:
            is_own = name.endswith(f"/{kind.name}.yaml")
            found.append((not is_own, len(kinds), len(text), name, text.partition("\n")[2]))
    return min(found)[3:] if found else ("", "")


@functools.cache
def _fragments() -> list[tuple[str, str, dict[str, Any]]]:
    """Name, text and content of every packaged config that is no whole run."""
    names = [name for name in config_names() if not name.startswith(PREFIX + "runs/")]
    texts = [packaged_config(name).read_text(encoding="utf-8") for name in names]
    return [(name, text, yaml.safe_load(text)) for name, text in zip(names, texts, strict=True)]


def _kinds_in(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("kind"), str):
            yield part["kind"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from _kinds_in(item)


def _related(kind: Kind, described: str, mentions: frozenset[str]) -> list[str]:
    """Name the kinds of the same group, then those that the texts speak of."""
    kinds = all_kinds()
    group = [other for other in kinds if other.section == kind.section]
    near = [other.name for other in group if group_of(other) == group_of(kind)]
    words = set(re.findall(r"\w+_\w+", described)) | mentions  # `eos` may be just a word
    own = {parameter.name for parameter in config_parameters(kind.config)}
    near += [other.name for other in kinds if other.name in words - own]
    return [name for name in dict.fromkeys(near) if name != kind.name]


def _place(thing: Callable[..., Any]) -> str:
    return thing.__module__.replace(".", "/") + ".py"
