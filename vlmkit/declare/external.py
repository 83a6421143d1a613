"""A third party's stage, found by name: an installed entry point, or a function of a module.

To find a function of a module is to run code, so what only describes a run never comes here:
`vlmkit.config.external` asks first whether its files may.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, JsonValue

from vlmkit.declare.configbase import StageConfig
from vlmkit.errors import KeyPath, VlmkitError, nearest

Stage = TypeVar("Stage")


def _is_name(factory: str) -> str:
    module, colon, function = factory.partition(":")
    parts = [*module.split("."), *function.split(".")] if colon else [factory]
    if not all(part.isidentifier() if colon else part.strip() for part in parts):
        raise ValueError(f"must be 'package.module:function' or an entry point, got {factory!r}")
    return factory


class External(StageConfig):
    """A stage from another package: what makes it, and the arguments for that."""

    kind: Literal["external"] = "external"
    factory: Annotated[str, AfterValidator(_is_name)] = Field(
        description="the name of an installed entry point, or package.module:function"
    )
    config: dict[str, JsonValue] = Field(default={}, description="keyword arguments of the factory")

    @property
    def is_code(self) -> bool:
        """Whether the factory is a function of any module, not an installed entry point.

        >>> External(factory="os:system").is_code, External(factory="fading_penalty").is_code
        (True, False)
        """
        return ":" in self.factory

    def __hash__(self) -> int:
        return hash((self.kind, self.factory, _freeze(self.config)))


def externals_in(config: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, External]]:
    """Find every external stage that a config holds, at any depth, and where it stands.

    >>> class Both(StageConfig):
    ...     first: External
    ...     others: tuple[External, ...]
    >>> both = Both(first=External(factory="a:b"), others=(External(factory="c"),))
    >>> [(path, one.factory) for path, one in externals_in(both)]
    [(('first',), 'a:b'), (('others', 0), 'c')]
    """
    if isinstance(config, External):
        yield path, config
    elif isinstance(config, BaseModel):
        for name in type(config).model_fields:
            yield from externals_in(getattr(config, name), (*path, name))
    elif isinstance(config, Mapping):
        for key, value in config.items():
            yield from externals_in(value, (*path, key))
    elif isinstance(config, (list, tuple)):
        for index, value in enumerate(config):
            yield from externals_in(value, (*path, index))


def make_external(
    config: External, *, group: str, result: type[Stage], home: str | None = None
) -> Stage:
    """Find a factory and call it with the config's arguments.

    Nothing is registered or remembered: the name is looked up each time.

    Args:
        config: what to make.
        group: the entry-point group, as ``"vlmkit.sampling"``.
        result: what the factory must return.
        home: the public module that offers it, for messages; None: where it is defined.

    Raises:
        VlmkitError: no such entry point, module or function; arguments that it does not take; an
            exception inside it, ``SystemExit`` too (chained); a result of another type.

    Example:
        >>> delta = External(factory="datetime:timedelta", config={"hours": 2})
        >>> import datetime
        >>> make_external(delta, group="vlmkit.sampling", result=datetime.timedelta).seconds
        7200
    """
    where = f"external: factory {config.factory!r}"
    if config.is_code:
        entry = EntryPoint(name=config.factory, value=config.factory, group=group)
    else:
        entry = _installed(config.factory, where, group)
    factory = _load(entry, where)
    _check_arguments(factory, config.config, where)
    try:
        made = factory(**copy.deepcopy(config.config))
    except (Exception, SystemExit) as error:
        raise VlmkitError(f"{where} failed: {_one_line(error)}") from error
    if not isinstance(made, result):
        got = "None" if made is None else f"a {type(made).__name__}"
        place = result.__module__ if home is None else home
        raise VlmkitError(f"{where} returned {got}, not a {place}.{result.__name__}")
    return made


def _installed(name: str, where: str, group: str) -> EntryPoint:
    installed = entry_points(group=group)
    targets = {entry.value: entry for entry in installed if entry.name == name}
    if len(targets) == 1:
        return next(iter(targets.values()))
    if targets:
        raise VlmkitError(
            f"{where}: several packages offer it; write one of {', '.join(sorted(targets))}"
        )
    names = sorted(installed.names)
    listed = f"installed: {', '.join(names)}" if names else "none is installed"
    raise VlmkitError(
        f"{where}: no such entry point in the group {group!r}{nearest(name, names)} ({listed}); "
        "or write package.module:function"
    )


def _load(entry: EntryPoint, where: str) -> Callable[..., Any]:
    module_name = entry.value.partition(":")[0].strip()
    try:
        found = entry.load()
    except ModuleNotFoundError as error:
        hint = ""
        if error.name == module_name.partition(".")[0]:
            hint = "; install its package, or run `python -m vlmkit` in the folder it lies in"
        raise VlmkitError(f"{where} can't be imported: {_one_line(error)}{hint}") from error
    except (Exception, SystemExit) as error:
        module = sys.modules.get(module_name)
        if module is None:
            raise VlmkitError(f"{where} can't be imported: {_one_line(error)}") from error
        if not isinstance(error, AttributeError):
            raise VlmkitError(f"{where} can't be read: {_one_line(error)}") from error
        near = nearest(entry.attr, [name for name in vars(module) if not name.startswith("_")])
        raise VlmkitError(f"{where}: module {module_name!r} has no {entry.attr!r}{near}") from error
    if not callable(found):
        raise VlmkitError(f"{where} is of type {type(found).__name__}, not a function")
    factory: Callable[..., Any] = found
    return factory


def _check_arguments(factory: Callable[..., Any], arguments: dict[str, Any], where: str) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return  # some functions written in C have none; the call itself will say what is wrong
    try:
        signature.bind(**arguments)
    except TypeError as error:
        names = list(signature.parameters)
        unknown = next((name for name in arguments if name not in names), None)
        near = "" if unknown is None else nearest(unknown, names)
        takes = ", ".join(str(parameter) for parameter in signature.parameters.values())
        raise VlmkitError(f"{where}: config: {error}{near} (it takes: {takes})") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, VlmkitError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _freeze(value: JsonValue) -> Hashable:
    if isinstance(value, dict):
        return frozenset((key, _freeze(item)) for key, item in value.items())
    if isinstance(value, list):
        return tuple(_freeze(item) for item in value)
    return value
