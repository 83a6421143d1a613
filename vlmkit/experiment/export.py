"""A run's records as one Parquet file, for pandas, polars, DuckDB and the like."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.experiment.records import Record
from vlmkit.files import whole_file

_ROWS = 4096  # held at a time


def export_parquet(
    records: Iterable[Record], metrics: Sequence[str], path: str | os.PathLike[str]
) -> int:
    """Write one row per record, a few thousand at a time.

    Columns are the fields of `Record`, and for each metric ``score.NAME`` (float64),
    ``parsed.NAME`` (string) and ``parts.NAME`` (string: JSON); ``extra`` is JSON as well. What is
    not known is null.

    Args:
        records: in any order.
        metrics: names of the metrics to write.
        path: the file; one that is there is replaced when the new one is complete.

    Returns:
        The number of rows.

    Raises:
        VlmkitError: pyarrow is not installed, the file cannot be written, or a record holds a
            number that no column does.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise VlmkitError(
            "writing Parquet needs pyarrow, which is not installed; "
            "install it with: pip install 'vlmkit[data]'"
        ) from None
    schema = _schema(pa, metrics)
    lines = (_row(record, metrics) for record in records)
    num_rows = 0
    with whole_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(itertools.islice(lines, _ROWS)):
            try:
                columns = pa.RecordBatch.from_pylist(batch, schema=schema)
            except (OverflowError, ValueError) as error:
                raise VlmkitError(f"a record does not fit its columns ({error})") from error
            writer.write_batch(columns)
            num_rows += len(batch)
    return num_rows


def _schema(pa: Any, metrics: Sequence[str]) -> Any:
    text, real, count = pa.string(), pa.float64(), pa.int64()
    fields = [
        ("arm", text), ("sample", text), ("seed", pa.uint64()), ("text", text),
        ("token_ids", pa.list_(count)), ("forced", pa.list_(pa.bool_())),
        ("text_ends", pa.list_(count)), ("logprobs", pa.list_(real)),
        ("top_logprobs", text),
        ("finish_reason", text), ("finish_kind", text), ("error", text),
        ("answered", pa.bool_()),
        ("prompt_tokens", count), ("cached_tokens", count), ("generation_tokens", count),
        ("prompt_s", real), ("generation_s", real),
        ("alone", pa.bool_()), ("cache_bytes", count), ("extra", text),
    ]  # fmt: skip
    for metric in metrics:
        fields += [(f"score.{metric}", real), (f"parsed.{metric}", text), (f"parts.{metric}", text)]
    return pa.schema(fields)


def _row(record: Record, metrics: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.structs.asdict(record)
    del row["scores"]
    row["extra"] = _json(record.extra)
    row["top_logprobs"] = _json(record.top_logprobs)
    for metric in metrics:
        scored = record.scores.get(metric)
        if scored is not None:
            row[f"score.{metric}"] = scored.value
            row[f"parsed.{metric}"] = scored.parsed
            row[f"parts.{metric}"] = _json(scored.parts)
    return row


def _json(value: dict[str, Any] | list[Any]) -> str | None:
    return msgspec.json.encode(value).decode() if value else None
