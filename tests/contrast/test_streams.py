"""Other prompts made from a prompt's own inputs, on prompts of the embedded processor."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.effort import scaled
from tests.media import patches_of
from vlmkit.contracts.inputs import Inputs
from vlmkit.contrast import (
    CfgConfig,
    ContrastiveDecodingConfig,
    DolaConfig,
    IcdConfig,
    M3idConfig,
    StreamMarkers,
    VcdConfig,
    image_share,
    noise_patches,
    other_inputs,
)
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PreprocessConfig, prepare
from vlmkit.processors import load_processor

START, END, PAD = 628, 629, 631
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
TEXT = "How many circles are there?"
SHAPE = (3, 2, 14)


@pytest.fixture(scope="module")
def processor():
    return load_processor(str(files("vlmkit") / "assets" / "shapes"))


@pytest.fixture(scope="module")
def markers(processor):
    return StreamMarkers(
        processor.encode,
        processor.placeholder_ids,
        frozenset({START}),
        frozenset({END}),
        SHAPE,
    )


@pytest.fixture(scope="module")
def prepared(processor):
    def make(prompt: str, *sizes: tuple[int, int]) -> Inputs:
        rng = np.random.default_rng(0)
        images = [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
        return prepare(processor, prompt, images, config=PreprocessConfig())

    return make


def others(config, inputs, markers, *, seed=0, sample=0, negative=None):
    return other_inputs(config, inputs, markers, seed=seed, sample=sample, negative=negative)


@pytest.mark.parametrize("config", [CfgConfig(), M3idConfig()])
def test_without_images_is_the_prompt_that_never_had_them(config, prepared, processor, markers):
    wrapped = f"<|im_start|>user\n{IMAGE}{TEXT}{IMAGE}<|im_end|>\n"
    inputs = prepared(wrapped, (112, 140), (56, 84))
    (other,) = others(config, inputs, markers)
    assert other.token_ids.tolist() == processor.encode(wrapped.replace(IMAGE, ""))
    assert other.token_ids.dtype == np.int32
    assert other.media == ()
    assert other.content_ids.tolist() == other.token_ids.tolist()


def test_only_ids_that_wrap_an_image_go_with_it(prepared, processor, markers):
    prompt = f"a<|vision_start|>b<|image_pad|><|vision_end|>c<|vision_end|>{TEXT}"
    (other,) = others(M3idConfig(), prepared(prompt, (112, 112)), markers)
    expected = f"a<|vision_start|>bc<|vision_end|>{TEXT}"
    pieces = processor.encode("a<|vision_start|>b") + processor.encode(f"c<|vision_end|>{TEXT}")
    assert processor.decode(other.token_ids) == expected
    assert other.token_ids.tolist() == pieces


def test_guidance_of_a_text_starts_from_its_last_token(prepared, markers):
    inputs = prepared(TEXT)
    (other,) = others(CfgConfig(), inputs, markers)
    assert other.token_ids.tolist() == inputs.token_ids[-1:].tolist()


def test_guidance_takes_the_negative_prompt_as_prepared(prepared, markers):
    negative = prepared("Lie.")
    config = CfgConfig(negative_prompt="Lie.")
    assert others(config, prepared(TEXT), markers, negative=negative) == (negative,)
    with pytest.raises(VlmkitError, match="negative_prompt was not prepared"):
        others(config, prepared(TEXT), markers)


@pytest.mark.parametrize("config", [ContrastiveDecodingConfig(amateur="shapes"), DolaConfig()])
def test_methods_without_a_stream_on_the_same_model(config, prepared, markers):
    assert others(config, prepared(TEXT), markers) == ()


def test_the_disturbance_follows_the_last_image(prepared, processor, markers):
    inputs = prepared(f"{IMAGE} and {IMAGE}{TEXT}", (56, 56), (112, 112))
    (other,) = others(IcdConfig(disturbance="You are confused."), inputs, markers)
    place = int(np.flatnonzero(inputs.token_ids == PAD)[-1]) + 2
    assert inputs.token_ids[place - 1] == END
    added = processor.encode("You are confused.")
    expected = [*inputs.token_ids[:place], *added, *inputs.token_ids[place:]]
    assert other.token_ids.tolist() == expected
    assert other.token_ids.dtype == np.int32
    assert other.media is inputs.media


def test_the_disturbance_follows_an_image_that_nothing_closes(prepared, markers):
    inputs = prepared("<|image_pad|>", (56, 56))
    (other,) = others(IcdConfig(), inputs, markers)
    np.testing.assert_array_equal(other.token_ids[: len(inputs.token_ids)], inputs.token_ids)
    assert len(other.token_ids) > len(inputs.token_ids)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (VcdConfig(), "vcd: the prompt has no image to noise.*cfg with a negative_prompt"),
        (IcdConfig(), "icd: the prompt has no image.*cfg with a negative_prompt"),
        (M3idConfig(), "m3id: the prompt has no image.*cfg with a negative_prompt"),
    ],
)
def test_methods_that_need_an_image_say_so(config, words, prepared, markers):
    with pytest.raises(VlmkitError, match=words):
        others(config, prepared(TEXT), markers)


@pytest.mark.parametrize("config", [CfgConfig(), M3idConfig()])
def test_a_prompt_of_images_alone_leaves_nothing(config, prepared, markers):
    with pytest.raises(VlmkitError, match="nothing remains of the prompt"):
        others(config, prepared(IMAGE, (56, 56)), markers)


def test_a_disturbance_without_tokens(prepared, markers):
    silent = markers._replace(encode=lambda text: [])
    with pytest.raises(VlmkitError, match=r"the disturbance 'You.*' has no token"):
        others(IcdConfig(), prepared(f"{IMAGE}{TEXT}", (56, 56)), silent)


def test_noise_changes_the_patches_alone(prepared, markers):
    inputs = prepared(f"{IMAGE}{TEXT}", (112, 112))
    before = patches_of(inputs).copy()
    (other,) = others(VcdConfig(), inputs, markers)
    np.testing.assert_array_equal(patches_of(inputs), before)
    assert patches_of(other).shape == patches_of(inputs).shape
    assert patches_of(other).dtype == np.float32
    assert np.abs(patches_of(other) - patches_of(inputs)).mean() > 0.1
    assert other.token_ids is inputs.token_ids
    assert [(m.kind, m.shape, m.span) for m in other.media] == [
        (m.kind, m.shape, m.span) for m in inputs.media
    ]
    (place,) = [m.span for m in inputs.media]
    same = other.content_ids == inputs.content_ids
    assert np.flatnonzero(~same).tolist() == list(range(*place))


def test_noise_belongs_to_seed_and_sample(prepared, markers):
    inputs = prepared(f"{IMAGE}{TEXT}", (112, 112))

    def noised(seed: int, sample: int) -> np.ndarray:
        return patches_of(others(VcdConfig(), inputs, markers, seed=seed, sample=sample)[0])

    np.testing.assert_array_equal(noised(3, 5), noised(3, 5))
    assert not np.allclose(noised(3, 5), noised(3, 6))
    assert not np.allclose(noised(3, 5), noised(5, 3))
    noised(2**64 - 1, 0)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"sample": 2**64}])
def test_seeds_out_of_range(wrong, prepared, markers):
    inputs = prepared(f"{IMAGE}{TEXT}", (56, 56))
    with pytest.raises(VlmkitError, match="needs an integer from 0"):
        others(VcdConfig(), inputs, markers, **wrong)


def test_patches_of_another_size():
    with pytest.raises(VlmkitError, match="patches of 10 numbers don't divide into 3 channels"):
        noise_patches(np.zeros((1, 10), np.float32), SHAPE, step=1, seed=0, sample=0)


@settings(max_examples=scaled(10))
@given(step=st.integers(0, 999))
def test_the_variance_of_a_step_is_that_of_the_schedule(step):
    blank = np.zeros((300, 3 * 2 * 14 * 14), np.float32)
    noise = noise_patches(blank, SHAPE, step=step, seed=1, sample=2)
    frames = noise.reshape(300, 3, 2, 14, 14)
    np.testing.assert_array_equal(frames[:, :, 0], frames[:, :, 1])
    pixels = frames[:, :, 0].ravel().astype(np.float64)
    variance = 1.0 - image_share(step)
    # 176,400 draws: five standard errors of a variance and of a mean
    assert abs(pixels.var() / variance - 1.0) < 5 * (2 / pixels.size) ** 0.5
    assert abs(pixels.mean()) < 5 * (variance / pixels.size) ** 0.5


def test_the_schedule_is_that_of_the_authors():
    betas = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (0.5e-2 - 1e-5) + 1e-5
    shares = np.cumprod(1 - betas)
    np.testing.assert_allclose([image_share(t) for t in range(0, 1000, 37)], shares[::37])


def test_the_first_step_leaves_the_image_nearly_alone(prepared, markers):
    inputs = prepared(f"{IMAGE}{TEXT}", (112, 112))
    (other,) = others(VcdConfig(noise_step=0), inputs, markers)
    assert np.abs(patches_of(other) - patches_of(inputs)).max() < 0.03
