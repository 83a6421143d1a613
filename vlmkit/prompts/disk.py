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

from vlmkit.cache import CacheConfig, new_cache
from vlmkit.errors import VlmkitError
from vlmkit.files import find_file, whole_file
from vlmkit.inputs import Inputs, Media
from vlmkit.interface import Cache, DecodeState, Hidden, Model
from vlmkit.prompts.prefill import Started

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
        for kind, values in (("cache", [leaf for _, leaf in leaves]), ("hidden", hidden)):
            arrays |= {f"{number}.{kind}.{place}": value for place, value in enumerate(values)}
        arrays[f"{number}.token_ids"] = mx.array(prompt.inputs.token_ids)
        arrays[f"{number}.content_ids"] = mx.array(prompt.inputs.content_ids)
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
        empty = new_cache(config, model, 1)
        return [_read(arrays, number, entry, empty) for number, entry in enumerate(entries)]
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


def _read(arrays: dict[str, mx.array], number: int, entry: dict[str, Any], empty: Cache) -> Started:
    """One prompt; its layers have the structure of the empty cache."""
    num_leaves = len(tree_flatten(empty.layers))
    leaves = iter([arrays[f"{number}.cache.{place}"] for place in range(num_leaves)])
    layers = tree_map(lambda _: next(leaves), empty.layers)
    cache = Cache(empty.kinds, layers, (int(entry["length"]),))
    hidden = [arrays[f"{number}.hidden.{place}"] for place in range(entry["num_hidden"])]
    nothing = np.zeros((0, 0), np.float32)
    media = tuple(
        Media(kind, nothing, tuple(shape), (span[0], span[1]), bytes.fromhex(digest))
        for kind, shape, span, digest in entry["media"]
    )
    inputs = Inputs(
        np.array(arrays[f"{number}.token_ids"]), np.array(arrays[f"{number}.content_ids"]), media
    )
    return Started(
        inputs,
        DecodeState(cache, (int(entry["next_position"]),)),
        Hidden(hidden[0], tuple(hidden[1:])) if hidden else None,
        tuple(entry["taps"]),
    )
