"""Prompts on disk: one safetensors file that says what it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from vlmkit.cache import CacheConfig, finish_rows, new_cache
from vlmkit.cache.compose import KVState
from vlmkit.cache.finishing import Finished
from vlmkit.cache.modality import ByModality
from vlmkit.contracts.inputs import Inputs, Media
from vlmkit.contracts.interface import Cache, DecodeState, Hidden, Model, PromptShape
from vlmkit.errors import VlmkitError, brief
from vlmkit.files import find_file, whole_file
from vlmkit.loading.safetensors import read_header
from vlmkit.prompts.prefill import Started
from vlmkit.tokens.ids import MAX_ID, check_ids

FORMAT = "vlmkit prompts 1"
_SAMPLES = 1024  # numbers of each weight that its fingerprint is made of


def weights_fingerprint(model: Model) -> str:
    """Return a digest of all weights' names, shapes, dtypes, and of 1,024 numbers of each.

    Enough to tell checkpoints and fine-tuned copies apart without reading every byte.
    """
    digest = hashlib.blake2b(digest_size=16)
    weights: Any = tree_flatten(model.parameters())  # type: ignore[attr-defined]
    for name, weight in sorted(weights):
        flat = weight.reshape(-1)
        step = max(flat.size // _SAMPLES, 1)
        sample = flat[::step]
        if mx.issubdtype(sample.dtype, mx.floating):
            sample = sample.astype(mx.float32)
        digest.update(f"{name} {weight.shape} {weight.dtype}".encode())
        digest.update(np.array(sample).tobytes())
    return digest.hexdigest()


def save_prompts(
    path: str | Path, prompts: Sequence[Started], *, model: Model, config: CacheConfig
) -> None:
    """Write prompts to a safetensors file; it appears whole or not at all.

    Args:
        path: where; an earlier file is replaced.
        prompts: what a prompt cache holds for this model and cache config.
        model: that they were computed with.
        config: of the KV cache that they are in.

    Raises:
        VlmkitError: the file cannot be written.
    """
    path = Path(path)
    arrays: dict[str, mx.array] = {}
    entries: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        leaves: Any = tree_flatten(prompt.state.cache.layers)
        hidden = () if prompt.hidden is None else (prompt.hidden.final, *prompt.hidden.taps)
        # States also hold numbers of tokens, which the host has to know.
        states = [leaf if isinstance(leaf, mx.array) else mx.array(leaf) for _, leaf in leaves]
        for kind, values in (("cache", states), ("hidden", hidden)):
            arrays |= {f"{number}.{kind}.{place}": value for place, value in enumerate(values)}
        arrays[f"{number}.token_ids"] = mx.array(prompt.inputs.token_ids)
        entries.append(
            {
                "length": prompt.state.cache.lengths[0],
                "next_position": prompt.state.next_positions[0],
                "num_hidden": len(hidden),
                "taps": list(prompt.taps),
                "media": [
                    [medium.kind, list(medium.shape), list(medium.span), medium.digest.hex()]
                    for medium in prompt.inputs.media
                ],
            }
        )
    metadata = {
        "format": FORMAT,
        "weights": weights_fingerprint(model),
        "cache": config.model_dump_json(),
        "prompts": json.dumps(entries),
    }
    try:
        with whole_file(path) as partial, partial.open("wb") as file:
            mx.save_safetensors(file, arrays, metadata)
    except RuntimeError as error:
        raise VlmkitError(f"{path}: cannot be written ({error})") from error


def read_prompts(path: str | Path, *, model: Model, config: CacheConfig) -> list[Started]:
    """Read prompts back, to be continued by this model under this cache config.

    Raises:
        VlmkitError: no such file, or one that is not of prompts, or that belongs to other weights
            or another cache config.
    """
    path = Path(path)
    if not find_file(path):
        raise VlmkitError(f"{path}: no such file; give one that save_prompts wrote")
    try:
        read_header(path)  # MLX believes what it says
        loaded: Any = mx.load(str(path), format="safetensors", return_metadata=True)
        arrays, metadata = loaded
        if metadata.get("format") != FORMAT:
            raise VlmkitError(f"{path}: not a file of prompts; give one that save_prompts wrote")
        entries = json.loads(metadata["prompts"])
        own = config.model_dump_json()
        if metadata["cache"] != own:
            raise VlmkitError(
                f"{path}: its prompts are in the KV cache {metadata['cache']}, not {own}; use that "
                "cache, or compute them again"
            )
        if metadata["weights"] != weights_fingerprint(model):
            raise VlmkitError(
                f"{path}: its prompts were computed with other weights than this model's; load "
                "that checkpoint, or compute them again"
            )
        empty = finish_rows(new_cache(config, model, 1), [PromptShape(0)])
        return [_read(arrays, number, entry, empty, model) for number, entry in enumerate(entries)]
    except (
        OSError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        StopIteration,
        AttributeError,
        OverflowError,
    ) as error:
        if isinstance(error, VlmkitError):
            raise
        why = " ".join(str(error).split())
        raise VlmkitError(f"{path}: cannot be read as prompts ({why}); save them again") from error


def _read(
    arrays: dict[str, mx.array], number: int, entry: dict[str, Any], empty: Cache, model: Model
) -> Started:
    """One prompt; its layers have the structure of the empty cache, and its numbers agree."""
    num_leaves = len(tree_flatten(empty.layers))
    leaves = iter([arrays[f"{number}.cache.{place}"] for place in range(num_leaves)])
    layers = tree_map(
        lambda like: next(leaves) if isinstance(like, mx.array) else _count(next(leaves).item()),
        empty.layers,
    )
    length, position = _count(entry["length"]), _count(entry["next_position"])
    for layer, expected in zip(layers, empty.layers, strict=True):
        _check_layer(layer, expected, length)
    hidden = [arrays[f"{number}.hidden.{place}"] for place in range(_count(entry["num_hidden"]))]
    taps = tuple(map(_count, entry["taps"]))
    if hidden and len(hidden) != 1 + len(taps):
        raise ValueError("the layers of its last token are not those it names")
    for state in hidden:
        _check_array(state, hidden[0])
        if state.ndim != 2 or state.shape[0] != 1 or state.dtype != model.dtype:
            raise ValueError(f"a last token of shape {state.shape} and {state.dtype}")
    token_ids = np.array(arrays[f"{number}.token_ids"])
    if token_ids.ndim != 1 or token_ids.dtype != np.int32:
        raise ValueError("its tokens are no row of ids")
    check_ids("tokens", token_ids.tolist(), model.config.vocab_size)
    if length != len(token_ids) if hidden else length > len(token_ids):
        raise ValueError(f"{length} of {len(token_ids)} tokens were computed")
    nothing = np.zeros((0, 0), np.float32)
    media = tuple(
        Media(kind, nothing, tuple(shape), _span(span, len(token_ids)), bytes.fromhex(digest))
        for kind, shape, span, digest in entry["media"]
    )
    return Started(
        Inputs.of(token_ids, media),
        DecodeState(Cache(empty.kinds, layers, (length,)), (position,)),
        Hidden(hidden[0], tuple(hidden[1:])) if hidden else None,
        taps,
    )


def _check_layer(layer: Any, empty: Any, length: int) -> None:
    """Refuse a layer that cannot be of this cache: written to, it would reach outside its arrays.

    An axis that is empty in an empty cache is that of the tokens, of one size in a whole layer.
    """
    if isinstance(layer, Finished):
        _check_layer(layer.stored, empty.stored, length - layer.dropped[0])
        return
    if isinstance(layer, ByModality):
        (num_images,) = layer.num_images
        _check_layer(layer.images, empty.images, num_images)
        _check_layer(layer.text, empty.text, length - num_images)
        return
    flat: Any = zip(tree_flatten(layer), tree_flatten(empty), strict=True)
    pairs: list[tuple[mx.array, mx.array]] = [(found, wanted) for (_, found), (_, wanted) in flat]
    sizes = set()
    for found, expected in pairs:
        _check_array(found, expected)
        sizes |= {size for size, none in zip(found.shape, expected.shape, strict=True) if not none}
    if not isinstance(layer, KVState):
        return  # blocks of tokens, and those that fill none yet, have sizes of their own
    if len(sizes) > 1:
        raise ValueError(f"a layer with places for {' and '.join(map(str, sorted(sizes)))} tokens")
    if layer.ends.tolist() != [length]:
        raise ValueError(f"a layer that ends at {layer.ends.tolist()}, not {length}")


def _check_array(found: mx.array, expected: mx.array) -> None:
    is_like = found.ndim == expected.ndim and all(
        size == wanted or wanted == 0
        for size, wanted in zip(found.shape, expected.shape, strict=False)
    )
    if not is_like or found.dtype != expected.dtype:
        raise ValueError(
            f"an array of {found.shape} and {found.dtype} stands where {expected.shape} and "
            f"{expected.dtype} should"
        )


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_ID:
        raise ValueError(f"{brief(value)} is no count")
    return value


def _span(span: Any, num_tokens: int) -> tuple[int, int]:
    start, end = map(_count, span)
    if not start <= end <= num_tokens:
        raise ValueError(f"a medium at {start} to {end} of {num_tokens} tokens")
    return start, end
