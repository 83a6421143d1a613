"""A sample of a data set: what is asked, what is seen, and what would be right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One question of a data set. It holds no pixels, only where they are."""

    id: str  # unique in the data set
    question: str  # the user's text, before the chat template
    images: tuple[str | bytes, ...] = ()  # paths, URLs, data URIs, or encoded images
    answers: tuple[str, ...] = ()  # references; a scorer says what it does with several
    fields: Mapping[str, Any] = {}  # what else the data say: choices, category, annotations, …
    where: str = ""  # file and line it came from, for messages
