"""Where a harness's model comes from: a pipeline's YAML file, overrides, and a task's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from vlmkit.config.run import ResolvedRun, load_run
from vlmkit.config.tree import Node
from vlmkit.config.validate import error_at
from vlmkit.errors import VlmkitError, nearest

TaskSettings = Literal["apply", "limits", "ignore"]

QUESTION = "{question}"
_LIMITS = ("max_tokens", "stop")


class Source(NamedTuple):
    """What makes a run."""

    pipeline: str | None = None  # a YAML file, or ``vlmkit:…`` for one of the package
    model: str | None = None  # in place of the file's
    overrides: tuple[str, ...] = ()  # ``a.b=c``
    trust_code: bool = False
    task_settings: TaskSettings = "apply"
    # What a task says of sampling and limits: "apply" lays all of it over the file as flags are,
    # "limits" its max_tokens and stop strings alone, "ignore" nothing.


def check_task_settings(value: object) -> TaskSettings:
    """Return how a task's settings are taken.

    Raises:
        VlmkitError: no such way.

    Example:
        >>> check_task_settings("limit")
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: task_settings: 'limit' is none of apply, limits, ignore; did \
you mean 'limits'?
    """
    known: tuple[TaskSettings, ...] = get_args(TaskSettings)
    for name in known:
        if value == name:
            return name
    raise VlmkitError(
        f"task_settings: {value!r} is none of {', '.join(known)}{nearest(str(value), known)}"
    )


def load_source(source: Source, settings: Mapping[str, Any] | None = None) -> ResolvedRun:
    """Merge a pipeline, its overrides and a task's settings, and validate.

    A prompt and images in the file are not used: the task brings its own.

    Args:
        source: where it comes from.
        settings: of the task, named as the parameters of :func:`vlmkit.generate`; None counts as
            not set.

    Raises:
        VlmkitError: names the file and line, the key, and what would work; also for a file that
            formats prompts, which a task does itself.

    Example:
        >>> run = load_source(Source("vlmkit:runs/shapes_thinking.yaml"), {"max_tokens": 7})
        >>> run.config.stopping[0].max_tokens
        7
    """
    if source.pipeline is not None and not isinstance(source.pipeline, str):
        raise VlmkitError(
            f"pipeline: {type(source.pipeline).__name__} given; give the path of a YAML file, and "
            "values by their keys, as in cache.kind"
        )
    taken = {
        name: value
        for name, value in (settings or {}).items()
        if source.task_settings == "apply" or (source.task_settings == "limits" and name in _LIMITS)
    }
    flags = {**taken, "model": source.model}
    run = load_run(
        source.pipeline, overrides=source.overrides, flags=flags, trust_code=source.trust_code
    )
    _check_prompt(run)
    return run


def _check_prompt(run: ResolvedRun) -> None:
    config = run.config
    if config.messages:
        raise VlmkitError(_at(run.tree, "messages", "the task brings its own; leave them out"))
    if QUESTION in config.prompt:
        raise VlmkitError(
            _at(run.tree, "prompt", f"the task writes the prompt; leave {QUESTION} out")
        )
    if not config.template.apply:
        raise VlmkitError(
            _at(run.tree, "template.apply", "a task needs the chat template; leave it out")
        )


def _at(tree: Node, key: str, message: str) -> str:
    return str(error_at(tree, tuple(key.split(".")), f"{key}: {message}"))
