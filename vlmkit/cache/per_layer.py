"""Caches of different kinds in different layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vlmkit.cache.dense import DenseConfig
from vlmkit.cache.one_kind import OneKindConfig
from vlmkit.contracts.interface import KVSpec, LayerSpec
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import KeyPath, VlmkitError

_FORMS = "a number, a range as in 0-3, 'first 2', 'last 2', 'sliding' or 'all'"


def _readable(layers: int | str) -> int | str:
    text = str(layers)
    if not re.fullmatch(r"\d+|\d+-\d+|(first|last) [1-9]\d*|sliding|all", text):
        raise ValueError(f"{layers!r} names no layers; give {_FORMS}")
    return layers


Layers = Annotated[Int | str, AfterValidator(_readable)]


class LayerRule(StageConfig):
    """Which layers get a cache, and which cache."""

    layers: Layers | tuple[Layers, ...] = Field(
        description="Attention layers: a number from 0, a range as in 0-3 (both ends count), "
        "'first 2', 'last 2', 'sliding' (those with a window), 'all', or a list of these."
    )
    cache: OneKindConfig = Field(description="The cache of these layers.")


class PerLayerConfig(StageConfig):
    """Give layers caches of different kinds, by rules."""

    kind: Literal["per_layer"] = "per_layer"
    rules: tuple[LayerRule, ...] = Field(
        min_length=1, description="Which layers get which cache; no layer in two rules."
    )
    otherwise: OneKindConfig = Field(
        DenseConfig(), description="The cache of the layers that are in no rule."
    )


def per_layer(
    config: PerLayerConfig, layer_specs: Sequence[LayerSpec]
) -> list[tuple[KeyPath, OneKindConfig, list[int]]]:
    """Return each config of a cache, where it stands, and the layers that get it.

    'first', 'last' and 'all' count attention layers only, and a range is about those that lie in
    it: a recurrent layer has a state of its own. :func:`skipped_by_rules` says which they are.

    Raises:
        VlmkitError: a rule is about no layer, about one that is not there, by its own number about
            one that is recurrent, or about one that an earlier rule is about.

    Example:
        >>> rules = [LayerRule(layers=["first 1", 3], cache={"kind": "rotating", "max_size": 8})]
        >>> config = PerLayerConfig(rules=rules)
        >>> for path, cache, layers in per_layer(config, [KVSpec(2, 64, 64)] * 4):
        ...     print(cache.kind, layers)
        rotating [0, 3]
        dense [1, 2]
    """
    found: list[tuple[KeyPath, OneKindConfig, list[int]]] = []
    taken: dict[int, int] = {}
    for number, rule in enumerate(config.rules):
        named = rule.layers if isinstance(rule.layers, tuple) else (rule.layers,)
        key = f"cache.rules.{number}.layers"
        path: KeyPath = ("cache", "rules", number, "layers")
        layers = sorted({layer for form in named for layer in _match(form, layer_specs, key, path)})
        for layer in layers:
            if layer in taken:
                raise VlmkitError(
                    f"{key}: layer {layer} is in cache.rules.{taken[layer]} too; leave it out of "
                    "one of them",
                    path=path,
                )
            taken[layer] = number
        found.append((("cache", "rules", number, "cache"), rule.cache, layers))
    rest = [layer for layer in range(len(layer_specs)) if layer not in taken]
    return [*found, (("cache", "otherwise"), config.otherwise, rest)]


def _match(
    form: int | str, layer_specs: Sequence[LayerSpec], key: str, path: KeyPath
) -> Sequence[int]:
    """The layers that one form stands for, at least one."""
    attention = [i for i, spec in enumerate(layer_specs) if isinstance(spec, KVSpec)]
    text = str(form)
    word, _, count = text.partition(" ")
    if word == "all":
        found = attention
    elif word == "sliding":
        found = [
            i for i, spec in enumerate(layer_specs) if isinstance(spec, KVSpec) and spec.window
        ]
    elif word in ("first", "last"):
        found = attention[: int(count)] if word == "first" else attention[-int(count) :]
        found = found if int(count) <= len(attention) else []
    else:
        found = [i for i in _range(text) if i in set(attention)]
        found = found if max(_range(text), default=0) < len(layer_specs) else []
    if found:
        return found
    there = "no layers" if not attention else f"layers {_said(attention)}"
    raise VlmkitError(
        f"{key}: {form!r} is about no attention layer or one that is not there; the model has "
        f"{there} with attention",
        path=path,
    )


def _range(text: str) -> range:
    low, _, high = text.partition("-")
    return range(int(low), int(high or low) + 1)


def skipped_by_rules(config: PerLayerConfig, layer_specs: Sequence[LayerSpec]) -> list[int]:
    """Return the layers in the ranges of rules that no rule applies to, as they are recurrent.

    Example:
        >>> from vlmkit.contracts.interface import RecurrentSpec
        >>> config = PerLayerConfig(rules=[{"layers": "0-2", "cache": {"kind": "affine"}}])
        >>> skipped_by_rules(config, [KVSpec(2, 64, 64), RecurrentSpec(()), KVSpec(2, 64, 64)])
        [1]
    """
    found = set()
    for rule in config.rules:
        for form in rule.layers if isinstance(rule.layers, tuple) else (rule.layers,):
            if re.fullmatch(r"\d+-\d+", str(form)):
                found |= {i for i in _range(str(form)) if not isinstance(layer_specs[i], KVSpec)}
    return sorted(found)


def _said(layers: Sequence[int]) -> str:
    low, high = layers[0], layers[-1]
    return f"{low}-{high}" if high - low + 1 == len(layers) else ", ".join(map(str, layers))
