"""Videos through every way to generate, with small checkpoints that tell time in three ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.loading.qwen3_5 import make_config_of, write_checkpoint
from tests.processors.tiny import change_json, copy_shapes
from tests.videos import encode, frames
from vlmkit import (
    PipelineConfig,
    PromptCache,
    Request,
    VlmkitError,
    apply_chat_template,
    batch_generate,
    generate,
    load,
    stream_generate,
)
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.cli.main import main
from vlmkit.engine import collect
from vlmkit.preprocess import PreprocessConfig, fit_video, load_video
from vlmkit.preprocess.request import prepare
from vlmkit.processors import load_processor

Loaded = tuple[Any, Any]
PLACE = "<|vision_start|><|video_pad|><|vision_end|>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("qwen3_vl"), make_config_of("qwen3_vl"))


@pytest.fixture(scope="module", params=["shapes", "qwen3_vl"])
def loaded(request: pytest.FixtureRequest, folder: Path) -> Loaded:
    return load("shapes" if request.param == "shapes" else str(folder))


def clip(count: int, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(one) for one in rng.integers(0, 255, (count, 24, 40, 3), np.uint8)]


def test_one_by_one_streamed_and_in_a_batch(loaded: Loaded) -> None:
    prompts = [f"{PLACE}A", f"<|image_pad|>{PLACE}B{PLACE}", "C", f"{PLACE}A"]
    videos: list[Any] = [[clip(4)], [clip(3, 1), clip(2, 2)], None, [clip(4)]]
    images = [None, clip(1)[0], None, None]
    alone = [
        generate(*loaded, prompt, image, video=video, max_tokens=5)
        for prompt, image, video in zip(prompts, images, videos, strict=True)
    ]
    together = batch_generate(*loaded, images, prompts=prompts, videos=videos, max_tokens=5).results
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    logprobs = [one.prompt_tokens for one in alone]
    assert logprobs[0] == logprobs[3] > logprobs[2]
    streamed = stream_generate(*loaded, prompts[0], video=clip(4), max_tokens=5)
    assert "".join(part.text for part in streamed) == alone[0].text
    seen = PromptCache()
    for _ in range(2):
        cached = generate(*loaded, prompts[0], video=clip(4), max_tokens=5, prompt_cache=seen)
        assert cached.token_ids == alone[0].token_ids
    assert cached.cached_tokens == cached.prompt_tokens
    other = generate(*loaded, prompts[0], video=clip(4, 9), max_tokens=5, prompt_cache=seen)
    assert other.cached_tokens < other.prompt_tokens


@pytest.mark.parametrize("count", [2, 24])
def test_a_next_turn_is_what_it_is_without_a_prompt_cache(count: int) -> None:
    model, processor = load("shapes")
    # 12 steps of time, and 2 tokens a side: text behind the video stands before the video's end
    video = (clip(count),)
    pipeline = PipelineConfig(
        preprocess={"resize_shape": (56, 56)}, stopping=[{"kind": "max_tokens", "max_tokens": 4}]
    )
    first, seen = processor.encode(f"{PLACE}A"), PromptCache()

    def run(ids: list[int], cache: PromptCache | None) -> Any:
        request = Request(ids, video=video)
        return collect(stream_pipeline(model, processor, request, pipeline, prompt_cache=cache))

    answer = run(first, seen)
    following = [*first, *answer.token_ids, *processor.encode(" How many?")]
    fresh, cached = run(following, None), run(following, seen)
    np.testing.assert_allclose(cached.logprobs, fresh.logprobs, atol=1e-4)
    is_kept = cached.cached_tokens > answer.prompt_tokens
    assert is_kept == (count == 2)
    assert cached.cached_tokens >= answer.prompt_tokens


def test_an_amateur_sees_the_frames_at_the_size_that_it_takes(folder: Path) -> None:
    for expert, amateur in ((str(folder), "shapes"), ("shapes", str(folder))):
        model, processor = load(expert)
        config = {"kind": "contrastive_decoding", "amateur": amateur, "beta": 1.0, "alpha": 0.01}
        pipeline = PipelineConfig(
            contrast=config, stopping=[{"kind": "max_tokens", "max_tokens": 3}]
        )
        request = Request(f"{PLACE}A", video=(clip(3),))
        found = collect(stream_pipeline(model, processor, request, pipeline))
        (together,) = batch_pipeline(model, processor, [(request, pipeline)]).results
        assert (found.generation_tokens, found.token_ids) == (3, together.token_ids)

        second, rules = load(amateur)[1], processor.video
        assert rules is not None
        assert second.video is not None
        video = load_video(clip(3), rules)
        fitted = fit_video(video, second.video)
        size = second.video.size(3, *video.frames.shape[1:3])
        assert fitted.frames.shape == (3, *size, 3) != video.frames.shape
        assert fitted[1:] == video[1:]
        assert load(expert)[1].video == rules  # so a copy of a checkpoint sees the very frames


def test_times_as_text_stand_before_each_step(folder: Path) -> None:
    processor = load_processor(folder)
    for prompt in (f"{PLACE}A", "<|video_pad|>A"):
        inputs = prepare(processor, prompt, video=clip(3), config=PreprocessConfig(fps=4))
        text = processor.decode(inputs.token_ids).replace("<|video_pad|>", "·")
        first, second = inputs.media
        assert first.shape == second.shape
        assert first.shape[0] == 1
        pads = "·" * (first.span[1] - first.span[0])
        shown = "".join(
            f"<{time} seconds><|vision_start|>{pads}<|vision_end|>" for time in ("0.1", "0.5")
        )
        assert text == f"{shown}A"


def test_times_as_positions_go_with_the_medium(tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path)
    change_json(folder / "config.json", model_type="qwen2_5_vl")
    processor = load_processor(folder)
    for fps, seconds in ((None, 1.0), (4.0, 0.5)):
        config = PreprocessConfig(fps=fps)
        (medium,) = prepare(processor, f"{PLACE}A", video=clip(4), config=config).media
        assert (medium.kind, medium.shape[0], medium.seconds) == ("video", 2, seconds)


def test_the_template_places_videos(folder: Path, tmp_path: Path) -> None:
    processor = load_processor(folder)
    template = (
        "{% for m in messages %}{% for p in m['content'] %}{% if p['type'] == 'video' %}"
        f"{PLACE}{{% else %}}{{{{ p['text'] }}}}{{% endif %}}{{% endfor %}}{{% endfor %}}"
    )
    text = apply_chat_template(processor, None, "What?", num_videos=2, chat_template=template)
    assert text == f"{PLACE}{PLACE}What?"
    with pytest.raises(VlmkitError, match="num_videos: str given"):
        apply_chat_template(processor, None, "What?", num_videos="1", chat_template=template)


@pytest.mark.parametrize(
    ("video", "number", "message"),
    [
        ([], 1, "1 video placeholder .* 0 videos"),
        ([[]], 1, "a video of zero frames"),
        (["none.mp4"], 1, "video none.mp4: no such file"),
        (frames(2), 0, "0 video placeholders .* there is 1 video; .*num_videos=1"),
        (frames(700, 112, 112), 1, r"1 video, but the model's context is \d+; .*fps or max_frames"),
    ],
)
def test_refused(video: Any, number: int, message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        generate(*load("shapes"), PLACE * number + "A", video=video)


def test_command_line_and_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(encode(16))
    Image.fromarray(frames(1)[0]).save(tmp_path / "0.png")
    (tmp_path / "run.yaml").write_text(
        f"prompt: '{PLACE}{PLACE}How many?'\ntemplate: {{apply: false}}\n"
        "video: [a.mp4, [0.png, 0.png]]\n"
    )
    flags = ["--max-tokens", "3", "--json"]
    assert main(["generate", str(tmp_path / "run.yaml"), *flags]) == 0
    both = json.loads(capsys.readouterr().out)
    expected = generate(
        *load("shapes"),
        f"{PLACE}{PLACE}How many?",
        video=[tmp_path / "a.mp4", [tmp_path / "0.png"] * 2],
        max_tokens=3,
    )
    assert both["token_ids"] == expected.token_ids
    one = ["--prompt", f"{PLACE}Hi", "--video", str(tmp_path / "a.mp4"), "template.apply=false"]
    assert main(["generate", *one, *flags, "--fps", "8"]) == 0
    many = json.loads(capsys.readouterr().out)["prompt_tokens"]
    assert main(["generate", *one, *flags, "--fps", "8", "--max-frames", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] < many
    assert main(["generate", "--prompt", "Hi", "--video", "none.mp4"]) == 2
    assert capsys.readouterr().err.startswith("vlmkit: error: ")
