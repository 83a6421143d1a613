"""The kinds of data sets, and what is done with any of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
from pydantic import Field

from vlmkit.errors import VlmkitError
from vlmkit.experiment.data.album import AlbumConfig, albums
from vlmkit.experiment.data.base import Rows, Samples, take
from vlmkit.experiment.data.folder import ImagesConfig, images
from vlmkit.experiment.data.hub import HubConfig, hub
from vlmkit.experiment.data.images import check_image, image_content
from vlmkit.experiment.data.jsonl import JsonlConfig, jsonl
from vlmkit.experiment.data.parquet import ParquetConfig, parquet
from vlmkit.experiment.data.shapes import ShapesConfig, shapes
from vlmkit.experiment.data.tsv import TsvConfig, tsv

DatasetConfig = Annotated[
    JsonlConfig | ImagesConfig | TsvConfig | ShapesConfig | AlbumConfig | ParquetConfig | HubConfig,
    Field(discriminator="kind"),
]
"""Any data set's config, told apart by ``kind``."""


def load_samples(config: DatasetConfig, base: Path) -> Samples:
    """Open a data set, take what the config asks for, and check every sample of it.

    Samples and their images are read again when they are asked for; what is kept is their ids and
    places. Of an image its kind and size are read, not its pixels, and nothing is fetched from the
    web.

    Args:
        config: which data set, and which of its samples.
        base: the folder of the file that names it; the data set's path is relative to it, and the
            paths in the data to the data's own file.

    Returns:
        A sequence of samples with their ``ids``.

    Raises:
        VlmkitError: names file and line: a bad row, an id that occurs twice, an image that is
            missing or no image; or there is no sample at all.

    Example:
        >>> samples = load_samples(ShapesConfig(num_samples=30, limit=2, offset=5), Path())
        >>> samples.ids, len(samples[0].images)
        (('shapes-5', 'shapes-6'), 1)
    """
    samples = take(_rows(config, base), config)
    if isinstance(config, (ShapesConfig, AlbumConfig)):
        return samples
    for sample in samples:
        for image in sample.images:
            check_image(image, sample.where)
    return samples


def data_hash(config: DatasetConfig, base: Path, samples: Samples | None = None) -> str:
    """A hash of what is asked: ids, questions, references, fields and the images' content.

    Where the files lie does not matter, nor how they are written. Of an image on the web only the
    address counts.

    Args:
        config, base: as in :func:`load_samples`.
        samples: what :func:`load_samples` returned for them, if it is there already.

    Returns:
        SHA-256, 64 hexadecimal digits.

    Example:
        >>> first, second = (ShapesConfig(num_samples=n) for n in (3, 4))
        >>> data_hash(first, Path()) == data_hash(second, Path())
        False
    """
    chosen = load_samples(config, base) if samples is None else samples
    whole = hashlib.sha256()
    for index in range(len(chosen)):
        for part in _parts(chosen, index):
            whole.update(hashlib.sha256(part).digest())
        whole.update(b".")
    return whole.hexdigest()


def _parts(samples: Samples, index: int) -> list[bytes]:
    contents = samples.image_contents(index)
    if contents is None:
        sample = samples[index]
        contents = [image_content(image) for image in sample.images]
    else:
        sample = next(samples[index : index + 1].texts())
    text = (sample.id, sample.question, sample.answers, dict(sample.fields))
    try:
        return [msgspec.json.encode(text, order="deterministic"), *contents]
    except (TypeError, ValueError) as error:
        raise VlmkitError(f"{sample.where}: a field can't be written as JSON ({error})") from error


def _rows(config: DatasetConfig, base: Path) -> Rows:
    match config:
        case JsonlConfig():
            return jsonl(config, base)
        case ImagesConfig():
            return images(config, base)
        case TsvConfig():
            return tsv(config, base)
        case ShapesConfig():
            return shapes(config, base)
        case AlbumConfig():
            return albums(config, base)
        case ParquetConfig():
            return parquet(config, base)
        case HubConfig():
            return hub(config, base)
