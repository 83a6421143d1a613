"""Settings of the whole test run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run and machine; time limits would fail on a busy one.
settings.register_profile("vlmkit", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("quick", settings.get_profile("vlmkit"), max_examples=8)
settings.load_profile("vlmkit")

# What `make test-quick` leaves out, by the beginning of its name: whole models generating, peers
# and their imports, counted draws, a package installed by pip. What takes seconds belongs here.
WHOLE = (
    "api/test_batch.py",
    "api/test_generate.py::test_any_sampling_parameters",
    "api/test_generate.py::test_the_embedded_model_answers",
    "api/test_peers.py",
    "api/test_text_only.py",
    "cli/test_commands.py::test_as_a_process",
    "contrast/test_reference.py::test_large_vocabularies",
    "cli/test_experiment.py",
    "cli/test_reproduce.py",
    "engine/",
    "experiment/test_invariance.py",
    "experiment/executors/test_launch.py",
    "experiment/executors/test_worker.py",
    "experiment/test_kill.py",
    "experiment/test_reproduce.py",
    "experiment/test_runner.py",
    "experiments/",
    "hostile/test_addresses.py",
    "hostile/test_code.py",
    "hostile/test_configs.py::test_one_line_of_error",
    "hostile/test_limits.py",
    "hostile/test_readers.py",
    "loading/test_bad_checkpoints.py::test_unknown_model_type",
    "loading/test_image_settings.py::test_what_mlx_vlm_converts",
    "loading/test_json_values.py",
    "processors/test_chat_template.py::test_equals_transformers",
    "processors/test_loading.py::test_a_tokenizer_that_transformers_cannot_read",
    "processors/test_loading.py::test_image_settings",
    "processors/test_qwen2_vl.py::test_equals_transformers",
    "processors/test_qwen2_vl.py::test_smart_resize_equals_transformers",
    "processors/test_qwen2_vl.py::test_both_backends_agree",
    "processors/test_token_bytes.py::test_the_transformers_backend",
    "processors/test_tokenizer.py::test_equals_transformers",
    "sampling/test_draw.py::test_frequencies",
    "sampling/test_grammar_mistakes.py::test_llguidance_is_loaded",
    "sampling/test_grammar_schemas.py",
    "sampling/test_keys.py::test_frequencies",
    "sampling/test_peers.py",
    "sampling/test_preset_defects.py",
    "sampling/test_presets.py",
    "search/test_transformers.py",
    "test_any_prompt.py",
    "test_bad_input.py::test_broken_checkpoint",
    "test_external.py",
    "test_packaging.py",
    "test_prefill_decode.py::test_peak_memory",
    "test_readme.py",
    "trace/test_picture.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    left_out = tuple(f"tests/{name}" for name in WHOLE)
    for item in items:
        if item.nodeid.startswith(left_out):
            item.add_marker("whole")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    # Doctests are for vlmkit: collecting them here would import helpers that need torch.
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_helper else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files instead of comparing"
    )


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
