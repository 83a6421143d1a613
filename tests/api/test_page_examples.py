"""The documented examples, word for word: a local checkpoint and a local server stand in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import vlmkit

GENERATE_FIRST = """
from vlmkit import generate

result = generate(model, processor, prompt, image=["cat.jpg"])
print(result.text)
"""

GENERATE = """
from vlmkit import load, generate
from vlmkit.prompt_utils import apply_chat_template

model, processor = load("mlx-community/Qwen2-VL-2B-Instruct-4bit")
config = model.config

image = ["http://images.cocodataset.org/val2017/000000039769.jpg"]
prompt = apply_chat_template(processor, config, "Describe this image.", num_images=1)

result = generate(model, processor, prompt, image=image, max_tokens=200, verbose=True)
print(result.text)
"""

STREAM = """
from vlmkit import load, stream_generate
from vlmkit.prompt_utils import apply_chat_template

model, processor = load("mlx-community/Qwen2.5-VL-3B-Instruct-8bit")
config = model.config

image = ["photo.jpg"]
prompt = apply_chat_template(processor, config, "What do you see?", num_images=1)

for chunk in stream_generate(model, processor, prompt, image=image, max_tokens=300):
    print(chunk.text, end="", flush=True)

print()  # newline after generation
"""

BATCH = """
from vlmkit import load, batch_generate
from vlmkit.prompt_utils import apply_chat_template

model, processor = load("mlx-community/Qwen2-VL-2B-Instruct-4bit")
config = model.config

images = ["cat.jpg", "dog.jpg", "bird.jpg"]
prompts = [
    apply_chat_template(processor, config, "Describe this animal.", num_images=1)
    for _ in images
]

response = batch_generate(
    model, processor, images=images, prompts=prompts, max_tokens=100, verbose=True
)

for i, text in enumerate(response.texts):
    print(f"[{i}] {text}")

print(f"Generation TPS: {response.stats.generation_tps:.1f}")
"""


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Callable[..., Any]) -> Path:
    """A working folder with the files that the examples name."""
    for place, name in enumerate(("cat", "dog", "bird", "photo")):
        picture(place, (160 + 20 * place, 120)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "val2017").mkdir()
    picture(0, (640, 480)).save(tmp_path / "val2017" / "000000039769.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(pictures: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=pictures)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def run(example: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run an example with the embedded model in place of the hub's."""
    for hub_id in ("Qwen2-VL-2B-Instruct-4bit", "Qwen2.5-VL-3B-Instruct-8bit"):
        example = example.replace(f"mlx-community/{hub_id}", "shapes")
    namespace: dict[str, Any] = dict(names or {})
    exec(compile(example, "<documented example>", "exec"), namespace)
    return namespace


def test_generate_from_a_url(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(GENERATE.replace("http://images.cocodataset.org", server))
    assert names["result"].text
    assert names["result"].text in capsys.readouterr().out


def test_generate_first_example(pictures: Path, shapes: tuple[Any, Any], ask: Any) -> None:
    model, processor = shapes
    prompt = ask("Describe this image.")
    names = run(GENERATE_FIRST, {"model": model, "processor": processor, "prompt": prompt})
    assert names["result"].generation_tokens > 0


def test_stream(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(STREAM)
    shown = capsys.readouterr().out
    whole = vlmkit.generate(*(names[name] for name in ("model", "processor", "prompt", "image")))
    assert (shown, names["chunk"].finish_reason) == (f"{whole.text}\n", "stop")


def test_batch(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(BATCH)
    assert len(names["response"].texts) == 3
    assert names["response"].image_sizes == [(120, 160), (120, 180), (120, 200)]
    assert "Generation TPS:" in capsys.readouterr().out
