"""What a comparison and a report know of a run besides its records."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from vlmkit.experiment.samples import Sample


class SampleInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A sample as a report shows it."""

    question: str
    images: list[str] = []  # paths, URLs or data URIs
    answers: list[str] = []
    fields: dict[str, Any] = {}


class RunInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One run: its arms as they were resolved, and what it was measured with."""

    name: str
    arms: dict[str, dict[str, Any]]  # in the order they are shown; name -> resolved config
    metrics: list[str]  # the first is the one that is shown first
    baseline: str | None = None  # the arm that others are compared with
    data_hash: str | None = None  # runs with different data are not paired
    num_units: int | None = None  # records of the complete run
    provenance: dict[str, Any] = {}  # shown as it is: versions, device, commit, command line
    samples: dict[str, SampleInfo] = {}  # id -> sample; the report shows those that are here


def sample_info(sample: Sample) -> SampleInfo:
    """A sample in the form that a report stores; encoded images become data URIs.

    Example:
        >>> sample_info(Sample("7", "What is it?", (b"GIF89a",), ("a cat",))).images
        ['data:application/octet-stream;base64,R0lGODlh']
    """
    return SampleInfo(
        question=sample.question,
        images=[image if isinstance(image, str) else _data_uri(image) for image in sample.images],
        answers=list(sample.answers),
        fields=_plain(sample.fields),
    )


def _data_uri(image: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(image).decode()


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(dict(fields), enc_hook=str, str_keys=True)
    return plain
