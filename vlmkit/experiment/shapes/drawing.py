"""Deterministic drawing of small scenes: coloured shapes and digits on a 4×4 grid of cells.

Everything is a pure function of a `Scene`. Shapes are supersampled masks computed from formulas and
digits come from Pillow's bundled font, so no system font is needed. Lengths are in pixels.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

IMAGE_SIZE = 112
GRID = 4
CELL = IMAGE_SIZE // GRID
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 30, 38),
    "green": (34, 160, 60),
    "blue": (40, 90, 235),
    "yellow": (250, 215, 20),
    "purple": (150, 45, 190),
    "orange": (255, 130, 15),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
LIGHT = ((255, 255, 255), (232, 232, 232), (222, 234, 246), (246, 232, 222), (226, 244, 226))
DARK = ((20, 20, 24), (48, 48, 52), (18, 24, 46))
SUPERSAMPLE = 4
NOISE_SEED = 20_240
NOISE_LENGTH = 3 * IMAGE_SIZE * IMAGE_SIZE


class Item(NamedTuple):
    """One drawn object; `name` is a shape or a digit, `x`, `y` its centre, `size` its height."""

    name: str
    colour: str
    x: int
    y: int
    size: int
    angle: int

    @property
    def row(self) -> int:
        return self.y // CELL

    @property
    def column(self) -> int:
        return self.x // CELL

    @property
    def cell(self) -> int:
        """Index of the grid cell holding the centre, in reading order, 0..15."""
        return self.row * GRID + self.column


class Scene(NamedTuple):
    """Everything needed to draw one image; `noise` is an amplitude in grey levels."""

    items: tuple[Item, ...]
    background: tuple[int, int, int]
    noise: int
    noise_offset: int


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Membership of points in the unit shape, coordinates in [-1, 1] with y pointing down."""
    radius: NDArray[np.float64] = np.hypot(x, y)
    if shape == "circle":
        return radius <= 1
    if shape == "ring":
        return (radius <= 1) & (radius >= 0.55)
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.88
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) <= 0.3) & (np.maximum(abs(x), abs(y)) <= 1)
    if shape == "triangle":
        return (y <= 0.85) & (abs(x) * 1.75 <= y + 0.95)
    if shape == "star":
        sector = 2 * math.pi / 5
        theta = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
        inner = 0.42
        tip = (1.0, 0.0)
        notch = (inner * math.cos(sector / 2), inner * math.sin(sector / 2))
        px, py = radius * np.cos(theta), radius * np.sin(theta)
        edge = (notch[0] - tip[0]) * (py - tip[1]) - (notch[1] - tip[1]) * (px - tip[0])
        return edge >= 0
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")


@functools.lru_cache(maxsize=4096)
def shape_mask(shape: str, size: int, angle: int) -> Image.Image:
    """Antialiased coverage of `shape` in size × size pixels, 8 bits, turned by `angle` degrees."""
    steps = (np.arange(size * SUPERSAMPLE) + 0.5) * 2 / (size * SUPERSAMPLE) - 1
    x, y = np.meshgrid(steps, steps)
    turn = math.radians(angle)
    turned_x = x * math.cos(turn) + y * math.sin(turn)
    turned_y = y * math.cos(turn) - x * math.sin(turn)
    inside = _inside(shape, turned_x, turned_y)
    cover = inside.reshape(size, SUPERSAMPLE, size, SUPERSAMPLE).mean((1, 3))
    return Image.fromarray(np.round(cover * 255).astype(np.uint8))


@functools.lru_cache(maxsize=1024)
def digit_mask(digit: str, size: int) -> Image.Image:
    """Coverage of a digit glyph about `size` pixels high, cropped to its ink."""
    font = ImageFont.load_default(size * 1.36)
    left, top, right, bottom = (int(v) for v in font.getbbox(digit))
    mask = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(mask).text((-left, -top), digit, fill=255, font=font, stroke_width=0.6)
    return mask


def item_mask(item: Item) -> Image.Image:
    """Coverage of an item, whatever it is."""
    if item.name.isdigit():
        return digit_mask(item.name, item.size)
    return shape_mask(item.name, item.size, item.angle)


@functools.lru_cache(maxsize=16)
def _noise(amplitude: int) -> NDArray[np.int16]:
    """A fixed int16 pool of normal noise of this deviation; a scene reads a window of it."""
    pool = np.random.default_rng(NOISE_SEED).standard_normal(2 * NOISE_LENGTH, dtype=np.float32)
    return np.round(amplitude * pool).astype(np.int16)


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene.

    Returns:
        uint8[112, 112, 3] in RGB.
    """
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), scene.background)
    for item in scene.items:
        mask = item_mask(item)
        corner = (item.x - mask.width // 2, item.y - mask.height // 2)
        image.paste(COLOURS[item.colour], corner, mask)
    pixels = np.asarray(image)
    if scene.noise == 0:
        return pixels.copy()
    window = _noise(scene.noise)[scene.noise_offset : scene.noise_offset + NOISE_LENGTH]
    noisy: NDArray[np.uint8] = np.clip(window.reshape(pixels.shape) + pixels, 0, 255).astype(
        np.uint8
    )
    return noisy
