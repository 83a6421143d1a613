"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.data.base import Rows
from vlmkit.experiment.data.columns import ColumnsConfig, Row, image_keys, row_id, to_sample
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.shown import listed

MISSING = "needs the package datasets; install it with: pip install 'vlmkit[data]'"


class HubConfig(ColumnsConfig):
    """A data set of the hub, or a folder in one of the layouts that `datasets` reads."""

    kind: Literal["hub"] = "hub"
    dataset: str = Field(
        min_length=1, description="'owner/name', or a folder relative to the file that names it"
    )
    subset: str | None = Field(default=None, description="its configuration; null: the only one")
    split: str = Field(min_length=1, description="as 'test' or 'validation[:100]'")
    revision: str | None = Field(
        default=None, description="branch, tag or commit; null: what is newest"
    )


def hub(config: HubConfig, base: Path) -> Rows:
    """Load a data set, from the cache of `datasets` where it is there already.

    Labels that are numbers with names are given by their names.

    Raises:
        VlmkitError: `datasets` is not installed, or the data set, subset, split or column does not
            exist.
    """
    loaded = _load(config, base)
    names = tuple(loaded.column_names)
    source = f"{config.dataset} ({config.split})"
    if config.question_key not in names:
        near = nearest(config.question_key, names)
        raise VlmkitError(
            f"{source}: no column {config.question_key!r}{near} (it has: {listed(names)})"
        )
    images = image_keys(config, names)
    labels = _label_names(loaded)
    table = loaded.with_format("arrow")  # images as they are stored, not decoded
    texts = table.select_columns([name for name in names if name not in images])

    def where(index: int) -> str:
        return f"{source}: row {index + 1}"

    def row(view: Any, index: int) -> Row:
        (values,) = view[index : index + 1].to_pylist()
        for name, label_names in labels.items():
            label = values.get(name)
            if isinstance(label, int) and 0 <= label < len(label_names):
                values[name] = label_names[label]
        return Row(values, index + 1, where(index))

    def read(index: int) -> Sample:
        return to_sample(config, row(table, index), folder=base)

    def read_text(index: int) -> Sample:
        values = {**row(texts, index).values, **dict.fromkeys(images)}
        return to_sample(config, Row(values, index + 1, where(index)), folder=base)

    key = config.id_key or "id"
    if key in names:
        values = table.select_columns([key])[:].column(key).to_pylist()
        ids = [row_id(config, Row({key: value}, 0, where(i))) for i, value in enumerate(values)]
    elif config.id_key is not None:
        raise VlmkitError(f"{source}: no column {key!r}{nearest(key, names)}")
    else:
        ids = [str(index + 1) for index in range(len(loaded))]
    return Rows(ids, read, read_text, where, source=source)


def _label_names(loaded: Any) -> dict[str, list[str]]:
    from datasets import ClassLabel

    return {
        name: kind.names for name, kind in loaded.features.items() if isinstance(kind, ClassLabel)
    }


def _load(config: HubConfig, base: Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise VlmkitError(f"dataset: kind hub {MISSING}") from error
    folder = base / config.dataset
    name = str(folder) if folder.is_dir() else config.dataset
    try:
        return datasets.load_dataset(
            name, config.subset, split=config.split, revision=config.revision
        )
    except Exception as error:  # whatever a download, a builder or a file makes it raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise VlmkitError(f"dataset: {config.dataset}: can't be loaded: {why[:300]}") from error
