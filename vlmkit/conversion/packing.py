"""Which modules are packed, and how: rules first, then what the architecture prefers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from importlib.metadata import version
from typing import Any

import mlx.core as mx

from vlmkit.conversion.config import QuantizationConfig, RuleConfig
from vlmkit.conversion.naming import Named
from vlmkit.errors import KeyPath, VlmkitError, nearest
from vlmkit.loading.quantization import AFFINE_GROUP_SIZES, Scheme

SENSES = (
    *("vision", "aligner", "vl_connector", "sam_model", "audio_model", "audio_tower"),
    *("code_predictor", "img_projector", "multi_modal_projector", "patch_merge_mlp"),
)
"""Parts of the paths of modules that see or hear, as mlx-vlm 0.7.10 tells them
(``mlx_vlm.utils.skip_multimodal_module``): those stay in full precision."""

_KEY = ("quantization",)


def choose_schemes(named: Named, config: QuantizationConfig) -> dict[str, Scheme]:
    """Return the scheme of each module that is to be packed, by its path.

    Raises:
        VlmkitError: a rule matches no module, a group size does not divide the inputs of a module,
            this MLX lacks a scheme, or nothing would be packed.
    """
    _check_rules(named.modules, config.rules)
    found: dict[str, Scheme] = {}
    for path in named.modules:
        array = named.arrays.get(f"{path}.weight")
        if array is None:
            continue
        index = next((i for i, rule in enumerate(config.rules) if matches(path, rule)), None)
        scheme = _scheme(named, config, path, index)
        if scheme is not None:
            key: KeyPath = _KEY if index is None else (*_KEY, "rules", index)
            _check_divides(path, array.shape[-1], scheme, (*key, "group_size"))
            found[path] = scheme
    if not found:
        raise VlmkitError("quantization: no module is packed; leave it out", path=_KEY)
    for scheme in set(found.values()):
        _check_there(scheme)
    return found


def matches(path: str, rule: RuleConfig) -> bool:
    """Tell whether a rule is about a module: by its path, or by that of one around it.

    Example:
        >>> rule = RuleConfig(modules="vision_tower.blocks.*.attn")
        >>> matches("vision_tower.blocks.0.attn.qkv", rule), matches("vision_tower.merger", rule)
        (True, False)
    """
    return any(
        fnmatchcase(around, pattern) for pattern in rule.patterns for around in _around(path)
    )


def _around(path: str) -> Iterable[str]:
    parts = path.split(".")
    return (".".join(parts[:end]) for end in range(len(parts), 0, -1))


def _scheme(
    named: Named, config: QuantizationConfig, path: str, index: int | None
) -> Scheme | None:
    if index is not None:
        rule = config.rules[index]
        return None if rule.keep else rule.scheme
    if any(part in path for part in SENSES):
        return None
    wanted = named.prefers(path)
    if wanted is None:
        return config.scheme
    return config.scheme._replace(**wanted.scheme) if wanted.is_packed else None


def _check_rules(modules: Iterable[str], rules: Iterable[RuleConfig]) -> None:
    modules = tuple(modules)
    for index, rule in enumerate(rules):
        if not any(matches(path, rule) for path in modules):
            known = {around for path in modules for around in _around(path)}
            known |= {f"*.{path.rpartition('.')[2]}" for path in modules}
            near = nearest(rule.patterns[0], sorted(known))
            tops = sorted({path.partition(".")[0] for path in modules})
            raise VlmkitError(
                f"quantization.rules.{index}.modules: {', '.join(map(repr, rule.patterns))} "
                f"matches no module that can be packed; they begin with {', '.join(tops)}{near}",
                path=(*_KEY, "rules", index, "modules"),
            )


def _check_divides(path: str, inputs: int, scheme: Scheme, key: KeyPath) -> None:
    if inputs % scheme.group_size == 0:
        return
    sizes = AFFINE_GROUP_SIZES if scheme.mode == "affine" else ()
    fits = [str(size) for size in sizes if inputs % size == 0]
    use = f"use group_size {' or '.join(fits)} there, or a rule" if fits else "add a rule"
    raise VlmkitError(
        f"quantization: {path} has {inputs} inputs, which groups of {scheme.group_size} do not "
        f"divide; {use} that keeps it: {{modules: {path}, keep: true}}",
        path=key,
    )


def _check_there(scheme: Scheme) -> None:
    try:
        mx.eval(mx.quantize(mx.zeros((8, 128)), scheme.group_size, scheme.bits, mode=scheme.mode))
    except (ValueError, RuntimeError, TypeError) as error:
        raise VlmkitError(
            f"quantization: {scheme} is not in this MLX ({version('mlx')}): {error}", path=_KEY
        ) from error


def pack(arrays: dict[str, mx.array], schemes: Mapping[str, Scheme]) -> dict[str, mx.array]:
    """Replace the weights of modules by their packed forms, lazily; ``arrays`` is emptied."""
    result: dict[str, mx.array] = {}
    for name in list(arrays):
        array, path = arrays.pop(name), name.removesuffix(".weight")
        if path == name or path not in schemes:
            result[name] = array
            continue
        scheme = schemes[path]
        parts = mx.quantize(array, scheme.group_size, scheme.bits, mode=scheme.mode)
        result |= {
            f"{path}.{part}": value
            for part, value in zip(("weight", "scales", "biases"), parts, strict=False)
        }
    return result


def quantization_section(
    schemes: Mapping[str, Scheme], arrays: Mapping[str, mx.array], default: Scheme
) -> dict[str, Any]:
    """Return what config.json says of packed modules: one scheme, and those that have another.

    mlx-vlm passes over a module of an odd size unless it is named, so those are named too.

    Args:
        schemes: of the packed modules.
        arrays: before they are packed.
        default: of all that is not named.
    """
    section: dict[str, Any] = default._asdict()
    for path, scheme in schemes.items():
        if scheme != default or arrays[f"{path}.weight"].size % 64:
            section[path] = scheme._asdict()
    return section


def count_schemes(schemes: Mapping[str, Scheme]) -> str:
    """Say in a few words how many modules are packed how.

    Example:
        >>> count_schemes({"a": Scheme(64, 4, "affine"), "b": Scheme(64, 4, "affine")})
        '2 modules affine 4-bit, group size 64'
    """
    counts = Counter(map(str, schemes.values())).most_common()
    return "; ".join(f"{number} module{'s' * (number > 1)} {name}" for name, number in counts)
