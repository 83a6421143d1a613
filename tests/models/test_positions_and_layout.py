"""M-RoPE positions and the layout of patches, against slow restatements of their definitions."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.tiny import build, prompt, with_images
from tests.models.tiny_configs import IMAGE, START, VIDEO, qwen2_vl
from vlmkit.contracts.inputs import ImageGrid, Inputs, Media
from vlmkit.errors import VlmkitError
from vlmkit.models.mrope_positions import mrope_positions
from vlmkit.models.rope import mrope_rotation, rotate, rotation
from vlmkit.models.vision_layout import vision_layout
from vlmkit.passes.embed import embed_prompts

grids = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)), max_size=4)


@given(
    grids=grids, gaps=st.lists(st.integers(0, 4), min_size=5, max_size=5), step=st.integers(1, 3)
)
def test_positions_follow_their_definition(
    grids: list[tuple[int, int, int]], gaps: list[int], step: int
) -> None:
    ids, expected, now = [], [], 0
    for index, (t, h, w) in enumerate(grids):
        for _ in range(gaps[index]):
            ids.append(1)
            expected.append((now, now, now))
            now += 1
        placeholder = VIDEO if t > 1 else IMAGE
        for frame in range(t):
            for row in range(h):
                for column in range(w):
                    ids.append(placeholder)
                    time = frame * (step if t > 1 else 1)
                    expected.append((now + time, now + row, now + column))
        now += max(h, w)
    for _ in range(gaps[4]):
        ids.append(1)
        expected.append((now, now, now))
        now += 1
    patches = np.zeros((4 * len(ids), 1), np.float32)
    merged = [(t, 2 * h, 2 * w) for t, h, w in grids]
    media = with_images(ids, patches, merged, 4).media
    positions, after = mrope_positions(len(ids), media, merge_size=2, video_time_step=step)
    assert positions.T.tolist() == [list(p) for p in expected]
    assert after == max((max(p) for p in expected), default=-1) + 1


@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3
    ),
    side=st.integers(1, 4),
    merge=st.integers(1, 3),
)
def test_windows_tile_every_frame(sizes: list[tuple[int, int, int]], side: int, merge: int) -> None:
    images = [ImageGrid(t, h * merge, w * merge) for t, h, w in sizes]
    layout = vision_layout(images, merge_size=merge, window_tokens=side)
    assert layout.token_order is not None
    assert sorted(layout.token_order) == list(range(sum(t * h * w for t, h, w in sizes)))
    # Where each token in memory order lies: image, frame, window row, window column.
    places = [
        (image, frame, row // side, column // side)
        for image, (t, h, w) in enumerate(sizes)
        for frame in range(t)
        for row in range(h)
        for column in range(w)
    ]
    ordered, start, seen = [places[i] for i in layout.token_order], 0, set()
    for number, length in layout.windows:
        for _ in range(number):
            window = set(ordered[start : start + length // merge**2])
            assert len(window) == 1
            assert not window & seen
            seen |= window
            start += length // merge**2
    assert start == len(places)
    assert sum(number * length for number, length in layout.frames) == len(places) * merge**2


def test_coordinates_come_merge_block_by_merge_block() -> None:
    layout = vision_layout([ImageGrid(1, 2, 4)], merge_size=2, window_tokens=None)
    blocks = [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    assert layout.coordinates.tolist() == blocks
    assert layout.windows == layout.frames == ((1, 8),)


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 100))
def test_rotated_products_depend_on_distance_only(first: int, second: int, shift: int) -> None:
    x, y = mx.random.normal((2, 16), key=mx.random.key(0))

    def product(a: int, b: int) -> float:
        turned = [
            rotate(v, rotation(mx.array([p], mx.float32)[:, None] * mx.linspace(0.001, 0.1, 8)))
            for v, p in ((x, a), (y, b))
        ]
        return float((turned[0] * turned[1]).sum())

    scale = float(mx.linalg.norm(x) * mx.linalg.norm(y))
    assert abs(product(first, second) - product(first + shift, second + shift)) < 1e-3 * scale


@pytest.mark.parametrize("interleaved", [False, True])
def test_one_axis_equals_three_equal_axes(interleaved: bool) -> None:
    one = mx.array([[[0, 3, 700], [1, 2, 4000]]], mx.int32)
    settings = {"dim": 12, "theta": 1e6, "sections": (1, 2, 3), "interleaved": interleaved}
    single = mrope_rotation(one, **settings)
    triple = mrope_rotation(mx.broadcast_to(one, (3, 2, 3)), **settings)
    assert mx.array_equal(single.cos, triple.cos)
    assert mx.array_equal(single.sin, triple.sin)


def test_bad_inputs_of_embed() -> None:
    config = qwen2_vl()
    model, good = build(config), prompt(config, [(1, 4, 4)], 3)
    (image,), ids = good.media, good.token_ids
    start, end = image.span

    def image_of(shape: tuple[int, ...], span: tuple[int, int] = image.span) -> Inputs:
        return Inputs.of(ids, [Media.of("image", image.data, shape, span)])

    cases = [
        (Inputs.of(ids, [Media.of("image", image.data[:-1], image.shape, image.span)]),
         "15 patches of 96 numbers; .* 16 patches of 96"),
        (Inputs.of(ids), "has 4 placeholder tokens, and its 0 media need 0"),
        (Inputs.of(np.array([1, 120], np.int32)), "token id 120 is outside the vocabulary of 120"),
        (Inputs.of(np.array([-1], np.int32)), "token id -1"),
        (Inputs.of(np.array([], np.int32)), "empty"),
        (Inputs.of(np.array([START, IMAGE], np.int32)), "1 placeholder tokens, and its 0"),
        (image_of((1, 2, 8)), None),
        (image_of((1, 1, 16)), "1x16 patches does not divide"),
        (image_of((2, 4, 4)), "grid needs 32 patches"),
        (image_of(image.shape, (start - 1, end - 1)), "are not the 4 placeholders"),
        (Inputs.of(ids, [Media.of("audio", image.data, image.shape, image.span)]), "no audio"),
    ]  # fmt: skip
    for inputs, message in cases:
        if message is None:
            embed_prompts(model, [inputs])
        else:
            with pytest.raises(VlmkitError, match=message):
                embed_prompts(model, [inputs])
