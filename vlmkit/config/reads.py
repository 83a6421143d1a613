"""The files that a run reads, so that none of them is written over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from vlmkit.config.run import ResolvedRun
from vlmkit.contrast import ContrastiveDecodingConfig
from vlmkit.declare.packaged import PREFIX, packaged_image
from vlmkit.errors import VlmkitError
from vlmkit.loading.resolve import find_small_file

MAX_FILES = 10_000
"""Of a checkpoint's folder that are looked at, folders in it included: large ones have hundreds."""


def files_read(run: ResolvedRun) -> Iterator[Path]:
    """Yield the config's files, images, sounds, videos, and the files of the checkpoints; no URLs.

    Nothing is fetched. A hub id stands for what is on this machine.

    Example:
        >>> from vlmkit.config.run import load_run
        >>> run = load_run("vlmkit:runs/shapes_sampling.yaml", overrides=["images=[a.png]"])
        >>> names = [path.name for path in files_read(run)]
        >>> {"shapes_sampling.yaml", "a.png", "model.safetensors"} <= set(names)
        True
    """
    config = run.config
    yield from run.files
    frames = [[video] if isinstance(video, str) else video for video in config.video]
    for source in (*config.images, *config.audio, *chain.from_iterable(frames)):
        if source.startswith(PREFIX):
            yield packaged_image(source)
        elif "://" not in source and not source.startswith("data:"):
            yield Path(source)
    yield from _checkpoint(config.model, config.revision)
    if isinstance(config.contrast, ContrastiveDecodingConfig):
        yield from _checkpoint(config.contrast.amateur, None)


def _checkpoint(model: str, revision: str | None) -> Iterator[Path]:
    try:
        found = find_small_file(model, "config.json", revision, fetch=False)
    except VlmkitError:
        return  # there is none, which loading will say
    if found is None:
        return
    number = 0
    for folder, _, names in os.walk(found.parent):
        for name in names:
            number += 1
            if number > MAX_FILES:
                return
            yield Path(folder, name)
