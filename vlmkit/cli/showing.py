"""A sample and what arms say of it, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vlmkit.printable import mask_secrets

if TYPE_CHECKING:
    from vlmkit.experiment.records import Record
    from vlmkit.experiment.showing import Shown

_URI_CHARACTERS = 60  # of a data URI


def sample_lines(shown: Shown) -> Iterator[str]:
    """Yield the sample, the prompt of each arm, and each response with its scores."""
    sample = shown.sample
    yield f"sample {sample.id}" + ("" if sample.where in ("", sample.id) else f", {sample.where}")
    yield f"question  {sample.question}"
    for image in sample.images:
        yield f"image     {_image(image)}"
    for answer in sample.answers:
        yield f"answer    {answer}"
    prompts: dict[tuple[str, str], list[str]] = {}
    for arm, prompt in shown.prompts.items():
        sizes = ", ".join(f"{width} x {height}" for width, height in shown.image_sizes[arm])
        prompts.setdefault((prompt, sizes), []).append(arm)
    for (prompt, sizes), arms in prompts.items():
        yield ""
        pixels = f", images of {sizes} pixels" if sizes else ""
        yield f"prompt of {', '.join(arms)}{pixels}"
        yield prompt
    for record in shown.records:
        yield ""
        yield _head(record)
        yield record.text if record.error is None else f"error: {record.error}"
        if not record.answered:
            yield "no answer: it ended while thinking"
        for name, one in record.scores.items():
            if one.parsed is not None:
                yield f"{name} reads it as {json.dumps(one.parsed, ensure_ascii=False)}"
        for name, reason in record.extra.get("unscored", {}).items():
            yield f"{name} cannot score it: {reason}"


def _head(record: Record) -> str:
    scores = "".join(
        f"  {name} {one.value:g}" for name, one in record.scores.items() if one.value is not None
    )
    return f"{record.arm}, seed {record.seed}, {record.generation_tokens} tokens{scores}"


def _image(image: str | bytes) -> str:
    if isinstance(image, bytes):
        return f"in the data, {len(image):,} bytes"
    if image.startswith("data:") and len(image) > _URI_CHARACTERS:
        return f"{image[:_URI_CHARACTERS]}…"
    return mask_secrets(image)
