"""What a first answer imports: not time, which depends on the machine, but the modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import vlmkit

SHAPES = Path(vlmkit.__file__).parent / "assets" / "shapes"
IMAGE = SHAPES / "samples" / "count_all.png"
HEAVY = (
    *("transformers", "torch", "torchvision", "mlx_lm", "mlx_vlm", "scipy", "pandas"),
    *("huggingface_hub", "httpx2", "requests", "rich", "matplotlib", "llguidance", "psutil"),
    *("pyarrow", "datasets", "soundfile", "multiprocessing", "asyncio"),
)
GENERATE = f"""
from vlmkit import apply_chat_template, generate, load
model, processor = load("shapes")
prompt = apply_chat_template(processor, model.config, "Count the objects.", num_images=1)
generate(model, processor, prompt, {str(IMAGE)!r}, max_tokens=2, temperature=0.7, top_p=0.9)
"""
COMMAND = f"""
from vlmkit.cli.main import main
arguments = ["generate", "--model", "shapes", "--image", {str(IMAGE)!r}, "--prompt", "Count"]
assert main([*arguments, "--max-tokens", "2"]) == 0
"""
SHOW = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"


def imported(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code + SHOW], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("code", [GENERATE, COMMAND], ids=["python", "command"])
def test_an_answer_of_the_embedded_model_needs_nothing_heavy(code: str) -> None:
    modules = imported(code)
    assert {"tokenizers", "PIL", "numpy", "mlx.core"} <= modules
    if sys.platform != "linux":
        modules.discard("psutil")  # what memory is left is in no file there
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "code",
    [
        "import vlmkit",
        "from vlmkit.cli.main import main; assert main([]) == 0",
    ],
    ids=["import", "help"],
)
def test_an_import_and_help_need_the_standard_library_alone(code: str) -> None:
    modules = imported(code)
    found = {name.partition(".")[0] for name in modules} & {*HEAVY, "mlx", "numpy", "PIL"}
    assert found == set()
    assert not any(name.startswith(("pydantic", "tokenizers", "jinja2")) for name in modules)


def test_a_pipeline_from_keywords_builds_no_schema_of_all_stages() -> None:
    code = (
        "from vlmkit.config.params import pipeline_from_params\n"
        "from vlmkit.pipeline import PipelineConfig\n"
        "pipeline = pipeline_from_params(temperature=0.7, stop='x', max_kv_size=64)\n"
        "assert not PipelineConfig.__pydantic_complete__\n"
        "assert pipeline == PipelineConfig(**dict(pipeline))\n"
        "assert PipelineConfig.__pydantic_complete__\n"
    )
    assert "vlmkit.pipeline" in imported(code)
