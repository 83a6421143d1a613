"""Settings of the whole test run."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from hypothesis import settings

from tests.effort import EXAMPLES

HERE = Path(__file__).parent

# The same examples on every run and machine; time limits would fail on a busy one.
settings.register_profile("vlmkit", deadline=None, max_examples=EXAMPLES, derandomize=True)
settings.register_profile("quick", settings.get_profile("vlmkit"), max_examples=EXAMPLES // 10)
settings.load_profile("vlmkit")

# What `make test-quick` leaves out, by the beginning of its name: whole models generating, peers
# and their imports, counted draws, a package installed by pip. What takes seconds belongs here.
WHOLE = (
    "adapters/test_answering.py",
    "api/test_batch.py",
    "api/test_families.py",
    "api/test_generate.py::test_any_sampling_parameters",
    "api/test_generate.py::test_the_embedded_model_answers",
    "api/test_peers.py",
    "api/test_prompt_types.py",
    "api/test_startup.py",
    "api/test_text_only.py",
    "api/test_user_text.py",
    "backend/test_blas.py::test_wrong_products",
    "backend/test_blas_bfloat16.py::test_a_wrong_library_is_left_out",
    "benchmarks/test_reach.py",
    "cache/codec/test_turboquant.py",
    "cache/test_moves.py::test_rows_go_on_as_if_alone_whatever_moves_they_make",
    "cache/test_recent.py",
    "cache/test_shared.py",
    "cache/test_specs.py",
    "cli/test_commands.py::test_a_reader_that_leaves_early_is_no_error",
    "cli/test_commands.py::test_as_a_process",
    "cli/test_commands.py::test_output_on_a_full_disk",
    "cli/test_commands.py::test_what_an_encoding_lacks_is_written_out",
    "cli/test_completion.py",
    "cli/test_continuing.py",
    "cli/test_decoding_methods.py",
    "cli/test_experiment.py",
    "cli/test_recommended.py",
    "cli/test_reproduce.py",
    "cli/test_stages.py::test_the_example_shows_the_kind_and_runs",
    "cli/test_trace.py",
    "cli/test_worker.py",
    "config/test_tokens.py::test_what_is_no_token_of_the_model_is_refused",
    "contrast/test_reference.py::test_large_vocabularies",
    "engine/test_contrast.py",
    "engine/test_contrast_rows.py",
    "engine/test_contrast_transformers.py",
    "engine/test_errors.py",
    "engine/test_finishing_rows.py",
    "engine/test_grammar.py",
    "engine/test_loop.py",
    "engine/test_recurrent_layers.py",
    "engine/test_resolved.py",
    "engine/test_search.py",
    "engine/test_search_ends.py::test_a_search_keeps_no_more_than_the_steps_of_what_is_behind_it",
    "engine/test_search_plan.py::test_what_a_search_takes_is_what_was_planned",
    "engine/test_search_rows.py",
    "engine/test_search_stopping.py",
    "engine/test_shared_chains.py",
    "engine/test_sharing.py::test_a_result_holds_its_own_logits_and_no_others",
    "engine/test_stopping_kinds.py",
    "experiment/data/test_tables.py",
    "experiment/executors/test_heartbeat.py::test_a_worker_has_the_lease_that_it_wrote",
    "experiment/executors/test_launch.py",
    "experiment/executors/test_worker.py",
    "experiment/kv_eval/test_page.py",
    "experiment/kv_eval/test_run.py",
    "experiment/test_costs.py",
    "experiment/test_invariance.py",
    "experiment/test_kill.py",
    "experiment/test_report_chromium.py",
    "experiment/test_reproduce.py",
    "experiment/test_runner.py",
    "experiments/",
    "hostile/test_addresses.py",
    "hostile/test_checkpoints.py",
    "hostile/test_code.py",
    "hostile/test_configs.py::test_one_line_of_error",
    "hostile/test_data_sets.py",
    "hostile/test_doors.py::test_files_go_through_the_doors",
    "hostile/test_limits.py",
    "hostile/test_readers.py",
    "hostile/test_requests.py::test_requests",
    "hostile/test_templates.py",
    "hostile/test_tokenizer_files.py::test_a_regular_expression_runs_against_the_clock",
    "loading/test_bad_checkpoints.py::test_unknown_model_type",
    "loading/test_image_settings.py",
    "loading/test_json_values.py",
    "loading/test_load_model.py::test_every_scheme_packed_and_unpacked",
    "loading/test_text.py",
    "loading/test_text_memory.py",
    "loading/test_text_part.py",
    "loading/test_token_names.py",
    "models/test_lm_adapter.py",
    "models/test_parity.py",
    "models/test_video.py::test_prompt_and_decode_logits_match_transformers",
    "preprocess/test_fetch.py",
    "processors/test_calling.py",
    "processors/test_chat_template.py::test_equals_transformers",
    "processors/test_continuing.py::test_equals_transformers",
    "processors/test_loading.py::test_a_tokenizer_that_transformers_cannot_read",
    "processors/test_loading.py::test_image_settings",
    "processors/test_qwen2_vl.py::test_both_backends_agree",
    "processors/test_qwen2_vl.py::test_equals_transformers",
    "processors/test_qwen2_vl.py::test_smart_resize_equals_transformers",
    "processors/test_qwen3_5.py::test_images_are_those_of_transformers",
    "processors/test_token_bytes.py::test_the_transformers_backend",
    "processors/test_tokenizer.py::test_equals_transformers",
    "processors/test_tokenizer.py::test_ids_without_a_token_decode_to_nothing",
    "prompts/test_branching.py",
    "prompts/test_cache.py::test_equal_prompts_of_a_batch",
    "prompts/test_cache.py::test_keeping_prompts_copies_no_cache",
    "prompts/test_shared_prefix.py::test_samples_of_two_prompts_are_those_of_copies",
    "ranks/test_ranks_in_trouble.py",
    "ranks/test_two_ranks.py",
    "sampling/test_draw.py::test_frequencies",
    "sampling/test_grammar_mistakes.py::test_llguidance_is_loaded",
    "sampling/test_grammar_schemas.py",
    "sampling/test_keys.py::test_frequencies",
    "sampling/test_mirostat_v1.py::test_it_steers_the_surprise_of_a_zipf_text",
    "sampling/test_orders.py",
    "sampling/test_peers.py",
    "sampling/test_preset_defects.py",
    "sampling/test_presets.py",
    "search/test_transformers.py",
    "stopping/test_uncertainty.py::test_entropy_ends_a_row",
    "test_any_prompt.py",
    "test_bad_input.py::test_broken_checkpoint",
    "test_external.py",
    "test_packaging.py",
    "test_prefill_decode.py::test_a_prefix_can_be_continued",
    "test_prefill_decode.py::test_defect_9_batch_and_single_rows_run_the_same_policy",
    "test_prefill_decode.py::test_logits_do_not_depend_on_step_size",
    "test_prefill_decode.py::test_peak_memory",
    "test_readme.py",
    "trace/test_picture.py",
)


def is_quick(config: pytest.Config) -> bool:
    return "not whole" in config.option.markexpr


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    left_out = tuple(f"tests/{name}" for name in WHOLE)
    for item in items:
        if item.nodeid.startswith(left_out):
            item.add_marker("whole")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # the tests themselves live to the end: no use in looking through them


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # What `make test-quick` leaves out as a whole is not even imported: it may import a peer.
    name = str(collection_path.relative_to(HERE))
    if is_quick(config) and name.startswith(tuple(name for name in WHOLE if "::" not in name)):
        return True
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
