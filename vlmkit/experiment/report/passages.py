"""A response cut into passages: thinking and answer, forced and doubtful tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from vlmkit.experiment.records import Record

_OPEN, _CLOSE = "<think>", "</think>"
_SURE = 0.9  # a token at least this probable is not shaded
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


class Span(NamedTuple):
    """Text of one or several tokens."""

    text: str
    forced: bool = False  # a stopping criterion put it there
    doubt: float = 0.0  # 1 − the model's own probability, where it is worth showing
    logprob: float | None = None


class Passage(NamedTuple):
    """A part of a response that is shown as one."""

    thinking: bool
    spans: tuple[Span, ...]
    num_cut: int = 0  # characters that were left out


def passages(record: Record, max_characters: int) -> list[Passage]:
    """Cut a response at the last ``</think>``; what stands before it is thinking, or all of it is.

    Example:
        >>> shown = passages(Record(arm="a", sample="x", seed=0, text="<think>Hm.</think>Yes"), 99)
        >>> [(passage.thinking, passage.spans[0].text) for passage in shown]
        [(True, 'Hm.'), (False, 'Yes')]
    """
    shown = []
    for thinking, start, end in _regions(record.text, cut=not record.answered):
        stop = min(end, start + max_characters)
        spans = tuple(_merged(_spans(record, start, stop)))
        if spans:
            shown.append(Passage(thinking, spans, end - stop))
    return shown


def readable(text: str) -> str:
    r"""Control characters as their pictures, so that nothing is hidden in a text.

    >>> readable("a\x00b\x1b[1m\n")
    'a␀b␛[1m\n'
    """
    return text.translate(_PICTURES)


def _regions(text: str, *, cut: bool) -> list[tuple[bool, int, int]]:
    close = text.rfind(_CLOSE)
    if close >= 0:
        opened = len(text) - len(text.lstrip())
        start = opened + len(_OPEN) if text.startswith(_OPEN, opened) else 0
        return [(True, start, close), (False, close + len(_CLOSE), len(text))]
    opened = text.find(_OPEN)
    if opened >= 0:
        return [(False, 0, opened), (True, opened + len(_OPEN), len(text))]
    return [(cut, 0, len(text))]


def _spans(record: Record, start: int, stop: int) -> Iterator[Span]:
    ends, text = record.text_ends, record.text
    if len(ends) != len(record.token_ids) or ends != sorted(ends):
        ends = []
    before = 0
    for place, end in enumerate(ends):
        piece = text[max(before, start) : min(end, stop)]
        before = end
        if piece:
            forced = place < len(record.forced) and record.forced[place]
            logprob = record.logprobs[place] if place < len(record.logprobs) else None
            prob = 1.0 if logprob is None else math.exp(min(logprob, 0.0))
            if prob < _SURE:
                yield Span(piece, forced, round(1 - prob, 2), logprob)
            else:
                yield Span(piece, forced)
    rest = text[max(before, start) : stop]
    if rest:
        yield Span(rest)


def _merged(spans: Iterator[Span]) -> Iterator[Span]:
    held: Span | None = None
    for span in spans:
        alike = held is not None and held.forced == span.forced
        if held is not None and alike and held.logprob is None and span.logprob is None:
            held = held._replace(text=held.text + span.text)
            continue
        if held is not None:
            yield held
        held = span
    if held is not None:
        yield held
