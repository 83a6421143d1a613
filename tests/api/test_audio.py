"""Sounds through every way to generate, with a small Qwen2-Audio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loading.qwen2_audio import write_audio_checkpoint
from tests.models.tiny_audio import sound
from tests.sounds import wav
from vlmkit import (
    PipelineConfig,
    PromptCache,
    Request,
    VlmkitError,
    apply_chat_template,
    batch_generate,
    branch,
    generate,
    load,
    start,
    stream_generate,
)
from vlmkit.api import stream_pipeline
from vlmkit.cli.main import main
from vlmkit.engine import collect

Loaded = tuple[Any, Any]
STOP = ({"kind": "max_tokens", "max_tokens": 5},)
METHODS: dict[str, dict[str, Any]] = {
    "icd": {"contrast": {"kind": "icd"}},
    "m3id": {"contrast": {"kind": "m3id"}},
    "dola": {"contrast": {"kind": "dola", "layers": [0, 1]}},
    "beam": {"search": {"kind": "beam", "num_beams": 3}},
    "contrastive search": {"search": {"kind": "contrastive_search"}},
    "rotating cache": {"cache": {"kind": "rotating", "max_size": 40}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_audio_checkpoint(tmp_path_factory.mktemp("qwen2_audio"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(str(folder))


def ask(loaded: Loaded, num_audios: int) -> str:
    model, processor = loaded
    return apply_chat_template(processor, model.config, "What?", num_audios=num_audios)


def test_the_template_places_sounds(loaded: Loaded) -> None:
    model, processor = loaded
    assert ask(loaded, 1).startswith(
        "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhat?<|im_end|>"
    )
    parts = [{"type": "text", "text": "A"}, {"type": "input_audio", "input_audio": "a.wav"}]
    text = apply_chat_template(processor, model.config, {"role": "user", "content": parts})
    assert "AAudio 1: <|audio_bos|><|AUDIO|>" in text
    quoted = apply_chat_template(processor, model.config, "<|AUDIO|>", num_audios=1)
    assert processor.encode(quoted).count(processor.audio_token_id) == 1


def test_one_by_one_streamed_and_in_a_batch(loaded: Loaded) -> None:
    pair = [(sound(16000), 16000), wav(sound(3000))]
    audios: list[Any] = [(sound(9000), 16000), pair, None, (sound(9000), 16000)]
    prompts = [ask(loaded, n) for n in (1, 2, 0, 1)]
    alone = [
        generate(*loaded, prompt, audio=audio, max_tokens=5)
        for prompt, audio in zip(prompts, audios, strict=True)
    ]
    together = batch_generate(*loaded, audios=audios, prompts=prompts, max_tokens=5).results
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert len({tuple(one.token_ids) for one in alone}) == 3, "sounds make no difference"
    parts = stream_generate(*loaded, prompts[1], None, pair, max_tokens=5)
    assert "".join(part.text for part in parts) == alone[1].text
    seen = PromptCache()
    for _ in range(2):
        cached = generate(*loaded, prompts[1], audio=pair, max_tokens=5, prompt_cache=seen)
        assert cached.token_ids == alone[1].token_ids
    assert cached.cached_tokens == cached.prompt_tokens


@pytest.mark.parametrize("name", METHODS)
def test_methods_alone_and_from_a_prompt(loaded: Loaded, name: str) -> None:
    pipeline = PipelineConfig(stopping=STOP, **METHODS[name])
    request = Request(ask(loaded, 1), audio=((sound(9000), 16000),))
    alone = collect(stream_pipeline(*loaded, request, pipeline))
    assert len(alone.token_ids) > 0
    started = start(*loaded, request, PipelineConfig(cache=pipeline.cache))
    ((branched,),) = branch(started, [pipeline])
    assert branched.token_ids == alone.token_ids


def test_long_sounds_are_refused_cut_or_split(loaded: Loaded) -> None:
    samples = sound(40000)

    def run(how: str, *clips: np.ndarray) -> Any:
        pipeline = PipelineConfig(stopping=STOP, preprocess={"long_audio": how})
        request = Request(ask(loaded, len(clips)), audio=tuple((one, 16000) for one in clips))
        return collect(stream_pipeline(*loaded, request, pipeline))

    with pytest.raises(VlmkitError, match=r"is 2.5 s long, and the model hears 1 s at once; .*cut"):
        run("refuse", samples)
    assert run("cut", samples).token_ids == run("refuse", samples[:16000]).token_ids
    split = run("split", samples)
    text = generate(*loaded, ask(loaded, 0), max_tokens=1).prompt_tokens
    marks = len("Audio 1: \n") + 2
    assert split.prompt_tokens == text + marks + 25 + 25 + 12
    assert run("split", samples).token_ids == split.token_ids


@pytest.mark.parametrize(
    ("audio", "number", "message"),
    [
        ("none.wav", 1, "audio none.wav: no such file"),
        (b"", 1, r"audio in memory \(0 bytes\): empty"),
        ((np.zeros(0), 16000), 1, "has no samples"),
        ((np.zeros(100), 0), 1, "its sampling rate is 0"),
        ((np.zeros(100), "16k"), 1, "its rate is '16k'; give samples per second"),
        (np.zeros(100), 1, r"audio without its rate cannot be read; .*\(samples, rate\)"),
        ((np.zeros(10), 16000), 1, "is too short to be heard"),
        ((np.full(900, np.nan), 16000), 1, "no finite numbers"),
        ((np.zeros((2, 2, 2)), 16000), 1, r"audio of shape \(2, 2, 2\)"),
        ({"array": np.zeros(900)}, 1, "needs 'array' and 'sampling_rate'"),
        (3, 1, "audio of type int cannot be read"),
        (
            (sound(900), 16000),
            2,
            r"2 audio placeholders \(<\|AUDIO\|>\), but there is 1 audio clip",
        ),
        (None, 1, "1 audio placeholder .* but there are 0 audio clips; .*num_audios=0"),
    ],
)
def test_refused(loaded: Loaded, audio: Any, number: int, message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        generate(*loaded, ask(loaded, number), audio=audio)
    assert "\n" not in str(caught.value)


def test_other_media_are_refused_by_name(loaded: Loaded) -> None:
    with pytest.raises(VlmkitError, match="the qwen2_audio family takes no images; leave image"):
        generate(*loaded, "Hi", image="a.png")
    with pytest.raises(VlmkitError, match="the qwen2_audio family takes no videos; leave video"):
        generate(*loaded, "Hi", video="a.mp4")
    request = Request(ask(loaded, 1), audio=((sound(900), 16000),))
    pipeline = PipelineConfig(contrast={"kind": "vcd"}, stopping=STOP)
    with pytest.raises(VlmkitError, match="vcd: the prompt has no image to noise"):
        collect(stream_pipeline(*loaded, request, pipeline))


def test_a_row_whose_sound_is_broken_ends_alone(loaded: Loaded) -> None:
    audios = [b"RIFF....WAVE", (sound(900), 16000)]
    rows = batch_generate(
        *loaded, audios=audios, prompts=[ask(loaded, 1)] * 2, max_tokens=2
    ).results
    assert rows[0].finish_reason == "error"
    assert "corrupt or cut short" in str(rows[0].error)
    assert rows[1].generation_tokens == 2


def test_command_line_and_yaml(
    folder: Path, loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").write_bytes(wav(sound(9000)))
    (tmp_path / "run.yaml").write_text(
        f"model: {folder}\nprompt: What?\naudio: [a.wav]\nstopping: [{{kind: max_tokens, "
        "max_tokens: 5}]\n"
    )
    expected = generate(*loaded, ask(loaded, 1), audio=tmp_path / "a.wav", max_tokens=5)
    assert main(["generate", str(tmp_path / "run.yaml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["token_ids"] == expected.token_ids
    flags = ["--model", str(folder), "--prompt", "What?", "--max-tokens", "5", "--json"]
    assert main(["generate", *flags, "--audio", str(tmp_path / "a.wav")]) == 0
    assert json.loads(capsys.readouterr().out)["token_ids"] == expected.token_ids
    assert main(["generate", *flags, "--audio", str(tmp_path / "b.wav")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vlmkit: error: ")
    assert "no such file" in error
