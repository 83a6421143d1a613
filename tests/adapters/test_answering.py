"""Requests that share a thread and a batch have the answers that they would have alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmkit import generate, load
from vlmkit.adapters.answering import Answerer
from vlmkit.adapters.asking import Asked
from vlmkit.adapters.decoding import Decoder
from vlmkit.adapters.source import Source, TaskSettings, check_task_settings, load_source
from vlmkit.engine import RowSpec
from vlmkit.errors import VlmkitError
from vlmkit.prompt_utils import apply_chat_template

IMAGES = [f"vlmkit:shapes/samples/count_all{suffix}.png" for suffix in ("", "_2", "_3")]
WARM = Source(overrides=("sampling=[{kind: temperature, temperature: 3.0}]", "seed=5"))


def asked(image: str, source: Source = WARM, **fields: Any) -> Asked:
    content = [{"type": "image"}, {"type": "text", "text": "Count the objects."}]
    run = load_source(source, {"max_tokens": 8})
    return Asked(({"role": "user", "content": content},), (image,), run, **fields)


@pytest.fixture(scope="module")
def answerer() -> Iterator[Answerer]:
    answerer = Answerer(load_source(WARM), batch_size=4)
    yield answerer
    answerer.close()


def ask(answerer: Answerer, *several: Asked) -> list[list[int]]:
    return [future.result(120).result.token_ids for future in answerer.ask(several)]


def test_answers_are_those_of_generate(answerer: Answerer) -> None:
    model, processor = load("shapes")
    prompt = apply_chat_template(processor, None, "Count the objects.", num_images=1)
    expected = [
        generate(
            model, processor, prompt, image, max_tokens=8, temperature=3.0, seed=5, sample=sample
        ).token_ids
        for image in IMAGES
        for sample in (0, 3)
    ]
    rows = [asked(image, sample=sample) for image in IMAGES for sample in (0, 3)]
    assert ask(answerer, *rows) == expected
    assert ask(answerer, *rows[::-1]) == expected[::-1]
    assert [ask(answerer, row)[0] for row in rows] == expected
    assert ask(answerer, rows[0], rows[0]) == [expected[0]] * 2  # not numbered by the batch
    assert len({tuple(ids) for ids in expected}) >= 4


def test_pipelines_of_several_kinds_wait_together(answerer: Answerer) -> None:
    other = WARM._replace(
        overrides=(*WARM.overrides, "cache={kind: affine, bits: 8, group_size: 32}")
    )
    vcd = WARM._replace(overrides=(*WARM.overrides, "contrast={kind: vcd}"))
    rows = [asked(IMAGES[0], source) for source in (WARM, other, vcd, WARM)]
    found = ask(answerer, *rows)
    assert found == [ask(answerer, row)[0] for row in rows]
    assert found[0] == found[3] != found[2]


def test_what_cannot_be_read_leaves_its_neighbours_alone(answerer: Answerer) -> None:
    good, bad = asked(IMAGES[0]), asked("missing.png")
    futures = answerer.ask([good, bad, good])
    with pytest.raises(VlmkitError, match=r"missing\.png"):
        futures[1].result(120)
    assert futures[0].result(120).result.token_ids == futures[2].result(120).result.token_ids


def test_a_row_that_breaks_says_so(answerer: Answerer) -> None:
    nothing = WARM._replace(overrides=("sampling=[{kind: external, factory: 'os:getcwd'}]",))
    with pytest.raises(VlmkitError, match="trust"):
        load_source(nothing)


def test_a_request_joins_rows_that_are_in_flight() -> None:
    run = load_source(WARM)
    decoder = Decoder(run.config, batch_size=2)
    alone = [prepared_alone(decoder, image) for image in IMAGES[:2]]
    specs = [decoder.prepare(asked(image), number) for number, image in enumerate(IMAGES[:2])]
    late = Late(specs, pause=3)
    found = dict(decoder.decode(0, late))
    assert late.num_asked > 4
    assert [found[number].result.token_ids for number in (0, 1)] == alone


def prepared_alone(decoder: Decoder, image: str) -> list[int]:
    spec = decoder.prepare(asked(image), 7)
    ((_, answer),) = decoder.decode(7, iter([spec]))
    return answer.result.token_ids


class Late(Iterator[RowSpec]):
    """Has its first row at once, and the next one when it has been asked for some more times."""

    def __init__(self, specs: list[RowSpec], pause: int) -> None:
        self.specs, self.pause, self.num_asked = specs, pause, 0

    def __next__(self) -> RowSpec:
        self.num_asked += 1
        if not self.specs or 1 < self.num_asked <= 1 + self.pause:
            raise StopIteration
        return self.specs.pop(0)


def test_logprobs(answerer: Answerer) -> None:
    (future,) = answerer.ask([asked(IMAGES[0], Source(), num_logprobs=3)])
    answer = future.result(120)
    assert answer.logprobs is not None
    assert len(answer.logprobs) == answer.result.generation_tokens
    for one in answer.logprobs:
        assert one.others[0] == (one.token, one.logprob)  # greedy
        assert sorted((p for _, p in one.others), reverse=True) == [p for _, p in one.others]
        assert np.exp([p for _, p in one.others]).sum() <= 1.0


def test_an_answer_that_is_begun_goes_on(answerer: Answerer) -> None:
    first = asked(IMAGES[0], Source())
    begun = first._replace(
        messages=(*first.messages, {"role": "assistant", "content": "<think> a3 1"})
    )
    (future,) = answerer.ask([begun])
    assert future.result(120).prompt.endswith("<think> a3 1")


def test_closing_answers_what_waits_and_takes_no_more() -> None:
    answerer = Answerer(load_source(WARM), batch_size=2)
    futures = answerer.ask([asked(IMAGES[0])] * 5)
    answerer.close()
    assert len({tuple(future.result(0).result.token_ids) for future in futures}) == 1
    with pytest.raises(VlmkitError, match="closed"):
        answerer.ask([asked(IMAGES[0])])


@pytest.mark.parametrize(
    ("taken", "max_tokens", "temperature"),
    [("apply", 9, 0.5), ("limits", 9, 2.0), ("ignore", 256, 2.0)],
)
def test_settings_of_a_task(
    tmp_path: Path, taken: TaskSettings, max_tokens: int, temperature: float
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("sampling: [{kind: temperature, temperature: 2.0}]")
    source = Source(str(file), task_settings=taken)
    settings = {"max_tokens": 9, "temperature": 0.5, "stop": None}
    config = load_source(source, settings).config
    assert config.stopping[0].max_tokens == max_tokens  # type: ignore[union-attr]
    assert config.sampling[0].temperature == temperature  # type: ignore[union-attr]
    over = load_source(source._replace(overrides=("stopping.0.max_tokens=3",)), settings).config
    assert over.stopping[0].max_tokens == 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("no.yaml"), r"no\.yaml: no such config file"),
        (Source(model="no/folder/here"), "no/folder/here"),
        (Source(overrides=("sed=3",)), "sed: unknown key; did you mean 'seed'"),
        (Source(overrides=("messages=[{role: user, content: Hi}]",)), "messages: the task brings"),
        (Source(overrides=("prompt=Q {question}",)), "prompt: the task writes the prompt"),
        (Source(overrides=("template.apply=false",)), "template.apply: a task needs"),
    ],
)
def test_mistakes(source: Source, message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        Answerer(load_source(source))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, True, 1.5, "4"])
def test_a_batch_size_that_is_none(size: Any) -> None:
    with pytest.raises(VlmkitError, match="batch_size is"):
        Answerer(load_source(WARM), batch_size=size)


def test_settings_that_are_no_way() -> None:
    with pytest.raises(VlmkitError, match="task_settings: 'al' is none of apply, limits, ignore"):
        check_task_settings("al")
