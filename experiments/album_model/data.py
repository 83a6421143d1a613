"""Training batches of albums as pure functions of (seed, step, level)."""

from __future__ import annotations

import functools
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from experiments.shapes_model.tokenizer import build
from vlmkit.experiment.album.names import NAMES
from vlmkit.experiment.album.pages import (
    SIDE,
    STREAM,
    Album,
    Needle,
    about_note,
    about_picture,
    album,
    draw,
)

LEVELS = ((0, 6), (0, 24), (12, 6), (12, 40), (24, 80), (36, 160))
"""Pictures and notes of an album, from the shortest to the longest."""
QUESTIONS = 16
RECITED_SHARE = 0.7
RECITED, RECITED_WITH_PICTURES = 36, 18
TOKENS = 2048
IMAGE_TOKENS = SIDE * SIDE
VISION_START, VISION_END, IMAGE = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
ALL = "What number is with each?"
TURN_END = "<|im_end|>\n<|im_start|>assistant\n<think></think>"


class Batch(NamedTuple):
    """Albums of one size, each with several questions that see the album and not each other."""

    images: NDArray[np.uint8]  # [B * pictures, 84, 84, 3]
    tokens: NDArray[np.int64]  # [B, T], right-padded
    positions: NDArray[np.int64]  # [3, B, T], multimodal rotary positions
    blocks: NDArray[np.int64]  # [B, T], 0: the album, then the number of the question; -1: padding
    targets: NDArray[np.int64]  # [B, T], 1: the digit of a picture, 2: of a note, 3: the rest


@functools.lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """The tokenizer of shapes with one token more per name."""
    made = build()
    made.add_tokens(list(NAMES))
    return made


@functools.lru_cache(maxsize=200_000)
def encode(text: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(text).ids)


def layout(book: Album) -> tuple[list[int], NDArray[np.int64]]:
    """Tokens and positions int64[3, T] of a prompt up to its question."""
    tokens: list[int] = []
    positions: list[NDArray[np.int64]] = []
    at = 0

    def text(ids: tuple[int, ...]) -> None:
        nonlocal at
        tokens.extend(ids)
        positions.append(np.tile(np.arange(at, at + len(ids)), (3, 1)))
        at += len(ids)

    text(encode("<|im_start|>user\n"))
    for _ in book.pictures:
        text(encode(VISION_START))
        cells = np.arange(IMAGE_TOKENS)
        tokens.extend(encode(IMAGE) * IMAGE_TOKENS)
        positions.append(at + np.stack((0 * cells, cells // SIDE, cells % SIDE)))
        at += SIDE
        text(encode(VISION_END))
    for note in book.notes:
        text(encode(f"{note.name}: {note.digit}\n"))
    return tokens, np.concatenate(positions, 1)


def chosen(rng: Random, book: Album, count: int) -> list[Needle]:
    """Questions about different places: each digit that is shown, and notes."""
    asked = [about_picture(book, index) for index in book.digits]
    notes = min(len(book.notes), count - len(asked))
    asked += [about_note(book, i) for i in rng.sample(range(len(book.notes)), notes)]
    rng.shuffle(asked)
    return asked


def _row(book: Album, asked: list[Needle]) -> tuple[NDArray[np.int64], ...]:
    prefix, places = layout(book)
    start = int(places.max()) + 1
    tokens, targets, blocks = [*prefix], [0] * len(prefix), [0] * len(prefix)
    positions = [places]
    for number, needle in enumerate(asked, 1):
        prompt = encode(needle.question + TURN_END)
        body = (*encode(needle.answer), *encode("<|im_end|>"))
        tokens += [*prompt, *body]
        digit = 1 if needle.kind == "picture" else 2
        targets += [0] * len(prompt) + [3] * (len(body) - 2) + [digit, 3]
        blocks += [number] * (len(prompt) + len(body))
        positions.append(np.tile(start + np.arange(len(prompt) + len(body)), (3, 1)))
    return (
        np.array(tokens),
        np.concatenate(positions, 1),
        np.array(blocks),
        np.array(targets),
    )


def recital(rng: Random, book: Album, count: int) -> list[Needle]:
    """Answers in any order: each digit that is shown, and notes, some of them more than once."""
    asked = [about_picture(book, index) for index in book.digits]
    asked += [about_note(book, rng.randrange(len(book.notes))) for _ in range(count - len(asked))]
    rng.shuffle(asked)
    return asked


def _recited(book: Album, asked: list[Needle]) -> tuple[NDArray[np.int64], ...]:
    """An album and one answer after the other: far more digits to find per token than questions."""
    prefix, places = layout(book)
    tokens, targets = [*prefix, *encode(ALL + TURN_END)], [0] * len(prefix)
    targets += [0] * (len(tokens) - len(targets))
    for needle in asked:
        body = encode(needle.answer + "\n")
        tokens += body
        targets += [0] * (len(body) - 2) + [1 if needle.kind == "picture" else 2, 0]
    rest = np.tile(int(places.max()) + 1 + np.arange(len(tokens) - len(prefix)), (3, 1))
    blocks = np.zeros(len(tokens), np.int64)
    return np.array(tokens), np.concatenate([places, rest], 1), blocks, np.array(targets)


def batch_at(seed: int, step: int, level: int) -> Batch:
    """The batch of one training step: questions, or for a share of the steps all answers."""
    rng = Random(seed * STREAM + step)
    pictures, notes = LEVELS[level]
    recited = rng.random() < RECITED_SHARE
    count = (RECITED_WITH_PICTURES if pictures else RECITED) if recited else QUESTIONS
    length = pictures * (IMAGE_TOKENS + 2) + notes * 4 + count * (5 if recited else 24)
    books = [album(rng, pictures, notes) for _ in range(max(2, TOKENS // length))]
    if recited:
        rows = [_recited(book, recital(rng, book, count)) for book in books]
    else:
        rows = [_row(book, chosen(rng, book, count)) for book in books]
    width = max(len(tokens) for tokens, *_ in rows)

    def pad(part: NDArray[np.int64], value: int) -> NDArray[np.int64]:
        gap = [(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])]
        return np.pad(part, gap, constant_values=value)

    tokens, positions, blocks, targets = zip(*rows, strict=True)
    return Batch(
        np.array([draw(picture) for book in books for picture in book.pictures], np.uint8),
        np.stack([pad(part, 0) for part in tokens]),
        np.stack([pad(part, 0) for part in positions], 1),
        np.stack([pad(part, -1) for part in blocks]),
        np.stack([pad(part, 0) for part in targets]),
    )
