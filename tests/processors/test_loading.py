"""What load_processor reads, chooses and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.processors.tiny import SHAPES, change_json, copy_shapes, write_text_only
from vlmkit.contracts.inputs import ImageGrid
from vlmkit.errors import VlmkitError
from vlmkit.processors import load_processor


def remove(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "backend", "message"),
    [
        (remove("config.json"), "auto", "no config.json"),
        (write("config.json", "{"), "auto", "config.json: not valid JSON"),
        (write("config.json", "[]"), "auto", "config.json: needs a JSON object, not list"),
        (write("tokenizer.json", "{}"), "auto", "not a readable tokenizer.json"),
        (remove("tokenizer.json"), "native", "no tokenizer.json, .*backend='transformers'"),
        (
            remove("tokenizer.json", "tokenizer_config.json"),
            "auto",
            "no tokenizer; it needs one of tokenizer.json, ",
        ),
        (lambda f: None, "natve", "one of auto, native, transformers; did you mean 'native'"),
        (
            lambda f: change_json(f / "preprocessor_config.json", image_processor_type="Gemma3"),
            "auto",
            "image_processor_type 'Gemma3' is not supported; supported: Qwen2VLImageProcessor,",
        ),
    ],
)
def test_refused(
    tmp_path: Path, change: Callable[[Path], object], backend: Any, message: str
) -> None:
    folder = copy_shapes(tmp_path / "c")
    change(folder)
    with pytest.raises(VlmkitError, match=message) as caught:
        load_processor(folder, backend=backend)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_transformers_cannot_read(tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path / "c")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(VlmkitError, match="transformers cannot read the tokenizer"):
        load_processor(folder, backend="transformers")


def test_a_panic_of_the_tokenizers_library_is_one_line(tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path / "c")
    values = json.loads((folder / "tokenizer.json").read_text())
    values["model"]["continuing_subword_prefix"] = "w5"
    (folder / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(VlmkitError, match=r"tokenizer\.json: not a readable .*Panic") as caught:
        load_processor(folder)
    assert "\n" not in str(caught.value)


def test_text_that_the_tokenizer_cannot_encode(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    folder = copy_shapes(tmp_path / "c")
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    words.save(str(folder / "tokenizer.json"))
    change_json(folder / "tokenizer_config.json", added_tokens_decoder=None)
    change_json(folder / "config.json", eos_token_id=0)
    change_json(folder / "generation_config.json", eos_token_id=None)
    with pytest.raises(VlmkitError, match=r"tokenizer\.json: it cannot encode 'b' \(.*UNK"):
        load_processor(folder).encode("b")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(VlmkitError, match="no such folder"):
        load_processor(tmp_path / "nothing")


def test_image_settings_within_processor_config(tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path / "c")
    nested = json.loads((folder / "preprocessor_config.json").read_text())
    nested["min_pixels"] = nested["max_pixels"] = 28 * 28
    change_json(folder / "processor_config.json", image_processor=nested)
    for backend in ("native", "transformers"):
        _, grids = load_processor(folder, backend=backend).process_images(
            [Image.new("RGB", (99, 99))]
        )
        assert grids == (ImageGrid(1, 2, 2),)


def test_text_only_folders_refuse_images(tmp_path: Path) -> None:
    processor = load_processor(write_text_only(tmp_path))
    assert processor.placeholder_ids == frozenset()
    with pytest.raises(VlmkitError, match="the llama family takes no images"):
        processor.process_images([Image.new("RGB", (9, 9))])


def test_a_vision_model_without_its_preprocessor_says_so(tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path / "c")
    remove("preprocessor_config.json")(folder)
    with pytest.raises(VlmkitError, match="no preprocessor_config"):
        load_processor(folder).process_images([])


def test_nothing_is_written(tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path / "c")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    load_processor(folder).apply_chat_template([{"role": "user", "content": "x"}])
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_the_native_path_imports_nothing_heavy() -> None:
    code = (
        "import sys; from vlmkit.processors import load_processor;"
        f" load_processor({str(SHAPES)!r}).encode('x');"
        " print([m for m in ('transformers', 'torch', 'jinja2', 'pydantic') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
