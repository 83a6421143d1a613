"""M-RoPE positions and the layout of patches, against slow restatements of their definitions."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.tiny import IMAGE, START, VIDEO, build, prompt, qwen2_vl
from vlmkit.errors import VlmkitError
from vlmkit.models import vision
from vlmkit.models.mrope_positions import mrope_positions
from vlmkit.models.rope import mrope_rotation, rotate, rotation
from vlmkit.models.vision_layout import vision_layout
from vlmkit.types import ImageGrid, Inputs

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
    positions, after = mrope_positions(
        np.array(ids, np.int32),
        grids=[ImageGrid(t, 2 * h, 2 * w) for t, h, w in grids],
        merge_size=2,
        image_id=IMAGE,
        video_id=VIDEO,
        video_time_step=step,
    )
    assert positions.T.tolist() == [list(p) for p in expected]
    assert after == max((max(p) for p in expected), default=-1) + 1


def test_placeholders_have_to_match_the_images() -> None:
    arguments = {"merge_size": 2, "image_id": IMAGE, "video_id": VIDEO}
    ids = np.array([1, IMAGE, IMAGE, 2, IMAGE, IMAGE], np.int32)
    with pytest.raises(
        VlmkitError, match="has 4 image placeholder tokens, and its 1 images need 2"
    ):
        mrope_positions(ids, grids=[ImageGrid(1, 2, 4)], **arguments)
    with pytest.raises(VlmkitError, match="the 4 placeholders of a 2x2 image are not in one row"):
        mrope_positions(ids, grids=[ImageGrid(1, 4, 4)], **arguments)


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


def test_one_axis_equals_three_equal_axes() -> None:
    one = mx.array([[[0, 3, 700], [1, 2, 4000]]], mx.int32)
    settings = {"head_dim": 12, "theta": 1e6, "sections": (1, 2, 3)}
    single = mrope_rotation(one, **settings)
    triple = mrope_rotation(mx.broadcast_to(one, (3, 2, 3)), **settings)
    assert mx.array_equal(single.cos, triple.cos)
    assert mx.array_equal(single.sin, triple.sin)


def test_bad_inputs_of_embed() -> None:
    config = qwen2_vl()
    model, good = build(config), prompt(config, [(1, 4, 4)], 3)
    assert good.patches is not None
    bad = [
        (good._replace(patches=good.patches[:-1]), "15 patches of 96 numbers; .* 16 patches of 96"),
        (good._replace(patches=None), "0 patches"),
        (good._replace(image_grids=()), "16 patches"),
        (Inputs(np.array([1, 120], np.int32)), "token id 120 is outside the vocabulary of 120"),
        (Inputs(np.array([-1], np.int32)), "token id -1"),
        (Inputs(np.array([], np.int32)), "empty"),
        (Inputs(np.array([START, IMAGE], np.int32)), "1 image placeholder tokens, and its 0"),
        (good._replace(image_grids=(ImageGrid(1, 2, 8),)), None),
        (good._replace(image_grids=(ImageGrid(1, 1, 16),)), "1x16 patches does not divide"),
    ]
    for inputs, message in bad:
        if message is None:
            model.embed([inputs])
        else:
            with pytest.raises(VlmkitError, match=message):
                model.embed([inputs])


def test_blocks_of_attention_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = mx.random.normal((3, 2, 2, 50, 8), key=mx.random.key(1))
    whole = vision.segment_attention(q, k, v, scale=0.3)
    monkeypatch.setattr(vision, "MAX_SCORES", 4000)
    blocks = vision.segment_attention(q, k, v, scale=0.3)
    assert float(mx.abs(whole - blocks).max()) < 1e-5
    expected = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3)
    assert float(mx.abs(whole - expected).max()) < 1e-5
