"""What stands around the tokens of an image where the chat template writes its opening alone.

Reference: Gemma Team (2025), "Gemma 3 Technical Report", arXiv:2503.19786; ``Gemma3Processor`` of
transformers does the same with text, before it is tokenized.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class ImageSpan(NamedTuple):
    """The tokens of an image: what a prompt has, the image's own, and what ends it."""

    opening: str
    place: str
    closing: str


def write_spans(text: str, span: ImageSpan | None) -> str:
    """Put each image's place and closing behind its opening, and an empty line around them.

    Args:
        text: a formatted prompt; an opening with an image's place behind it stays as it is.
        span: the tokens of an image; None changes nothing.

    Example:
        >>> write_spans("What is <in>?", ImageSpan("<in>", "<image>", "<out>"))
        'What is \\n\\n<in><image><out>\\n\\n?'
    """
    if span is None:
        return text
    whole = f"\n\n{''.join(span)}\n\n"
    return re.sub(f"{re.escape(span.opening)}(?!{re.escape(span.place)})", lambda _: whole, text)
